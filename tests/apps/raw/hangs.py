"""Apps that hang, or take their time. The line where each hangs says so behind it, for the test to find it."""

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
    """A whole answer at once; what hangs is `close()`."""

    class Slow(list):
        def close(self):
            threading.Event().wait(600)  # close

    start_response("200 OK", [TEXT, ("Content-Length", "6")])
    return Slow([b"early\n"])


def slow_pieces(environ, start_response):
    """No piece takes long."""
    start_response("200 OK", [TEXT])
    for _ in range(8):
        time.sleep(0.2)
        yield b"piece\n"


def writes(environ, start_response):
    """More than the buffers of a connection take."""
    write = start_response("200 OK", [TEXT])
    for _ in range(200):
        write(b"w" * 100_000)
    return []


def grows(environ, start_response):
    """Keeps so much memory for ever."""
    kept.append(bytearray(int(query(environ)["bytes"])))
    start_response("200 OK", [TEXT])
    return [b"grown\n"]


kept = []
