"""Apps with unusual faults: objects, exceptions and moments. See `failures` for the usual ones."""

import io
import sys

from .tools import TEXT, Body, note, query

# Before the head is sent.


def interrupts(environ, start_response):
    raise KeyboardInterrupt


def interrupts_in_generator(environ, start_response):
    start_response("200 OK", [TEXT])
    raise KeyboardInterrupt
    yield b"never"


def leaves_generator(environ, start_response):
    raise GeneratorExit


def stops_iteration(environ, start_response):
    start_response("200 OK", [TEXT])
    raise StopIteration


def unprintable_interrupt(environ, start_response):
    class UnprintableError(Exception):
        def __str__(self):
            raise KeyboardInterrupt

    raise UnprintableError


def forges_the_log(environ, start_response):
    """The client controls the text, including line breaks."""
    raise ValueError(environ["PATH_INFO"])


def starts_too_late(environ, start_response):
    """A chunk that is not empty requires a head."""
    yield b"early"
    start_response("200 OK", [TEXT])


def starts_with_nothing(environ, start_response):
    start_response()
    return [b"no arguments"]


def starts_with_bad_exc_info(environ, start_response):
    start_response("200 OK", [TEXT], "no exc_info")
    return [b"no exc_info"]


def starts_twice_with_no_exception(environ, start_response):
    """The value of sys.exc_info() outside of any `except`. It is not None, and therefore replaces the headers."""
    start_response("404 Not Found", [TEXT])
    start_response("200 OK", [TEXT], (None, None, None))
    return [b"replaced"]


def headers_tuple(environ, start_response):
    start_response("200 OK", (TEXT,))
    return [b"a tuple of headers"]


def headers_items(environ, start_response):
    start_response("200 OK", dict([TEXT]).items())
    return [b"items of a dict"]


def headers_lists(environ, start_response):
    start_response("200 OK", [list(TEXT)])
    return [b"lists of two"]


def headers_dict(environ, start_response):
    start_response("200 OK", dict([TEXT]))
    return []


def headers_number(environ, start_response):
    start_response("200 OK", 5)
    return []


def headers_change_while_read(environ, start_response):
    """A header that empties the list when it is read."""
    headers = [TEXT]

    class Pair(tuple):
        def __len__(self):
            headers.clear()
            return 2

    headers += [Pair(("X", "y")), TEXT]
    start_response("200 OK", headers)
    return [b"gone"]


def writes_bytearray(environ, start_response):
    start_response("200 OK", [TEXT])(bytearray(b"no bytes"))
    return []


def bytearray_piece(environ, start_response):
    start_response("200 OK", [TEXT])
    return [bytearray(b"no bytes")]


def memoryview_piece(environ, start_response):
    start_response("200 OK", [TEXT])
    return iter([memoryview(b"no bytes")])


def number_in_long_list(environ, start_response):
    start_response("200 OK", [TEXT])
    return [b"x" * 100_000, b"y", 5]


def iter_raises(environ, start_response):
    class Iterable(Body):
        def __iter__(self):
            raise ValueError("no iterator today")

    start_response("200 OK", [TEXT])
    return Iterable(environ, [])


def iter_gives_number(environ, start_response):
    class Iterable(Body):
        def __iter__(self):
            return 5

    start_response("200 OK", [TEXT])
    return Iterable(environ, [])


def length_raises(environ, start_response):
    class Sized(Body):
        def __len__(self):
            raise ValueError("no length today")

    start_response("200 OK", [TEXT])
    return Sized(environ, [b"unmeasured"])


def length_negative(environ, start_response):
    class Sized(Body):
        def __len__(self):
            return -1

    start_response("200 OK", [TEXT])
    return Sized(environ, [b"unmeasured"])


def file_without_read(environ, start_response):
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](Body(environ, []))


def file_of_text(environ, start_response):
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](io.StringIO("text"))


def file_closed(environ, start_response):
    with open(__file__, "rb") as file:
        pass
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](file)


def class_lies(environ, start_response):
    """An exception that raises when it is formatted."""

    class LiarError(Exception):
        @property
        def __class__(self):
            raise ValueError("no class today")

    raise LiarError


# After the head is sent.


def midway_interrupt(environ, start_response):
    start_response("200 OK", [TEXT])
    yield b"so far "
    raise KeyboardInterrupt


def midway_base_exception(environ, start_response):
    class Fire(BaseException):
        pass

    start_response("200 OK", [TEXT])
    yield b"so far "
    raise Fire("the app is on fire")


def midway_number(environ, start_response):
    start_response("200 OK", [TEXT])
    yield b"so far "
    yield 5


def midway_start(environ, start_response):
    start_response("200 OK", [TEXT])
    yield b"so far "
    start_response("200 OK", [TEXT])
    yield b"never"


def midway_write(environ, start_response):
    """PEP 3333 allows `write` only before the app returns."""
    write = start_response("200 OK", [TEXT])
    yield b"so far "
    write(b"never")
    yield b"never"


