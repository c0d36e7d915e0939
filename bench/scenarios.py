"""The scenarios, each with its application, its load and the correct response.

`servers.py` has the servers that support a scenario, and their commands.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace
from enum import Enum

HELLO = b"Hello, World!\n"
TEN_KB = bytes(32 + i % 95 for i in range(10 << 10))
STREAMED = bytes(32 + i % 95 for i in range(1 << 10)) * 100
POSTED_10_KB = random.Random(1).randbytes(10 << 10)
POSTED_10_MB = random.Random(2).randbytes(10 << 20)
FILE_10_MB = random.Random(3).randbytes(10 << 20)
POSTED_100_MB = POSTED_10_MB * 10
SUM = b"%d\n" % sum(range(40_000))


class Kind(Enum):
    """How a scenario is measured, which determines its figures."""

    LOAD = "requests under load"
    START = "time from start to first answer"
    MEMORY = "memory after some load"
    IDLE = "memory per idle connection"
    BURST = "time for all requests of one connection"


class Handshakes(Enum):
    """A new connection for each request."""

    FULL = "full handshakes"
    RESUMED = "resumed handshakes"


class Floor(Enum):
    """A baseline that no server can beat, measured beside the servers."""

    EPOLL = "bare epoll loop"
    CALL = "app in a plain loop"
    FORK = "bare fork loop"
    FORK_WARM = "bare fork loop, warmed"
    IMPORT = "python -c 'import app'"
    HOLD = "interpreter with the app"


@dataclass(frozen=True)
class Scenario:
    """`answer` is the correct response to `path` with the body `posted`. The load itself always requests /."""

    name: str
    what: str
    app: str
    answer: bytes
    kind: Kind = Kind.LOAD
    connections: int = 64
    threads: int = 1
    workers: int = 1
    preload: bool = False
    fork: bool = False
    warm: bool = False  # the application has been called once before the forks
    posted: bytes = b""
    path: str = "/"
    floor: Floor | None = None
    ideal: float | None = None  # the requests/s that the sleeping application permits
    tls: bool = False
    http2: bool = False
    streams: int = 1  # concurrent requests of each connection, for HTTP/2
    handshakes: Handshakes | None = None


hello = Scenario("hello-64", "hello, 64 connections", "raw:hello", HELLO, floor=Floor.EPOLL)
flask = Scenario("flask", "Flask", "flask_app:app", b"Hi from Flask!\n", floor=Floor.CALL)
sleep = Scenario("", "", "raw:sleep", HELLO, connections=512)
upload = Scenario(
    "upload-10m",
    "10 MB upload, 8 connections",
    "raw:upload",
    f"{len(POSTED_10_MB)} {hashlib.sha256(POSTED_10_MB).hexdigest()}\n".encode(),
    connections=8,
    posted=POSTED_10_MB,
    path="/?digest",
)
file = Scenario(
    "file-10m", "10 MB file by wsgi.file_wrapper, 8 connections", "raw:file", FILE_10_MB, connections=8
)
fork_hello = replace(hello, fork=True, connections=16, floor=Floor.FORK)
fork_flask = replace(flask, fork=True, connections=16, floor=Floor.FORK)

secure_hello = replace(hello, tls=True, floor=None)
http2_hello = replace(hello, http2=True, streams=32, floor=None)
burst = Scenario("", "", "raw:wait", HELLO, kind=Kind.BURST, connections=1, threads=8, http2=True, streams=16)

ENCRYPTED = [
    replace(secure_hello, name="tls-hello-64", what="hello over TLS, 64 connections"),
    replace(
        secure_hello,
        name="tls-full",
        what="a full TLS handshake for each request",
        handshakes=Handshakes.FULL,
        connections=4,
    ),
    replace(
        secure_hello,
        name="tls-resumed",
        what="a resumed TLS session for each request",
        handshakes=Handshakes.RESUMED,
        connections=4,
    ),
    replace(file, name="tls-file-10m", what="10 MB file over TLS, 8 connections", tls=True),
    replace(
        upload,
        name="tls-upload-100m",
        what="100 MB upload over TLS, 2 connections",
        answer=f"{len(POSTED_100_MB)} {hashlib.sha256(POSTED_100_MB).hexdigest()}\n".encode(),
        connections=2,
        posted=POSTED_100_MB,
        tls=True,
    ),
    replace(
        secure_hello,
        name="tls-idle-2k",
        what="hello, 2,000 idle keep-alive connections with TLS",
        kind=Kind.IDLE,
        connections=2_000,
    ),
]

HTTP2 = [
    replace(
        http2_hello, name="h2c-hello", what="hello over HTTP/2 without TLS, 64 connections, 32 streams each"
    ),
    replace(
        http2_hello, name="h2-hello", what="hello over HTTP/2, 64 connections, 32 streams each", tls=True
    ),
    replace(burst, name="h2c-burst", what="16 streams of one connection without TLS, 200 ms each, 8 threads"),
    replace(burst, name="h2-burst", what="16 streams of one connection, 200 ms each, 8 threads", tls=True),
    replace(
        http2_hello,
        name="h2-idle-2k",
        what="hello, 2,000 idle HTTP/2 connections with TLS",
        kind=Kind.IDLE,
        connections=2_000,
        streams=1,
        tls=True,
    ),
]

SCENARIOS = [
    replace(hello, name="hello-1", what="hello, 1 connection", connections=1),
    hello,
    replace(hello, name="hello-512", what="hello, 512 connections", connections=512),
    replace(hello, name="reply-10k", what="10 KB reply", app="raw:reply", answer=TEN_KB),
    Scenario("echo-10k", "10 KB echo, read in 4 KB pieces", "raw:echo", POSTED_10_KB, posted=POSTED_10_KB),
    Scenario("stream-100x1k", "100 chunks of 1 KB, no Content-Length", "raw:stream", STREAMED),
    flask,
    Scenario("django", "Django", "hi.wsgi:application", b"Hi from Django!\n", floor=Floor.CALL),
    Scenario("pyramid", "Pyramid", "pyramid_app:app", b"Hi from Pyramid!\n", floor=Floor.CALL),
    replace(hello, name="hello-4t", what="hello, 4 threads", threads=4),
    replace(hello, name="hello-64t", what="hello, 64 threads", threads=64),
    replace(flask, name="flask-4t", what="Flask, 4 threads", threads=4),
    replace(flask, name="flask-64t", what="Flask, 64 threads", threads=64),
    replace(
        sleep, name="sleep-128t", what="10 ms sleep, 128 threads, 512 connections", threads=128, ideal=12_800
    ),
    replace(
        sleep, name="sleep-512t", what="10 ms sleep, 512 threads, 512 connections", threads=512, ideal=51_200
    ),
    Scenario("cpu-1ms-4t", "1 ms of pure Python, 4 threads", "raw:cpu", SUM, threads=4, floor=Floor.CALL),
    upload,
    file,
    replace(fork_hello, name="fork-hello", what="hello, a fork for each request"),
    replace(
        fork_hello,
        name="fork-hello-warm",
        what="hello, a fork for each request, warmed",
        warm=True,
        floor=Floor.FORK_WARM,
    ),
    replace(fork_flask, name="fork-flask", what="Flask, a fork for each request"),
    replace(
        fork_flask,
        name="fork-flask-warm",
        what="Flask, a fork for each request, warmed",
        warm=True,
        floor=Floor.FORK_WARM,
    ),
    replace(
        flask, name="start", what="Flask, from start to first answer", kind=Kind.START, floor=Floor.IMPORT
    ),
    replace(flask, name="memory-1", what="memory with Flask, 1 worker", kind=Kind.MEMORY, floor=Floor.HOLD),
    replace(
        flask,
        name="memory-8-preload",
        what="memory with Flask, 8 workers, preloaded",
        kind=Kind.MEMORY,
        workers=8,
        preload=True,
        floor=None,
    ),
    replace(
        hello,
        name="idle-10k",
        what="hello, 10,000 idle keep-alive connections",
        kind=Kind.IDLE,
        connections=10_000,
        floor=None,
    ),
    *ENCRYPTED,
    *HTTP2,
]
