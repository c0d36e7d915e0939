"""``logger_class``: an instance of a class like gunicorn's ``Logger``, which gets all records of the server.

Imported only if such a class is set.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any

from mylittlewebserver._hooks import Request, Response, Settings

METHODS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}


class LoggerClass:
    """Calls the methods of the instance that gunicorn calls."""

    def __init__(self, name: str, settings: Mapping[str, Any], logconfig_dict: dict[str, Any] | None) -> None:
        module, _, attribute = name.rpartition(".")
        if not module:
            raise ValueError("expected MODULE.CLASS")
        cls = getattr(import_module(module), attribute)
        if install := getattr(cls, "install", None):
            install()
        self.logger: Any = cls(_settings(settings, logconfig_dict))

    def level(self, default: int) -> int:
        """Return the level of the error log."""
        log = getattr(self.logger, "error_log", None)
        return log.getEffectiveLevel() if isinstance(log, logging.Logger) else default

    def log(self, level: int, text: str) -> None:
        """Log a record of the server."""
        getattr(self.logger, METHODS[level])(text)

    def access(
        self,
        environ: dict[str, Any] | None,
        known: dict[str, Any],
        status: int,
        head: bytes,
        sent: int,
        seconds: float,
    ) -> None:
        """Log a request. Without an environ, the application was not called. It may also have removed keys."""
        environ = {"wsgi.input": None, **known, **(environ or {})}
        response = Response(head.decode("latin-1"))
        if response.status_code != status:
            response.status, response.status_code = str(status), status
        response.sent = sent
        self.logger.access(response, Request(environ), environ, timedelta(seconds=seconds))

    def reopen_files(self) -> bool:
        """Reopen the files. Return False if the class cannot do that."""
        if reopen := getattr(self.logger, "reopen_files", None):
            reopen()
        return reopen is not None


def _settings(values: Mapping[str, Any], logconfig_dict: dict[str, Any] | None) -> Settings:
    """Return the settings as gunicorn's classes read them, without those that the server applies itself."""
    cfg = Settings(dict(values))
    own = {
        "logconfig_dict": logconfig_dict or {},
        "user": cfg.uid,
        "group": cfg.gid,
        "capture_output": False,
        "statsd_host": None,
    }
    return Settings({**values, **own})
