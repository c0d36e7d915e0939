"""The memory of a worker is bounded, whatever its clients leave unread or incomplete; and buffered data arrives intact."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import subprocess
import threading

import pytest
from apps.streaming import content
from clients import SlowWire, ask, resident, stands_still, target, together, unlinked_files
from conftest import CONCURRENCY
from harness import DEADLINE, eventually, rests
from wire import Wire

MB = 1 << 20
ALLOWANCE = 40 * MB
"""Memory for connections, threads and fragmentation, in addition to the budget."""
numbers = itertools.count()


def fresh(word):
    return f"{word}{next(numbers)}"


class Peak:
    """The peak of a process's memory since the start of the block, above its memory at the start."""

    def __init__(self, pid):
        self.pid, self.over, self.most = pid, threading.Event(), 0
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.before = resident(self.pid)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def watch(self):
        while not self.over.wait(0.02):
            self.look()

    def look(self):
        self.most = max(self.most, resident(self.pid) - self.before)
        return self.most


def large(name, size, kind, **query):
    return target("/large", name=name, size=size, type=kind, **query)


def lines(path):
    return path.read_text().splitlines()


# Unread responses.


@contextlib.contextmanager
def unread(server, record, kind, count):
    """Clients that requested a megabyte and read none of it, although the app has produced all of it."""
    with contextlib.ExitStack() as ends:
        names = [fresh("unread") for _ in range(count)]
        wires = [ask(server, large(name, MB, kind, record=record), wire=SlowWire) for name in names]
        for wire in wires:
            ends.callback(wire.close)
        eventually(lambda: len(lines(record)) == count, "the app to have made every response", pause=0.05)
        yield dict(zip(names, wires, strict=False))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("threads", kind) for kind in ["bytes", "list", "stream", "write", "memory file"]),
        *itertools.product(["inline", "fork"], ["bytes", "stream"]),
    ],
)
def test_unread_responses_share_a_memory_budget(start, tmp_path, record, mode, kind):
    """Data beyond the budget goes to unlinked files, which are gone when the clients are."""
    server = start("streaming", *CONCURRENCY[mode], "--response-memory", "8M", "--tmp-dir", tmp_path)
    (worker,) = server.workers()
    assert server.get("/hello").status == 200
    files = unlinked_files(worker)
    with Peak(worker) as peak, unread(server, record, kind, 100) as wires:
        assert server.get("/hello").status == 200
        rests(worker)
        assert unlinked_files(worker) > files
        name, wire = wires.popitem()
        wire.hurry()
        assert wire.answer().body == content(name, MB)
    assert peak.look() < 8 * MB + ALLOWANCE
    eventually(lambda: unlinked_files(worker) == files, "the files to be given back")
    assert server.get("/hello").status == 200


def test_unread_responses_share_64_mib_by_default(start, record, at_length):
    server = start("streaming", "--threads", "4")
    (worker,) = server.workers()
    assert server.get("/hello").status == 200
    for kind in at_length(["bytes"], ["bytes", "stream", "list"]):
        record.write_text("")
        with Peak(worker) as peak, unread(server, record, kind, 400):
            assert server.get("/hello").status == 200
        assert peak.look() < 64 * MB + ALLOWANCE


# The buffer of one response.


def progress_of(path):
    return int(path.read_text() or 0) if path.exists() else 0


@pytest.mark.parametrize("kind", ["stream", "write"])
@pytest.mark.parametrize("mode", CONCURRENCY)
def test_an_app_waits_for_its_client_when_its_response_exceeds_the_buffer(start, tmp_path, mode, kind):
    options = ("--response-memory", "1M", "--response-spool", "1M", "--tmp-dir", tmp_path)
    server = start("streaming", *CONCURRENCY[mode], *options)
    name, size, progress = fresh("bounded"), 24 * MB, tmp_path / "progress"
    with ask(server, large(name, size, kind, progress=progress), wire=SlowWire) as wire:
        eventually(lambda: progress_of(progress), "the app to begin")
        made = stands_still(lambda: progress_of(progress))
        assert made < 8 * MB
        if mode != "inline":
            assert server.get("/hello").status == 200
        wire.hurry()
        answer = wire.answer()
        assert answer.complete
        assert answer.body == content(name, size)
        assert wire.request("/hello").text == "hello\n"
    assert progress_of(progress) == size


