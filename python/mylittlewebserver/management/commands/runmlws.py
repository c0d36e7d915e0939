"""``manage.py runmlws``: ``runserver`` with another server."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from argparse import Namespace
from collections.abc import Sequence
from itertools import takewhile
from typing import IO, Any

from django import conf
from django.core.management.base import BaseCommand, CommandError, CommandParser

from mylittlewebserver import __version__, _native

APPLICATION = "mylittlewebserver.django:make_application"
ACCESS_LOG = ("--access-logfile=-", '--access-logformat=%(t)s "%(r)s" %(s)s %(b)s')
"""Prints requests like ``runserver``."""


class Command(BaseCommand):
    """Checks the project, then executes ``mlws``, so that a reload imports all modules again."""

    help = "Serve this project with mylittlewebserver. The options of mlws, listed below, may follow ADDRESS."
    requires_migrations_checks = True

    def get_version(self) -> str:
        return __version__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.usage = "%(prog)s [ADDRESS] [options] [options of mlws]"
        add = parser.add_argument
        add(
            "--noreload",
            action="store_true",
            help="Do not reload the project when a file changes (DEBUG only)",
        )
        add("--nostatic", action="store_true", help="Do not serve static files (DEBUG only)")
        add("--insecure", action="store_true", help="Serve static files even if DEBUG is off")

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Create a parser that passes unknown options to mlws."""
        parser = super().create_parser(prog_name, subcommand, allow_abbrev=False, **kwargs)
        print_own_help = parser.print_help

        def parse_args(args: Sequence[str] | None = None, namespace: Namespace | None = None) -> Namespace:
            known: Namespace
            known, known.args = parser.parse_known_args(args, namespace)
            return known

        def print_help(file: IO[str] | None = None) -> None:
            print_own_help(file)
            print("\nThe options of mlws:\n", file=file, flush=True)
            _native.main(["--help"])

        parser.parse_args, parser.print_help = parse_args, print_help
        return parser

    def handle(self, *args: str, **options: Any) -> None:
        words = list(args)
        if words and not words[0].startswith("-"):
            words[:1] = ["--bind", bind_address(words[0])]
        if conf.settings.DEBUG:
            words[:0] = ACCESS_LOG  # the options of the user follow and take precedence
            if not options["noreload"] and "--reload" not in words:
                words.append("--reload")
        arguments = {"static": not options["nostatic"], "insecure": options["insecure"]}
        # Use the current search path for modules, independent of the working directory.
        words.append(f"--pythonpath={','.join(reversed(search_path()))}")
        call = ", ".join(f"{name}={value}" for name, value in arguments.items())
        python = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]
        for stream in (self.stdout, self.stderr, sys.stdout, sys.stderr):
            stream.flush()
        os.execv(python[0], [*python, "-m", "mylittlewebserver", f"{APPLICATION}({call})", *words])


def bind_address(text: str) -> str:
    """Convert an address of ``runserver``: PORT, HOST:PORT or [IPV6]:PORT, where the host 0 means any."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal()):
        raise CommandError(f'"{text}" is not a valid port number or address:port pair.')
    return f"{ {'': '127.0.0.1', '0': '0.0.0.0'}.get(host, host) }:{port}"


def search_path() -> list[str]:
    """Return the directories that Python searches before the standard library, such as that of ``manage.py``."""
    own = sysconfig.get_path("stdlib")
    return [
        os.path.abspath(path)
        for path in takewhile(lambda path: path != own, sys.path)
        if os.path.exists(path or ".")
    ]