def midway_file(environ, start_response):
    """A file that is closed midway."""
    pieces = [b"so far ", "text"]

    class File:
        def read(self, size=-1):
            return pieces.pop(0)

        def close(self):
            note(environ, "closed")

    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](File())


def write_then_raise(environ, start_response):
    start_response("200 OK", [TEXT])(b"so far ")
    raise ValueError("after a write")


def write_then_exit(environ, start_response):
    start_response("200 OK", [TEXT])(b"so far ")
    sys.exit(0)


def write_then_number(environ, start_response):
    start_response("200 OK", [TEXT])(b"so far ")
    return [5]


def write_then_start(environ, start_response):
    start_response("200 OK", [TEXT])(b"so far ")
    start_response("200 OK", [TEXT])
    return []


# At the end.


class Closing(list):
    """A list with the given `close()`."""

    def __init__(self, pieces, close):
        super().__init__(pieces)
        self.close = close


def close_exits(environ, start_response):
    def close():
        note(environ, "closed")
        sys.exit(0)

    start_response("200 OK", [TEXT])
    return Closing([b"all of it"], close)


def close_interrupts(environ, start_response):
    def close():
        note(environ, "closed")
        raise KeyboardInterrupt

    start_response("200 OK", [TEXT])
    return Closing([b"all of it"], close)


def close_is_no_function(environ, start_response):
    start_response("200 OK", [TEXT])
    return Closing([b"all of it"], 5)


def close_cannot_be_had(environ, start_response):
    class Closed(list):
        @property
        def close(self):
            note(environ, "closed")
            raise ValueError("no close today")

    start_response("200 OK", [TEXT])
    return Closed([b"all of it"])


def last_byte_then_raise(environ, start_response):
    """The client receives everything, and the error is logged."""
    start_response("200 OK", [TEXT, ("Content-Length", "9")])
    yield b"all of it"
    raise ValueError("after the last byte")


# Incorrect lengths.


def length_says_one(environ, start_response):
    """`__len__` returns one, but there are two chunks. PEP 3333 allows the server to rely on it."""

    class Sized(Body):
        def __len__(self):
            return 1

    start_response("200 OK", [TEXT])
    return Sized(environ, [b"one ", b"two"])


def length_says_many(environ, start_response):
    class Sized(Body):
        def __len__(self):
            return 10**18

    start_response("200 OK", [TEXT])
    return Sized(environ, [b"one ", b"two"])


def length_says_none(environ, start_response):
    class Sized(Body):
        def __len__(self):
            return 0

    start_response("200 OK", [TEXT])
    return Sized(environ, [b"one ", b"two"])


SHAPES = {
    "list": lambda environ, pieces: pieces,
    "tuple": lambda environ, pieces: tuple(pieces),
    "iterator": lambda environ, pieces: iter(pieces),
    "body": Body,
}


def declares_length(environ, start_response):
    """Chunks `x` whose number differs from Content-Length, both given by the query; returned as any type or written."""
    asked = query(environ)
    pieces = [b"x"] * int(asked["pieces"])
    write = start_response("200 OK", [TEXT, ("Content-Length", asked["length"])])
    if asked["shape"] == "write":
        for piece in pieces:
            write(piece)
        return Body(environ, [])
    if asked["shape"] == "piece":
        return [b"".join(pieces)]
    return SHAPES[asked["shape"]](environ, pieces)


def overflows(environ, start_response):
    """An endless body with a Content-Length."""
    start_response("200 OK", [TEXT, ("Content-Length", "5")])

    def pieces():
        while True:
            yield b"123"

    return Body(environ, pieces())


# Unusual but valid.


def many_headers(environ, start_response):
    start_response("200 OK", [(f"X-{number}", "v" * 100) for number in range(2000)])
    return [b"after many headers"]


def long_header(environ, start_response):
    start_response("200 OK", [("X-Long", "v" * 65_000)])
    return [b"after a long header"]


def file_without_descriptor(environ, start_response):
    class File:
        pieces = (b"a file ", b"of its own kind", b"")

        def __init__(self):
            self.left = iter(self.pieces)

        def read(self, size=-1):
            return next(self.left)

    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](File())


def file_with_a_lie(environ, start_response):
    """Its descriptor is not the file that it reads."""

    class File(io.BytesIO):
        def fileno(self):
            return 0

    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](File(b"what it reads"))


def closes_its_streams(environ, start_response):
    """The standard streams of the process belong to the server."""
    environ["wsgi.errors"].close()
    start_response("200 OK", [TEXT])
    return [b"closed"]


def hidden_callables(environ, start_response):
    """Objects kept beyond their request must raise, without an effect on other requests."""
    results = []
    for before, start, write in kept:
        results += [
            outcome(start, "200 OK", [TEXT]),
            outcome(write, b"x"),
            outcome(before["wsgi.input"].read),
        ]
    kept.append((environ, start_response, start_response("200 OK", [TEXT])))
    return [" ".join(results).encode()]


def outcome(call, *arguments):
    try:
        return repr(call(*arguments))
    except Exception as error:
        return type(error).__name__


kept = []


def spins(environ, start_response):
    """An endless loop."""
    note(environ, "spins")
    while True:
        pass
