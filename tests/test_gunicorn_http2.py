"""A drop-in for gunicorn: HTTP/2 over TLS, with the same app and the same client."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from certificates import Authority
from h2.errors import ErrorCodes
from http2_client import Http2Client, trusting
from pairs import Case, compare

WORDS = ("facts", "--bind", "127.0.0.1:PORT!", "--certfile", "server.pem", "--keyfile", "server.key")
THREADS = ("--worker-class", "gthread", "--threads", "4", "--http-protocols", "h2,h1")

HEAD = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/request")]
COOKIES = [("cookie", "a=1"), ("cookie", "b=2")]
REQUESTS = {
    "a GET": {
        "path": "/request?a=1&b=%20%C3%A9",
        "headers": [("accept", "a"), ("accept", "b"), ("x-empty", "")],
    },
    "cookies in several fields": {"path": "/request", "headers": COOKIES},
    "HEAD": {"path": "/request", "method": "HEAD"},
    "an escaped path": {"path": "/%72equest"},
    "a POST": {"path": "/request", "method": "POST", "body": b"hello", "headers": [("content-length", "5")]},
    "a POST without a length": {"path": "/request", "method": "POST", "body": b"hello"},
    "an empty POST": {"path": "/request", "method": "POST", "body": b""},
    "an authority with a port": {"path": "/request", "authority": "shop.test:8443"},
    "forwarding fields": {
        "path": "/request",
        "headers": [("x-forwarded-for", "10.0.0.9"), ("x_forwarded_host", "evil")],
    },
    "no page": {"path": "/missing"},
    "pieces": {"path": "/pieces"},
    "write()": {"path": "/writes"},
    "cookies": {"path": "/cookies"},
    "204": {"path": "/nothing"},
    "304": {"path": "/unchanged"},
    "a file": {"path": "/file"},
    "a failure": {"path": "/fails"},
    "a late failure": {"path": "/late"},
    "a field with a line end": {"path": "/splits"},
    "a long path": {"path": f"/request?{'a' * 9000}"},
    "a long field": {"path": "/request", "headers": [("x-long", "a" * 9000)]},
    "many fields": {"path": "/request", "headers": [(f"x-{number}", "y") for number in range(101)]},
    "OPTIONS *": {"path": "*", "method": "OPTIONS"},
    "no path": {"path": "", "pseudo": HEAD[:3]},
    "a connection field": {"path": "/request", "headers": [("connection", "close")]},
    "another Host": {"path": "/request", "headers": [("host", "other.test")]},
    "a line feed in a value": {"path": "/request", "headers": [("x-a", "b\nc: d")]},
    "a length that does not match": {
        "path": "/request",
        "method": "POST",
        "body": b"hello",
        "headers": [("content-length", "9")],
    },
}
OURS = ("server", "date", "content-length")
"""Fields of a response that are compared elsewhere."""


@functools.cache
def certificates():
    """An authority, and the directory of its files, which is removed at the end."""
    directory = tempfile.TemporaryDirectory(prefix="mlws")
    authority = Authority(Path(directory.name))
    return directory, authority, authority.issue("localhost")


def files():
    _, _, issued = certificates()
    return {"server.pem": issued.certificate.read_text(), "server.key": issued.key.read_text()}


def client(server):
    """What a client sees of each request, with a connection of its own."""
    server.ready()
    address = SimpleNamespace(host="127.0.0.1", port=server.port)
    seen = {}
    for name, request in REQUESTS.items():
        seen.update({f"{name}: {key}": value for key, value in asked(address, request).items()})
    return seen


def asked(address, request):
    with Http2Client(address, trusting(certificates()[1])) as connection:
        try:
            answer = connection.request(**request)
        except AssertionError:
            return {"end": [f"GOAWAY {ErrorCodes(code).name}" for _, code in connection.goaways][-1:]}
        seen = {"status": answer.status, "end": "complete" if answer.complete else answer.reset.name}
        seen["fields"] = sorted(field for field in answer.headers if field[0] not in OURS)
        if answer.status == 200 and answer.body.startswith(b"{"):
            environ = json.loads(answer.body)
            return {
                **seen,
                **{f"environ {key}": shown(address, key, value) for key, value in environ.items()},
            }
        return seen if answer.status is None or answer.status >= 400 else {**seen, "body": bytes(answer.body)}


def shown(address, key, value):
    """Without what differs between two runs of one server."""
    if key == "REMOTE_PORT":
        return re.sub("[0-9]+", "N", str(value))
    return str(value).replace(str(address.port), "PORT")


DIFFERS = {
    "*: environ SERVER_SOFTWARE": "names itself",
    "*: environ REQUEST_URI": "extras",
    "*: environ gunicorn.socket": "extras",
    "*: environ mylittlewebserver.client_gone": "extras",
    "*: environ HTTPS": "https variables",
    "*: environ SSL_*": "https variables",
    "*: environ HTTP_VERSION": "http2 variables",
    "*: environ gunicorn.http2.*": "http2 variables",
    "a POST without a length: environ CONTENT_LENGTH": "http2 lengths",
    "a connection field: *": "http2 errors",
    "a length that does not match: *": "http2 errors",
    "another Host: *": "http2 errors",
    "no path: *": "http2 errors",
    "a long field: *": "http2 errors",
    "a long path: *": "http2 errors",
    "many fields: *": "http2 errors",
}
CASES = {"HTTP/2": Case((*WORDS, *THREADS), client, DIFFERS)}


@pytest.mark.parametrize("name", CASES)
def test_both_behave_the_same_over_http2(name):
    case = CASES[name]
    case.how["files"] = files()
    compare(case.seen(), case.differs)
