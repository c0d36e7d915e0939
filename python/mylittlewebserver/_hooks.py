"""The arguments of hooks: a server, a worker, a request and a response, with gunicorn's names.

Imported only if a config file defines hooks. The objects describe the server. Changing them affects only what later hooks see.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mylittlewebserver._native import __version__, log

if TYPE_CHECKING:
    from socket import AddressFamily, socket

Address = str | int | tuple[str, int]
"""A path, a descriptor, or a host and a port."""


class Settings:
    """The settings, by the names of this server and of gunicorn."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no setting {name!r}")

    def set(self, name: str, value: object) -> None:
        """Change what later hooks see."""
        self.__dict__[name] = value

    @property
    def settings(self) -> dict[str, Setting]:
        """The settings as objects, by their names."""
        return {name: Setting(name, value) for name, value in vars(self).items()}

    @property
    def is_ssl(self) -> bool:
        """Whether HTTPS is enabled."""
        return any(vars(self).get(name) for name in ("certfile", "keyfile"))

    @property
    def address(self) -> list[Address]:
        """The addresses of ``bind`` in Python's format."""
        return [_py_address(str(text)) for text in self.bind]

    @property
    def env(self) -> dict[str, str]:
        """The pairs of ``raw_env``."""
        return dict(text.split("=", 1) for text in self.raw_env)

    @property
    def uid(self) -> int:
        """The user ID of the workers."""
        if isinstance(self.user, str):
            import pwd

            return pwd.getpwnam(self.user).pw_uid
        return os.geteuid() if self.user is None else int(self.user)

    @property
    def gid(self) -> int:
        """The group ID of the workers."""
        if isinstance(self.group, str):
            import grp

            return grp.getgrnam(self.group).gr_gid
        return os.getegid() if self.group is None else int(self.group)


class Setting:
    """A setting in ``cfg.settings``."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def get(self) -> Any:
        return self.value


class Listener:
    """A listening socket, with the methods of a socket.

    The server owns the socket. The methods work on a duplicate, so ``close()`` does not close the socket of the server.
    After the server has closed it, ``fileno()`` returns -1, and the other methods raise `OSError`.
    """

    def __init__(self, url: str, cfg_addr: Address, descriptor: int) -> None:
        self.cfg_addr = cfg_addr
        self._url = url
        self._descriptor = descriptor
        self._inode = os.fstat(descriptor).st_ino

    def __str__(self) -> str:
        return self._url

    def fileno(self) -> int:
        """Return the descriptor, unless it is closed or by now belongs to another file."""
        try:
            is_open = os.fstat(self._descriptor).st_ino == self._inode
        except OSError:
            is_open = False
        return self._descriptor if is_open else -1

    @property
    def sock(self) -> socket:
        """A duplicate of the socket, to be closed by the caller."""
        from socket import socket

        return socket(fileno=os.dup(self.fileno()))

    @property
    def FAMILY(self) -> AddressFamily:  # noqa: N802 - gunicorn's name
        with self.sock as sock:
            return sock.family

    def close(self) -> None:
        """Do nothing: the server closes the socket."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*args: Any) -> Any:
            with self.sock as sock:
                return getattr(sock, name)(*args)

        with self.sock as sock:
            value = getattr(sock, name)
        return call if callable(value) else value


class Log:
    """The error log, with the methods of a logger. Like those of `logging`, they never raise."""

    error_log = logging.getLogger("gunicorn.error")
    access_log = logging.getLogger("gunicorn.access")

    def log(self, level: int, message: object, *args: object, exc_info: object = None, **_: object) -> None:
        text = str(message)
        if args:
            try:
                text %= args[0] if len(args) == 1 and isinstance(args[0], dict) else args
            except Exception as error:  # whatever formatting raises
                text = f"{text} {args!r} (invalid log call: {error})"
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
    """The application."""

    def __init__(self, load: Callable[[], Callable[..., Any]], name: str | None) -> None:
        self._load = load
        self.app_uri = name
        self.callable: Callable[..., Any] | None = None
        """None until it is loaded: in the workers, or with ``--preload`` in the process from which they are forked."""

    def wsgi(self) -> Callable[..., Any]:
        """Return the application. Load it if necessary, also for all processes that are forked from this one."""
        if self.callable is None:
            self.callable = self._load()
        return self.callable


