"""Apps that send early hints."""

import os
import time

from .gates import pass_gate
from .tools import TEXT, answer_json, note, query

HINTS = "wsgi.early_hints"
STYLE = ("Link", "</style.css>; rel=preload; as=style")


def early(environ, start_response):
    """Hints, then the gate, then other hints beside a set head, then the response."""
    environ[HINTS]([STYLE])
    if "gate" in query(environ):
        pass_gate(query(environ)["gate"])
    start_response("200 OK", [TEXT])
    environ[HINTS](iter([["X-Bytes", "é".encode("latin-1").decode("latin-1")], (b"X-Raw", b"\xe9")]))
    return [b"hinted\n"]


def late(environ, start_response):
    """Hints at each moment after the first piece."""
    write = start_response("200 OK", [TEXT])
    if "write" in query(environ):
        write(b"first\n")
        environ[HINTS]([STYLE])
    else:
        yield b"first\n"
    environ[HINTS]([STYLE])
    yield b"second\n"
    environ[HINTS]([STYLE])


def written(environ, start_response):
    """The same beside `write()`."""
    write = start_response("200 OK", [TEXT])
    write(b"first\n")
    environ[HINTS]([STYLE])
    write(b"second\n")
    environ[HINTS]([STYLE])
    return []


def inside(environ, start_response):
    """A generator, which hints before its first piece."""
    start_response("200 OK", [TEXT])
    environ[HINTS]([STYLE])
    yield b"hinted\n"


INVALID = [
    [("Link", "a\r\nSet-Cookie: b")],
    [("Link", "a\n")],
    [("Link: x", "a")],
    [("", "a")],
    [("Link", "a\0")],
    [("Link", "\u20ac")],
    [("Link", 1)],
    [("Link",)],
    ["Li"],
    [None],
    5,
    None,
]


def invalid(environ, start_response):
    """What each of the invalid arguments raises."""
    raised = [failure(environ, [STYLE, *item] if isinstance(item, list) else item) for item in INVALID]
    return answer_json(start_response, raised)


def failure(environ, headers):
    try:
        environ[HINTS](headers)
    except Exception as error:
        return type(error).__name__
    return None


def ignored(environ, start_response):
    """Fields that would frame a message, or concern the connection."""
    fields = [
        ("Connection", "close"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "5"),
        ("Upgrade", "x"),
    ]
    environ[HINTS]([*fields, STYLE])
    start_response("200 OK", [TEXT])
    return [b"hinted\n"]


kept = []


def later(environ, start_response):
    """Hints by the callables of earlier requests, whose time is over."""
    for hints in kept:
        hints([STYLE])
    kept.append(environ[HINTS])
    start_response("200 OK", [TEXT])
    return [b"%d\n" % len(kept)]


def fails(environ, start_response):
    """Hints, then the end that the query says."""
    environ[HINTS]([STYLE])
    how = query(environ)["how"]
    if how == "exit":
        os._exit(3)
    while how == "hang":
        time.sleep(0.01)
    raise LookupError("on purpose")


def many(environ, start_response):
    """More hints than the buffers of a connection hold."""
    for number in range(int(query(environ)["count"])):
        environ[HINTS]([("X-Hint", f"{number} {'x' * 4000}")])
    note(environ, "hinted")
    start_response("200 OK", [TEXT])
    return [b"hinted\n"]
