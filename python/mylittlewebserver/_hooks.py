"""What the functions of a Python config file are given: a server, a worker, a request and a response, named as gunicorn names them.

Loaded only where a config file has such a function. These objects tell how things are; to change them changes nothing but what
the next function sees.
"""

from __future__ import annotations

import logging
import os
import sys
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


class App:
    """What is served."""

    def __init__(self, load: Callable[[], Callable[..., Any]], name: str | None) -> None:
        self._load = load
        self.app_uri = name
        self.callable: Callable[..., Any] | None = None
        """None until it is loaded, which happens in the workers, or with ``--preload`` in the process that they are forked from."""

    def wsgi(self) -> Callable[..., Any]:
        """The application; whoever asks too early has it loaded there and then, and all processes that are forked from there have it."""
        if self.callable is None:
            self.callable = self._load()
        return self.callable


class Server:
    """The master; gunicorn calls it the arbiter."""

    def __init__(self, cfg: Settings, app: App) -> None:
        self.cfg = cfg
        self.app = app
        self.log = Log()
        self.pid = os.getpid()
        self.address = [_place(text) for text in getattr(cfg, "bind", [])]
        self.num_workers: int = getattr(cfg, "workers", 1)
        self.timeout = getattr(cfg, "timeout", 30)
        self.proc_name = getattr(cfg, "proc_name", None) or app.app_uri or "mlws"
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
        self.app = server.app
        self.log = server.log
        self.timeout = server.timeout
        self.alive = True
        self.aborted = False
        self.booted = False
        self.nr = 0
        self.max_requests = getattr(server.cfg, "max_requests", 0) or sys.maxsize
        self.wsgi: Callable[..., Any] | None = None

    def notify(self) -> None:
        """gunicorn's workers have to say that they live; these need not."""

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"


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

    def __init__(
        self,
        functions: dict[str, Callable[..., Any]],
        settings: dict[str, Any],
        load: Callable[[], Callable[..., Any]],
    ) -> None:
        self._functions = functions
        cfg = Settings(settings)
        self.server = Server(cfg, App(load, getattr(cfg, "wsgi_app", None)))
        self.worker: Worker | None = None

    def has(self, name: str) -> bool:
        return name in self._functions

    def _call(self, name: str, *args: object) -> None:
        if function := self._functions.get(name):
            function(*args)

    def server_hook(self, name: str) -> None:
        """What is about the server as a whole: on_starting, when_ready, on_reload, pre_exec, on_exit."""
        self._call(name, self.server)

    def set_addresses(self, addresses: list[str | tuple[str, int]]) -> None:
        self.server.address = addresses

    def nworkers_changed(self, now: int, before: int | None) -> None:
        self.server.num_workers = now
        self._call("nworkers_changed", self.server, now, before)

    def inherit(self, other: Hooks) -> None:
        """After a reload: the settings and the functions are new, the server is the same."""
        ours = vars(self.server)
        same = {name: ours[name] for name in ("cfg", "app", "num_workers", "timeout", "proc_name")}
        self.server = other.server  # with what the functions have hung on it
        vars(self.server).update(same)

    def pre_fork(self, age: int) -> None:
        self.worker = Worker(self.server, age)
        self.server.worker_age = age
        self._call("pre_fork", self.server, self.worker)

    def set_pid(self, pid: int) -> None:
        """In the master."""
        if worker := self.worker:
            worker.pid = pid
            self.server.WORKERS[pid] = worker

    def child_exit(self, pid: int) -> None:
        if worker := self.server.WORKERS.pop(pid, None):
            self._call("child_exit", self.server, worker)

    def post_fork(self) -> None:
        """In the worker."""
        if worker := self.worker:
            worker.pid = os.getpid()
            self._call("post_fork", self.server, worker)

    def preloaded(self, application: Callable[..., Any]) -> None:
        """In a process that has the application for the workers it will fork."""
        self.server.app.callable = application
        self.server.pid = os.getpid()
        self.server.WORKERS.clear()

    def post_worker_init(self, application: Callable[..., Any]) -> None:
        if worker := self.worker:
            self.server.app.callable = worker.wsgi = application
            self._call("post_worker_init", worker)
            worker.booted = True

    def worker_int(self) -> None:
        self._end("worker_int")

    def worker_abort(self) -> None:
        if self.worker:
            self.worker.aborted = True
        self._end("worker_abort")

    def _end(self, name: str) -> None:
        if self.worker:
            self.worker.alive = False
            self._call(name, self.worker)

    def worker_exit(self) -> None:
        self._call("worker_exit", self.server, self.worker)

    def before_request(self, environ: dict[str, Any]) -> Request:
        request = Request(environ)
        self._call("pre_request", self.worker, request)
        if self.worker:
            self.worker.nr += 1
        for name, value in request.added():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        return request

    def after_request(self, request: Request, environ: dict[str, Any], head: str) -> None:
        if not (function := self._functions.get("post_request")):
            return
        arguments = (self.worker, request, environ, Response(head))
        function(*arguments[: _places(function)])


def _place(text: str) -> str | tuple[str, int]:
    """An address as Python has it. Once the server listens, the real ports are known."""
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdigit() else text.removeprefix("unix:")


def _places(function: Callable[..., Any]) -> int:
    """gunicorn also calls functions that take two or three of the four arguments of post_request."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & 0x04:  # *args
        return 4
    return int(code.co_argcount) - (1 if hasattr(function, "__self__") else 0)
