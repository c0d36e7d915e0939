"""The measured servers and their commands: one process on one core, with the best settings for each.

A server that does not support a scenario is skipped by name. Comments give the reasons for settings that
can be disputed. All servers log no requests, and listen with a backlog of 1024 or more.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from shutil import which

from place import BENCH, ROOT, Place
from scenarios import Floor, Kind, Scenario

HYPERCORN_MAX_BODY = 16 << 20
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
    """`can` is a subset of: threads, workers, preload, fork, keep-alive, TLS, HTTP/2.

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
            "TLS": (scenario.tls, "no TLS"),
            "HTTP/2": (scenario.http2, "no HTTP/2"),
        }
        for ability, (needed, why) in wanted.items():
            if needed and ability not in self.can:
                raise LeftOut(why)
        if scenario.http2 and not (which("h2load") and which("nghttp")):
            raise LeftOut("h2load is not installed; Debian: apt install nghttp2-client")
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
    if scenario.tls:
        words += ["--certfile", place.certificate, "--keyfile", place.key]
    if scenario.http2:
        known_option(program, "--http-protocols")
        words += [] if scenario.tls else ["--http2-cleartext", "prior-knowledge"]
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
    is_hello = scenario.app == "raw:hello" and scenario.kind is Kind.LOAD and not scenario.warm
    if not is_hello or scenario.tls or scenario.http2 or not program.exists():
        raise LeftOut("")
    how = ["--fork"] if scenario.fork else ["--threads", str(scenario.threads)]
    return [str(program), "--bind", f"127.0.0.1:{port}", *how]


def granian(scenario: Scenario, place: Place, port: int) -> list[str]:
    """Its backpressure, by default the backlog, also limits the number of connections."""
    return [
        *[str(place.programs / "granian"), "--interface", "wsgi", "--no-ws"],
        *["--http", "2" if scenario.http2 else "1"],
        *(["--ssl-certificate", place.certificate, "--ssl-keyfile", place.key] if scenario.tls else []),
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
        *[*worker, *(["--preload"] if scenario.preload else [])],
        *(["--certfile", place.certificate, "--keyfile", place.key] if scenario.tls else []),
        scenario.app,
    ]


def gunicorn_sync(scenario: Scenario, place: Place, port: int) -> list[str]:
    """gunicorn's default. It closes each connection, but that is not why it is slow: gthread keeps them open."""
    return gunicorn(scenario, place, port, ["--worker-class", "sync"])


def gunicorn_gthread(scenario: Scenario, place: Place, port: int) -> list[str]:
    """Past its default of 1000 connections it accepts no more until one is closed. An HTTP/2 connection keeps a thread."""
    threads = max(scenario.threads, scenario.connections) if scenario.http2 else scenario.threads
    worker = [
        "--worker-class",
        "gthread",
        "--threads",
        str(threads),
        "--worker-connections",
        "20000",
    ]
    if scenario.kind is Kind.IDLE:
        worker += ["--keep-alive", str(IDLE_SECONDS)]
    if scenario.http2:
        worker += ["--http-protocols", "h2,h1"]
        worker += [] if scenario.tls else ["--http2-cleartext", "prior-knowledge"]
    return gunicorn(scenario, place, port, worker)


def hypercorn(scenario: Scenario, place: Place, port: int) -> list[str]:
    """It is made for ASGI and runs a WSGI application in threads of its own, whose number cannot be set."""
    if not scenario.tls and not scenario.http2:
        raise LeftOut("")
    if len(scenario.posted) > HYPERCORN_MAX_BODY:
        raise LeftOut("accepts no more than 16 MB, unless a configuration file says so")
    return [
        *[str(place.programs / "hypercorn"), "--bind", f"127.0.0.1:{port}", "--backlog", "2048"],
        *(["--certfile", place.certificate, "--keyfile", place.key] if scenario.tls else []),
        *["--keep-alive", str(IDLE_SECONDS), "--workers", str(scenario.workers), f"wsgi:{scenario.app}"],
    ]


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
    """The same file from the same directory beside our wsgi.file_wrapper, or fixed bytes beside our hello."""
    answers = {"raw:hello": NGINX_HELLO, "raw:file": NGINX_FILE}
    is_beside = scenario.tls or scenario.http2 or scenario.name == "file-10m"
    if not is_beside or scenario.app not in answers:
        raise LeftOut("")
    return nginx_command(scenario, place, port, answers[scenario.app])


