"""One request, one thread: all code of a request runs on one thread and in one context.

No code of other requests runs in between. That holds for the call, each chunk, each `write()`, `close()`,
`pre_request`, `post_request` and the record of the access log, in every concurrency mode, for every type of
response, for every speed of the client, and however the response ends.
"""

from __future__ import annotations

import itertools
import json
import threading
import time

import pytest
from apps.affinity import PIECE, RESPONSES, piece
from clients import SlowWire, ask, target, together
from conftest import CONCURRENCY
from harness import MLWS, Server, eventually
from wire import Wire

MODES = {**CONCURRENCY, "preloaded": ("--preload", "--threads", "4")}
TYPES = [name for name in RESPONSES if name != "beat"]
HELD = [
    "generator",
    "iterator",
    "memory file",
    "write",
    "write and list",
    "write and generator",
    "write and file",
]
"""The types of responses whose app can wait between the first and the second chunk."""
COUNT = 48
"""Chunks of a response: more than the buffers of a slow connection hold."""

numbers = itertools.count()


class Recorded:
    """A server whose app, hooks and access log record events."""

    def __init__(self, directory, *options):
        self.directory = directory
        self.path = directory / "record"
        self.path.touch()
        self.server = Server(
            "affinity:app",
            *options,
            command=(MLWS, "-c", "affinity_config.py"),
            env={"AFFINITY_RECORD": str(self.path)},
        )
        self._events, self._read, self._lock = [], 0, threading.Lock()

    def events(self):
        """Everything recorded so far, in order."""
        with self._lock, self.path.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            self._read += len(whole)
            self._events += map(json.loads, whole.splitlines())
            return list(self._events)

    def of(self, name):
        return [event for event in self.events() if event["id"] == name]

    def reached(self, name, what):
        """Waits for this event of the request."""
        eventually(
            lambda: any(event["what"] == what for event in self.of(name)), f"{what} of {name}", pause=0.02
        )

    def ask(self, name, wire=Wire, headers="", **query):
        return ask(self.server, target("/", id=name, **query), headers, wire)

    def conforms(self, name, closes=(1,), logged=True):
        """Checks the recorded events of a request after its end.

        `closes` are the permitted numbers of calls of `close()`.
        """
        for what in ("close",) * min(closes) + ("post_request", "access") * logged:
            self.reached(name, what)
        mine = self.of(name)
        assert len({(event["process"], event["thread"]) for event in mine}) == 1, f"several threads: {mine}"
        words = [event["what"] for event in mine]
        assert words[:2] == ["pre_request", "call"]
        assert words.count("close") in closes
        if logged:
            assert [words.count(what) for what in ("call", "post_request", "access")] == [1, 1, 1]
        assert (mine[0]["user"], mine[0]["trace"]) == ("nobody", "nobody"), "variables of an earlier request"
        assert (mine[1]["user"], mine[1]["trace"]) == ("nobody", name)
        for event in mine[2:]:
            if event["what"] != "access":
                assert (event["user"], event["trace"]) == (name, name), event
            assert event.get("same_context", True), "close() in another context"
        self.is_alone(mine)

    def is_alone(self, mine):
        place = (mine[0]["process"], mine[0]["thread"])
        there = [event["id"] for event in self.events() if (event["process"], event["thread"]) == place]
        first = there.index(mine[0]["id"])
        between = set(there[first : first + len(mine)]) - {mine[0]["id"]}
        assert not between, f"other requests ran in between: {between}"


def fresh(word):
    return f"{word}{next(numbers)}"


def body_of(name, count=COUNT):
    return b"".join(piece(name, number) for number in range(count))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    servers = {}

    def recorded(mode):
        if mode not in servers:
            servers[mode] = Recorded(tmp_path_factory.mktemp(mode), *MODES[mode])
        return servers[mode]

    yield recorded
    try:
        for made in servers.values():
            made.server.stop_if_running()
    finally:
        for made in servers.values():
            made.server.end()


@pytest.fixture
def started(tmp_path):
    """A server for one test."""
    made = []

    def started(*options):
        made.append(Recorded(tmp_path, *options))
        return made[-1]

    yield started
    for each in made:
        each.server.end()


@pytest.fixture
def visited():
    """Sends short requests continuously, each on its own connection, until the block ends. Returns their names."""

    class Visitors:
        def __init__(self, recorded):
            self.recorded, self.over, self.names = recorded, threading.Event(), []
            self.threads = [threading.Thread(target=self.visit, daemon=True) for _ in range(2)]

        def __enter__(self):
            for thread in self.threads:
                thread.start()
            return self.names

        def __exit__(self, *_):
            self.over.set()
            for thread in self.threads:
                thread.join()

        def visit(self):
            with self.recorded.server.wire() as wire:
                while not self.over.is_set():
                    name = fresh("visitor")
                    answer = wire.request(target("/", id=name))
                    assert answer.body == piece(name, 0)
                    self.names.append(name)
                    time.sleep(0.002)  # no more than enough

    return Visitors


def received(wire, name):
    answer = wire.answer()
    wire.close()
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body == body_of(name)


