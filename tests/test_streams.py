"""Streams: framing, timeouts, ends, threads, and forks within a stream."""

from __future__ import annotations

import contextlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from apps.streaming import content
from clients import ask, target, together
from conftest import CONCURRENCY
from harness import Server, eventually
from wire import DEADLINE

numbers = itertools.count()


@pytest.fixture
def serving(shared, concurrency):
    return shared("streaming", *CONCURRENCY[concurrency])


# Streams that take longer than a timeout run concurrently, beside the other tests of this module.

EVENTS = "".join(f"data: {word}\n\n" for word in (0, 1, "end"))


def empty_chunks(options):
    with Server("streaming", *options, "--timeout", "2") as server, server.wire() as wire:
        answer = wire.request(target("/empty_chunks", seconds=5))
        assert (answer.text, answer.complete) == ("working done", True)
        assert "ERROR" not in server.log.text


def events(options, content_type, clients):
    """The results of clients of a stream whose pauses are twice the timeout, and whether its worker continues."""
    path = target("/events", content_type=content_type, count=2, pause=2.2)

    def subscribe():
        with server.wire() as wire:
            answer = wire.request(path)
            return answer.text, answer.complete

    with Server("streaming", *options, "--timeout", "1") as server:
        workers = server.workers()
        answers = together(*[subscribe] * clients)
        assert server.get("/hello").text == "hello\n"
        return answers, server.workers() == workers


def silent_events(options, content_type="text/event-stream"):
    assert events(options, content_type, 6) == ([(EVENTS, True)] * 6, True)


def other_stream(options, content_type="text/plain"):
    answers, _ = events(options, content_type, 1)
    assert answers == [("data: 0\n\n", False)]


EIGHT = ("--threads", "8")
LONG = {
    **{f"empty chunks, {mode}": (empty_chunks, options) for mode, options in CONCURRENCY.items()},
    "silent events, threads": (silent_events, EIGHT),
    "silent events, fork": (silent_events, CONCURRENCY["fork"]),
    "silent events with a charset, threads": (silent_events, EIGHT, "Text/Event-Stream; charset=utf-8"),
    **{f"another stream, {mode}": (other_stream, options) for mode, options in CONCURRENCY.items()},
    "silent events, inline": (other_stream, CONCURRENCY["inline"], "text/event-stream"),
}


@pytest.fixture(scope="module", autouse=True)
def long_ones(request):
    """The futures of the selected tests."""
    items = [item for item in request.session.items if item.path == request.path]
    names = [item.callspec.params["long"] for item in items if "long" in getattr(item, "fixturenames", ())]
    with ThreadPoolExecutor(len(LONG)) as pool:
        yield {name: pool.submit(*LONG[name]) for name in names}


# Framing.


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("kind", ["file", "memory file"])
def test_a_file_after_a_write_is_in_the_same_body(serving, kind, version):
    name, size = f"file{next(numbers)}", 300_000
    with serving.wire() as wire:
        path = target("/large", name=name, size=size, type=kind, first="first")
        answer = wire.request(path, version=version)
        assert answer.framing == ("chunked" if version == "1.1" else "close")
        assert answer.complete
        assert answer.body == b"first" + content(name, size)
        if version == "1.1":
            assert wire.request("/hello").text == "hello\n"


def test_empty_chunks_are_not_sent(serving):
    """An empty chunk would end the body."""
    with serving.wire() as wire:
        answer = wire.request(target("/empty_chunks", seconds=0.1))
        assert (answer.framing, answer.text, answer.complete) == ("chunked", "working done", True)
        assert wire.request("/hello").text == "hello\n"


# Ends.


def test_an_empty_chunk_after_a_disconnect_ends_the_stream(serving, record):
    with ask(serving, target("/empty_chunks_until_closed", record=record)) as wire:
        assert wire.head()[1] == 200
        assert wire.chunk() == b"first\n"
        wire.reset()
    eventually(lambda: record.read_text() == "closed\n", "close() to be called once")
    assert serving.get("/hello").text == "hello\n"


@pytest.mark.parametrize("how", ["exit", "raise", "return"])
@pytest.mark.parametrize("where", ["call", "stream"])
def test_a_process_forked_by_the_app_does_not_return_to_the_server(serving, where, how):
    """It exits with its usual status; only its parent responds."""
    own = sorted([serving.pid, *serving.workers()])
    status = {"exit": 3, "raise": 1, "return": 0}[how]
    with ask(serving, target(f"/fork_in_{where}", how=how), "Connection: close\r\n") as wire:
        answer = wire.answer()
        assert answer.complete
        assert answer.text == ("first " if where == "stream" else "") + f"status {status}"
        assert wire.rest() == b""
    eventually(lambda: serving.family_pids() == own, "no other process to be left")
    for _ in range(5):
        assert serving.get("/hello").text == "hello\n"


# Threads.


def test_threading_hooks_see_every_serving_thread(shared):
    """The threads are Python threads, so profilers, debuggers and coverage tools find them and their names."""
    server = shared("traced", "--threads", "4")
    threads = together(*[lambda: json.loads(server.get("/?parties=4").text)] * 4)
    assert len({facts["thread"] for facts in threads}) == 4
    for facts in threads:
        assert facts["main"] or facts["name"].startswith("mlws"), facts
        assert facts["class"] == ("_MainThread" if facts["main"] else "Thread")
        assert facts["listed"]
        # The hooks are for threads to come; the application was loaded on the main thread.
        assert facts["main"] or (facts["profiled"] and facts["traced"])
    assert len({facts["name"] for facts in threads}) == 4


@pytest.mark.parametrize(
    "options", [CONCURRENCY["inline"], CONCURRENCY["fork"], ()], ids=["inline", "fork", "default"]
)
def test_one_thread_is_the_main_thread(shared, options):
    facts = json.loads(shared("traced", *options).get("/?parties=1").text)
    assert (facts["name"], facts["class"], facts["main"]) == ("MainThread", "_MainThread", True)


def test_two_hundred_clients_get_each_event(start, at_length):
    count = at_length(200, 1000)
    server = start("streaming", "--threads", str(count + 20))
    with contextlib.ExitStack() as ends:
        wires = [ends.enter_context(ask(server, "/subscribe")) for _ in range(count)]
        for wire in wires:
            assert wire.head()[1] == 200
            assert wire.chunk() == b"data: hello\n\n"
        for event in ("one", "two", "end"):
            assert server.get(target("/publish", event=event)).status == 200
            for wire in wires:
                assert wire.chunk() == f"data: {event}\n\n".encode()
        for wire in wires:
            assert wire.chunk() == b""


@pytest.mark.parametrize("long", LONG)
def test_a_stream_that_takes_longer_than_a_timeout(long_ones, long):
    """Empty chunks show that the app is alive, so they may continue without end."""
    long_ones[long].result(4 * DEADLINE)
