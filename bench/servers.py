"""The measured servers and their commands: one process on one core, with the best settings for each.

A server that does not support a scenario is skipped by name. Comments give the reasons for settings that
can be disputed. All servers log no requests, and listen with a backlog of 1024 or more.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from shutil import which

from place import BENCH, ROOT, Place
from scenarios import Floor, Kind, Scenario

IDLE_SECONDS = 300  # timeout of idle connections, for servers that would close them earlier


class Role(Enum):
    OURS = "ours"
    RIVAL = "rival"
    BESIDE = "beside"  # not a WSGI server, shown for comparison
    FLOOR = "floor"


class LeftOut(Exception):
    """The server does not support the scenario, for the reason in the message.

    Without a message it is not intended for it.
    """


Command = Callable[[Scenario, Place, int], list[str]]


@dataclass(frozen=True)
class Server:
    """`can` is a subset of: threads, workers, preload, fork, keep-alive.

    `package` is its distribution in the environment.
    """

    name: str
    role: Role
    command: Command
    package: str | None = None
    can: frozenset[str] = field(default_factory=frozenset)

    def start(self, scenario: Scenario, place: Place, port: int) -> list[str]:
        """Returns the command that serves the scenario's application on the port. Raises LeftOut if there is none."""
        wanted = {
            "threads": (scenario.threads > 1, "no threads"),
            "workers": (scenario.workers > 1, "no worker processes"),
            "preload": (scenario.preload, "no preloading"),
            "fork": (scenario.fork, "no fork for a request"),
            "keep-alive": (scenario.kind is Kind.IDLE, "closes each connection after its response"),
        }
        for ability, (needed, why) in wanted.items():
            if needed and ability not in self.can:
                raise LeftOut(why)
        return self.command(scenario, place, port)


def mlws(scenario: Scenario, place: Place, port: int) -> list[str]:
    program = str(place.programs / "mlws")
    words = [program, scenario.app, "--bind", f"127.0.0.1:{port}", "--workers", str(scenario.workers)]
    words += ["--fork"] if scenario.fork else ["--threads", str(scenario.threads)]
    if scenario.warm:
        words += [known_option(program, "--fork-warmup"), "/"]
    if scenario.preload:
        words += [known_option(program, "--preload")]
    if scenario.kind is Kind.IDLE:
        words += ["--keep-alive", str(IDLE_SECONDS)]
    return words


@cache
def help_text(program: str) -> str:
    return subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout


def known_option(program: str, option: str) -> str:
    if option not in help_text(program):
        raise LeftOut(f"no {option} yet")
    return option


def mlws_rust(scenario: Scenario, place: Place, port: int) -> list[str]:
    """The HTTP layer alone: examples/hello.rs, without Python in the process."""
    program = ROOT / ".venv/bin/hello"
    if scenario.app != "raw:hello" or scenario.kind is not Kind.LOAD or scenario.warm or not program.exists():
        raise LeftOut("")
    how = ["--fork"] if scenario.fork else ["--threads", str(scenario.threads)]
    return [str(program), "--bind", f"127.0.0.1:{port}", *how]


def granian(scenario: Scenario, place: Place, port: int) -> list[str]:
    """Its backpressure, by default the backlog, also limits the number of connections."""
    return [
        *[str(place.programs / "granian"), "--interface", "wsgi", "--http", "1", "--no-ws"],
        *["--workers", str(scenario.workers), "--blocking-threads", str(scenario.threads)],
        *["--host", "127.0.0.1", "--port", str(port), "--backlog", "2048"],
        *(["--backpressure", "20000"] if scenario.kind is Kind.IDLE else []),
        scenario.app,
    ]


def gunicorn(scenario: Scenario, place: Place, port: int, worker: list[str]) -> list[str]:
    return [
        *[
            str(place.programs / "gunicorn"),
            "--bind",
            f"127.0.0.1:{port}",
            "--workers",
            str(scenario.workers),
        ],
        *[*worker, *(["--preload"] if scenario.preload else []), scenario.app],
    ]


def gunicorn_sync(scenario: Scenario, place: Place, port: int) -> list[str]:
    """gunicorn's default. It closes each connection, but that is not why it is slow: gthread keeps them open."""
    return gunicorn(scenario, place, port, ["--worker-class", "sync"])


def gunicorn_gthread(scenario: Scenario, place: Place, port: int) -> list[str]:
    """At its default of 1000 connections it accepts no more until one is closed."""
    worker = [
        "--worker-class",
        "gthread",
        "--threads",
        str(scenario.threads),
        "--worker-connections",
        "20000",
    ]
    if scenario.kind is Kind.IDLE:
        worker += ["--keep-alive", str(IDLE_SECONDS)]
    return gunicorn(scenario, place, port, worker)


def embedded(name: str) -> Command:
    def command(scenario: Scenario, place: Place, port: int) -> list[str]:
        return [
            place.python,
            str(BENCH / "apps/embed.py"),
            name,
            scenario.app,
            str(port),
            str(scenario.threads),
        ]

    return command


