"""PEP 3333: the environ of a request."""

from __future__ import annotations

import json

import pytest
from conftest import CONCURRENCY


def environ_of(server, request):
    """The environ of this request, sent unchanged on its own connection."""
    with server.wire() as wire:
        wire.send(request)
        answer = wire.answer()
    assert answer.status == 200
    return json.loads(answer.text)["environ"]


def environ_of_get(server, target, *headers):
    head = "".join(f"{line}\r\n" for line in (f"GET {target} HTTP/1.1", "Host: test", *headers))
    return environ_of(server, f"{head}\r\n".encode("latin-1"))


def test_environ_has_every_key_with_the_right_value(server):
    with server.wire() as wire:
        client_port = wire.socket.getsockname()[1]
        answer = wire.request("/environs/show/a%20b?x=1&y=%20", headers="X-Some-Thing: yes\r\n")
    environ = json.loads(answer.text)["environ"]
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/environs/show/a b",
        "QUERY_STRING": "x=1&y=%20",
        "REQUEST_URI": "/environs/show/a%20b?x=1&y=%20",
        "RAW_URI": "/environs/show/a%20b?x=1&y=%20",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(client_port),
        "HTTP_HOST": "test",
        "HTTP_X_SOME_THING": "yes",
        "wsgi.version": [1, 0],
        "wsgi.url_scheme": "http",
        "wsgi.input_terminated": True,
    }
    assert {key: environ.get(key) for key in expected} == expected
    assert environ["SERVER_NAME"]
    assert "mylittlewebserver" in environ["SERVER_SOFTWARE"].lower()
    assert {"wsgi.input", "wsgi.errors", "wsgi.file_wrapper"} <= set(environ)


def test_environ_is_a_plain_dict_of_plain_strings(server):
    with server.wire() as wire:
        types = json.loads(wire.request("/environs/show?x=1").text)["types"]
        kinds = json.loads(wire.request("/environs/exact").text)
    assert {kind for key, kind in types.items() if "." not in key} == {"str"}
    assert kinds == {"environ": "dict", "errors": True, "input": True, "file_wrapper": True}


@pytest.mark.parametrize(
    ("options", "multithread", "multiprocess"),
    [
        (CONCURRENCY["inline"], False, False),
        (CONCURRENCY["threads"], True, False),
        (CONCURRENCY["fork"], False, True),
        (("--workers", "2", "--threads", "1"), False, True),
        (("--workers", "2", "--threads", "2"), True, True),
    ],
    ids=["inline", "threads", "fork", "two workers", "two workers with threads"],
)
def test_environ_describes_threads_and_processes_correctly(shared, options, multithread, multiprocess):
    environ = environ_of_get(shared("raw", *options), "/environs/show")
    assert environ["wsgi.multithread"] is multithread
    assert environ["wsgi.multiprocess"] is multiprocess
    assert isinstance(environ["wsgi.run_once"], bool)
    if not multiprocess:
        assert environ["wsgi.run_once"] is False


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH", "get"]
)
def test_the_method_is_passed_on_unchanged(server, method):
    request = f"{method} /environs/show HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"
    assert environ_of(server, request.encode())["REQUEST_METHOD"] == method


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/environs/show", "/environs/show"),
        ("/environs/show/", "/environs/show/"),
        ("/environs/show/caf%C3%A9", "/environs/show/café".encode().decode("latin-1")),
        ("/environs/show/%E9", "/environs/show/\xe9"),
        ("/environs/show/100%25", "/environs/show/100%"),
        ("/environs/show/%2541", "/environs/show/%41"),
        ("/environs/show/a%2Fb", "/environs/show/a/b"),
        ("/environs/show/a+b", "/environs/show/a+b"),
        ("/environs/show/%3Fno=query", "/environs/show/?no=query"),
        ("/environs/show/a;b=c", "/environs/show/a;b=c"),
        ("/environs/show//two///three", "/environs/show//two///three"),
        ("/environs/show/../show/.", "/environs/show/../show/."),
        ("/environs/show/%00%0d%0a", "/environs/show/\0\r\n"),
    ],
)
def test_the_path_is_decoded_once_and_otherwise_unchanged(server, target, path):
    environ = environ_of_get(server, f"{target}?q=1")
    assert environ["PATH_INFO"] == path
    assert environ["QUERY_STRING"] == "q=1"
    assert environ["REQUEST_URI"] == environ["RAW_URI"] == f"{target}?q=1"


@pytest.mark.parametrize(
    ("target", "query"),
    [
        ("/environs/show", ""),
        ("/environs/show?", ""),
        ("/environs/show?a=%20+b", "a=%20+b"),
        ("/environs/show?a=1?b=2", "a=1?b=2"),
        ("/environs/show??", "?"),
        ("/environs/show?/a/b", "/a/b"),
        ("/environs/show?%C3%A9", "%C3%A9"),
    ],
)
def test_the_query_is_split_off_and_left_encoded(server, target, query):
    environ = environ_of_get(server, target)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/environs/show", query)


def test_the_authority_of_an_absolute_target_replaces_host(server):
    environ = environ_of_get(server, "http://shop.example:81/environs/show?x=1")
    assert environ["HTTP_HOST"] == "shop.example:81"
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/environs/show", "x=1")


def test_http_1_0_is_reported_and_does_not_require_host(server):
    environ = environ_of(server, b"GET /environs/show HTTP/1.0\r\n\r\n")
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert environ.get("HTTP_HOST", "") == ""


