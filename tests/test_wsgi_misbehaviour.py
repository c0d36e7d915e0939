"""Apps that violate PEP 3333 in every way.

The client gets an error or a truncated response, the log has one record, and the next request is served.
"""

from __future__ import annotations

import re

import pytest
from conftest import CONCURRENCY
from harness import eventually

BEFORE_THE_HEAD = {
    "interrupts": "KeyboardInterrupt",
    "interrupts_in_generator": "KeyboardInterrupt",
    "leaves_generator": "GeneratorExit",
    "stops_iteration": "StopIteration",
    "unprintable_interrupt": "UnprintableError",
    "class_lies": "LiarError",
    "starts_too_late": "did not call start_response",
    "starts_with_nothing": "TypeError",
    "starts_with_bad_exc_info": "TypeError",
    "headers_dict": "TypeError: invalid headers",
    "headers_number": "TypeError: invalid headers",
    "writes_bytearray": "TypeError",
    "bytearray_piece": "TypeError: .*bytearray",
    "memoryview_piece": "TypeError: .*memoryview",
    "number_in_long_list": "TypeError: .*int",
    "iter_raises": "ValueError: no iterator today",
    "iter_gives_number": "TypeError",
    "file_without_read": "AttributeError",
    "file_of_text": "TypeError: .*str",
    "file_closed": "ValueError: .*closed file",
}

AFTER_THE_HEAD = {
    "midway_interrupt": "KeyboardInterrupt",
    "midway_base_exception": "Fire: the app is on fire",
    "midway_number": "TypeError: .*int",
    "midway_start": "AssertionError",
    "midway_write": "AssertionError",
    "midway_file": "TypeError: .*str",
    "write_then_raise": "ValueError: after a write",
    "write_then_exit": "SystemExit",
    "write_then_number": "TypeError: .*int",
    "write_then_start": "AssertionError",
}

AT_THE_END = {
    "close_exits": "SystemExit",
    "close_interrupts": "KeyboardInterrupt",
    "close_is_no_function": "TypeError",
    "close_cannot_be_had": "ValueError: no close today",
    "last_byte_then_raise": "ValueError: after the last byte",
}

RIGHT = {
    "headers_tuple": b"a tuple of headers",
    "headers_items": b"items of a dict",
    "headers_lists": b"lists of two",
    "length_raises": b"unmeasured",
    "length_negative": b"unmeasured",
    "headers_change_while_read": None,
    "starts_twice_with_no_exception": b"replaced",
    "length_says_many": b"one two",
    "length_says_none": b"one two",
    "many_headers": b"after many headers",
    "long_header": b"after a long header",
    "file_without_descriptor": b"a file of its own kind",
    "file_with_a_lie": b"what it reads",
}


@pytest.fixture
def lasting(server):
    """The server. No test may end a worker."""
    workers = server.workers()
    yield server
    assert server.get("/answers/hello").text == "hello\n"
    assert server.workers() == workers


@pytest.fixture
def record_matching(server):
    """The log record of this test, of which there must be exactly one."""
    before = len(server.log.text)

    def record_matching(pattern):
        server.log.wait_for(rf"(?s)\] \[(ERROR|WARNING)\] .*({pattern})", since=before)
        # Another record would be present when another request has been answered.
        assert server.get("/answers/hello").status == 200
        records = re.findall(r"(?m)^\[.+?\] \[\d+\] \[(?:ERROR|WARNING)\] (.+)", server.log.text[before:])
        assert len(records) == 1, records
        return records[0]

    return record_matching


def ask(server, path, method="GET", version="1.1", headers=""):
    with server.wire() as wire:
        return wire.request(f"/misbehaviour/{path}", method, version=version, headers=headers)


@pytest.mark.parametrize("name", BEFORE_THE_HEAD)
def test_an_error_before_the_head_is_a_500(lasting, record_matching, name):
    answer = ask(lasting, name)
    assert (answer.status, answer.complete) == (500, True)
    assert "Traceback" not in answer.text
    assert record_matching(BEFORE_THE_HEAD[name]).startswith(f"GET /misbehaviour/{name}: ")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("name", AFTER_THE_HEAD)
def test_an_error_after_the_head_recognizably_truncates_the_response(lasting, record_matching, name, version):
    """HTTP/1.0 has no final chunk that could be missing, so the connection has to be reset."""
    with lasting.wire() as wire:
        wire.send(f"GET /misbehaviour/{name} HTTP/{version}\r\nHost: test\r\n\r\n".encode())
        if version == "1.0":
            with pytest.raises(ConnectionResetError):
                wire.rest()
        else:
            answer = wire.answer()
            assert (answer.status, answer.body, answer.complete) == (200, b"so far ", False)
    assert record_matching(AFTER_THE_HEAD[name]).startswith(f"GET /misbehaviour/{name}: ")


@pytest.mark.parametrize("name", AT_THE_END)
def test_an_error_at_the_end_does_not_affect_the_response(lasting, record_matching, record, name):
    with lasting.wire() as wire:
        answer = wire.request(f"/misbehaviour/{name}?record={record}")
        assert (answer.status, answer.body, answer.complete) == (200, b"all of it", True)
        assert wire.request("/answers/hello").text == "hello\n"
    assert record_matching(AT_THE_END[name]).startswith(f"GET /misbehaviour/{name}?")
    assert record.read_text() in ("", "closed\n")


