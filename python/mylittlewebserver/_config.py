"""Runs config files that are Python, as gunicorn's: a file, or python:MODULE.

A config file is a program. Each function here returns what its names define: the hooks, the configuration of
``logging`` if there is one, and the other names, which are settings if the server knows them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader

from mylittlewebserver._loader import LoadError, run_foreign

TYPE_CHECKING = False  # as in `typing`, which would cost each worker a megabyte
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    _Definitions: TypeAlias = tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]

HOOKS = {
    "on_starting",
    "on_reload",
    "when_ready",
    "pre_fork",
    "post_fork",
    "post_worker_init",
    "worker_int",
    "worker_abort",
    "pre_exec",
    "pre_request",
    "post_request",
    "child_exit",
    "worker_exit",
    "nworkers_changed",
    "on_exit",
}


class HookError(Exception):
    """A hook is neither a function nor the name of one."""


def run_file(path: str, source: bytes) -> _Definitions:
    """Run `source`, the content of the file, as the module ``__config__``.

    Neither reads the file again nor uses compiled bytecode, because another user may have written either.
    """
    loader = SourceFileLoader("__config__", path)
    spec = importlib.util.spec_from_loader("__config__", loader)
    assert spec is not None  # a file loader always has one
    module = importlib.util.module_from_spec(spec)
    sys.modules["__config__"] = module

    def run() -> None:
        exec(loader.source_to_code(source, path), vars(module))

    run_foreign(f"{path} failed", run)
    return _definitions(vars(module))


_first_imported_here: set[str] = set()


def import_module(name: str) -> _Definitions:
    """Import the MODULE of ``python:MODULE``. At a reload, import it and its submodules again.

    A module that the program has imported before it called ``serve()`` stays as it is.
    """
    if name not in sys.modules:
        _first_imported_here.add(name)
    previous = _forget(name) if name in _first_imported_here else {}
    importlib.invalidate_caches()
    writes_no_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = (
        True  # Python would use it for a file of the same size that is changed in the same second
    )
    try:
        module = run_foreign(f"{name} failed", lambda: importlib.import_module(name))
    except BaseException:
        _forget(name)
        sys.modules.update(previous)
        raise
    finally:
        sys.dont_write_bytecode = writes_no_bytecode
    return _definitions(vars(module))


def _forget(name: str) -> dict[str, Any]:
    """Remove the module and its submodules from ``sys.modules``, and return them."""
    found = [known for known in sys.modules if known == name or known.startswith(f"{name}.")]
    return {known: sys.modules.pop(known) for known in found}


def _definitions(names: dict[str, Any]) -> _Definitions:
    hooks = {
        name: _function(name, value) for name, value in names.items() if name in HOOKS and value is not None
    }
    logging = names.get("logconfig_dict")
    others = {
        name: value
        for name, value in names.items()
        if name not in HOOKS and name != "logconfig_dict" and _may_be_setting(name, value)
    }
    return hooks, logging if logging and isinstance(logging, dict) else None, others


def _function(hook: str, value: Any) -> Any:
    """Return the function of a hook, which may be given by its name: ``module.function``."""
    invalid = f"invalid value {value!r} for {hook}"
    if isinstance(value, str):
        module_name, _, name = value.rpartition(".")
        if not module_name:
            raise HookError(f"{invalid}: expected a function, or its name as module.function")
        try:
            module = run_foreign(f"{invalid}: import failed", lambda: importlib.import_module(module_name))
        except LoadError as error:
            if isinstance(error.__cause__, ImportError):
                raise HookError(f"{invalid}: {error.__cause__}") from error.__cause__
            raise
        value = getattr(module, name, None)
        if value is None:
            raise HookError(f"{invalid}: module {module_name} has no function {name!r}")
    if not callable(value):
        raise HookError(f"{invalid}: expected a function")
    return value


def _may_be_setting(name: str, value: Any) -> bool:
    # A file for gunicorn may use `app`, `env`, `name` or `fork` for functions of its own.
    return not callable(value) or name == "ssl_context" or name.endswith("_class")
