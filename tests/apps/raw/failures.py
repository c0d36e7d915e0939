"""Apps that violate PEP 3333 or fail. All but the last group cause a 500."""

import sys

from .tools import TEXT, Body


def raises(environ, start_response):
    raise ValueError("the app is on fire")


def raises_after_start(environ, start_response):
    start_response("200 OK", [TEXT])
    raise ValueError("the app is on fire")


def raises_at_first_piece(environ, start_response):
    start_response("200 OK", [TEXT])
    raise ValueError("the app is on fire")
    yield b"never"


def exits(environ, start_response):
    sys.exit("the app is on fire")


def exits_in_generator(environ, start_response):
    start_response("200 OK", [TEXT])
    sys.exit(0)
    yield b"never"


def base_exception(environ, start_response):
    class Fire(BaseException):
        pass

    raise Fire("the app is on fire")


def recursion(environ, start_response):
    return recursion(environ, start_response)


def unprintable(environ, start_response):
    class UnprintableError(Exception):
        def __str__(self):
            raise ValueError("not even printable")

    raise UnprintableError


def never_starts(environ, start_response):
    return [b"no head"]


def never_starts_nothing(environ, start_response):
    return []


def never_starts_generator(environ, start_response):
    yield b"no head"


def starts_twice(environ, start_response):
    start_response("200 OK", [TEXT])
    start_response("200 OK", [TEXT])
    return [b"twice"]


def returns_none(environ, start_response):
    start_response("200 OK", [TEXT])


def returns_number(environ, start_response):
    start_response("200 OK", [TEXT])
    return 5


def returns_bytes(environ, start_response):
    """Iterating over bytes gives numbers."""
    start_response("200 OK", [TEXT])
    return b"bytes"


def returns_text(environ, start_response):
    start_response("200 OK", [TEXT])
    return "text"


def text_piece(environ, start_response):
    start_response("200 OK", [TEXT])
    return ["text"]


def text_piece_from_iterator(environ, start_response):
    start_response("200 OK", [TEXT])
    return iter(["text"])


def none_piece(environ, start_response):
    start_response("200 OK", [TEXT])
    return [None]


def writes_text(environ, start_response):
    start_response("200 OK", [TEXT])("text")
    return []


STATUSES = [
    "",
    "OK",
    "20 OK",
    "2000 OK",
    "abc OK",
    "200OK",
    "2\u00b20 OK",
    200,
    None,
    b"200 OK",
    "200 O\nK",
    "200 O\r\nX: y",
    "200 \0",
    "200 \u20ac",
]

HEADERS = [
    None,
    "X: y",
    5,
    ["X: y"],
    [("X",)],
    [("X", "y", "z")],
    [(b"X", b"y")],
    [("X", 5)],
    [("X", None)],
    [("X", b"y")],
    [(5, "y")],
    [("", "y")],
    [("X Y", "z")],
    [("X:", "y")],
    [("X\r\nY", "z")],
    [("X\u00e9", "y")],
    [("X", "y\r\nSet-Cookie: stolen=1")],
    [("X", "y\nz")],
    [("X", "y\rz")],
    [("X", "y\0z")],
    [("X", "\u20ac")],
    [("Content-Length", "five")],
    [("Content-Length", "-5")],
    [("Content-Length", "5"), ("Content-Length", "6")],
]


def status(environ, start_response):
    start_response(STATUSES[int(environ["QUERY_STRING"])], [TEXT])
    return [b"bad status"]


def headers(environ, start_response):
    start_response("200 OK", HEADERS[int(environ["QUERY_STRING"])])
    return [b"bad headers"]


def midway(environ, start_response):
    start_response("200 OK", [TEXT])
    yield b"so far "
    raise ValueError("the app is on fire")


def midway_known(environ, start_response):
    start_response("200 OK", [TEXT, ("Content-Length", "100")])
    yield b"so far "
    raise ValueError("the app is on fire")


def midway_exit(environ, start_response):
    start_response("200 OK", [TEXT])
    yield b"so far "
    sys.exit(0)


def midway_text(environ, start_response):
    start_response("200 OK", [TEXT])
    return Body(environ, [b"so far ", "text"])
