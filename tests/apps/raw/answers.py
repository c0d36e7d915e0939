"""Responses of every allowed type."""

import sys
from urllib.parse import parse_qsl

from .tools import TEXT, Body, note, query


def hello(environ, start_response):
    start_response("200 OK", [TEXT, ("Content-Length", "6")])
    return [b"hello\n"]


def one_piece(environ, start_response):
    start_response("200 OK", [TEXT])
    return [b"one piece"]


def one_tuple(environ, start_response):
    start_response("200 OK", [TEXT])
    return (b"one piece",)


def pieces(environ, start_response):
    start_response("200 OK", [TEXT])
    return [b"two ", b"", b"pieces"]


def nothing(environ, start_response):
    start_response("200 OK", [TEXT])
    return []


def empty_piece(environ, start_response):
    start_response("200 OK", [TEXT])
    return [b""]


def iterator(environ, start_response):
    start_response("200 OK", [TEXT])
    return iter([b"an ", b"", b"iterator"])


def known_iterator(environ, start_response):
    start_response("200 OK", [TEXT, ("Content-Length", "11")])
    return iter([b"an ", b"iterator"])


def generator(environ, start_response):
    """Calls start_response only when the first chunk is requested."""
    start_response("200 OK", [TEXT])
    yield b"a "
    yield b""
    yield b"generator"


def empty_generator(environ, start_response):
    start_response("200 OK", [TEXT])
    yield from ()


def sequence(environ, start_response):
    """Iterable through `__getitem__`, the oldest iteration protocol."""

    class Sequence:
        def __getitem__(self, index):
            return [b"a ", b"sequence"][index]

    start_response("200 OK", [TEXT])
    return Sequence()


def sized(environ, start_response):
    """An iterable of length one that is not a list."""

    class Sized:
        def __len__(self):
            return 1

        def __iter__(self):
            return iter([b"one piece"])

    start_response("200 OK", [TEXT])
    return Sized()


def subclasses(environ, start_response):
    """Frameworks have their own subclasses of str, such as Django's SafeString."""

    class Text(str):
        pass

    class Data(bytes):
        pass

    start_response(Text("200 OK"), [(Text("X-Kind"), Text("subclass")), TEXT])
    return [Data(b"subclass")]


def many(environ, start_response):
    """Number and size of the chunks are in the query."""
    asked = query(environ)
    start_response("200 OK", [TEXT])
    for number in range(int(asked["pieces"])):
        yield bytes([97 + number % 26]) * int(asked["size"])


def big(environ, start_response):
    """One chunk of any size, with its Content-Length."""
    size = int(query(environ)["size"])
    start_response("200 OK", [TEXT, ("Content-Length", str(size))])
    return [b"b" * size]


def status(environ, start_response):
    """Any status, with a body that HEAD, 204 and 304 must not send."""
    start_response(query(environ)["status"], [TEXT])
    return Body(environ, [b"the body"])


def headers(environ, start_response):
    """The headers in the query, in order."""
    asked = parse_qsl(environ["QUERY_STRING"], keep_blank_values=True, encoding="latin-1")
    start_response("200 OK", [TEXT, *asked])
    return [b"ok"]


def replaced(environ, start_response):
    """Fails before anything is sent, and calls start_response again."""
    start_response("200 OK", [TEXT, ("X-First", "yes")])
    try:
        raise ValueError("changed my mind")
    except ValueError:
        start_response("503 Changed My Mind", [TEXT, ("X-Second", "yes")], sys.exc_info())
    return [b"replaced"]


def replaced_after_empty(environ, start_response):
    """An empty chunk does not send the head, so start_response may be called again."""
    start_response("200 OK", [TEXT, ("X-First", "yes")])
    yield b""
    try:
        raise ValueError("changed my mind")
    except ValueError:
        start_response("503 Changed My Mind", [TEXT, ("X-Second", "yes")], sys.exc_info())
    yield b"replaced"


def replaced_too_late(environ, start_response):
    """Once something has been sent, start_response raises exc_info, and the app records that."""
    start_response("200 OK", [TEXT])
    yield b"sent "
    try:
        raise ValueError("changed my mind")
    except ValueError:
        try:
            start_response("500 Too Late", [TEXT], sys.exc_info())
        except ValueError as error:
            note(environ, f"raised {error}")
            raise
    yield b"never sent"


def write(environ, start_response):
    write = start_response("200 OK", [TEXT])
    write(b"written ")
    write(b"")
    write(b"twice")
    return []


def write_and_return(environ, start_response):
    write = start_response("200 OK", [TEXT])
    write(b"written, ")
    return [b"then ", b"returned"]


def write_known(environ, start_response):
    write = start_response("200 OK", [TEXT, ("Content-Length", "12")])
    write(b"written ")
    return [b"once"]


def write_then_fail(environ, start_response):
    write = start_response("200 OK", [TEXT])
    write(b"written ")
    raise ValueError("after a write")


def noted(environ, start_response):
    """Records when it is closed. `at` is where it fails, if anywhere."""
    at = query(environ).get("at")
    start_response("200 OK", [TEXT])

    def pieces():
        if at == "first":
            raise ValueError("at the first piece")
        yield b"one "
        if at == "middle":
            raise ValueError("in the middle")
        yield b"two"

    return Body(environ, pieces())


def noted_list(environ, start_response):
    class Noted(list):
        def close(self):
            note(environ, "closed")

    start_response("200 OK", [TEXT])
    return Noted([b"one ", b"two"])


def noted_generator(environ, start_response):
    """A generator's own close() runs its `finally`."""
    start_response("200 OK", [TEXT])
    try:
        yield b"one "
        yield b"two"
    finally:
        note(environ, "closed")


def endless(environ, start_response):
    """An endless response."""
    start_response("200 OK", [TEXT])

    def pieces():
        while True:
            yield b"e" * 65536

    return Body(environ, pieces())


def failing_close(environ, start_response):
    class Failing(list):
        def close(self):
            note(environ, "closed")
            raise ValueError("in close")

    start_response("200 OK", [TEXT])
    return Failing([b"all of it"])


def too_long(environ, start_response):
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    return Body(environ, [b"123", b"456", b"789"])


def too_short(environ, start_response):
    start_response("200 OK", [TEXT, ("Content-Length", "50")])
    return Body(environ, [b"123", b"456"])
