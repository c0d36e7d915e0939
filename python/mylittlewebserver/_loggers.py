"""The logger ``gunicorn.error``, which applications borrow: what it is given goes to the server's log.

Nothing is done, and nothing imported, until the application imports ``logging``.
"""

from __future__ import annotations

import sys

from mylittlewebserver._native import log

TYPE_CHECKING = False  # as in `typing`, which would cost each worker a megabyte
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


def lend(level: int) -> None:
    """Equip the logger, at once or as soon as there is ``logging``. The level is a number of that module's."""
    if logging := sys.modules.get("logging"):
        equip(logging, level)
    else:
        sys.meta_path.insert(0, Finder(level))


class Finder:
    """Finds ``logging`` once, as the others would, and equips it when it has been run."""

    def __init__(self, level: int) -> None:
        self.level = level

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        specs = (finder.find_spec(name, None) for finder in sys.meta_path)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            loader, run = spec.loader, spec.loader.exec_module

            def run_and_equip(module: ModuleType) -> None:
                run(module)
                equip(module, self.level)

            loader.exec_module = run_and_equip  # type: ignore[method-assign]
        return spec


def equip(logging: Any, level: int) -> None:
    def emit(handler: Any, record: Any) -> None:
        try:
            log(record.levelno, handler.format(record))
        except Exception:
            handler.handleError(record)

    logger = logging.getLogger("gunicorn.error")
    logger.propagate = False
    logger.setLevel(level)
    if not logger.handlers:
        logger.addHandler(type("Handler", (logging.Handler,), {"emit": emit})())
