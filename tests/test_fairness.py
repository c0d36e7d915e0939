"""Whatever one client does, the others are served meanwhile.

"Meanwhile" is not measured: when the others have their responses, the hostile client has not finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import subprocess
import threading

import pytest
from apps.streaming import content
from clients import SlowWire, ask, get, target, together
from conftest import CONCURRENCY
from harness import DEADLINE, eventually

MODES = {**CONCURRENCY, "fork": ("--fork", "--max-children", "8")}
numbers = itertools.count()


@pytest.fixture
def serving(shared, mode):
    return shared("streaming", *MODES[mode])


def others_are_answered(server):
    """On separate connections, and on one persistent connection."""
    with server.wire() as kept:
        for _ in range(15):
            assert kept.request("/hello").text == "hello\n"
            assert server.get("/hello").text == "hello\n"


class Busy:
    """A client on its own thread that runs until it is stopped; its return value is the result."""

    def __init__(self, work):
        self.stop, self.started, self.failure = threading.Event(), threading.Event(), None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)

    def _run(self, work):
        try:
            work(self)
        except BaseException as failure:
            self.failure = failure
        finally:
            self.started.set()

    def __enter__(self):
        self._thread.start()
        self.started.wait()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self._thread.join()
        if self.failure:
            raise self.failure

    def goes_on(self):
        return self._thread.is_alive()


@contextlib.contextmanager
def reads_a_fast_stream(server, directory, mode):
    """Rows are produced, sent and read at full speed. Other clients must not wait for millions of them."""
    until, received, count = directory / "until", directory / "rows", 3_000_000
    url = f"http://{server.host}:{server.port}" + target("/rows", until=until, count=count)
    with subprocess.Popen(["curl", "--silent", "--output", received, url]) as reader:
        try:
            eventually(lambda: received.exists(), "the first rows")
            yield lambda: reader.poll() is None
        finally:
            until.touch()
            assert reader.wait(2 * DEADLINE) == 0
            until.unlink()
            received.unlink()


@contextlib.contextmanager
def uploads_chunks_of_one_byte(server, directory, mode):
    def send(busy):
        with server.wire() as wire:
            wire.send(b"POST /upload HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
            count = 0
            while not busy.stop.is_set():
                if count < 400_000:
                    wire.send(b"1\r\nx\r\n" * 1000)
                    count += 1000
                    busy.started.set()
                else:
                    busy.stop.wait()
            wire.send(b"0\r\n\r\n")
            assert wire.answer().text == f"{count} {hashlib.sha256(b'x' * count).hexdigest()}"

    with Busy(send) as busy:
        yield busy.goes_on


@contextlib.contextmanager
def uploads_a_large_body(server, directory, mode):
    """With one thread, no more than the server reads before it calls the app."""
    body = content("upload", 500_000 if mode == "inline" else 64 << 20)

    def send(busy):
        with server.wire() as wire:
            wire.send(f"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            busy.started.set()
            wire.send(body[:-1000], step=65536)
            busy.stop.wait()
            wire.send(body[-1000:])
            assert wire.answer().text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"

    with Busy(send) as busy:
        yield busy.goes_on


@contextlib.contextmanager
def pipelines_hundreds_of_requests(server, directory, mode):
    batch = 200

    def send(busy):
        with server.wire() as wire:
            while not busy.stop.is_set():
                wire.send(get("/hello") * batch)
                busy.started.set()
                for _ in range(batch):
                    assert wire.answer().text == "hello\n"

    with Busy(send) as busy:
        yield busy.goes_on


@contextlib.contextmanager
def does_not_read(server, directory, count, size, types):
    with contextlib.ExitStack() as ends:
        wires = {}
        for number in range(count):
            name = f"unread{next(numbers)}"
            path = target("/large", name=name, size=size, type=types[number % len(types)])
            wires[name] = ends.enter_context(ask(server, path, wire=SlowWire))
        yield lambda: True  # no client reads a byte before this block is over
        for name, wire in wires.items():
            wire.hurry()
            answer = wire.answer()
            assert (answer.status, answer.complete) == (200, True)
            assert answer.body == content(name, size)


def does_not_read_a_large_body(server, directory, mode):
    return does_not_read(server, directory, 3, 8 << 20, ["bytes", "stream", "write"])


def does_not_read_64_responses(server, directory, mode):
    return does_not_read(server, directory, 64, 300_000, ["bytes", "list", "stream", "write", "file"])


HOSTILE = [
    reads_a_fast_stream,
    uploads_chunks_of_one_byte,
    uploads_a_large_body,
    pipelines_hundreds_of_requests,
    does_not_read_a_large_body,
    does_not_read_64_responses,
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.__name__)
@pytest.mark.parametrize("mode", MODES)
def test_other_clients_are_served_while_one_client(serving, tmp_path, at_length, mode, hostile):
    if mode == "inline" and hostile is reads_a_fast_stream:
        pytest.skip("the one thread is the stream's until the app is done with it")
    for _ in range(at_length(1, 20)):
        with hostile(serving, tmp_path, mode) as goes_on:
            others_are_answered(serving)
            assert goes_on()


# Threads that are in `close()`.


@pytest.mark.parametrize("wait", [True, False], ids=["then ask", "while asking"])
def test_each_request_is_answered_while_close_of_the_previous_one_runs(shared, tmp_path, record, wait):
    """The next request arrives while the thread is in `close()`, or enters it.

    In both cases another thread serves it.
    """
    server = shared("streaming", "--threads", "2")
    releases = [tmp_path / f"release{number}" for number in range(5)]
    try:
        with server.wire() as wire:
            for number, release in enumerate(releases):
                answer = wire.request(target("/slow_close", name=number, record=record, until=release))
                assert answer.text == "early\n"
                if wait or number:
                    eventually(lambda number=number: f"closing {number}\n" in record.read_text(), "close()")
                if number:
                    assert f"closed {number - 1}\n" not in record.read_text()
                    releases[number - 1].touch()
                    eventually(
                        lambda number=number: f"closed {number - 1}\n" in record.read_text(), "close()"
                    )
    finally:
        for release in releases:
            release.touch()


def test_requests_do_not_wait_for_threads_that_return_from_close(shared):
    """Each lost wake-up costs a second, so that the test would take minutes."""
    server = shared("streaming", "--threads", "4")

    def ask_often():
        with server.wire() as wire:
            for _ in range(150):
                assert wire.request("/short_close").text == "early\n"

    together(*[ask_often] * 16, deadline=DEADLINE)


@pytest.mark.parametrize("mode", ["threads", "fork"])
def test_other_clients_are_served_while_three_close_calls_run(serving, tmp_path, record, mode):
    release = tmp_path / "release"
    try:
        for number in range(3):
            answer = serving.get(target("/slow_close", name=number, record=record, until=release))
            assert answer.text == "early\n"
        eventually(lambda: record.read_text().count("closing") == 3, "three to be in close()")
        others_are_answered(serving)
        assert "closed" not in record.read_text()
    finally:
        release.touch()
    eventually(lambda: record.read_text().count("closed") == 3, "close() to be over")
