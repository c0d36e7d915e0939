"""Finds a WSGI application: MODULE, MODULE:ATTRIBUTE, or MODULE:FACTORY(ARGUMENTS) with literal arguments.

The master only parses the text, so that a typing error ends the command at once. The workers import the module, so that
a reload imports it again.
"""

from __future__ import annotations

import importlib
import sys

TYPE_CHECKING = False  # as in `typing`, which would cost each worker a megabyte
if TYPE_CHECKING:
    from typing import Any, NamedTuple, type_check_only

    @type_check_only
    class Spec(NamedTuple):
        text: str
        module: str
        names: tuple[str, ...]
        arguments: tuple[Any, ...] | None
        keywords: dict[str, Any]


class UsageError(Exception):
    """The text names no application."""


class MissingError(Exception):
    """The module does not exist."""


class LoadError(Exception):
    """Code of the application or a config file has raised the exception that is the cause of this one."""


def parse(text: str, is_factory: bool) -> tuple[str, str, tuple[str, ...], Any, dict[str, Any]]:
    """Split APP into its text, its module, the names of an attribute, and the arguments of a call (None for no call)."""
    module, colon, expression = text.partition(":")
    names: tuple[str, ...] = ()
    arguments: tuple[Any, ...] | None = None
    keywords: dict[str, Any] = {}
    if colon:
        names, arguments, keywords = _parse_expression(text, expression)
    if not module:
        raise _no_application(text)
    if is_factory:
        if not names or arguments is not None:
            message = f"--factory calls APP, as in module:create_app; '{text}' does not name a function"
            raise UsageError(message)
        arguments = ()
    return text, module, names, arguments, keywords


def load(spec: Spec, directories: list[str]) -> Any:
    """Import the module, from `directories` first (the last of them before all others), and return the application."""
    text, module_name, names, arguments, keywords = spec
    extend_path(directories)
    found: Any = _import(text, module_name, directories)
    where = module_name
    for name in names or (_default_name(text, found),):
        separator = ":" if where == module_name else "."
        found = _attribute(text, found, name, where)
        where += separator + name
    if arguments is not None:
        found = run_foreign(f"{text} cannot be loaded", lambda: found(*arguments, **keywords))
    _check(text, found, is_call=arguments is not None)
    return found


def extend_path(directories: list[str]) -> None:
    """Let modules be imported from these directories, the last of them before all others."""
    for directory in directories:
        if directory not in sys.path:
            sys.path.insert(0, directory)


def _parse_expression(text: str, expression: str) -> tuple[tuple[str, ...], Any, dict[str, Any]]:
    names = tuple(expression.split("."))
    if all(name.isidentifier() for name in names):
        return names, None, {}
    import ast  # half a megabyte, which the master would keep

    try:
        node = ast.parse(expression, mode="eval").body
        if not isinstance(node, ast.Call):
            raise ValueError
        names = tuple(ast.unparse(node.func).split("."))
        arguments = tuple(ast.literal_eval(argument) for argument in node.args)
        keywords = {
            str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg
        }
        if not all(name.isidentifier() for name in names) or len(keywords) != len(node.keywords):
            raise ValueError
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _no_application(text) from None
    return names, arguments, keywords


def _no_application(text: str) -> UsageError:
    return UsageError(
        f"invalid APP '{text}': expected module, module:attribute or module:factory(arguments), "
        "where arguments are literals such as 1, 'text' or debug=True"
    )


def _import(text: str, name: str, directories: list[str]) -> Any:
    if name.startswith(".") or "/" in name:
        raise MissingError(_missing(text, name, directories))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
        if missing is not None and (name == missing or name.startswith(missing + ".")):
            raise MissingError(_missing(text, name, directories)) from None
        raise LoadError(f"{name} cannot be imported") from _without_frames(error)
    except BaseException as error:
        raise LoadError(f"{name} cannot be imported") from _without_frames(error)


def _missing(text: str, name: str, directories: list[str]) -> str:
    looked = ", ".join(reversed(directories))
    return f"no module '{name}' in {looked}, nor elsewhere on Python's path{_hint(text, name)}"


def _hint(text: str, name: str) -> str:
    _, colon, expression = text.partition(":")
    module = name.removesuffix(".py").removeprefix("./").replace("/", ".")
    if module != name and _exists(module):
        return f"; did you mean {module}{colon}{expression}?"
    parent, dot, last = name.rpartition(".")
    if dot and not colon and _exists(parent):
        return f"; did you mean {parent}:{last}?"
    return ""


def _exists(name: str) -> bool:
    import importlib.util

    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _default_name(text: str, module: Any) -> str:
    for name in ("application", "app"):
        if _has(text, module, name):
            return name
    hint = f"name another attribute as {text}:NAME"
    if hasattr(module, "__path__") and _exists(f"{text}.wsgi"):
        hint = f"did you mean {text}.wsgi?"
    raise UsageError(f"module {text} has neither 'application' nor 'app'; {hint}")


def _has(text: str, owner: Any, name: str) -> bool:
    return bool(run_foreign(f"{text} cannot be looked up", lambda: hasattr(owner, name)))


def _attribute(text: str, owner: Any, name: str, where: str) -> Any:
    if not _has(text, owner, name):
        import difflib

        near = difflib.get_close_matches(name, dir(owner))
        hint = "; did you mean '" + "' or '".join(near) + "'?" if near else ""
        raise UsageError(f"{where} has no attribute '{name}'{hint}")
    return run_foreign(f"{text} cannot be looked up", lambda: getattr(owner, name))


def _check(text: str, found: Any, is_call: bool) -> None:
    if not callable(found):
        kind = type(found).__name__
        raise UsageError(f"{text} is not an application: '{kind}' object is not callable")
    if _is_coroutine_function(found):
        raise UsageError(
            f"{text} is an ASGI application, and this is a WSGI server: run it with an ASGI server such as uvicorn"
        )
    if not is_call and _takes_no_arguments(found):
        raise UsageError(
            f"{text} takes no arguments, so it is not a WSGI application; if it returns one, add --factory"
        )


def _is_coroutine_function(found: Any) -> bool:
    """Whether calling the object creates a coroutine, as an ASGI application does."""
    coroutine = 0x80  # inspect.CO_COROUTINE, without the import
    call = found if hasattr(found, "__code__") else getattr(type(found), "__call__", None)  # noqa: B004 - not a test
    code = getattr(call, "__code__", None)
    return bool(code and code.co_flags & coroutine)


def _takes_no_arguments(found: Any) -> bool:
    """Whether it is a plain function without parameters. Decorated ones may accept anything."""
    code = getattr(found, "__code__", None)
    variadic = 0x04 | 0x08  # inspect.CO_VARARGS, CO_VARKEYWORDS
    return bool(
        type(found).__name__ == "function"
        and code
        and not code.co_argcount
        and not code.co_flags & variadic
        and not hasattr(found, "__wrapped__")
    )


def run_foreign(what: str, call: Any) -> Any:
    """Call code of the application or a config file. Whatever it raises is the cause of a LoadError with the message `what`."""
    try:
        return call()
    except BaseException as error:
        raise LoadError(what) from _without_frames(error)


def _without_frames(error: BaseException) -> BaseException:
    """Remove the frames of this package, so that the traceback begins in the application."""
    frames = error.__traceback__
    while frames and frames.tb_frame.f_globals.get("__name__") in (
        __name__,
        "mylittlewebserver._config",
        "importlib",
        "importlib._bootstrap",
        "importlib._bootstrap_external",
    ):
        frames = frames.tb_next
    return error.with_traceback(frames)
