"""Apps for fault tests: they loop, or record that they were called and closed."""

import signal

from .tools import TEXT, Body, note


def spin(environ, start_response):
    """An endless loop in a process that ignores all signals."""
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_IGN)
    while True:
        pass


def spin_midway(environ, start_response):
    start_response("200 OK", [TEXT])
    yield b"first\n"
    while True:
        pass


def stream(environ, start_response):
    """An endless response that records its start and its close."""
    start_response("200 OK", [TEXT])
    note(environ, "began")

    def pieces():
        while True:
            yield b"s" * 4096

    return Body(environ, pieces())


def long(environ, start_response):
    """More than a socket buffers."""
    start_response("200 OK", [TEXT, ("Content-Length", str(128 * 4096))])
    for _ in range(128):
        yield b"l" * 4096


def noted(environ, start_response):
    """A short response that records its start and its close."""
    start_response("200 OK", [TEXT])
    note(environ, "began")
    return Body(environ, [b"one ", b"two"])