def nginx_and_mlws(scenario: Scenario, place: Place, port: int) -> list[str]:
    """What our own TLS and HTTP/2 replace: nginx in front of mlws, on the same core."""
    if not scenario.tls and not scenario.http2:
        raise LeftOut("")
    socket = f"{place.scratch}/mlws-{port}"
    upstream = f"upstream app {{ server unix:{socket}; keepalive 512; }}"
    front = nginx_command(scenario, place, port, NGINX_PROXY, upstream)
    ours = mlws(replace(scenario, tls=False, http2=False), place, port)
    ours[ours.index("--bind") + 1] = f"unix:{socket}"
    script = f"{shlex.join(ours)} & until [ -S {socket} ]; do sleep 0.01; done; {shlex.join(front)} & wait"
    return ["sh", "-c", f"trap 'trap - TERM; kill 0' TERM; {script}"]


def nginx_command(
    scenario: Scenario, place: Place, port: int, location: str, upstream: str = ""
) -> list[str]:
    program = which("nginx", path="/usr/sbin:/usr/local/sbin:" + place.environment()["PATH"])
    if not program:
        raise LeftOut("not installed; Debian: apt install nginx-light")
    listen = f"127.0.0.1:{port} backlog=2048"
    if scenario.tls:
        listen += f" ssl; ssl_certificate {place.certificate}; ssl_certificate_key {place.key}"
    if scenario.http2:
        listen = listen.replace("backlog", "http2 backlog")
    words = {"LISTEN": listen, "LOCATION": location, "UPSTREAM": upstream}
    words |= {"FOLDER": str(place.scratch), "IDLE": str(IDLE_SECONDS)}
    text = NGINX
    for word, value in words.items():
        text = text.replace(word, value)
    settings = place.scratch / f"nginx-{port}.conf"
    settings.write_text(text)
    return [program, "-c", str(settings), "-e", str(place.scratch / "nginx-error.log")]


NGINX_HELLO = r'default_type text/plain; return 200 "Hello, World!\n";'
NGINX_FILE = "root FOLDER; try_files /file =404;"
NGINX_PROXY = 'proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";'
# A session cache, because without one nginx resumes no session of TLS 1.2. The limits are those of the scenarios.
NGINX = """
daemon off; master_process off; pid FOLDER/nginx.pid; error_log FOLDER/nginx-error.log;
worker_rlimit_nofile 20000;
events { worker_connections 8192; }
http {
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout IDLE;
    client_max_body_size 0; proxy_request_buffering off; http2_max_concurrent_streams 128;
    ssl_session_cache shared:sessions:10m;
    client_body_temp_path FOLDER/nginx-body; proxy_temp_path FOLDER/nginx-proxy; fastcgi_temp_path FOLDER/nginx-fcgi;
    uwsgi_temp_path FOLDER/nginx-uwsgi; scgi_temp_path FOLDER/nginx-scgi;
    UPSTREAM
    server { listen LISTEN; location = / { LOCATION } }
}
"""


def epoll(scenario: Scenario, place: Place, port: int) -> list[str]:
    if scenario.floor is not Floor.EPOLL:
        raise LeftOut("")
    body = 0 if scenario.app == "raw:hello" else len(scenario.answer)
    return [str(BENCH / ".build/epoll"), str(port), str(body)]


KEEPS = frozenset({"keep-alive"})
SECURE = frozenset({"TLS", "HTTP/2"})
EVERYTHING = SECURE | {"threads", "workers", "preload", "fork", "keep-alive"}

SERVERS = [
    Server("mlws", Role.OURS, mlws, "mylittlewebserver", EVERYTHING),
    Server("mlws without Python", Role.BESIDE, mlws_rust, None, EVERYTHING),
    Server("granian", Role.RIVAL, granian, "granian", KEEPS | SECURE | {"threads", "workers"}),
    Server("fastwsgi", Role.RIVAL, embedded("fastwsgi"), "fastwsgi", KEEPS),
    Server("fastpysgi", Role.RIVAL, embedded("fastpysgi"), "fastpysgi", KEEPS),
    Server("bjoern", Role.RIVAL, embedded("bjoern"), "bjoern", KEEPS),
    Server("uwsgi", Role.RIVAL, uwsgi, "uwsgi", frozenset({"threads", "workers", "preload"})),
    Server("gunicorn sync", Role.RIVAL, gunicorn_sync, "gunicorn", frozenset({"workers", "preload", "TLS"})),
    Server(
        "gunicorn gthread",
        Role.RIVAL,
        gunicorn_gthread,
        "gunicorn",
        KEEPS | SECURE | {"threads", "workers", "preload"},
    ),
    Server("hypercorn", Role.RIVAL, hypercorn, "hypercorn", KEEPS | SECURE | {"threads", "workers"}),
    Server("cheroot", Role.RIVAL, embedded("cheroot"), "cheroot", KEEPS | {"threads"}),
    Server("waitress", Role.RIVAL, waitress, "waitress", KEEPS | {"threads"}),
    Server("nginx", Role.BESIDE, nginx, None, EVERYTHING),
    Server("nginx + mlws", Role.BESIDE, nginx_and_mlws, None, EVERYTHING),
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
