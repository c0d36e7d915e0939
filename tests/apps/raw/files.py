"""Responses with `wsgi.file_wrapper`."""

import io
import os

from .tools import TEXT, note, query


def opened(path):
    """The wrapper closes it."""
    return open(path, "rb")


def whole(environ, start_response):
    """The file at `path`, from `offset`, with `length` as Content-Length if given."""
    asked = query(environ)
    file = opened(asked["path"])
    file.seek(int(asked.get("offset", 0)))
    length = [("Content-Length", asked["length"])] if "length" in asked else []
    start_response("200 OK", [TEXT, *length])
    return environ["wsgi.file_wrapper"](file, 8192)


def part_read(environ, start_response):
    """A buffered file of which the app has read a line. The response starts after that line."""
    file = opened(query(environ)["path"])
    file.readline()
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](file)


def block_size_by_name(environ, start_response):
    """The keyword of wsgiref and gunicorn, and that of PEP 3333."""
    start_response("200 OK", [TEXT])
    make = environ["wsgi.file_wrapper"]
    wrappers = make(io.BytesIO(b"x" * 10), blksize=4), make(io.BytesIO(b"y" * 5), block_size=4)
    return [b"|".join(piece for wrapper in wrappers for piece in wrapper)]


def memory(environ, start_response):
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"from memory\n" * 10_000))


def noted(environ, start_response):
    """A file-like object whose `close()` is recorded."""

    class Noted(io.BytesIO):
        def close(self):
            if not self.closed:
                note(environ, "closed")
            super().close()

    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](Noted(b"noted\n"))


def pipe(environ, start_response):
    """A descriptor that is not a file: it has no size and no offset."""
    reader, writer = os.pipe()
    os.write(writer, b"through a pipe\n")
    os.close(writer)
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](os.fdopen(reader, "rb"))


def read_by_middleware(environ, start_response):
    """A wrapper that middleware iterates over, so that it never reaches the server."""
    start_response("200 OK", [TEXT])
    wrapper = environ["wsgi.file_wrapper"](opened(query(environ)["path"]), 1000)
    try:
        return [piece.upper() for piece in wrapper]
    finally:
        wrapper.close()


def broken(environ, start_response):
    """A file of which reads fail midway."""

    pieces = [b"good\n"]

    class Broken:
        def read(self, size=-1):
            if pieces:
                return pieces.pop()
            raise OSError("the disk is gone")

        def close(self):
            note(environ, "closed")

    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](Broken())
