"""Python's ``logging`` as a target of the server's logs, and the loggers of ``gunicorn`` for config files and applications.

Nothing is imported until it is needed: ``logging`` would cost each worker a megabyte.
"""

from __future__ import annotations

import sys

from mylittlewebserver._logger_names import ACCESS, ERROR

TYPE_CHECKING = False  # as in `typing`
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from mylittlewebserver._logger_class import LoggerClass

INFO = 20

# As in gunicorn, a key of the given configuration replaces the complete value here.
DEFAULTS = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        ERROR: {"level": "INFO", "handlers": ["error_console"], "propagate": True, "qualname": ERROR},
        ACCESS: {"level": "INFO", "handlers": ["console"], "propagate": True, "qualname": ACCESS},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stdout"},
        "error_console": {
            "class": "logging.StreamHandler",
            "formatter": "generic",
            "stream": "ext://sys.stderr",
        },
    },
    "formatters": {
        "generic": {
            "class": "logging.Formatter",
            "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
            "datefmt": "[%Y-%m-%d %H:%M:%S %z]",
        }
    },
}


class Atoms(dict):  # type: ignore[type-arg]
    """The atoms of a request, as ``record.args`` has them. A missing one is ``-``; names of headers may have any case."""

    def __missing__(self, key: str) -> Any:
        return self.get(key.lower(), "-") if key.startswith("{") else "-"


logger_class: LoggerClass | None = None
"""The instance of ``logger_class``, if it is set."""


def configure(kind: str, source: Any, level: int) -> tuple[Any, Any, int]:
    """Configure ``logging`` by a file (``ini`` or ``json``), a ``dict`` or the ``class`` of a logger.

    Return the loggers of the log and of the access log, None for those that the configuration does not mention, and the
    effective level of the first. The others are to be connected to the server's logs.
    """
    import logging.config

    global logger_class

    _disconnect()
    if kind == "class":
        from mylittlewebserver._logger_class import LoggerClass

        logger_class = LoggerClass(*source)
        return logger_class, logger_class, logger_class.level(level)
    logger_class = None
    untouched = logging.NullHandler()  # a logger that still has this handler was not configured
    for name, minimum in ((ERROR, level), (ACCESS, INFO)):
        logger = logging.getLogger(name)
        logger.handlers = [untouched]
        logger.propagate = False
        logger.setLevel(minimum)
    if kind == "ini":
        _configure_by_file(source)
    else:
        given = source if kind == "dict" else _read_json(source)
        logging.config.dictConfig({**DEFAULTS, **given})
    error, access = (_configured(logging.getLogger(name), untouched) for name in (ERROR, ACCESS))
    return error, access, error.getEffectiveLevel() if error else 0


def message_of(error: BaseException) -> str:
    """The messages of an exception and its causes: ``dictConfig`` names the handler, its cause what is wrong."""
    text = f"{type(error).__name__}: {error}"
    return f"{text}: {message_of(error.__cause__)}" if error.__cause__ else text


def reopen() -> None:
    """Reopen the files of all handlers, as gunicorn does on USR1."""
    import logging

    if logger_class and logger_class.reopen_files():
        return
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.FileHandler) and handler.stream:
                handler.acquire()
                try:
                    handler.close()
                    handler.stream = handler._open()
                finally:
                    handler.release()


def connect(levels: dict[str, int]) -> None:
    """Connect loggers to the server's logs, with these levels, now or when ``logging`` is imported."""
    hook = next((finder for finder in sys.meta_path if isinstance(finder, LoggingImportHook)), None)
    if "logging" in sys.modules and hook is None:
        _connect(levels)
    elif hook is None:
        sys.meta_path.insert(0, LoggingImportHook(levels))
    else:
        hook.levels = levels


class LoggingImportHook:
    """Finds ``logging`` once, as the other finders would, and connects the loggers when the module has been executed."""

    def __init__(self, levels: dict[str, int]) -> None:
        self.levels = levels

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        specs = (finder.find_spec(name, None) for finder in sys.meta_path)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            loader, execute = spec.loader, spec.loader.exec_module

            def execute_and_connect(module: ModuleType) -> None:
                execute(module)
                _connect(self.levels)

            loader.exec_module = execute_and_connect  # type: ignore[method-assign]
        return spec


def _connect(levels: dict[str, int]) -> None:
    from mylittlewebserver._loggers import CONNECTIONS

    for name, level in levels.items():
        CONNECTIONS[name].connect(level)


def _disconnect() -> None:
    from mylittlewebserver._loggers import CONNECTIONS

    for connection in CONNECTIONS.values():
        connection.disconnect()


def _configured(logger: Any, untouched: Any) -> Any:
    if untouched not in logger.handlers:
        return logger
    logger.removeHandler(untouched)
    logger.propagate = True
    return None


def _configure_by_file(path: str) -> None:
    import logging.config
    import os

    path = os.path.abspath(path)
    with open(path):  # an error that names the file; `fileConfig` would report a missing section
        pass
    escaped = path.replace("%", "%%")
    defaults = {"__file__": escaped, "here": os.path.dirname(escaped)}
    logging.config.fileConfig(path, defaults=defaults, disable_existing_loggers=False)


def _read_json(path: str) -> Any:
    import json

    with open(path, encoding="utf-8") as file:
        return json.load(file)
