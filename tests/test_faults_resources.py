"""Resources that run out or fail: descriptors, disk, logs. And a wall clock that jumps."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from email.utils import parsedate_to_datetime

import pytest
from clients import ask
from conftest import CONCURRENCY
from harness import MLWS, Command, Wire, eventually, free_port
from soak import answer_of, crowd, limited, readable, settled, ticks

HELLO = b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n"


def test_accepting_pauses_without_descriptors_and_resumes(start, concurrency, at_length):
    server = start("raw", *CONCURRENCY[concurrency], "--keep-alive", "600")
    (worker,) = server.workers()

    def pauses():
        return server.log.text.count("accepting pauses")

    assert server.get("/answers/hello").status == 200
    before = settled(server)
    with server.wire() as kept:
        assert kept.request("/answers/hello").status == 200
        with limited(worker, resource.RLIMIT_NOFILE, before + 10), crowd(server, 40, HELLO) as clients:
            eventually(pauses, "a pause")
            used, begun, enough = ticks(worker), pauses(), at_length(2, 30)
            eventually(lambda: pauses() >= begun + enough, "more of them", deadline=10 + enough)
            # A busy loop uses a tenth of a second in each pause; this allows a tenth of that.
            assert ticks(worker) - used <= pauses() - begun
            for _ in range(10):
                assert kept.request("/answers/hello").text == "hello\n"
            # Every accepted client has been served. When one leaves, a waiting one is accepted.
            waiting = set(clients)
            while waiting:
                for client in readable(waiting):
                    assert answer_of(client).text == "hello\n"
                    waiting.remove(client)
                    client.close()
        assert server.get("/answers/hello").text == "hello\n"
    eventually(lambda: settled(server) == before, "every descriptor to be closed")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("only who may mount can make a small disk")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def body_that_is_too_large(chunked):
    """Four megabytes on a disk with less than one free."""
    body = b"x" * (4 << 20)
    if chunked:
        return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def expect_507(server, directory, times):
    """The disk is full: the client gets an error, nothing is left behind, and others are served."""
    assert server.get("/answers/hello").status == 200
    before = settled(server)
    for number in range(times):
        with server.wire() as wire:
            wire.send(
                b"POST /inputs/size HTTP/1.1\r\nHost: test\r\n" + body_that_is_too_large(chunked=number % 2)
            )
            answer = wire.answer()
            assert (answer.status, answer.header("connection")) == (507, "close")
        assert server.get("/inputs/echo", "POST", b"small").text == "small"
    server.log.wait_for("storing a request body failed")
    eventually(lambda: settled(server) == before, "every descriptor to be closed")
    assert not directory.exists() or list(directory.iterdir()) == []


TO_FILES = ("--bodies-in-memory", "0")


def test_a_body_that_does_not_fit_on_the_disk_is_rejected(start, concurrency, small_disk, at_length):
    server = start("raw", *CONCURRENCY[concurrency], *TO_FILES, env={"TMPDIR": str(small_disk)})
    expect_507(server, small_disk, at_length(4, 400))
    space = os.statvfs(small_disk)
    assert space.f_bfree == space.f_blocks


def test_a_body_that_exceeds_the_file_size_limit_is_rejected(start, concurrency, tmp_path, at_length):
    server = start("raw", *CONCURRENCY[concurrency], *TO_FILES, env={"TMPDIR": str(tmp_path)})
    (worker,) = server.workers()
    with limited(worker, resource.RLIMIT_FSIZE, 1 << 20):
        expect_507(server, tmp_path, at_length(4, 400))
    assert server.get("/inputs/size", "POST", b"x" * (4 << 20)).status == 200


def test_a_body_is_rejected_if_there_is_no_temporary_directory(start, concurrency, tmp_path):
    directory = tmp_path / "gone"
    directory.mkdir()
    server = start("raw", *CONCURRENCY[concurrency], *TO_FILES, env={"TMPDIR": str(directory)})
    directory.rmdir()
    expect_507(server, directory, 2)


def serves_all_the_same(server, address, times):
    """Valid requests, and some that are reported in the log."""
    for _ in range(times):
        with Wire(address) as wire:
            assert wire.request("/answers/hello").text == "hello\n"
            assert wire.request("/failures/raises").status == 500
            assert wire.request("/answers/too_short").complete is False
        with Wire(address) as wire:
            wire.send(b"no request at all\r\n\r\n")
            assert wire.answer().status == 400
    assert server.running()


def test_a_full_disk_for_the_logs_does_not_stop_the_server(concurrency, at_length):
    """Nothing can be written to /dev/full."""
    address = ("127.0.0.1", free_port())
    words = [MLWS, "raw", *CONCURRENCY[concurrency], "--bind", f"127.0.0.1:{address[1]}"]
    shell = ("bash", "-c", 'exec "$@" 2>/dev/full', "bash")
    with Command(*shell, *words, "--access-logfile", "/dev/full") as server:
        eventually(lambda: listens(address), "the server")
        serves_all_the_same(server, address, at_length(5, 500))


def test_a_broken_log_pipe_does_not_stop_the_server(start, concurrency, at_length):
    """The reader of the logs exits as soon as the server runs."""
    shell = 'exec "$@" > >(exec true) 2> >(exec sed -u "/ Listening at: /q" >&2)'
    options = (*CONCURRENCY[concurrency], "--access-logfile", "-")
    server = start("raw", *options, command=("bash", "-c", shell, "bash", MLWS))
    eventually(lambda: len(server.family()) == 2, "only master and worker to be left")
    serves_all_the_same(server, (server.host, server.port), at_length(5, 500))


def listens(address):
    try:
        Wire(address).close()
    except ConnectionRefusedError:
        return False
    return True


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Seconds by which the wall clock is wrong, in the file that WALL_CLOCK names. */
static long shift(void) {
    static volatile long *seconds;
    if (!seconds) {
        int file = open(getenv("WALL_CLOCK"), O_RDONLY | O_CLOEXEC);
        void *page = mmap(0, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
        close(file);
        if (page == MAP_FAILED) abort();
        seconds = page;
    }
    return *seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += shift();
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
"""


