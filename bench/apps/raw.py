"""Applications without a framework, which cost almost nothing, so the figures are those of the server.

A scenario names a callable as `raw:hello`.
"""

import hashlib
import os
import time

HELLO = b"Hello, World!\n"
TEN_KB = bytes(32 + i % 95 for i in range(10 << 10))
PIECE = bytes(32 + i % 95 for i in range(1 << 10))
READ_AT_ONCE = 64 << 10

# Additions in one call of `cpu`: a millisecond of CPython 3.11 on the machine this was made on. The amount of work is
# fixed, not the time, so every server has to do the same.
ADDITIONS = 40_000


def answer(start_response, body):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def hello(environ, start_response):
    return answer(start_response, HELLO)


def reply(environ, start_response):
    return answer(start_response, TEN_KB)


def echo(environ, start_response):
    """Read the body in parts of 4 KB, like a form parser, and send it back."""
    read = environ["wsgi.input"].read
    missing = int(environ["CONTENT_LENGTH"])
    pieces = []
    while missing and (piece := read(min(4096, missing))):
        pieces.append(piece)
        missing -= len(piece)
    return answer(start_response, b"".join(pieces))


def stream(environ, start_response):
    """100 chunks of 1 KB, without a Content-Length."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (PIECE for _ in range(100))


def sleep(environ, start_response):
    time.sleep(0.010)
    return answer(start_response, HELLO)


def wait(environ, start_response):
    time.sleep(0.200)
    return answer(start_response, HELLO)


def cpu(environ, start_response):
    total = 0
    for number in range(ADDITIONS):
        total += number
    return answer(start_response, b"%d\n" % total)


def upload(environ, start_response):
    """Read the body and return its length; with `?digest`, which costs more, also its hash."""
    read = environ["wsgi.input"].read
    size = missing = int(environ["CONTENT_LENGTH"])
    digest = hashlib.sha256() if environ.get("QUERY_STRING") == "digest" else None
    while missing and (piece := read(min(READ_AT_ONCE, missing))):
        missing -= len(piece)
        if digest:
            digest.update(piece)
    lines = [str(size - missing)] + ([digest.hexdigest()] if digest else [])
    return answer(start_response, " ".join(lines).encode() + b"\n")


def file(environ, start_response):
    """The file BENCH_FILE, through the server's file_wrapper if it has one."""
    content = open(os.environ["BENCH_FILE"], "rb")  # noqa: SIM115 (the server closes it)
    size = os.fstat(content.fileno()).st_size
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))])
    if wrapper := environ.get("wsgi.file_wrapper"):
        return wrapper(content, READ_AT_ONCE)
    return pieces_of(content)


def pieces_of(content):
    with content:
        while piece := content.read(READ_AT_ONCE):
            yield piece
