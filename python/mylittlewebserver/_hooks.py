"""What the functions of a Python config file are given: a server, a worker, a request and a response, named as gunicorn names them.

Loaded only where a config file has such a function. These objects tell how things are; to change them changes nothing but what
the next function sees.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable
from typing import Any

from mylittlewebserver._native import __version__, log


class Settings:
    """The settings, by our names and by gunicorn's."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no setting {name!r}")


class Log:
    """The server's log, with the methods of a logger."""

    error_log = logging.getLogger("gunicorn.error")
    access_log = logging.getLogger("gunicorn.access")

    def log(self, level: int, message: object, *args: object, exc_info: object = None, **_: object) -> None:
        text = str(message)
        if args:
            text %= args[0] if len(args) == 1 and isinstance(args[0], dict) else args
        if exc_info:
            text = f"{text}\n{traceback.format_exc().rstrip()}"
        log(level, text)

    def debug(self, message: object, *args: object, **how: Any) -> None:
        self.log(logging.DEBUG, message, *args, **how)

    def info(self, message: object, *args: object, **how: Any) -> None:
        self.log(logging.INFO, message, *args, **how)

    def warning(self, message: object, *args: object, **how: Any) -> None:
        self.log(logging.WARNING, message, *args, **how)

    def error(self, message: object, *args: object, **how: Any) -> None:
        self.log(logging.ERROR, message, *args, **how)

    def critical(self, message: object, *args: object, **how: Any) -> None:
        self.log(logging.CRITICAL, message, *args, **how)

    def exception(self, message: object, *args: object, **how: Any) -> None:
        self.log(logging.ERROR, message, *args, **{"exc_info": True, **how})


class Server:
    """The master; gunicorn calls it the arbiter."""

    def __init__(self, cfg: Settings) -> None:
        self.cfg = cfg
        self.log = Log()
        self.pid = os.getpid()
        self.address: list[str | tuple[str, int]] = []
        self.num_workers: int = getattr(cfg, "workers", 1)
        self.timeout = getattr(cfg, "timeout", 30)
        self.proc_name = getattr(cfg, "proc_name", None) or "mlws"
        self.worker_age = 0
        self.WORKERS: dict[int, Worker] = {}
        self.version = __version__

    def __str__(self) -> str:
        return f"<Server {self.pid}>"


class Worker:
    """One worker. It has a pid once it is forked."""

    def __init__(self, server: Server, age: int) -> None:
        self.age = age
        self.pid: int | str = "[booting]"
        self.ppid = server.pid
        self.cfg = server.cfg
        self.log = server.log
        self.timeout = server.timeout
        self.alive = True
        self.aborted = False
        self.booted = False
        self.nr = 0
        self.app: App | None = None
        self.wsgi: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"


class App:
    """What is served."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self.callable = application

    def wsgi(self) -> Callable[..., Any]:
        return self.callable


class Request:
    """A request, before and after it is answered."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        self.uri: str = environ["RAW_URI"]
        self.path = self.uri.partition("?")[0]
        self.query: str = environ["QUERY_STRING"]
        self.fragment = ""
        self.scheme: str = environ["wsgi.url_scheme"]
        self.version = (1, 0) if environ["SERVER_PROTOCOL"] == "HTTP/1.0" else (1, 1)
        self.remote_addr = self.peer_addr = (environ["REMOTE_ADDR"], environ["REMOTE_PORT"])
        self.body = environ["wsgi.input"]
        names = {key: key.removeprefix("HTTP_") for key in environ if key.startswith("HTTP_")}
        names.update({key: key for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if key in environ})
        self.headers: list[tuple[str, str]] = [
            (name.replace("_", "-"), environ[key]) for key, name in names.items()
        ]
        self._count = len(self.headers)

    def added(self) -> list[tuple[str, str]]:
        """The headers that a function has appended."""
        return self.headers[self._count :]


class Response:
    """A response, once it is sent."""

    def __init__(self, head: str) -> None:
        first, *lines = head.rstrip("\r\n").split("\r\n")
        self.status = first.partition(" ")[2]
        self.status_code = int(self.status[:3] or 0)
        self.headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        self.headers_sent = True


class Hooks:
    """Calls the functions of a config file, those that are there, with what gunicorn gives them."""

    def __init__(self, functions: dict[str, Callable[..., Any]], settings: dict[str, Any]) -> None:
        self._functions = functions
        self.server = Server(Settings(settings))
        self.worker: Worker | None = None

    def has(self, name: str) -> bool:
        return name in self._functions

    def _call(self, name: str, *args: object) -> None:
        if function := self._functions.get(name):
            function(*args)

    def whole(self, name: str) -> None:
        """What is about the server as a whole: on_starting, when_ready, on_reload, pre_exec, on_exit."""
        self._call(name, self.server)

    def listening(self, addresses: list[str | tuple[str, int]]) -> None:
        self.server.address = addresses

    def resized(self, now: int, before: int | None) -> None:
        self.server.num_workers = now
        self._call("nworkers_changed", self.server, now, before)

    def follows(self, other: Hooks) -> None:
        """After a reload: the settings and the functions are new, the server is the same."""
        self.server.WORKERS, self.server.address = other.server.WORKERS, other.server.address
        self.server.worker_age = other.server.worker_age

    def forking(self, age: int) -> None:
        self.worker = Worker(self.server, age)
        self.server.worker_age = age
        self._call("pre_fork", self.server, self.worker)

    def forked(self, pid: int) -> None:
        """In the master."""
        if worker := self.worker:
            worker.pid = pid
            self.server.WORKERS[pid] = worker

    def gone(self, pid: int) -> None:
        if worker := self.server.WORKERS.pop(pid, None):
            worker.alive = False
            self._call("child_exit", self.server, worker)

    def born(self) -> None:
        """In the worker."""
        if worker := self.worker:
            worker.pid = os.getpid()
            self.server.WORKERS.clear()
            self._call("post_fork", self.server, worker)

    def leads(self) -> None:
        """In a process that has the application for the workers it will fork."""
        self.server.pid = os.getpid()
        self.server.WORKERS.clear()

    def loaded(self, application: Callable[..., Any]) -> None:
        if worker := self.worker:
            worker.app, worker.wsgi, worker.booted = App(application), application, True
            self._call("post_worker_init", worker)

    def interrupted(self) -> None:
        self._end("worker_int")

    def overdue(self) -> None:
        if self.worker:
            self.worker.aborted = True
        self._end("worker_abort")

    def _end(self, name: str) -> None:
        if self.worker:
            self.worker.alive = False
            self._call(name, self.worker)

    def leaves(self) -> None:
        self._call("worker_exit", self.server, self.worker)

    def before_request(self, environ: dict[str, Any]) -> Request:
        request = Request(environ)
        if self.worker:
            self.worker.nr += 1
        self._call("pre_request", self.worker, request)
        for name, value in request.added():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        return request

    def after_request(self, request: Request, environ: dict[str, Any], head: str) -> None:
        if not (function := self._functions.get("post_request")):
            return
        arguments = (self.worker, request, environ, Response(head))
        function(*arguments[: _places(function)])


def _places(function: Callable[..., Any]) -> int:
    """gunicorn also calls functions that take two or three of the four arguments of post_request."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & 0x04:  # *args
        return 4
    return int(code.co_argcount) - (1 if hasattr(function, "__self__") else 0)
