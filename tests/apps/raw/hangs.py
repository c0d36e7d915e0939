"""Apps that hang or are slow. A comment marks the line where each one hangs, so that the test finds it."""

import ctypes
import threading
import time

from .tools import TEXT, note, query


def blocks(environ, start_response):
    """Other threads may run."""
    note(environ, "in")
    threading.Event().wait(600)  # blocks


def keeps_the_gil(environ, start_response):
    """No other thread may run."""
    note(environ, "in")
    while ctypes.PyDLL(None).sleep(600):  # keeps_the_gil
        pass


def stream(environ, start_response):
    start_response("200 OK", [TEXT])
    yield b"first\n"
    threading.Event().wait(600)  # stream


def closes(environ, start_response):
    """A complete response; `close()` hangs."""

    class Slow(list):
        def close(self):
            threading.Event().wait(600)  # close

    start_response("200 OK", [TEXT, ("Content-Length", "6")])
    return Slow([b"early\n"])


def slow_pieces(environ, start_response):
    """No single chunk takes long."""
    start_response("200 OK", [TEXT])
    for _ in range(8):
        time.sleep(0.2)
        yield b"piece\n"


def writes(environ, start_response):
    """More than the buffers of a connection hold."""
    write = start_response("200 OK", [TEXT])
    for _ in range(200):
        write(b"w" * 100_000)
    return []


def grows(environ, start_response):
    """Allocates memory and keeps it."""
    kept.append(bytearray(int(query(environ)["bytes"])))
    start_response("200 OK", [TEXT])
    return [b"grown\n"]


kept = []