class WallClock:
    """The wall clock of servers started with `env`. It can be changed while they run."""

    def __init__(self, directory):
        self._file = directory / "clock"
        self._file.write_bytes(bytes(8))
        library = directory / "clock.so"
        compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
        subprocess.run(compiler, input=CLOCK.encode(), check=True)
        self.env = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._file)}

    def jump(self, seconds):
        with self._file.open("r+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))


def date(answer):
    return parsedate_to_datetime(answer.header("date")).timestamp()


def test_a_jump_of_the_wall_clock_does_not_expire_deadlines(start, concurrency, tmp_path, gate):
    """A day ahead, then a day back: no client or child times out, and new responses have the new date."""
    clock = WallClock(tmp_path)
    patience = ("--keep-alive", "600", "--head-timeout", "600", "--timeout", "600")
    server = start("raw", *CONCURRENCY[concurrency], *patience, env=clock.env)
    workers = server.workers()
    with contextlib.ExitStack() as stack:
        idle, slow, body = (stack.enter_context(server.wire()) for _ in range(3))
        began = date(idle.request("/answers/hello"))
        slow.send(b"GET /answers/hello HTTP/1.1\r\nHost:")
        body.send(b"POST /inputs/echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nsl")
        running = stack.enter_context(ask(server, gate.path)) if concurrency != "inline" else None
        gate.wait_for(1 if running else 0)
        for jump in [86_400, -86_400]:
            clock.jump(jump)
            # As many requests as make the loop look at everybody's deadline.
            answers = [server.get("/answers/hello") for _ in range(50)]
            assert abs(date(answers[-1]) - began - jump) < 3600
            assert abs(date(idle.request("/answers/hello")) - began - jump) < 3600
        slow.send(b" test\r\n\r\n")
        assert slow.answer().text == "hello\n"
        body.send(b"ow")
        assert body.answer().text == "slow"
        gate.open()
        assert running is None or running.answer().text == "passed\n"
    assert server.workers() == workers
