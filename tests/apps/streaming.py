"""Large responses, long streams, uploads, and forks: `/NAME?...` runs the function of that name.

Tests and apps wait for files: `record` has a line for each response that was closed, `progress`
the bytes that were produced so far, `until` is made by the test.
"""

import hashlib
import io
import os
import sys
import tempfile
import threading
import time
from urllib.parse import parse_qsl

PIECE = 65536
PATIENCE = 60
"""Seconds after which an app stops waiting for its test."""
TEXT = ("Content-Type", "text/plain")


def piece(name, number):
    """Each chunk is unique, within this response and among all others."""
    return (f"{name}:{number};".encode() * PIECE)[:PIECE]


def pieces(name, size):
    for start in range(0, size, PIECE):
        yield piece(name, start // PIECE)[: size - start]


def content(name, size):
    return b"".join(pieces(name, size))


def add_line(path, line):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode() + b"\n")
    os.close(file)


def wait_for(path):
    end = time.monotonic() + PATIENCE
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.005)


class Closing:
    """An iterable whose `close()` runs a function."""

    def __init__(self, iterable, close):
        self.iterable, self.close = iterable, close

    def __iter__(self):
        return iter(self.iterable)


class ClosingList(list):
    pass


def whole(body, close):
    made = ClosingList(body)
    made.close = close
    return made


def application(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response, query)


def hello(environ, start_response, query):
    start_response("200 OK", [TEXT, ("Content-Length", "6")])
    return [b"hello\n"]


def large(environ, start_response, query):
    """The content of this `name` and `size`, as a response of this `type`."""
    name, size, kind = query["name"], int(query["size"]), query["type"]

    def close():
        if "record" in query:
            add_line(query["record"], f"closed {name}")

    length = [("Content-Length", str(size))] if "length" in query else []
    write = start_response("200 OK", [TEXT, *length])
    if kind == "bytes":
        return whole([content(name, size)], close)
    if kind == "list":
        return whole(pieces(name, size), close)
    if kind == "stream":
        return Closing(counted(name, size, query.get("progress")), close)
    if kind == "write":
        for data in counted(name, size, query.get("progress")):
            write(data)
        return whole([], close)
    if kind == "file":
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
        file.writelines(pieces(name, size))
        file.seek(0)
    else:
        file = io.BytesIO(content(name, size))
    file.close = lambda: (type(file).close(file), close())
    if "first" in query:
        write(query["first"].encode())
    return environ["wsgi.file_wrapper"](file, PIECE)


def counted(name, size, progress):
    """Writes to the file how many bytes have been requested so far."""
    file, sent = os.open(progress, os.O_WRONLY | os.O_CREAT) if progress else None, 0
    try:
        for data in pieces(name, size):
            sent += len(data)
            if file is not None:
                os.pwrite(file, b"%12d" % sent, 0)
            yield data
    finally:
        if file is not None:
            os.close(file)


def rows(environ, start_response, query):
    """Small rows, as fast as possible, until the test has seen enough or there are `count`."""
    start_response("200 OK", [TEXT])
    for number in range(int(query["count"])):
        yield b"%d,some,columns,of,a,row,that,is,not,long\n" % number
        if number % 1000 == 0 and os.path.exists(query["until"]):
            return


def upload(environ, start_response, query):
    """Size and hash of the request's body."""
    seen, size = hashlib.sha256(), 0
    while data := environ["wsgi.input"].read(PIECE):
        seen.update(data)
        size += len(data)
    start_response("200 OK", [TEXT])
    return [f"{size} {seen.hexdigest()}".encode()]


def slow_close(environ, start_response, query):
    """A complete response; `close()` waits for the file `until`."""

    def close():
        add_line(query["record"], f"closing {query['name']}")
        wait_for(query["until"])
        add_line(query["record"], f"closed {query['name']}")

    start_response("200 OK", [TEXT, ("Content-Length", "6")])
    return Closing([b"early\n"], close)


def short_close(environ, start_response, query):
    """A complete response; `close()` releases the GIL for a moment."""
    start_response("200 OK", [TEXT, ("Content-Length", "6")])
    return Closing([b"early\n"], lambda: time.sleep(0.001))


# Slow streams.


def empty_chunks(environ, start_response, query):
    """Nothing but empty chunks between the first and the last."""
    start_response("200 OK", [TEXT])
    end = time.monotonic() + float(query["seconds"])
    yield b"working "
    while time.monotonic() < end:
        time.sleep(0.02)
        yield b""
    yield b"done"


def empty_chunks_until_closed(environ, start_response, query):
    """Only `close()` ends it."""
    start_response("200 OK", [TEXT])
    end = time.monotonic() + PATIENCE
    try:
        yield b"first\n"
        while time.monotonic() < end:
            time.sleep(0.005)
            yield b""
        add_line(query["record"], "gave up")
    finally:
        add_line(query["record"], "closed")


def events(environ, start_response, query):
    """Events, with a pause before each."""
    start_response("200 OK", [("Content-Type", query["content_type"])])
    for number in range(int(query["count"])):
        yield b"data: %d\n\n" % number
        time.sleep(float(query["pause"]))
    yield b"data: end\n\n"


published = []
news = threading.Condition()


def subscribe(environ, start_response, query):
    """Every event that is published, until `end` is."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    seen = len(published)
    yield b"data: hello\n\n"
    while True:
        with news:
            news.wait_for(lambda seen=seen: len(published) > seen, PATIENCE)
            word = published[seen]
        seen += 1
        yield b"data: %s\n\n" % word.encode()
        if word == "end":
            return


def publish(environ, start_response, query):
    with news:
        published.append(query["event"])
        news.notify_all()
    return hello(environ, start_response, query)


# Forks.


def fork_in_call(environ, start_response, query):
    """The child ends otherwise than by `os._exit()`; the response is its exit status."""
    if (pid := os.fork()) == 0:
        return end_child(query["how"], start_response)
    body = ended(pid)
    start_response("200 OK", [TEXT])
    return [body]


def fork_in_stream(environ, start_response, query):
    start_response("200 OK", [TEXT])
    yield b"first "
    if (pid := os.fork()) == 0:
        yield from end_child(query["how"], None)
        return
    yield ended(pid)


def end_child(how, start_response):
    if how == "exit":
        sys.exit(3)
    if how == "raise":
        raise ValueError("in the child")
    if start_response:
        start_response("200 OK", [TEXT])
    return [b"from the child"]


def ended(pid):
    """The exit status of the child, which must not go on serving."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return b"status %d" % os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return b"still there"
