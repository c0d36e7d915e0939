"""Reading the request's body."""

import hashlib
import json

from .tools import TEXT, answer_json, query


def calls(environ, start_response):
    """Makes the calls in the query, and returns their results."""
    script = json.loads(query(environ)["calls"])
    return answer_json(start_response, make_calls(environ["wsgi.input"], script))


def make_calls(body, script):
    """Each call is `[name, argument...]`.

    The test makes the same calls on an `io.BytesIO` and compares the results.
    """
    return [fingerprint(call(body, *step)) for step in script]


def call(body, name, *arguments):
    if name == "iterate":
        return list(body)
    if name == "next":
        return next(iter(body), b"")
    return getattr(body, name)(*arguments)


def fingerprint(result):
    if isinstance(result, list):
        return (
            [fingerprint(piece) for piece in result]
            if len(result) < 20
            else ["many", len(result), digest(result)]
        )
    return result.decode("latin-1") if len(result) < 100 else ["long", len(result), digest([result])]


def digest(pieces):
    return hashlib.sha256(b"|".join(pieces)).hexdigest()


def echo(environ, start_response):
    """Returns the method and the body."""
    body = environ["wsgi.input"].read()
    start_response(
        "200 OK", [TEXT, ("X-Method", environ["REQUEST_METHOD"]), ("Content-Length", str(len(body)))]
    )
    return [body]


def ignore(environ, start_response):
    start_response("200 OK", [TEXT, ("Content-Length", "7")])
    return [b"ignored"]


def late(environ, start_response):
    """Reads the body while it sends the response."""
    start_response("200 OK", [TEXT])
    yield b"read: "
    yield from environ["wsgi.input"]


def size(environ, start_response):
    """Returns length and hash of a large body, read in parts."""
    seen, total = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(65536):
        seen.update(piece)
        total += len(piece)
    return answer_json(start_response, {"size": total, "sha256": seen.hexdigest()})
