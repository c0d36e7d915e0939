"""PasteDeploy: the server runner of ``use = egg:mylittlewebserver``, and the reader of files for ``mlws --paste``.

Imported only for these. PasteDeploy itself is imported only to load an application.
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


def serve(app: WSGIApplication, global_conf: dict[str, str] | None = None, /, **options: str) -> None:
    """Serve the application with the settings of its section: the ``paste.server_runner``."""
    keywords = keywords_of(options)
    if keywords.get("reload") or is_reloaded():
        file = (global_conf or {}).get("__file__", "FILE")
        raise ValueError(
            f"reload is not supported with pserve, which passes a loaded application: instead of `reload` in [{SECTION}] "
            f"or `pserve --reload`, use `mlws --paste {file} --reload`"
        )
    mylittlewebserver.serve(app, **keywords)


def is_reloaded() -> bool:
    """Return whether this is ``pserve --reload``, whose watcher thread would wait as long as the server runs."""
    hupper = sys.modules.get("hupper")
    return hupper is not None and bool(hupper.is_active())


def load(file: os.PathLike[str], *, name: str | None, variables: dict[str, str]) -> WSGIApplication:
    """Load the application of a file or of one of its sections, and configure logging as in the file."""
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
    """Return the settings in the file as keywords of ``serve()``. Empty if its section is for another server."""
    parser = read(file, variables)
    if not parser.has_section(SECTION):
        return {}
    options = {name: value for name, value in parser.items(SECTION) if name not in parser.defaults()}
    return keywords_of(options) if OURS.fullmatch(options.pop("use", "").strip()) else {}


def read(file: os.PathLike[str], variables: dict[str, str]) -> ConfigParser:
    """Read the file like PasteDeploy: with the variables ``here`` and ``__file__``, and with case-sensitive names."""
    path = os.fspath(file)
    known = {**variables, "here": os.path.dirname(path), "__file__": path}
    parser = ConfigParser({name: text.replace("%", "%%") for name, text in known.items()}, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(path, encoding="utf-8")
    return parser


def keywords_of(options: dict[str, str]) -> dict[str, Any]:
    """Convert the options of a section to keywords of ``serve()``, which rejects unknown names."""
    options = dict(options)
    keywords: dict[str, Any] = {}
    host, port = options.pop("host", ""), options.pop("port", "")
    if host or port:
        if "bind" in options:
            raise ValueError("`bind` excludes `host` and `port`: remove them")
        hosts = re.split(r"[,\s]+", host.strip() or "127.0.0.1")
        keywords["bind"] = [address(one, port or "8000") for one in hosts]
    elif "bind" in options:
        keywords["bind"] = re.split(r"[,\s]+", options.pop("bind").strip())
    parameters = inspect.signature(mylittlewebserver.serve).parameters
    for name, text in options.items():
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
    """Join the host and port options of other servers."""
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{host}:{port}"
