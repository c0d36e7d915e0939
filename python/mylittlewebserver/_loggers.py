"""The loggers ``gunicorn.error`` and ``gunicorn.access``, as config files and applications find them.

Each has a handler that writes to the log of the server. As long as nobody changes the logger, the server writes its own records without
it. With a filter, another handler, a formatter or a level, records go through the logger. The change is noticed when it is made, so an
unchanged logger costs nothing.

Imported when ``logging`` is.
"""

from __future__ import annotations

import logging

from mylittlewebserver._logger_names import ACCESS, ERROR
from mylittlewebserver._native import set_logger, write_access, write_record

TYPE_CHECKING = False  # as in `typing`, which would cost each worker a megabyte
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class WatchedList(list):  # type: ignore[type-arg]
    """A list that calls a function after each change."""

    on_change: Callable[[], None]

    def __init__(self, items: list[Any], on_change: Callable[[], None]) -> None:
        super().__init__(items)
        self.on_change = on_change

    def clear(self) -> None:
        super().clear()
        self.on_change()

    def __reduce_ex__(self, _: object) -> Any:
        return list, (list(self),)


def _watched(name: str) -> Any:
    method = getattr(list, name)

    def change(self: WatchedList, *args: Any, **how: Any) -> Any:
        result = method(self, *args, **how)
        self.on_change()
        return result

    return change


for _name in ("append", "extend", "insert", "remove", "pop", "__setitem__", "__delitem__", "__iadd__"):
    setattr(WatchedList, _name, _watched(_name))


class Watched:
    """A logger or handler that calls a function after each change."""

    on_change: Callable[[], None] | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("filters", "handlers") and self.on_change:
            value = WatchedList(list(value), self.on_change)  # type: ignore[call-overload]
        super().__setattr__(name, value)
        if self.on_change:
            self.on_change()

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call the function from now on."""
        self.on_change = on_change
        for name in ("filters", "handlers"):
            if hasattr(self, name):
                setattr(self, name, getattr(self, name))


class WatchedLogger(Watched):
    """Mixed into the class of a logger. `dictConfig` disables all loggers that it does not name, which is ignored."""

    disabled = property(lambda self: False, lambda self, value: None)


class ErrorHandler(Watched, logging.Handler):
    """Writes to the error log of the server. The result of a formatter is written unchanged to a text log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write_record(record.levelno, self.format(record), self.formatter is not None)
        except Exception:
            self.handleError(record)


class AccessHandler(Watched, logging.Handler):
    """Writes to the access log of the server, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write_access(self.format(record))
        except Exception:
            self.handleError(record)


class Connection:
    """Connects a logger to the log of the server."""

    def __init__(self, name: str, handler: ErrorHandler | AccessHandler) -> None:
        self.name = name
        self.handler = handler
        self.logger: Any = logging.getLogger(name)
        self.level = logging.NOTSET
        self.is_connected = False

    def connect(self, level: int) -> None:
        """Connect the logger, or change the level of an unchanged logger."""
        logger = self.logger
        if not self.is_connected or logger.level == self.level:
            self.level = level
            logger.setLevel(level)
        if not self.is_connected:
            logger.propagate = False
            logger.addHandler(self.handler)
            self.is_connected = True
            original = type(logger)
            if not issubclass(original, WatchedLogger):
                logger.__class__ = type(original.__name__, (WatchedLogger, original), {})
            logger.watch(self.update)
            self.handler.watch(self.update)
        self.update()

    def disconnect(self) -> None:
        """Leave the logger to a configuration."""
        self.is_connected = False
        self.logger.removeHandler(self.handler)

    def update(self) -> None:
        """Run after each change."""
        if self.is_connected:
            level = self.logger.getEffectiveLevel()
            set_logger(self.name, None if self.is_unchanged() else self.logger, level)

    def is_unchanged(self) -> bool:
        logger, handler = self.logger, self.handler
        return (
            len(logger.handlers) == 1
            and logger.handlers[0] is handler
            and not (logger.filters or logger.propagate or handler.filters or handler.formatter)
            and logger.level == self.level
            and handler.level == logging.NOTSET
        )


CONNECTIONS = {ERROR: Connection(ERROR, ErrorHandler()), ACCESS: Connection(ACCESS, AccessHandler())}
