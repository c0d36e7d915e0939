"""Compatibility with gunicorn: the same command lines and config files have the same effect."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap

import mylittlewebserver
import pytest
from harness import APPS
from pairs import MAKES, Case, compare

HOST_OF = {make: f"127.0.0.{2 + number}" for number, make in enumerate(MAKES)}
SOCKET = ("--bind", "127.0.0.1:0")
SYNC = ("--worker-class", "sync")
# Requests and responses

REQUESTS = {
    "a GET": "GET /request?a=1&b=%20%C3%A9 HTTP/1.1\r\nHost: shop.test\r\nAccept: a\r\naccept: b\r\nCookie: a=1\r\nCookie: b=2\r\nX-Empty:\r\n\r\n",
    "HTTP/1.0": "GET /request HTTP/1.0\r\n\r\n",
    "HEAD": "HEAD /request HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "an escaped path": "GET /%72equest/../request HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "an absolute target": "GET http://other.test/request?x HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "a POST": "POST /request HTTP/1.1\r\nHost: shop.test\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": "POST /request HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    "a proxy's headers": "GET /request HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 10.0.0.9\r\nX_Forwarded_Host: evil\r\n\r\n",
    "a port": "GET /request HTTP/1.1\r\nHost: shop.test:8080\r\nConnection: close\r\n\r\n",
    "no page": "GET /missing HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "pieces": "GET /pieces HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "pieces for HTTP/1.0": "GET /pieces HTTP/1.0\r\n\r\n",
    "write()": "GET /writes HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "early hints": "GET /hints HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "early hints for HTTP/1.0": "GET /hints HTTP/1.0\r\n\r\n",
    "cookies": "GET /cookies HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "a padded length": "GET /padded HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "status 600": "GET /status?600 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "status 999": "GET /status?999 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "204": "GET /nothing HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "304": "GET /unchanged HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "a file": "GET /file HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "a failure": "GET /fails HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "a late failure": "GET /late HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "a header with a line end": "GET /splits HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "two lengths": "POST /request HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a length and chunks": "POST /request HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no Host": "GET /request HTTP/1.1\r\n\r\n",
    "a space before the colon": "GET /request HTTP/1.1\r\nHost : shop.test\r\n\r\n",
    "a folded header": "GET /request HTTP/1.1\r\nHost: shop.test\r\nX-Folded: one\r\n two\r\n\r\n",
    "a bare line feed": "GET /request HTTP/1.1\nHost: shop.test\n\n",
    "a small method": "get /request HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "HTTP/2.0": "GET /request HTTP/2.0\r\nHost: shop.test\r\n\r\n",
    "a long line": f"GET /request?{'a' * 9000} HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "a long header": f"GET /request HTTP/1.1\r\nHost: shop.test\r\nX-Long: {'a' * 9000}\r\n\r\n",
    "many headers": "GET /request HTTP/1.1\r\nHost: shop.test\r\n" + "X: y\r\n" * 101 + "\r\n",
    "an expectation": "POST /request HTTP/1.1\r\nHost: shop.test\r\nExpect: more\r\nContent-Length: 0\r\n\r\n",
    "CONNECT": "CONNECT shop.test:80 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    "OPTIONS *": "OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n",
}


REFUSED = (
    "a failure",
    "a header with a line end",
    "two lengths",
    "a length and chunks",
    "a space before the colon",
    "a folded header",
    "a bare line feed",
    "a long line",
    "a long header",
    "many headers",
    "an expectation",
)


def client(server):
    """The response to each request; for the mirror, each key of the environ."""
    seen = {}
    server.ready()
    for name, request in REQUESTS.items():
        with server.wire() as wire:
            wire.send(request.encode("latin-1"))
            answer = wire.answer(request.split()[0])
            if answer.status == 103:
                seen[f"{name}: hints"] = answer.headers
                answer = wire.answer()
        headers = sorted((key.lower(), value.strip()) for key, value in answer.headers)
        seen[f"{name}: status"] = answer.status
        seen[f"{name}: reason"] = answer.reason
        seen[f"{name}: framing"] = answer.framing
        ours = ("server", "date", "connection", "content-length")
        seen[f"{name}: headers"] = [header for header in headers if header[0] not in ours]
        seen["connection"] = [*seen.get("connection", []), answer.header("connection")]
        if answer.status == 200 and answer.body.startswith(b"{"):
            facts = json.loads(answer.body)
            seen.update(
                {f"{name}: environ {key}": comparable(server, key, value) for key, value in facts.items()}
            )
        elif answer.status < 400:
            seen[f"{name}: body"] = answer.body
    return seen


def comparable(server, key, value):
    """Omits what differs between two runs of one server."""
    if key == "REMOTE_PORT":
        return re.sub("[0-9]+", "N", str(value))
    return str(value).replace(str(server.port), "PORT")


OF_CLIENT = {
    "connection": "connections",
    "*: environ SERVER_SOFTWARE": "names itself",
    "*: environ gunicorn.socket": "extras",
    "*: environ REQUEST_URI": "extras",
    "*: environ mylittlewebserver.client_gone": "extras",
    "a GET: environ HTTP_COOKIE": "cookies",
    "an absolute target: environ HTTP_HOST": "absolute",
    "chunks: environ CONTENT_LENGTH": "chunked length",
    "chunks: environ HTTP_TRANSFER_ENCODING": "chunked length",
    "cookies: framing": "known length",
    "cookies: headers": "known length",
    "a file: framing": "known length",
    "a file: headers": "known length",
    **{f"{name}: headers": "error pages" for name in REQUESTS if name in REFUSED},
    "no Host: *": "strict",
    "CONNECT: *": "strict",
    "a small method: *": "methods",
    "HTTP/2.0: *": "versions",
}


# The same server, made as lenient by a file that gunicorn does not read.
LESS_STRICT = {pattern: why for pattern, why in OF_CLIENT.items() if why != "strict"}

BORROWER = """
import logging
from facts import application
theirs, ours = logging.getLogger("gunicorn.error"), logging.getLogger("shop")
ours.handlers, ours.level = theirs.handlers, theirs.level
ours.info("shop: borrowed")
"""


def borrowed(server):
    """Flask applications often log to the handlers of gunicorn."""
    seen = {"status": server.ready().get("/pid").status}
    server.ends()
    return {**seen, "logged": "shop: borrowed" in server.output()}


def behind_proxy(server):
    """The scheme of a request that the proxy received over HTTPS."""
    answer = server.ready().get("/request", headers="X-Forwarded-Proto: https\r\n")
    return {"scheme": json.loads(answer.body)["wsgi.url_scheme"], "status": server.ends()}


UNIX = ("--bind", "unix:app.sock")

# Options

FOUND = "gunicorn.conf.py"
FACTS = (APPS / "facts.py").read_text()


def started(workers):
    def look(server):
        server.ready()
        if server.addresses == ["gone"]:
            return {"status": server.wait()}
        answer = server.get("/process")
        seen = {
            "workers": server.number(workers),
            "addresses": [
                address.replace(str(server.port), "N").replace(HOST_OF[server.make], "HOST")
                for address in server.addresses
            ],
            "answer": [answer.status, answer.header("x-greeting")],
            "answers everywhere": [
                server.get("/process", address=address).status for address in server.addresses
            ],
            "files": server.files(),
        }
        if answer.header("x-greeting") is None:
            facts = json.loads(answer.body)
            own = facts.pop("module path")
            facts["module path"] = [
                directory.replace(str(server.directory), "")
                for directory in own
                if str(server.directory) in directory
            ]
            seen.update({f"process: {key}": value for key, value in facts.items()})
        seen["pidfile"] = [
            path.read_text().strip() == str(server.pid) for path in server.directory.glob("*.pid")
        ]
        server.get("/cookies")
        seen["status"] = server.ends()
        seen["access"] = [
            re.sub(r"\[.*?\]", "[]", line)
            for path in server.directory.glob("access.log")
            for line in path.read_text().splitlines()
            if "/cookies" in line
        ]
        seen["files at the end"] = server.files()
        return seen

    return look


def start(*words, workers=1, app="facts", bind=SOCKET, differs=None, **how):
    """A server that has started, with that number of workers."""
    return Case([word for word in (app, *bind, *words) if word], started(workers), differs, **how)


STARTS = {
    "nothing but an address": start(),
    "workers and threads": start(
        "-w", "3", "--threads", "2", workers=3, differs={"process: main thread": "main thread"}
    ),
    "prefixes of options": start(
        "--worker-cl=sync",
        "--prel",
        "--pi",
        "app.pid",
        env={"GUNICORN_CMD_ARGS": "--max-requests-j 5 --access-logfi access.log"},
        differs={"files*": "log mode"},
    ),
    "an option twice": start("-w", "1", "--preload", "-w", "2", "--preload", workers=2),
    "gthread": start(
        "-k",
        "gthread",
        "--threads=3",
        "--worker-connections",
        "100",
        differs={"process: main thread": "main thread"},
    ),
    "all the usual options": start(
        "--backlog=64",
        "--max-requests=1000",
        "--max-requests-jitter=50",
        "--timeout=60",
        "--graceful-timeout=5",
        "--keep-alive=3",
        "--limit-request-line=4094",
        "--limit-request-fields=50",
        "--limit-request-field_size=4000",
        "--no-sendfile",
        "--log-level=debug",
        "--name=shop",
        "--worker-tmp-dir=/tmp",
    ),
    "WEB_CONCURRENCY": start(env={"WEB_CONCURRENCY": "2"}, workers=2),
    "WEB_CONCURRENCY with white space": start(env={"WEB_CONCURRENCY": " 2"}, workers=2),
    "WEB_CONCURRENCY and --workers": start("--workers=1", env={"WEB_CONCURRENCY": "2"}),
    "PORT": start(bind=(), env={"PORT": "PORT!"}),
    "PORT and --bind": start(bind=("-b", "127.0.0.1:PORT!"), env={"PORT": "1"}),
    "a host without a port": start(bind=("-b", "HOST!")),
    "a port alone": start(bind=("-b", ":PORT!")),
    "addresses as a list": start(bind=(), files={FOUND: "bind = ['127.0.0.1:PORT!', 'unix:app.sock']"}),
    "addresses with commas": start(
        bind=(), files={FOUND: "bind = '127.0.0.1:PORT!,unix:app.sock'"}, differs={"*": "commas"}
    ),
    "several addresses": start(bind=("-b", "unix:one.sock", "-b", "unix:two.sock")),
    "a socket and a mask": start(
        "--umask", "0o027", bind=("-b", "unix:app.sock"), differs={"process: umask": "umask"}
    ),
    "a mask in a file": start(
        files={FOUND: "umask = 0o077"}, bind=("-b", "unix:app.sock"), differs={"process: umask": "umask"}
    ),
    "a descriptor": start(
        bind=("-b", "fd://9"),
        launcher=(
            "python3",
            "-c",
            "import os, socket, sys; s = socket.create_server(('127.0.0.1', 0));"
            "os.dup2(s.fileno(), 9); os.execv(sys.argv[1], sys.argv[1:])",
        ),
    ),
    "another directory": start("--chdir", "sub", files={"sub/facts.py": FACTS}),
    "another directory in a file": start(files={FOUND: "chdir = 'sub'", "sub/facts.py": FACTS}),
    "directories of modules": start("--pythonpath", "one,two", files={"one/a.py": "", "two/a.py": ""}),
    "a mask from the shell": start(
        launcher=("sh", "-c", 'umask 0037; exec "$@"', "-"), bind=("-b", "unix:app.sock")
    ),
    "a module alone": start(app="facts:application"),
    "a factory": start(app="facts:create_app('hello', loud=True)"),
    "an app in a file": start(app=None, files={FOUND: "wsgi_app = 'facts:application'"}),
    "a file of another name": start(
        "-c", "web.py", files={"web.py": "workers = 2", FOUND: "workers = 3"}, workers=2
    ),
    "file:": start("-c", "file:web.py", files={"web.py": "workers = 2"}, workers=2),
    "python:": start("--config=python:conf.web", files={"conf/web.py": "workers = 2"}, workers=2),
    "a file that GUNICORN_CMD_ARGS names": start(
        env={"GUNICORN_CMD_ARGS": "-c web.py"}, files={"web.py": "workers = 2"}, workers=2
    ),
    "three layers": start(
        "--workers",
        "3",
        env={"GUNICORN_CMD_ARGS": "--workers 2 --umask '0o27'", "WEB_CONCURRENCY": "4"},
        files={FOUND: "workers = 1\numask = 0o77\nchdir = 'sub'", "sub/facts.py": FACTS},
        workers=3,
        differs={"process: umask": "umask"},
    ),
    "computed workers": start(
        files={FOUND: "import multiprocessing\nworkers = min(multiprocessing.cpu_count() * 2 + 1, 3)"},
        workers=3,
    ),
    "names of its own": start(
        files={
            FOUND: textwrap.dedent("""
                import os, logging
                from pathlib import Path
                env = os.environ.get("APP_ENV", "production")   # no pair of a name and a value
                app = object()
                name = ["no", "name"]
                pid = os.getpid()
                tmp_dir = Path("/nowhere")
                fork = os.fork
                WORKERS = 7
                log_level, preload, error_logfile = "verbose", True, "nowhere/error"
                class Config: workers = 5
                def helper(): return 2
                workers = helper()
            """)
        },
        workers=2,
    ),
    "numbers as text": start(
        files={FOUND: "workers = '2'\ntimeout = '45'\nthreads = '3'\nreload = 'false'"},
        workers=2,
        differs={"process: main thread": "main thread"},
    ),
    "nothing as a value": start(
        files={
            FOUND: "pidfile = user = group = accesslog = keyfile = certfile = worker_tmp_dir = None\nraw_env = []"
        }
    ),
    "preloaded": start("--preload", workers=2, files={FOUND: "workers = 2"}),
    "a pidfile": start("--pid", "app.pid"),
    "log files": start(
        "--access-logfile",
        "access.log",
        files={FOUND: "errorlog = 'error.log'"},
        differs={"files*": "log mode"},
    ),
    "a user": start("-u", "nobody", "-g", "65534"),
}


CASES = {
    "responses with threads": Case(("facts", *SOCKET, "--threads", "4"), client, OF_CLIENT),
    "responses with sync": Case(("facts", *SOCKET, *SYNC), client, OF_CLIENT),
    "responses with --http-compat gunicorn": Case(
        ("facts", *SOCKET, *SYNC), client, LESS_STRICT, files={"mlws.toml": "http_compat = 'gunicorn'"}
    ),
    "borrowed handlers": Case(("borrows", *SOCKET), borrowed, files={"borrows.py": BORROWER}),
    "a proxy on a Unix socket": Case(("facts", *UNIX), behind_proxy, {"scheme": "unix peers"}),
    "a proxy on a private Unix socket": Case(("facts", *UNIX, "--umask", "007"), behind_proxy),
    "a proxy on a Unix socket and a star": Case(("facts", *UNIX, "--forwarded-allow-ips", "*"), behind_proxy),
    **STARTS,
}


@pytest.mark.parametrize("name", CASES)
def test_gunicorn_and_mlws_behave_the_same(name, seen):
    if name == "a user" and not everybody_can_import():
        pytest.skip("only root can change its user, which must be able to read Python")
    compare(seen(name), CASES[name].differs)


def everybody_can_import():
    readers = [["test", "-r", path] for path in (json.__file__, mylittlewebserver.__file__)]
    return os.geteuid() == 0 and not any(
        subprocess.run(reader, user="nobody", check=False).returncode for reader in readers
    )
