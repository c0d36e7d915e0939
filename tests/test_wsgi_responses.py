"""PEP 3333: every type of response, its framing, and that it is always closed."""

from __future__ import annotations

import subprocess
from email.utils import parsedate_to_datetime

import pytest
from harness import DEADLINE, MLWS, eventually


def answer_to(server, path, method="GET"):
    """The response, after a check that the connection serves the next request."""
    with server.wire() as wire:
        answer = wire.request(path, method)
        assert wire.request("/answers/hello").text == "hello\n"
    return answer


@pytest.mark.parametrize(
    ("name", "body", "framing"),
    [
        ("one_piece", "one piece", "length"),
        ("one_tuple", "one piece", "length"),
        ("nothing", "", "length"),
        ("empty_piece", "", "length"),
        ("pieces", "two pieces", "either"),
        ("sized", "one piece", "either"),
        ("subclasses", "subclass", "length"),
        ("iterator", "an iterator", "length"),
        ("known_iterator", "an iterator", "length"),
        ("generator", "a generator", "chunked"),
        ("empty_generator", "", "either"),
        ("sequence", "a sequence", "either"),
        ("write", "written twice", "either"),
        ("write_and_return", "written, then returned", "either"),
        ("write_known", "written once", "length"),
    ],
)
def test_any_iterable_is_sent_completely_and_framed(server, name, body, framing):
    answer = answer_to(server, f"/answers/{name}")
    assert (answer.status, answer.text, answer.complete) == (200, body, True)
    assert answer.framing == framing or framing == "either"
    assert answer.framing in ("length", "chunked")


@pytest.mark.parametrize("name", ["generator", "iterator", "many?pieces=300&size=1000"])
def test_http_1_0_responses_are_never_chunked(server, name):
    with server.wire() as wire:
        answer = wire.request(f"/answers/{name}", version="1.0", headers="Connection: keep-alive\r\n")
    assert answer.framing in ("close", "length")
    assert answer.body in (b"a generator", b"an iterator") or len(answer.body) == 300_000


@pytest.mark.parametrize(("pieces", "size"), [(1000, 10), (100, 100_000), (3, 5_000_000)])
def test_a_long_stream_arrives_completely(server, pieces, size):
    answer = answer_to(server, f"/answers/many?pieces={pieces}&size={size}")
    assert answer.complete
    assert answer.body == b"".join(bytes([97 + number % 26]) * size for number in range(pieces))


@pytest.mark.parametrize("quick", [1, 5, 100])
def test_each_chunk_is_sent_before_the_next_one_is_produced(server, gate, quick):
    """Quick chunks may be sent together, but are not delayed by a slow one."""
    with server.wire() as wire:
        path = f"/gates/stream?gate={gate.directory}&quick={quick}"
        wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert wire.head()[1] == 200
        assert [wire.chunk() for _ in range(quick)] == [b"first\n"] * quick
        gate.wait_for(1)
        gate.open()
        assert [wire.chunk(), wire.chunk()] == [b"second\n", b""]


@pytest.mark.parametrize(
    "status",
    ["200 OK", "201 Made", "299 My Own  Words", "404 Not Found", "500 Oh: no!", "599 x", "600 y", "999 z"],
)
def test_the_status_line_is_that_of_the_app(server, status):
    answer = answer_to(server, f"/answers/status?status={status.replace(' ', '%20')}")
    assert f"{answer.status} {answer.reason}" == status
    assert answer.text == "the body"


def test_headers_arrive_as_given_and_in_order(server):
    sent = [
        ("X-B", "1"),
        ("X-A", "2"),
        ("Set-Cookie", "a=1"),
        ("X-B", "3"),
        ("Set-Cookie", "b=2"),
        ("X-Empty", ""),
    ]
    query = "&".join(f"{name}={value.replace('=', '%3D')}" for name, value in sent)
    with server.wire() as wire:
        headers = wire.request(f"/answers/headers?{query}").headers
    assert [header for header in headers if header[0].startswith(("X-", "Set-"))] == sent


def test_header_values_are_latin_1(server):
    with server.wire() as wire:
        assert wire.request("/answers/headers?X-Name=caf%E9").header("x-name") == "caf\xe9"


def test_date_and_server_are_added_once(server):
    plain = answer_to(server, "/answers/hello")
    parsedate_to_datetime(plain.header("date"))
    own = answer_to(server, "/answers/headers?Date=Thu,+01+Jan+1970+00:00:00+GMT&Server=mine")
    assert own.header("date") == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert own.header("server") == "mine"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "mylittlewebserver"),
        (("--server-header", "shop 1.0"), "shop 1.0"),
        (("--server-header", ""), None),
    ],
    ids=str,
)
def test_the_server_header_is_configurable(shared, options, expected):
    server = shared("raw", *options)
    assert answer_to(server, "/answers/hello").header("server") == expected
    own = answer_to(server, "/answers/headers?Server=mine")
    assert own.header("server") == "mine"
    with server.wire() as wire:
        wire.send(b"GET /\r\n\r\n")
        refusal = wire.answer()
    assert (refusal.status, refusal.header("server")) == (400, expected)


