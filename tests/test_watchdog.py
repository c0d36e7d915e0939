"""`--timeout`: requests that hang, their worker, other requests, and the logged stack."""

from __future__ import annotations

import pytest
from conftest import CONCURRENCY
from harness import APPS, eventually, gone

HANGS = (APPS / "raw" / "hangs.py").read_text().splitlines()
THREADED = {name: options for name, options in CONCURRENCY.items() if name != "fork"}


def where(name):
    """The traceback entry of the line that hangs."""
    (number,) = [number for number, line in enumerate(HANGS, 1) if line.endswith(f"# {name}")]
    return rf'hangs\.py", line {number} in {name}'


def ask(server, path):
    wire = server.wire()
    wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return wire


def replaced(server, worker):
    """Waits until another worker has replaced this one."""
    eventually(lambda: gone(worker), f"worker {worker} to be gone")
    assert server.get("/answers/hello").text == "hello\n"
    assert worker not in server.workers()


@pytest.mark.parametrize("app", ["blocks", "keeps_the_gil"])
def test_a_request_that_hangs_is_a_504_and_the_log_shows_the_line(start, concurrency, app):
    server = start("raw", *CONCURRENCY[concurrency], "--timeout", "1")
    (worker,) = server.workers()
    with server.wire() as wire:
        answer = wire.request(f"/hangs/{app}?x=%0a%22")
        assert (answer.status, answer.complete) == (504, True)
        assert answer.text == "504 Gateway Timeout: the request took too long\n"
        if concurrency == "fork":
            assert wire.request("/answers/hello").text == "hello\n"
        else:
            assert answer.header("connection") == "close"
            assert wire.closed()
    server.log.wait_for(rf"ERROR\] request timeout: GET /hangs/{app}\?x=%0a%22 from 127\.0\.0\.1 .* 1\.\d s")
    server.log.wait_for(where(app))
    if concurrency == "fork":
        assert server.get("/answers/hello").text == "hello\n"
        assert server.workers() == [worker]
        eventually(lambda: server.children(worker) == [], "the child to be gone")
    else:
        replaced(server, worker)


def test_a_head_request_that_hangs_gets_a_504_without_a_body(start, concurrency):
    server = start("raw", *CONCURRENCY[concurrency], "--timeout", "1")
    with server.wire() as wire:
        assert wire.request("/hangs/blocks", method="HEAD", headers="Connection: close\r\n").status == 504
        assert wire.closed()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_response_that_hangs_midway_is_recognizably_truncated(start, concurrency, version):
    server = start("raw", *CONCURRENCY[concurrency], "--timeout", "1")
    with server.wire() as wire:
        if version == "1.1":
            answer = wire.request("/hangs/stream")
            assert (answer.status, answer.body, answer.complete) == (200, b"first\n", False)
        else:
            with pytest.raises(ConnectionResetError):
                wire.request("/hangs/stream", version=version)
    server.log.wait_for(where("stream"))
    assert server.get("/answers/hello").text == "hello\n"


@pytest.mark.parametrize("options", THREADED.values(), ids=THREADED)
def test_a_close_that_hangs_does_not_affect_the_response(start, options):
    server = start("raw", *options, "--timeout", "1")
    (worker,) = server.workers()
    with server.wire() as wire:
        assert wire.request("/hangs/closes").text == "early\n"
        server.log.wait_for(where("close"))
        assert wire.closed()
    replaced(server, worker)


def test_a_long_response_of_quick_chunks_does_not_time_out(start, concurrency):
    server = start("raw", *CONCURRENCY[concurrency], "--timeout", "1")
    assert server.get("/hangs/slow_pieces").text == "piece\n" * 8
    assert "ERROR" not in server.log.text


def test_a_slow_reader_does_not_count_towards_the_timeout(start):
    """It does not read for the duration of another response, which exceeds the timeout."""
    server = start("raw", "--threads", "4", "--timeout", "1")
    with server.wire(receive_buffer=4096) as wire:
        wire.send(b"GET /hangs/writes HTTP/1.1\r\nHost: test\r\n\r\n")
        assert server.get("/hangs/slow_pieces").status == 200
        answer = wire.answer()
    assert (answer.complete, len(answer.body)) == (True, 20_000_000)
    assert "ERROR" not in server.log.text


def hang(server, app, record):
    """A request that hangs."""
    wire = ask(server, f"/hangs/{app}?record={record}")
    eventually(record.read_text, "the request to be in the application")
    return wire


def test_inline_requests_queued_after_one_that_hangs_get_503(start, record):
    server = start("raw", "--threads", "1", "--timeout", "1")
    with server.wire() as waiting, server.wire() as idle:
        for wire in (waiting, idle):
            assert wire.request("/answers/hello").status == 200
        with hang(server, "blocks", record) as hanging:
            waiting.send(b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n")
            assert hanging.answer().status == 504
        answer = waiting.answer()
        assert (answer.status, answer.header("retry-after"), answer.header("connection")) == (
            503,
            "1",
            "close",
        )
        assert idle.closed()


def test_inline_connections_not_yet_accepted_are_served_by_the_next_worker(start, record):
    server = start("raw", "--threads", "1", "--timeout", "1")
    with hang(server, "keeps_the_gil", record) as hanging, ask(server, "/answers/hello") as waiting:
        assert hanging.answer().status == 504
        assert waiting.answer().text == "hello\n"


def test_other_threads_finish_their_requests_before_the_worker_exits(start, record):
    server = start("raw", "--threads", "4", "--timeout", "1")
    (worker,) = server.workers()
    with hang(server, "blocks", record) as hanging, ask(server, "/hangs/slow_pieces") as other:
        assert hanging.answer().status == 504
        answer = other.answer()
        assert (answer.text, answer.complete) == ("piece\n" * 8, True)
    replaced(server, worker)
    server.log.wait_for("a thread is stuck in the application")


def test_requests_get_a_503_while_every_thread_hangs(start, record):
    server = start("raw", "--threads", "2", "--timeout", "1")
    (worker,) = server.workers()
    with server.wire() as waiting:
        assert waiting.request("/answers/hello").status == 200
        hanging = [hang(server, "blocks", record) for _ in range(2)]
        eventually(lambda: record.read_text().count("in") == 2, "both to be in the application")
        assert waiting.request("/answers/hello").status == 503
        for wire in hanging:
            assert wire.answer().status == 504
            wire.close()
    replaced(server, worker)


def test_a_crash_logs_its_stack(start):
    server = start("raw", "--threads", "4")
    with ask(server, "/gates/die?how=segfault") as wire:
        assert wire.closed()
    server.log.wait_for("Fatal Python error: Segmentation fault")
    server.log.wait_for(r'gates\.py", line \d+ in die')


def test_without_a_timeout_a_call_may_take_any_time(start, gate, concurrency):
    server = start("raw", *CONCURRENCY[concurrency], "--timeout", "0")
    with ask(server, gate.path) as wire:
        gate.wait_for(1)
        gate.open()
        assert wire.answer().text == "passed\n"