def uwsgi(scenario: Scenario, place: Place, port: int) -> list[str]:
    """Its built-in HTTP without the router process, with `Connection: close`: in one process, as fast as the router with keep-alive when this was written.

    With http11-socket, which keeps connections open, a thread is bound to its connection and other
    connections starve, so it is used for a single connection only. Only the router can frame a stream,
    and wrk counts a response delimited by close as an error.
    """
    if scenario.connections == 1:
        http = ["--http11-socket", f"127.0.0.1:{port}"]
    elif scenario.app == "raw:stream":
        http = ["--http", f"127.0.0.1:{port}", "--http-keepalive", "--http-auto-chunked"]
    else:
        http = ["--http-socket", f"127.0.0.1:{port}", "--add-header", "Connection: close"]
    return [
        *[str(place.programs / "uwsgi"), *http, "--virtualenv", str(place.programs.parent)],
        *["--module", scenario.app, "--need-app", "--die-on-term", "--disable-logging", "--listen", "1024"],
        *(["--threads", str(scenario.threads)] if scenario.threads > 1 else []),
        *(["--master", "--processes", str(scenario.workers)] if scenario.workers > 1 else []),
    ]


def waitress(scenario: Scenario, place: Place, port: int) -> list[str]:
    """With its default of 100 connections the others would wait. poll supports descriptors that select does not."""
    return [
        *[
            str(place.programs / "waitress-serve"),
            f"--listen=127.0.0.1:{port}",
            f"--threads={scenario.threads}",
        ],
        *["--connection-limit=20000", "--asyncore-use-poll", f"--channel-timeout={IDLE_SECONDS}"],
        *["--backlog=2048", scenario.app],
    ]


def nginx(scenario: Scenario, place: Place, port: int) -> list[str]:
    """The same file from the same directory by sendfile, beside our wsgi.file_wrapper."""
    program = which("nginx", path="/usr/sbin:/usr/local/sbin:" + place.environment()["PATH"])
    if scenario.name != "file-10m":
        raise LeftOut("")
    if not program:
        raise LeftOut("not installed; Debian: apt install nginx-light")
    settings = place.scratch / "nginx.conf"
    settings.write_text(NGINX.replace("DIRECTORY", str(place.scratch)).replace("PORT", str(port)))
    return [program, "-c", str(settings), "-e", str(place.scratch / "nginx-error.log")]


NGINX = """
daemon off; master_process off; pid DIRECTORY/nginx.pid; error_log DIRECTORY/nginx-error.log;
events { worker_connections 1024; }
http {
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
    client_body_temp_path DIRECTORY/nginx-body; proxy_temp_path DIRECTORY/nginx-proxy; fastcgi_temp_path
    DIRECTORY/nginx-fcgi;
    uwsgi_temp_path DIRECTORY/nginx-uwsgi; scgi_temp_path DIRECTORY/nginx-scgi;
    server { listen 127.0.0.1:PORT; location = / { root DIRECTORY; try_files /file =404; } }
}
"""


def epoll(scenario: Scenario, place: Place, port: int) -> list[str]:
    if scenario.floor is not Floor.EPOLL:
        raise LeftOut("")
    body = 0 if scenario.app == "raw:hello" else len(scenario.answer)
    return [str(BENCH / ".build/epoll"), str(port), str(body)]


KEEPS = frozenset({"keep-alive"})
EVERYTHING = frozenset({"threads", "workers", "preload", "fork", "keep-alive"})

SERVERS = [
    Server("mlws", Role.OURS, mlws, "mylittlewebserver", EVERYTHING),
    Server("mlws without Python", Role.BESIDE, mlws_rust, None, EVERYTHING),
    Server("granian", Role.RIVAL, granian, "granian", KEEPS | {"threads", "workers"}),
    Server("fastwsgi", Role.RIVAL, embedded("fastwsgi"), "fastwsgi", KEEPS),
    Server("fastpysgi", Role.RIVAL, embedded("fastpysgi"), "fastpysgi", KEEPS),
    Server("bjoern", Role.RIVAL, embedded("bjoern"), "bjoern", KEEPS),
    Server("uwsgi", Role.RIVAL, uwsgi, "uwsgi", frozenset({"threads", "workers", "preload"})),
    Server("gunicorn sync", Role.RIVAL, gunicorn_sync, "gunicorn", frozenset({"workers", "preload"})),
    Server(
        "gunicorn gthread",
        Role.RIVAL,
        gunicorn_gthread,
        "gunicorn",
        KEEPS | {"threads", "workers", "preload"},
    ),
    Server("cheroot", Role.RIVAL, embedded("cheroot"), "cheroot", KEEPS | {"threads"}),
    Server("waitress", Role.RIVAL, waitress, "waitress", KEEPS | {"threads"}),
    Server("nginx", Role.BESIDE, nginx, None, EVERYTHING),
    Server(Floor.EPOLL.value, Role.FLOOR, epoll, None, EVERYTHING),
]


def installed(server: Server) -> bool:
    if server.package is None:
        return True
    try:
        version(server.package)
    except PackageNotFoundError:
        return False
    return True
