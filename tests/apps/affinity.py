"""Records on which thread, and in which context, each part of a request runs.

Each event is a line of JSON in the file that AFFINITY_RECORD names, in the order in which the events
happened. The hooks and the log handler are those of `affinity_config.py`.
"""

import contextvars
import io
import json
import logging
import os
import tempfile
import threading
import time
from urllib.parse import parse_qsl

PIECE = 16384
PATIENCE = 60
"""Seconds after which an application stops waiting for its test."""

user = contextvars.ContextVar("user", default="nobody")
"""Set in the call, and never reset."""
login = contextvars.ContextVar("login", default="nobody")
"""Set in the call, and reset in `close()`."""
trace = contextvars.ContextVar("trace", default="nobody")
"""Set by `pre_request`."""


def record(what, name, **facts):
    event = {
        "what": what,
        "id": name,
        "process": os.getpid(),
        "thread": threading.get_ident(),
        "user": user.get(),
        "trace": trace.get(),
        **facts,
    }
    file = os.open(os.environ["AFFINITY_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, json.dumps(event).encode() + b"\n")
    os.close(file)


def asked(query):
    return dict(parse_qsl(query))


def piece(name, number):
    """Each chunk is unique, within this response and among all others."""
    return (f"{name}:{number};".encode() * PIECE)[:PIECE]


class Request:
    def __init__(self, query):
        self.name = query["id"]
        self.count = int(query.get("pieces", "1"))
        self.hold = query.get("hold")
        self.fails = "fails" in query
        self.seen = None
        self.token = login.set(self.name)
        user.set(self.name)

    def note(self, what):
        """Chunks are recorded only if something differs from the previous chunk, which keeps the record short."""
        seen = (what, os.getpid(), threading.get_ident(), user.get(), trace.get(), login.get())
        if seen != self.seen or what not in ("piece", "write"):
            self.seen = seen
            record(what, self.name, login=login.get())

    def pieces(self, what="piece", start=0):
        for number in range(start, self.count):
            self.note(what)
            yield piece(self.name, number)
            if number == start:
                self.wait()
                if self.fails:
                    raise ValueError("fails midway")
        if what == "piece":
            self.note("exhausted")

    def wait(self):
        """Waits until the test creates the file."""
        if self.hold:
            record("held", self.name)
            end = time.monotonic() + PATIENCE
            while not os.path.exists(self.hold) and time.monotonic() < end:
                time.sleep(0.005)

    def close(self):
        try:
            login.reset(self.token)
            same = True
        except ValueError:  # "was created in a different Context"
            same = False
        record("close", self.name, same_context=same)


class Closing:
    """Adds `close()` to a class of iterables."""

    def close(self):
        self.request.close()


class ClosingList(Closing, list):
    pass


class ClosingTuple(Closing, tuple):
    pass


class Iterator(Closing):
    def __init__(self, request, start=0):
        self.request, self.pieces = request, request.pieces(start=start)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.pieces)


def of(kind, request, start=0):
    made = kind(piece(request.name, number) for number in range(start, request.count))
    made.request = request
    return made


def generator(request, start=0):
    try:
        yield from request.pieces(start=start)
    finally:
        request.close()


def memory_file(request, start=0):
    """A file without a descriptor."""
    pieces = request.pieces(start=start)

    class File(io.BytesIO):
        def read(self, size=-1):
            return next(pieces, b"")

        def close(self):
            request.close()

    return File()


def descriptor_file(request, start=0):
    """A regular file, which the server may send with sendfile."""
    directory = os.path.dirname(os.environ["AFFINITY_RECORD"])
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as made:
        made.writelines(piece(request.name, number) for number in range(start, request.count))
    file = open(made.name, "rb")  # noqa: SIM115 - the server closes it
    os.unlink(made.name)

    def close():
        request.close()
        type(file).close(file)

    file.close = close
    return file


def wrapped(environ, file):
    return environ["wsgi.file_wrapper"](file, PIECE)


def writing(start, request, rest):
    """Half of the chunks by `write()`, and the others as `rest` returns them."""
    half = Request.__new__(Request)
    half.__dict__.update(request.__dict__, count=request.count // 2)
    for data in half.pieces("write"):
        start(data)
    request.hold, request.fails = None, False
    return rest(request, half.count)


def nothing_more(request, start):
    for data in request.pieces("write", start):
        request.write(data)
    return of(ClosingList, request, request.count)


def beating(request):
    """A chunk at intervals, until the test creates the file."""
    try:
        end = time.monotonic() + PATIENCE
        while not os.path.exists(request.hold) and time.monotonic() < end:
            request.note("piece")
            yield b"."
            time.sleep(0.02)
    finally:
        request.close()


RESPONSES = {
    "list": lambda _, __, request: of(ClosingList, request),
    "tuple": lambda _, __, request: of(ClosingTuple, request),
    "generator": lambda _, __, request: generator(request),
    "iterator": lambda _, __, request: Iterator(request),
    "file": lambda environ, _, request: wrapped(environ, descriptor_file(request)),
    "memory file": lambda environ, _, request: wrapped(environ, memory_file(request)),
    "write": lambda _, write, request: writing(write, request, nothing_more),
    "write and list": lambda _, write, request: writing(write, request, lambda *rest: of(ClosingList, *rest)),
    "write and generator": lambda _, write, request: writing(write, request, generator),
    "write and file": lambda environ, write, request: writing(
        write, request, lambda *rest: wrapped(environ, descriptor_file(*rest))
    ),
    "beat": lambda _, __, request: beating(request),
}
"""Functions by the type of response that they return."""


def app(environ, start_response):
    query = asked(environ["QUERY_STRING"])
    record("call", query["id"])
    request = Request(query)
    headers = [("Content-Type", "text/plain")]
    if "length" in query:
        headers.append(("Content-Length", str(request.count * PIECE)))
    request.write = start_response("200 OK", headers)
    return RESPONSES[query.get("response", "list")](environ, request.write, request)


class AccessLog(logging.Handler):
    def emit(self, log_record):
        record("access", asked(log_record.args["q"])["id"])