@pytest.mark.parametrize("response", TYPES)
@pytest.mark.parametrize("mode", MODES)
def test_a_request_runs_on_one_thread_and_in_one_context(recorded, visited, at_length, mode, response):
    for _ in range(at_length(1, 20)):
        at_every_speed(recorded(mode), visited, response)


def at_every_speed(made, visited, response):
    fast, slow, silent = fresh("fast"), fresh("slow"), fresh("silent")
    query = {"response": response, "pieces": COUNT}

    def read_fast():
        with made.server.wire() as wire:
            answer = wire.request(target("/", id=fast, length=1, **query))
            assert (answer.framing, answer.body) == ("length", body_of(fast))
            assert wire.request(target("/", id=fresh("next"))).status == 200

    def read_slowly():
        with made.ask(slow, SlowWire, **query) as wire:
            wire.dawdle()
            received(wire, slow)

    def read_when_the_app_is_done():
        with made.ask(silent, SlowWire, **query) as wire:
            made.reached(silent, "close")
            wire.hurry()
            received(wire, silent)

    with visited(made) as visitors:
        together(read_fast, read_slowly, read_when_the_app_is_done)
    for name in (fast, slow, silent, *visitors[-20:]):
        made.conforms(name)


@pytest.mark.parametrize("response", TYPES)
@pytest.mark.parametrize("mode", MODES)
def test_a_request_whose_client_disconnects_ends_on_its_thread(recorded, mode, response):
    made = recorded(mode)
    name, visitor, release = fresh("leaver"), fresh("visitor"), made.directory / fresh("release")
    lasting = response in ("generator", "iterator", "memory file")
    with made.ask(
        name, SlowWire, response=response, pieces=20_000 if lasting else COUNT, hold=release
    ) as wire:
        if response in HELD:
            made.reached(name, "held")
        assert wire.head()[1] == 200
        with made.ask(visitor) as other:
            wire.reset()
            release.touch()
            assert other.answer().body == piece(visitor, 0)
    # Where `write()` fails, there is nothing to close.
    made.conforms(name, closes=(0, 1) if response.startswith("write") else (1,))
    made.conforms(visitor)
    assert not lasting or "exhausted" not in [event["what"] for event in made.of(name)]


@pytest.mark.parametrize("response", ["generator", "iterator", "memory file", "write"])
@pytest.mark.parametrize("mode", MODES)
def test_a_request_that_fails_midway_ends_on_its_thread(recorded, visited, mode, response):
    made = recorded(mode)
    names = [fresh("failure") for _ in range(4)]

    def fail(name, wire):
        with made.ask(name, wire, response=response, pieces=COUNT, fails=1) as asked:
            answer = asked.answer()
        assert (answer.status, answer.body, answer.complete) == (200, piece(name, 0), False)

    with visited(made):
        together(
            *(
                lambda name=name, wire=wire: fail(name, wire)
                for name, wire in zip(names, [Wire, SlowWire] * 2, strict=False)
            )
        )
    for name in names:
        made.conforms(name, closes=(0,) if response == "write" else (1,))


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_that_runs_during_shutdown_ends_on_its_thread(started, mode):
    made = started(*MODES[mode])
    responses = HELD[:1] if mode == "inline" else ["generator", "memory file", "write", "write and generator"]
    release = made.directory / "release"
    names = {response: fresh("lasting") for response in responses}
    wires = {
        name: made.ask(name, response=response, pieces=COUNT, hold=release)
        for response, name in names.items()
    }
    for name in wires:
        made.reached(name, "held")
    before = len(made.server.log.text)
    made.server.process.terminate()
    made.server.log.wait_for("Handling signal: TERM", since=before)
    release.touch()
    for name, wire in wires.items():
        received(wire, name)
    assert made.server.wait() == 0
    for name in wires:
        made.conforms(name)


def test_a_stream_that_exceeds_its_timeout_is_closed_on_its_thread_when_it_returns(started):
    made = started("--threads", "4", "--timeout", "1")
    late, other, release, end = (
        fresh("late"),
        fresh("other"),
        made.directory / "release",
        made.directory / "end",
    )
    with made.ask(other, response="beat", hold=end) as lasting:
        with made.ask(late, response="generator", pieces=20_000, hold=release) as wire:
            answer = wire.answer()
            assert (answer.body, answer.complete) == (piece(late, 0), False)
        release.touch()
        made.reached(late, "close")
        end.touch()
        assert lasting.answer().complete
    made.conforms(late, logged=False)
    made.conforms(other)
    assert "exhausted" not in [event["what"] for event in made.of(late)]


@pytest.mark.parametrize("mode", MODES)
def test_context_variables_do_not_leak_into_later_requests(recorded, mode):
    made = recorded(mode)
    names = [fresh("one") for _ in range(20)]
    with made.server.wire() as wire:
        for number, name in enumerate(names):
            response = ("list", "generator", "write")[number % 3]
            assert wire.request(target("/", id=name, response=response)).body == piece(name, 0)
    for name in names:
        made.conforms(name)


def test_pieces_have_the_expected_length():
    assert len(piece("name", 7)) == PIECE