def test_a_server_header_with_a_line_break_is_an_error():
    words = (MLWS, "raw", "--server-header", "a\r\nX-Forged: b")
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=DEADLINE)
    assert ended.returncode == 2
    assert "expected printable ASCII characters" in ended.stderr


@pytest.mark.parametrize(
    "header",
    [
        "Transfer-Encoding=chunked",
        "Transfer-Encoding=gzip",
        "Connection=close",
        "Connection=upgrade",
        "Keep-Alive=5",
        "Upgrade=h2c",
        "Trailer=x",
    ],
)
def test_the_app_cannot_set_hop_by_hop_headers(server, header):
    with server.wire() as wire:
        answer = wire.request(f"/answers/headers?{header}")
        name, _, value = header.partition("=")
        assert (answer.status, answer.body) == (200, b"ok") or answer.status == 500
        if name != "Connection":
            assert value not in answer.all(name) or answer.framing == "chunked"
    assert server.get("/answers/hello").status == 200


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_status_without_body_sends_none(server, status, method):
    answer_to(server, f"/answers/status?status={status.replace(' ', '%20')}", method)


@pytest.mark.parametrize(
    "name", ["one_piece", "pieces", "generator", "big?size=1000000", "write", "many?pieces=99&size=99999"]
)
def test_head_gets_the_head_of_get_without_a_body(server, name):
    get, head = answer_to(server, f"/answers/{name}"), answer_to(server, f"/answers/{name}", "HEAD")
    assert head.status == 200
    assert head.header("content-type") == get.header("content-type")
    if get.framing == "length":
        assert head.header("content-length") in (get.header("content-length"), None)


@pytest.mark.parametrize("name", ["replaced", "replaced_after_empty"])
def test_start_response_can_replace_the_headers_before_anything_is_sent(server, name):
    answer = answer_to(server, f"/answers/{name}")
    assert (answer.status, answer.reason, answer.text) == (503, "Changed My Mind", "replaced")
    assert (answer.header("x-first"), answer.header("x-second")) == (None, "yes")


def test_start_response_reraises_exc_info_once_something_is_sent(server, record):
    with server.wire() as wire:
        answer = wire.request(f"/answers/replaced_too_late?record={record}")
    assert (answer.status, answer.body, answer.complete) == (200, b"sent ", False)
    assert record.read_text() == "raised changed my mind\n"


def test_a_body_longer_than_its_content_length_is_truncated(server, record):
    before = len(server.log.text)
    with server.wire() as wire:
        answer = wire.request(f"/answers/too_long?record={record}")
        assert (answer.header("content-length"), answer.body) == ("5", b"12345")
        wire.send(b"GET /answers/hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert not wire.rest().startswith((b"6", b"7"))
    eventually(lambda: record.read_text() == "closed\n", "close() to be called once")
    server.log.wait_for("(?i)content-length", since=before)


def test_a_body_shorter_than_its_content_length_closes_the_connection(server, record):
    before = len(server.log.text)
    with server.wire() as wire:
        answer = wire.request(f"/answers/too_short?record={record}")
        assert (answer.header("content-length"), answer.body, answer.complete) == ("50", b"123456", False)
    eventually(lambda: record.read_text() == "closed\n", "close() to be called once")
    server.log.wait_for("(?i)content-length", since=before)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        "/answers/noted?at=none",
        "/answers/noted?at=first",
        "/answers/noted?at=middle",
        "/answers/noted_list?",
        "/answers/noted_generator?",
        "/answers/failing_close?",
        "/answers/status?status=204%20None",
        "/answers/status?status=304%20None",
        "/failures/midway_text?",
        "/files/noted?",
        "/files/broken?",
    ],
)
def test_close_is_called_exactly_once(server, record, path, method):
    with server.wire() as wire:
        wire.request(f"{path}&record={record}", method)
    eventually(lambda: "closed" in record.read_text(), "close() to be called")
    assert server.get("/answers/hello").status == 200
    assert record.read_text() == "closed\n"


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_close_is_called_exactly_once_when_the_client_disconnects(server, record, leave):
    wire = server.wire()
    wire.send(f"GET /answers/endless?record={record} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    assert wire.head()[1] == 200
    assert len(wire.chunk()) > 0
    getattr(wire, leave)()
    eventually(lambda: "closed" in record.read_text(), "close() to be called")
    assert server.get("/answers/hello").status == 200
    assert record.read_text() == "closed\n"


def test_an_error_in_close_is_logged_and_does_not_affect_the_response(server, record):
    before = len(server.log.text)
    with server.wire() as wire:
        answer = wire.request(f"/answers/failing_close?record={record}")
    assert (answer.status, answer.text) == (200, "all of it")
    server.log.wait_for("ValueError: in close", since=before)
    assert server.get("/answers/hello").status == 200
