"""Compatibility with gunicorn: errors and informational options have the same exit status."""

from __future__ import annotations

import os

import pytest
from pairs import Case, compare

SOCKET = ("--bind", "127.0.0.1:0")
BROKEN = {"broken.py": "import nothing_of_that_name", "slip.py": "def application(:"}
ENDS = {
    "no such module": ("nothing", *SOCKET),
    "a module that fails": ("broken", *SOCKET),
    "a module with a typo": ("slip", *SOCKET),
    "no such attribute": ("facts:missing", *SOCKET),
    "no application": ("facts:not_an_app", *SOCKET),
    "no APP": SOCKET,
    "no such option": ("facts", *SOCKET, "--no-such-option"),
    "a wrong number": ("facts", *SOCKET, "--workers", "many"),
    "a wrong address": ("facts", "--bind", "127.0.0.1:http"),
    "no such config file": ("facts", *SOCKET, "-c", "nothing.py"),
    "a config file that fails": ("facts", *SOCKET, "-c", "broken.py"),
    "a config file with a typo": ("facts", *SOCKET, "-c", "slip.py"),
    "no such config module": ("facts", *SOCKET, "-c", "python:nothing"),
    "no such directory": ("facts", *SOCKET, "--chdir", "nowhere"),
    "no such user": ("facts", *SOCKET, "--user", "nobody-of-that-name"),
    "a missing certificate": ("facts", *SOCKET, "--certfile", "nothing.pem"),
    "a pidfile of a running process": ("facts", *SOCKET, "--pid", "parent.pid"),
    "--check-config": ("facts", "--check-config"),
    "--check-config of a module that fails": ("broken", "--check-config"),
    "--check-config of a wrong number": ("facts", "--check-config", "-w", "many"),
    "--print-config": ("facts", "--print-config", "-w", "3"),
    "--version": ("--version",),
    "--help": ("--help",),
}


def ended(server):
    return {"status": server.wait()}


STATUSES = (
    "no such attribute",
    "no application",
    "no APP",
    "a wrong address",
    "no such config file",
    "a config file that fails",
    "a config file with a typo",
    "no such config module",
    "no such directory",
    "no such user",
    "--check-config of a module that fails",
)
FILES = {**BROKEN, "parent.pid": f"{os.getpid()}\n"}
CASES = {
    name: Case(words, ended, {"status": "statuses"} if name in STATUSES else {}, files=FILES)
    for name, words in ENDS.items()
}
# Python binds the address, and becomes the server.
CASES["an address in use"] = Case(
    ("facts", "--bind", "127.0.0.1:TAKEN"),
    ended,
    launcher=(
        "python3",
        "-c",
        "import os, socket, sys; taken = socket.create_server(('127.0.0.1', 0)); taken.set_inheritable(True);"
        "port = str(taken.getsockname()[1]);"
        "os.execv(sys.argv[1], [word.replace('TAKEN', port) for word in sys.argv[1:]])",
    ),
)


@pytest.mark.parametrize("name", CASES)
def test_gunicorn_and_mlws_exit_with_the_same_status(name, seen):
    compare(seen(name), CASES[name].differs)