def test_content_type_and_length_have_keys_of_their_own(server):
    head = (
        b"POST /environs/show HTTP/1.1\r\nHost: t\r\nContent-Type: text/x; a=b\r\nContent-Length: 3\r\n\r\n"
    )
    environ = environ_of(server, head + b"abc")
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/x; a=b", "3")
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & set(environ)


def test_content_type_and_length_are_empty_or_missing_without_a_body(server):
    environ = environ_of_get(server, "/environs/show")
    assert environ.get("CONTENT_TYPE", "") == ""
    assert environ.get("CONTENT_LENGTH", "") == ""


@pytest.mark.parametrize(("chunks", "length"), [(b"3\r\nabc\r\n2\r\nde\r\n", "5"), (b"", "0")])
def test_a_chunked_body_has_its_decoded_length_and_no_transfer_coding(server, chunks, length):
    """RFC 9112, section 7.1.3: decoding adds Content-Length and removes Transfer-Encoding."""
    head = b"POST /environs/show HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: Chunked\r\nTE: trailers\r\n\r\n"
    environ = environ_of(server, head + chunks + b"0\r\n\r\n")
    assert environ["CONTENT_LENGTH"] == length
    assert "HTTP_TRANSFER_ENCODING" not in environ
    assert environ["HTTP_TE"] == "trailers"
    assert environ["wsgi.input_terminated"] is True


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ("Transfer-Encoding: chunked\r\n", None),
        ("Transfer-Encoding: gzip, chunked\r\n", "gzip"),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "gzip"),
        ("Transfer-Encoding: identity, gzip ,chunked\r\n", "identity, gzip"),
    ],
)
def test_transfer_codings_before_chunked_are_left_to_the_application(shared, fields, left):
    server = shared("raw", "--http-compat", "gunicorn")
    head = f"POST /environs/show HTTP/1.1\r\nHost: t\r\n{fields}\r\n".encode()
    environ = environ_of(server, head + b"3\r\nabc\r\n0\r\n\r\n")
    assert (environ["CONTENT_LENGTH"], environ.get("HTTP_TRANSFER_ENCODING")) == ("3", left)


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        (("X-One: a", "X-One: b"), "HTTP_X_ONE", ("a,b", "a, b")),
        (("X-One: a", "x-ONE: b", "X-Two: c"), "HTTP_X_ONE", ("a,b", "a, b")),
        (("Cookie: a=1", "Cookie: b=2"), "HTTP_COOKIE", ("a=1; b=2",)),
        (("X-Empty:",), "HTTP_X_EMPTY", ("",)),
        (("X-Space: \t a  b \t ",), "HTTP_X_SPACE", ("a  b",)),
        (("X-Latin: caf\xe9",), "HTTP_X_LATIN", ("caf\xe9",)),
        (("X-Colon: a:b: c",), "HTTP_X_COLON", ("a:b: c",)),
        (("X-One_Two: evil", "X-One-Two: good"), "HTTP_X_ONE_TWO", ("good",)),
        (("X-One-Two: good", "X_One_Two: evil"), "HTTP_X_ONE_TWO", ("good",)),
        (("X_One: dropped",), "HTTP_X_ONE", (None,)),
        (("Content_Length: 5",), "CONTENT_LENGTH", (None, "")),
        (("Proxy: http://evil",), "HTTP_PROXY", (None,)),
        (("Remote-Addr: 6.6.6.6",), "REMOTE_ADDR", ("127.0.0.1",)),
        (("Content-Type: a/b",), "HTTP_CONTENT_TYPE", (None,)),
    ],
)
def test_headers_become_keys_and_cannot_collide(server, lines, key, value):
    assert environ_of_get(server, "/environs/show", *lines).get(key) in value


def test_changes_to_an_environ_do_not_affect_other_requests(server):
    with server.wire() as wire:
        assert [wire.request("/environs/spoil").text for _ in range(3)] == ["false"] * 3


def test_one_request_does_not_see_the_headers_of_another(server):
    with server.wire() as wire:
        first = wire.request("/environs/show?a", headers="X-Secret: 1\r\nContent-Type: a/b\r\n")
        second = json.loads(wire.request("/environs/show").text)["environ"]
    assert first.status == 200
    assert not {"HTTP_X_SECRET", "CONTENT_TYPE"} & {key for key, value in second.items() if value}


def test_errors_go_to_the_log(server):
    before = len(server.log.text)
    assert server.get("/environs/complain").status == 200
    server.log.wait_for("a complaint\nand another (\u20ac|\\\\u20ac)", since=before)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_the_validator_of_the_standard_library_finds_no_error(server, method):
    before = len(server.log.text)
    with server.wire() as wire:
        answers = [wire.request("/environs/strict", method, b"x" * 10 * (method == "POST")) for _ in range(3)]
        wire.request("/environs/strict_input", "POST", b"one\ntwo\nthree\nfour\nfive")
    assert [answer.status for answer in answers] == [200] * 3
    log = server.log.text[before:]
    assert "Traceback" not in log
    assert "garbage collected" not in log


def test_the_validator_of_the_standard_library_accepts_every_way_of_reading(server):
    body = b"one\ntwo\nthree\nfour\nfive\n" * 10
    with server.wire() as wire:
        answer = wire.request("/environs/strict_input", "POST", body)
    assert (answer.status, answer.body) == (200, body)