class Server:
    """The master, which gunicorn calls the arbiter."""

    def __init__(self, cfg: Settings, app: App) -> None:
        self.cfg = cfg
        self.app = app
        self.log = Log()
        self.pid = os.getpid()
        self.address: list[Address] = cfg.address if hasattr(cfg, "bind") else []
        self.LISTENERS: list[Listener] = []
        """The sockets, once the server listens. Empty in ``on_exit``."""
        self.num_workers: int = getattr(cfg, "workers", 1)
        self.timeout = getattr(cfg, "timeout", 30)
        self.proc_name = getattr(cfg, "proc_name", None) or app.app_uri or "mlws"
        self.worker_age = 0
        self.WORKERS: dict[int, Worker] = {}
        self.version = __version__

    def __str__(self) -> str:
        return f"<Server {self.pid}>"


class Worker:
    """A worker. It has a pid after the fork."""

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
        """Do nothing: unlike gunicorn's workers, these need no heartbeat."""

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"


class Request:
    """A request, in `pre_request` and `post_request`."""

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
        self.sent = 0
        """Bytes of the body, for a ``logger_class``."""


class Hooks:
    """Calls the hooks that a config file defines, with gunicorn's arguments."""

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
        """Call on_starting, when_ready, on_reload, pre_exec or on_exit."""
        if name == "on_exit":
            self.server.LISTENERS = []
        self._call(name, self.server)

    def set_listeners(self, addresses: list[Address], listeners: list[tuple[str, int]]) -> None:
        """Run when the server listens, and after each reload. Each listener is a URL and a descriptor."""
        self.server.address = addresses
        self.server.LISTENERS = [
            Listener(url, address, descriptor)
            for address, (url, descriptor) in zip(addresses, listeners, strict=False)
        ]

    def nworkers_changed(self, now: int, before: int | None) -> None:
        self.server.num_workers = now
        self._call("nworkers_changed", self.server, now, before)

    def inherit(self, other: Hooks) -> None:
        """Keep the server object after a reload, with the new settings."""
        ours = vars(self.server)
        same = {name: ours[name] for name in ("cfg", "app", "num_workers", "timeout", "proc_name")}
        self.server = other.server  # with the attributes that hooks have added
        vars(self.server).update(same)

    def pre_fork(self, age: int) -> None:
        self.worker = Worker(self.server, age)
        self.server.worker_age = age
        self._call("pre_fork", self.server, self.worker)

    def set_pid(self, pid: int) -> None:
        """Run in the master, after the fork."""
        if worker := self.worker:
            worker.pid = pid
            self.server.WORKERS[pid] = worker

    def child_exit(self, pid: int) -> None:
        if worker := self.server.WORKERS.pop(pid, None):
            self._call("child_exit", self.server, worker)

    def process_exit(self, pid: int) -> None:
        """Call child_exit for a process that ran the application but is not a worker.

        It ran a request of ``--fork``, or it loaded the application for workers with ``--preload``. Its age is 0.
        """
        process = Worker(self.server, 0)
        process.pid, process.ppid = pid, os.getpid()
        self._call("child_exit", self.server, process)

    def post_fork(self) -> None:
        """Run in the worker."""
        if worker := self.worker:
            worker.pid = os.getpid()
            self._call("post_fork", self.server, worker)

    def preloaded(self, application: Callable[..., Any]) -> None:
        """Run in the process that has loaded the application for the workers that it forks."""
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
        function(*arguments[: _count_parameters(function)])


def _py_address(text: str) -> Address:
    """Return an address of the settings in Python's format: a path, a descriptor, or a host and a port."""
    if text.startswith("unix:"):
        return text.removeprefix("unix:").removeprefix("//")
    if text.startswith("fd://"):
        return int(text.removeprefix("fd://"))
    text = text.removeprefix("tcp://")
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        host, port = text, "8000"
    return host.strip("[]").lower(), int(port)


def _count_parameters(function: Callable[..., Any]) -> int:
    """Return the number of arguments: like gunicorn, accept functions with two or three of the four of post_request."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & 0x04:  # *args
        return 4
    return int(code.co_argcount) - (1 if hasattr(function, "__self__") else 0)
