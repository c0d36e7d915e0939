"""Large responses of every type, in which a misplaced byte is detected."""

import os
import tempfile
import threading

from .gates import pass_gate
from .tools import TEXT, Body, note, query


def content(environ):
    """Numbered lines of 8 bytes; their number is in the query."""
    return b"".join(b"%07d\n" % number for number in range(int(query(environ)["lines"])))


def chunks(data, size=10_000):
    return [data[start : start + size] for start in range(0, len(data), size)]


def file_of(data):
    file = tempfile.TemporaryFile()  # noqa: SIM115 the server closes it
    file.write(data)
    file.seek(0)
    return file


def whole(environ, start_response):
    data = content(environ)
    start_response("200 OK", [TEXT, ("Content-Length", str(len(data)))])
    return [data]


def pieces(environ, start_response):
    start_response("200 OK", [TEXT])
    return chunks(content(environ))


def generator(environ, start_response):
    start_response("200 OK", [TEXT])
    yield from chunks(content(environ))


def file(environ, start_response):
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](file_of(content(environ)))


def writes(environ, start_response):
    write = start_response("200 OK", [TEXT])
    for chunk in chunks(content(environ)):
        write(chunk)
    return []


def writes_then_file(environ, start_response):
    write = start_response("200 OK", [TEXT])
    data = content(environ)
    half = len(data) // 2
    write(data[:half])
    return environ["wsgi.file_wrapper"](file_of(data[half:]))


def closed(environ, start_response):
    """A generator that records its end."""
    start_response("200 OK", [TEXT])
    return Body(environ, chunks(content(environ)))


def endless(environ, start_response):
    """Continues until its client has disconnected."""

    def forever():
        while True:
            yield b"x" * 10_000

    start_response("200 OK", [TEXT])
    return Body(environ, forever())


def gated(environ, start_response):
    """All but the last line, then the gate, then the rest."""
    start_response("200 OK", [TEXT])
    yield from chunks(content(environ))
    pass_gate(query(environ)["gate"])
    yield b"end\n"


def dies(environ, start_response):
    """An endless repetition of all lines."""
    start_response("200 OK", [TEXT])
    yield from chunks(content(environ))
    note(environ, "dies")
    os._exit(1)


def raises(environ, start_response):
    start_response("200 OK", [TEXT])
    yield from chunks(content(environ))
    raise LookupError("on purpose")


def leaves_process(environ, start_response):
    """Leaves a process behind that has copies of all descriptors, including the one over which the response is sent."""
    start_response("200 OK", [TEXT])
    yield from chunks(content(environ))
    if os.fork() == 0:
        try:
            pass_gate(query(environ)["gate"])
        finally:
            os._exit(0)


def with_thread(environ, start_response):
    def job():
        pass_gate(query(environ)["gate"])
        note(environ, "done")

    threading.Thread(target=job).start()
    return whole(environ, start_response)