@pytest.mark.parametrize("name", RIGHT)
def test_unusual_but_valid_apps_are_served(lasting, name):
    before = len(lasting.log.text)
    with lasting.wire() as wire:
        answer = wire.request(f"/misbehaviour/{name}")
        assert answer.complete
        assert answer.status in (200, 500)
        assert answer.body == RIGHT[name] or RIGHT[name] is None
        assert wire.request("/answers/hello").text == "hello\n"
    assert RIGHT[name] is None or "ERROR" not in lasting.log.text[before:]


def test_a_len_of_one_is_trusted_and_further_chunks_are_not_sent(lasting, record_matching, record):
    with lasting.wire() as wire:
        answer = wire.request(f"/misbehaviour/length_says_one?record={record}")
        assert (answer.status, answer.body, answer.complete) == (200, b"one ", True)
        assert wire.request("/answers/hello").text == "hello\n"
    assert "longer" in record_matching("longer")
    eventually(lambda: record.read_text() == "closed\n", "close() to be called once")


# An incorrect Content-Length.

SHAPES = ["piece", "list", "tuple", "iterator", "body", "write"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pieces", [6, 9])
def test_a_body_longer_than_its_content_length_is_truncated_and_the_connection_kept(
    lasting, record_matching, shape, pieces
):
    with lasting.wire() as wire:
        answer = wire.request(f"/misbehaviour/declares_length?shape={shape}&length=5&pieces={pieces}")
        assert (answer.status, answer.body, answer.framing) == (200, b"xxxxx", "length")
        assert wire.request("/answers/hello").text == "hello\n"
    record = record_matching("Content-Length")
    assert "longer" in record
    assert record.startswith("GET /misbehaviour/declares_length?")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pieces", [0, 1, 4])
def test_a_body_shorter_than_its_content_length_is_followed_by_the_close_only(
    lasting, record_matching, shape, pieces
):
    """The response to a pipelined request would be taken for the rest of this body."""
    head = f"GET /misbehaviour/declares_length?shape={shape}&length=5&pieces={pieces} HTTP/1.1\r\nHost: test\r\n\r\n"
    with lasting.wire() as wire:
        wire.send(head.encode() + b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n")
        answer = wire.answer()
    assert (answer.status, answer.body, answer.complete) == (200, b"x" * pieces, False)
    record = record_matching("Content-Length")
    assert "short" in record
    assert record.startswith("GET /misbehaviour/declares_length?")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_body_that_matches_its_content_length_logs_nothing(lasting, shape):
    before = len(lasting.log.text)
    with lasting.wire() as wire:
        assert wire.request(f"/misbehaviour/declares_length?shape={shape}&length=5&pieces=5").body == b"xxxxx"
        assert (
            wire.request(f"/misbehaviour/declares_length?shape={shape}&length=5&pieces=5", "HEAD").status
            == 200
        )
        assert wire.request("/answers/hello").text == "hello\n"
    assert not re.search("ERROR|WARNING", lasting.log.text[before:])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_endless_body_is_closed_at_its_content_length(lasting, record, method):
    with lasting.wire() as wire:
        answer = wire.request(f"/misbehaviour/overflows?record={record}", method)
        assert answer.body == (b"12312" if method == "GET" else b"")
        assert wire.request("/answers/hello").text == "hello\n"
    eventually(lambda: record.read_text() == "closed\n", "close() to be called once")


# Other tests of the server.


def test_no_exception_can_forge_a_log_record(lasting):
    before = len(lasting.log.text)
    forged = "[2000-01-01 00:00:00 +0000] [1] [CRITICAL] forged"
    path = "/misbehaviour/forges_the_log/%0A" + forged.replace(" ", "%20") + "%1B%0D%0A"
    assert lasting.get(path).status == 500
    lasting.log.wait_for("forged", since=before)
    assert lasting.get("/answers/hello").status == 200
    log = lasting.log.text[before:]
    assert not re.search(r"(?m)^\[2000", log)
    assert "\x1b" not in log
    assert "\r" not in log


def test_an_app_that_closes_wsgi_errors_does_not_close_the_log(start, concurrency):
    server = start("raw", *CONCURRENCY[concurrency])
    assert server.get("/misbehaviour/closes_its_streams").text == "closed"
    assert server.get("/failures/raises").status == 500
    server.log.wait_for("the app is on fire")
    assert server.get("/answers/hello").text == "hello\n"


def test_objects_of_an_earlier_request_are_unusable(start):
    server = start("raw", "--threads", "1")
    with server.wire() as wire:
        answers = [wire.request("/misbehaviour/hidden_callables").text for _ in range(3)]
    one = "AssertionError AssertionError b''"
    assert answers == ["", one, f"{one} {one}"]


def test_an_endless_loop_in_a_child_is_killed_at_the_timeout(start):
    server = start("raw", "--fork", "--timeout", "1")
    with server.wire() as wire:
        assert wire.request("/misbehaviour/spins").status == 504
    assert len(re.findall(r"\[ERROR\]", server.log.text)) == 1
    eventually(lambda: server.children() == [], "the child to be reaped")
    assert server.get("/answers/hello").text == "hello\n"
