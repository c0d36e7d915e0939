"""The environ of requests over HTTP/2, in each concurrency mode (docs/http2.md)."""

from __future__ import annotations

import json
import subprocess

import pytest
from conftest import CONCURRENCY
from wire import DEADLINE


@pytest.fixture
def server(shared, concurrency):
    return shared("raw", *CONCURRENCY[concurrency], "--http2-cleartext", "prior-knowledge")


def environ(server, *options, body=None, path="/environs/show?a=b%20c"):
    """The environ of a request by curl."""
    command = ["curl", "--silent", "--show-error", "--fail", "--http2-prior-knowledge", *options]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}{path}"],
        input=body,
        stdout=subprocess.PIPE,
        check=True,
        timeout=DEADLINE,
    )
    return json.loads(done.stdout)["environ"]


def test_a_get_is_the_same_as_over_http1_except_for_the_protocol(server):
    over_http1 = environ(server, "--http1.1", "--header", "X-Shop: a", "--cookie", "a=1; b=2")
    over_http2 = environ(server, "--header", "X-Shop: a", "--cookie", "a=1; b=2")
    assert (over_http1.pop("SERVER_PROTOCOL"), over_http2.pop("SERVER_PROTOCOL")) == ("HTTP/1.1", "HTTP/2.0")
    for found in (over_http1, over_http2):
        del found["REMOTE_PORT"]
    assert over_http2 == over_http1
    assert "CONTENT_LENGTH" not in over_http2 and over_http2["HTTP_HOST"] == f"127.0.0.1:{server.port}"


def test_a_body_without_a_length_gets_a_content_length(server):
    found = environ(server, "--upload-file", "-", body=b"hello")
    assert (found["REQUEST_METHOD"], found["CONTENT_LENGTH"]) == ("PUT", "5")
    assert "HTTP_TRANSFER_ENCODING" not in found
    assert environ(server, "--data-binary", "@-", body=b"hello")["CONTENT_LENGTH"] == "5"
