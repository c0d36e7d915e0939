"""Apps that read a request's body while the client sends it, or ignore it."""

import contextlib
import hashlib
import signal

from .gates import pass_gate
from .inputs import make_calls
from .tools import TEXT, add_line, answer_json, note, query

CHUNKED = ("HTTP_TRANSFER_ENCODING", "CONTENT_LENGTH", "wsgi.input_terminated")


def ignores_body(environ, start_response):
    """Responds without reading the body."""
    start_response("401 Unauthorized", [TEXT, ("Content-Length", "3")])
    return [b"no\n"]


def described(environ, start_response):
    """Returns length and hash of the body, read in parts, and the environ keys that describe it."""
    note(environ, "called")
    seen, total = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(50_000):
        seen.update(piece)
        total += len(piece)
    framing = {key: environ.get(key) for key in CHUNKED}
    return answer_json(start_response, {"size": total, "sha256": seen.hexdigest(), "environ": framing})


def behind_gate(environ, start_response):
    """Reads after the test opens the gate."""
    pass_gate(query(environ)["gate"])
    body = environ["wsgi.input"].read()
    start_response("200 OK", [TEXT, ("Content-Length", str(len(body)))])
    return [body]


def calls(environ, start_response):
    """Like `inputs.calls`, and records when it is about to read."""
    note(environ, "called")
    return answer_json(
        start_response, make_calls(environ["wsgi.input"], SCRIPTS[int(query(environ)["script"])])
    )


SCRIPTS = [
    [["read"], ["read"], ["readline"], ["readlines"], ["iterate"]],
    [["read", 0], ["read", 1], ["read", 3], ["read", 100_000], ["read"]],
    [["read", 2], ["readline"], ["read", 3], ["readline"], ["readlines"]],
    [["readline", 2], ["readline", 1], ["readline", 1000], ["readline"], ["read"]],
    [["next"], ["next"], ["read", 4], ["iterate"], ["read"]],
    [["readlines"], ["read"]],
]


def first_bytes(environ, start_response):
    """Reads a part of the body only."""
    body = environ["wsgi.input"].read(int(query(environ)["size"]))
    start_response("200 OK", [TEXT, ("Content-Length", str(len(body)))])
    return [body]


def catches(environ, start_response):
    """Returns the exceptions that two reads raise."""
    note(environ, "called")
    caught = [error_of(environ["wsgi.input"].read) for _ in range(2)]
    note(environ, "\n".join(caught))
    return answer_json(start_response, caught)


def error_of(read):
    try:
        return f"{len(read())} bytes"
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def other_error(environ, start_response):
    """Raises another exception after reading has failed."""
    with contextlib.suppress(OSError):
        environ["wsgi.input"].read()
    raise KeyError("not the client's fault")


def echo_stream(environ, start_response):
    """Echoes each chunk as soon as it arrives."""
    start_response("200 OK", [TEXT])
    yield b"begun\n"
    while piece := environ["wsgi.input"].read(1000):
        yield piece


def writes_first(environ, start_response):
    """Starts the response with `write()`, and then reads."""
    write = start_response("200 OK", [TEXT])
    write(b"begun\n")
    try:
        return [environ["wsgi.input"].read()]
    except OSError as error:
        return [type(error).__name__.encode()]


def alarmed(environ, start_response):
    """Interrupts its read with a signal handler."""

    def ring(*_):
        raise RuntimeError("rung")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        environ["wsgi.input"].read()
    except RuntimeError as error:
        start_response("200 OK", [TEXT])
        return [str(error).encode()]
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def asks_after_client(environ, start_response):
    """Reads the body, and sends empty chunks, which end the response if the client has disconnected."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [TEXT])
    yield from [b"", b"", body]


kept = []


def keeps(environ, start_response):
    """Keeps its input stream beyond the request."""
    kept.append(environ["wsgi.input"])
    kept[-1].read(1)
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    return [b"kept\n"]


def reads_kept(environ, start_response):
    """Reads from the input streams of earlier requests."""
    return answer_json(start_response, [error_of(earlier.read) for earlier in kept])


def times(environ, start_response):
    """Records each line of the body as it arrives."""
    for line in environ["wsgi.input"]:
        add_line(query(environ)["record"], line.decode().strip())
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    return [b"done\n"]
