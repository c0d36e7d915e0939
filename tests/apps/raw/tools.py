"""Helpers of the small apps."""

import json
import os
from urllib.parse import parse_qsl

TEXT = ("Content-Type", "text/plain; charset=utf-8")


def query(environ):
    return dict(parse_qsl(environ["QUERY_STRING"]))


def note(environ, word):
    """Appends a line atomically to the file `record` of the test."""
    path = query(environ).get("record")
    if path:
        add_line(path, word)


def add_line(path, line):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode() + b"\n")
    os.close(file)


def answer_json(start_response, value):
    body = json.dumps(value).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


class Body:
    """An iterable that records each call of `close()`."""

    def __init__(self, environ, pieces):
        self.environ = environ
        self.pieces = iter(pieces)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.pieces)

    def close(self):
        note(self.environ, "closed")
