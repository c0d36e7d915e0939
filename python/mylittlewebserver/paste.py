"""PasteDeploy: what ``pserve`` runs for ``use = egg:mylittlewebserver``, and what ``mlws --paste`` asks.

Nothing else imports this module, and PasteDeploy itself is imported only to load an application.
"""

from __future__ import annotations

import inspect
import logging.config
import os
import re
import sys
from configparser import ConfigParser
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import mylittlewebserver

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

SECTION = "server:main"
OURS = re.compile(r"egg:mylittlewebserver(#main)?")
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def serve(app: WSGIApplication, global_conf: dict[str, str] | None = None, /, **said: str) -> None:
    """The ``paste.server_runner``: serves the application with the settings of its section."""
    keywords = keywords_of(said)
    if keywords.get("reload") or is_reloaded():
        file = (global_conf or {}).get("__file__", "FILE")
        raise ValueError(
            f"the application is given by pserve, and cannot be loaded again: in place of `reload` in [{SECTION}] "
            f"and of `pserve --reload`, use `mlws --paste {file} --reload`"
        )
    mylittlewebserver.serve(app, **keywords)


def is_reloaded() -> bool:
    """Whether this is ``pserve --reload``: its watcher is a thread, which would wait as long as the server runs."""
    hupper = sys.modules.get("hupper")
    return hupper is not None and bool(hupper.is_active())


def load(file: os.PathLike[str], *, name: str | None, variables: dict[str, str]) -> WSGIApplication:
    """The application of a file, or of one of its sections, with the logging that the file asks for."""
    try:
        from paste.deploy import loadapp
    except ModuleNotFoundError:
        raise ImportError("--paste needs PasteDeploy: pip install PasteDeploy") from None
    parser = read(file, variables)
    if parser.has_section("loggers"):
        logging.config.fileConfig(parser, disable_existing_loggers=False)
    application: WSGIApplication = loadapp(
        f"config:{quote(os.fspath(file))}", name=name, global_conf=variables
    )
    return application


def settings(file: os.PathLike[str], variables: dict[str, str]) -> dict[str, Any]:
    """What the file says to the server, as keywords of ``serve()``: nothing unless its section is meant for us."""
    parser = read(file, variables)
    if not parser.has_section(SECTION):
        return {}
    said = {name: value for name, value in parser.items(SECTION) if name not in parser.defaults()}
    return keywords_of(said) if OURS.fullmatch(said.pop("use", "").strip()) else {}


def read(file: os.PathLike[str], variables: dict[str, str]) -> ConfigParser:
    """The file as PasteDeploy reads it: its own place can be named in it, and names keep their case."""
    path = os.fspath(file)
    known = {**variables, "here": os.path.dirname(path), "__file__": path}
    parser = ConfigParser({name: text.replace("%", "%%") for name, text in known.items()}, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(path, encoding="utf-8")
    return parser


def keywords_of(said: dict[str, str]) -> dict[str, Any]:
    """Keywords of ``serve()`` for the lines of a section. What the names may be, ``serve()`` itself knows."""
    said = dict(said)
    keywords: dict[str, Any] = {}
    host, port = said.pop("host", ""), said.pop("port", "")
    if host or port:
        if "bind" in said:
            raise ValueError("`bind` says it all: leave out `host` and `port`")
        hosts = re.split(r"[,\s]+", host.strip() or "127.0.0.1")
        keywords["bind"] = [address(one, port or "8000") for one in hosts]
    elif "bind" in said:
        keywords["bind"] = re.split(r"[,\s]+", said.pop("bind").strip())
    parameters = inspect.signature(mylittlewebserver.serve).parameters
    for name, text in said.items():
        text = text.strip()
        is_boolean = name not in parameters or isinstance(parameters[name].default, bool)
        if is_boolean and text.lower() in BOOLEANS:
            keywords[name] = BOOLEANS[text.lower()]
        elif "\n" in text:
            keywords[name] = [line.strip() for line in text.splitlines()]
        else:
            keywords[name] = text
    return keywords


def address(host: str, port: str) -> str:
    """Host and port, as people have them for other servers, in one."""
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{host}:{port}"