@pytest.fixture
def full_disk(tmp_path):
    """A directory on its own file system, limited to 1 MB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "none", directory]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs to mount a small file system")
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.mark.parametrize("kind", ["stream", "write", "bytes"])
@pytest.mark.parametrize("mode", CONCURRENCY)
def test_a_response_arrives_whole_although_the_disk_is_full(start, tmp_path, full_disk, mode, kind):
    server = start("streaming", *CONCURRENCY[mode], "--response-memory", "1M", "--tmp-dir", full_disk)
    name, size, progress = fresh("full"), 16 * MB, tmp_path / "progress"
    with ask(server, large(name, size, kind, progress=progress), wire=SlowWire) as wire:
        if kind != "bytes":
            eventually(lambda: progress_of(progress), "the app to begin")
            assert stands_still(lambda: progress_of(progress)) < 8 * MB
        if mode != "inline":
            assert server.get("/hello").status == 200
        wire.hurry()
        answer = wire.answer()
        assert answer.complete
        assert answer.body == content(name, size)
        assert wire.request("/hello").text == "hello\n"


# Bodies of requests.


@contextlib.contextmanager
def unfinished(server, count, head, sent, rest, expected):
    """Clients that have sent the first part of their bodies; they send the rest when the block ends."""
    with contextlib.ExitStack() as ends:
        wires = [ends.enter_context(server.wire()) for _ in range(count)]
        for wire in wires:
            wire.send(head + sent)
        rests(server.workers()[0])
        yield
        for wire in wires:
            wire.send(rest)
        for wire in wires:
            assert wire.answer().text == expected


def expected_result(body):
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}"


@pytest.mark.parametrize("mode", CONCURRENCY)
def test_incomplete_bodies_share_a_memory_budget(start, tmp_path, mode):
    server = start("streaming", *CONCURRENCY[mode], "--tmp-dir", tmp_path)
    (worker,) = server.workers()
    assert server.get("/hello").status == 200
    body = content("body", 500_000)
    head = b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 500000\r\n\r\n"
    with (
        Peak(worker) as peak,
        unfinished(server, 300, head, body[:472_000], body[472_000:], expected_result(body)),
    ):
        assert server.get("/hello").status == 200
        assert peak.look() < 64 * MB + ALLOWANCE
    eventually(lambda: unlinked_files(worker) == 0, "the files to be given back")


def test_a_body_that_is_spooled_to_a_file_releases_its_memory(start, tmp_path):
    server = start("streaming", "--threads", "4", "--tmp-dir", tmp_path, "--bodies-in-memory", "0")
    (worker,) = server.workers()
    assert server.get("/hello").status == 200
    body = content("body", 700_000)
    pieces = [body[start : start + 50_000] for start in range(0, len(body), 50_000)]
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    head = b"POST /upload HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent, rest = b"".join(chunks[:12]), b"".join(chunks[12:]) + b"0\r\n\r\n"
    before = resident(worker)
    with unfinished(server, 300, head, sent, rest, expected_result(body)):
        assert resident(worker) - before < ALLOWANCE
    eventually(lambda: unlinked_files(worker) == 0, "the files to be given back")


# Data arrives intact.


@pytest.mark.parametrize("mode", CONCURRENCY)
def test_large_responses_of_every_type_arrive_intact_at_every_speed(shared, mode):
    """Together they exceed the memory budget."""
    server = shared("streaming", *CONCURRENCY[mode])
    size, done = 8 * MB, []
    jobs = {
        fresh("intact"): job
        for job in itertools.product(
            ["bytes", "stream", "write", "file", "memory file"], ["fast", "slow", "silent"]
        )
    }
    others = sum(speed != "silent" for _, speed in jobs.values())

    def download(name, kind, speed):
        path = large(name, size, kind, **({"length": 1} if kind == "bytes" else {}))
        with ask(server, path, wire=Wire if speed == "fast" else SlowWire) as wire:
            if speed == "slow":
                wire.dawdle()
            elif speed == "silent":
                eventually(lambda: len(done) >= others, "the others to be done", deadline=2 * DEADLINE)
                wire.hurry()
            answer = wire.answer()
            done.append(name)
            assert answer.complete
            assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content(name, size)).digest()
            assert wire.request("/hello").text == "hello\n"

    together(*(lambda name=name, job=job: download(name, *job) for name, job in jobs.items()))


@pytest.mark.parametrize("mode", CONCURRENCY)
def test_a_stream_of_50_megabytes_is_buffered_and_arrives_intact(shared, record, mode):
    server = shared("streaming", *CONCURRENCY[mode])
    name, size = fresh("long"), 50_000_000
    with ask(server, large(name, size, "stream", record=record), wire=SlowWire) as wire:
        eventually(lambda: lines(record) == [f"closed {name}"], "the app to be done")
        assert server.get("/hello").text == "hello\n"
        wire.hurry()
        answer = wire.answer()
        assert answer.complete
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content(name, size)).digest()
        assert wire.request("/hello").text == "hello\n"
