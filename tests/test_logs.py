"""Content and format of the logs, and logs that are not read."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from clients import SlowWire, ask
from conftest import CONCURRENCY
from harness import APPS, MLWS, Command, Lines, Server, Wire, eventually, free_port, processes

DEFAULT = re.compile(
    rb'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /\S* HTTP/1\.1" \d+ \d+ "-" "[-\w]+"'
)

APP = """
def app(environ, start_response):
    environ["REMOTE_USER"] = "me \\u00e9"
    environ["shop.number"] = 7
    environ["shopOf"] = "mine"
    headers = [("Content-Type", "text/plain"), ("Content-Length", "3"), ("X-Odd", 'a "b"')]
    start_response("200 OK", headers)
    if environ["PATH_INFO"] == "/fails":
        raise ValueError("on purpose")
    return [b"hi\\n"]
"""


@pytest.fixture
def shop(tmp_path):
    """A directory with an application in it."""
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def run(*arguments, cwd=APPS):
    words = [MLWS, *map(str, arguments)]
    return subprocess.run(words, cwd=cwd, check=False, capture_output=True, text=True, timeout=30)


def logged(shop, *options, requests=(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",)):
    """The lines of the access log after these requests."""
    with Server("shop:app", *options, "--access-logfile", "-", cwd=shop) as server:
        for request in requests:
            server.talk(request)
        server.stop()
        return server.out.wait_for_end().splitlines()


def test_new_log_files_are_not_world_readable(shop):
    words = ("--access-logfile", "access.log", "--error-logfile", "error.log")
    command = ("sh", "-c", 'umask 0; exec "$@"', "-", MLWS)
    with Command(*command, "shop:app", "--bind", "127.0.0.1:0", *words, cwd=shop):
        error = shop / "error.log"
        eventually(lambda: error.exists() and "Listening at" in error.read_text(), "the server")
        modes = [stat.S_IMODE((shop / name).stat().st_mode) for name in ("access.log", "error.log")]
    assert modes == [0o640, 0o640]


# The format of the access log

ATOMS = {
    "h": r"127\.0\.0\.1",
    "l": "-",
    "u": "aladdin",
    "t": r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]",
    "r": r"POST /a%20b\?x=1 HTTP/1\.1",
    "m": "POST",
    "U": "/a b",
    "q": "x=1",
    "H": r"HTTP/1\.1",
    "s": "200",
    "B": "3",
    "b": "3",
    "f": "http://there/",
    "a": "a tester",
    "T": "0",
    "M": r"\d+",
    "D": r"\d+",
    "L": r"0\.\d{6}",
    "p": r"<\d+>",
    "{X-Request-Id}i": "second",
    "{x-none}i": "-",
    "{x-odd}o": r"a \\x22b\\x22",
    "{content-length}o": "3",
    "{server}o": "mylittlewebserver",
    "{x-none}o": "-",
    "{REMOTE_USER}e": r"me \\xc3\\xa9",
    "{http_referer}e": "http://there/",
    "{shop.number}e": "7",
    "{SHOP.NUMBER}e": "7",
    "{shopOf}e": "mine",
    "{none}e": "-",
    "nothing": "-",
}
REQUEST = (
    b"POST /a%20b?x=1 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nReferer: http://there/\r\nUser-Agent: a tester\r\n"
    b"X-Request-Id: first\r\nx-request-ID: second\r\nAuthorization: Basic "
    + base64.b64encode(b"aladdin:sesame")
    + b"\r\nConnection: close\r\n\r\n"
)


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_each_atom_has_the_value_that_gunicorn_gives_it(shop, concurrency):
    form = "|".join(f"%({atom})s" for atom in ATOMS)
    options = ("--access-logformat", form, *CONCURRENCY[concurrency])
    (line,) = logged(shop, *options, requests=[REQUEST])
    values = line.split("|")
    assert len(values) == len(ATOMS)
    for (atom, expected), value in zip(ATOMS.items(), values, strict=False):
        assert re.fullmatch(expected, value), atom


def test_an_unknown_atom_is_reported_at_startup(start):
    server = start("raw", "--access-logfile", "-", "--access-logformat", "%(h)s %(X)s")
    server.log.wait_for(r"WARNING\] --access-logformat: unknown atom %\(X\)s")


def test_width_precision_and_percent_are_as_in_python(shop):
    form = "%(m)6s|%(m)-6s|%(m).2s|%(s)05d|100%%|%(D)d"
    (line,) = logged(shop, "--access-logformat", form)
    assert re.fullmatch(r"   GET\|GET   \|GE\|00200\|100%\|\d+", line)


@pytest.mark.parametrize("form", ["%h %l", "%(h)", "%(h)d", "100%", "%(h"])
def test_an_invalid_format_is_a_startup_error(form):
    ended = run("raw", "--bind", "127.0.0.1:0", "--access-logformat", form)
    assert ended.returncode == 2
    assert "--access-logformat" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("form", ['"%(U)s" "%(q)s" "%({x-evil}i)s" "%({http_x_evil}e)s" "%(u)s"', "json"])
def test_no_client_can_forge_a_line_in_any_format(shop, form):
    user = base64.b64encode(b'a"\n\x1b[31m:x')
    evil = (
        b'GET /%0d%0a%22%1b%5c?" HTTP/1.1\r\nHost: test\r\nX-Evil: a" \\ \xe9\r\nAuthorization: Basic '
        + user
        + b"\r\nConnection: close\r\n\r\n"
    )
    (line,) = logged(shop, "--access-logformat", form, requests=[evil])
    assert line.isascii() and line.isprintable()
    if form == "json":
        assert json.loads(line)["path"] == '/\r\n"\x1b\\'
    else:
        assert len(line.split('"')) == 11


def test_json_lines_have_the_documented_keys(shop):
    requests = [REQUEST, b"GET /fails HTTP/1.0\r\nUser-Agent: \xc3\xa9 \xe2\x82\xac\r\n\r\n"]
    lines = logged(shop, "--access-logformat", "json", requests=requests)
    full, sparse = map(json.loads, lines)
    text = (Path(__file__).parent.parent / "docs" / "logs.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \| (?:string|number)", text, re.MULTILINE)
    assert list(full) == list(sparse) == documented
    assert datetime.fromisoformat(full["time"]).tzinfo
    assert (full["client"], full["user"], full["method"]) == ("127.0.0.1", "aladdin", "POST")
    assert (full["target"], full["path"], full["query"]) == ("/a%20b?x=1", "/a b", "x=1")
    assert (full["protocol"], full["host"], full["status"], full["bytes"]) == ("HTTP/1.1", "test", 200, 3)
    assert (full["referer"], full["user_agent"]) == ("http://there/", "a tester")
    assert 0 <= full["duration"] < 30
    assert isinstance(full["pid"], int)
    assert sparse["user"] is sparse["host"] is sparse["referer"] is None
    assert (sparse["status"], sparse["user_agent"]) == (500, "\u00e9 \u20ac")


# The format of the log


def test_each_record_can_be_json(start):
    server = start("raw", "--error-logformat", "json", "--access-logfile", "-")
    assert server.get("/failures/raises").status == 500
    server.log.wait_for("on fire")
    server.stop()
    records = [json.loads(line) for line in server.log.wait_for_end().splitlines()]
    assert all(list(record) == ["time", "level", "pid", "message"] for record in records)
    (failure,) = [record for record in records if "on fire" in record["message"]]
    assert failure["level"] == "ERROR"
    assert failure["message"].count("\n") > 2
    assert datetime.fromisoformat(failure["time"]).tzinfo
    assert {record["pid"] for record in records} > {server.pid, failure["pid"]} - {failure["pid"]}


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_levels_are_coloured_on_a_terminal_that_supports_it(environ, coloured):
    reader, writer = pty.openpty()
    command = [MLWS, "no_such_module", "--bind", "127.0.0.1:0"]
    ended = subprocess.run(
        command, stderr=writer, stdout=subprocess.DEVNULL, env={**os.environ, **environ}, check=False
    )
    os.close(writer)
    output = read_all(reader)
    assert ended.returncode == 3
    assert (b"[\x1b[31mCRITICAL\x1b[0m]" in output) == coloured
    assert (b"[CRITICAL]" in output) != coloured


# Logs that are not read


def read_all(descriptor):
    """Reads what is available, without waiting for more."""
    os.set_blocking(descriptor, False)
    output = b""
    while True:
        try:
            piece = os.read(descriptor, 1 << 16)
        except (BlockingIOError, OSError):
            return output
        if not piece:
            return output
        output += piece


def a_pipe():
    return os.pipe()


def a_socket():
    return [end.detach() for end in socket.socketpair()]


def a_terminal():
    return pty.openpty()


class Unread(Command):
    """A server whose stdout and stderr are not read until the test does so."""

    def __init__(self, make, *options, app="raw"):
        self.port = free_port()
        (self.stdout, out), (self.stderr, error) = make(), make()
        self.process = subprocess.Popen(
            [MLWS, app, "--bind", f"127.0.0.1:{self.port}", "--access-logfile", "-", *options],
            cwd=APPS,
            stdout=out,
            stderr=error,
            start_new_session=True,
        )
        self.pid = self.process.pid
        assert os.get_blocking(out) and os.get_blocking(error)
        os.close(out)
        os.close(error)
        self.log = self.out = Lines(io.StringIO())
        Command.alive.append(self)
        eventually(self.listens, "the server")

    def listens(self):
        try:
            self.wire().close()
        except ConnectionRefusedError:
            return False
        return True

    def wire(self):
        return Wire(("127.0.0.1", self.port))

    def end(self):
        super().end()
        os.close(self.stdout)
        os.close(self.stderr)

    def workers(self):
        return [process.pid for process in self.family() if process.parent == self.pid]

    def answers(self, times, agent="tester"):
        """Checks `times` valid requests, and a 500 with a traceback for every ten of them."""
        fields = f"User-Agent: {agent}\r\n"
        with self.wire() as wire:
            for number in range(times):
                assert wire.request("/answers/hello", headers=fields).status == 200
                if number % 10 == 0:
                    # Its target is in the log, too.
                    assert wire.request(f"/failures/raises?{agent * 10}", headers=fields).status == 500


@pytest.mark.parametrize("make", [a_pipe, a_socket, a_terminal])
@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_unread_log_pipes_do_not_block_requests(concurrency, make, at_length):
    times = at_length(300, 3000) if concurrency == "fork" else at_length(4000, 20_000)
    with Unread(make, *CONCURRENCY[concurrency]) as server:
        server.answers(times, agent="x" * 700)
        # First, because the last line of the access log may follow its response and then report what was lost.
        output = [read_all(server.stderr)]
        lines = read_all(server.stdout).replace(b"\r\n", b"\n").split(b"\n")
        assert 0 < len(lines) < times
        # A terminal accepts the beginning of a line if its buffer is nearly full. The rest follows, unless the process has ended.
        assert all(DEFAULT.fullmatch(line) for line in lines[:-1]) or (make, concurrency) == (
            a_terminal,
            "fork",
        )

        def losses_are_logged():
            server.answers(10)
            read_all(server.stdout)
            output.append(read_all(server.stderr))
            text = b"".join(output)
            return re.search(rb"access log: (\d+) lines lost", text) and b"log records lost" in text

        eventually(losses_are_logged, "a report of lost lines")
        assert os.get_blocking(server.stdout) is False  # this test has set only its own end to non-blocking


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run workers as another user")
def test_an_unprivileged_worker_can_write_to_the_pipe_of_its_master():
    """Two processes write to it, so checking for free space before each write is not enough."""
    with Unread(a_pipe, "--user", "nobody", "--workers", "2", app="whoami") as server:
        for _ in range(2):
            with server.wire() as wire:
                for _ in range(500):
                    assert wire.request("/", headers=f"User-Agent: {'x' * 300}\r\n").status == 200
            os.kill(server.pid, signal.SIGUSR1)
        assert DEFAULT.match(read_all(server.stdout))
        for worker in server.workers():
            flags = [
                int(
                    re.search(
                        r"flags:\s+(\d+)", Path(f"/proc/{worker}/fdinfo/{entry.name}").read_text()
                    ).group(1),
                    8,
                )
                for entry in Path(f"/proc/{worker}/fd").iterdir()
                if os.readlink(entry) == os.readlink(f"/proc/{worker}/fd/1")
            ]
            assert sorted(bool(flag & os.O_NONBLOCK) for flag in flags) == [False, True]


def test_the_monitor_thread_and_the_master_do_not_wait_for_readers(tmp_path):
    with Unread(a_pipe, "--timeout", "1", "--threads", "2") as server:
        server.answers(1500, agent="x" * 300)
        (worker,) = server.workers()
        with server.wire() as wire:
            assert wire.request("/hangs/keeps_the_gil").status == 504
        eventually(lambda: worker not in server.workers(), "the worker to be replaced")
        server.answers(10)
        (worker,) = server.workers()
        os.kill(server.pid, signal.SIGHUP)
        eventually(lambda: server.workers() and worker not in server.workers(), "the reload")
        server.answers(10)


def test_a_fifo_as_a_log_needs_no_reader(start, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server = start("raw", "--access-logfile", fifo)
    for _ in range(300):
        server.get("/answers/hello", headers={"User-Agent": "x" * 1000})
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    lines = read_all(reader).splitlines()
    assert 10 < len(lines) < 300
    assert all(DEFAULT.fullmatch(line) for line in lines)
    server.get("/answers/hello")
    server.log.wait_for(rf"access log: {300 - len(lines)} lines lost")
    os.kill(server.pid, signal.SIGUSR1)
    server.get("/answers/hello")
    eventually(lambda: read_all(reader), "lines after the FIFO was reopened")
    os.close(reader)


# Output of the application

TALKER = """
import os, sys
print("while loading")

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    print("to stdout", environ["PATH_INFO"], flush=True)
    sys.stderr.write("to stderr\\n")
    os.system("echo by a child")
    return [b""]
"""


@pytest.fixture
def talker(tmp_path):
    (tmp_path / "talker.py").write_text(TALKER)
    return tmp_path


@pytest.mark.parametrize("options", [("--threads", "1"), ("--fork",), ("--preload",)], ids=" ".join)
def test_captured_output_of_the_application_goes_to_the_log(talker, options):
    log = talker / "log"
    port = free_port()
    words = ("--bind", f"127.0.0.1:{port}", "--error-logfile", log, "--capture-output", *options)
    with Command(MLWS, "talker:app", *words, cwd=talker) as server:
        eventually(lambda: log.exists() and "Listening at: " in log.read_text())
        with Wire(("127.0.0.1", port)) as wire:
            assert wire.request("/").status == 200
            eventually(lambda: "by a child" in log.read_text())
            log.rename(talker / "log.1")
            os.kill(server.pid, signal.SIGUSR1)
            eventually(lambda: log.exists(), "the log to be reopened")
            eventually(
                lambda: wire.request("/again").status == 200 and "to stdout /again" in log.read_text(),
                pause=0.1,
            )
        server.stop()
        assert server.log.wait_for_end() == server.out.wait_for_end() == ""
    before = (talker / "log.1").read_text()
    for text in ("while loading", "to stdout /", "to stderr", "by a child"):
        assert before.count(text) >= 1
    assert before.count("[INFO] Listening at: ") == 1


def test_a_failed_start_is_reported_on_stderr_even_if_output_is_captured(tmp_path):
    options = ("--error-logfile", tmp_path / "log", "--capture-output")
    ended = run("no_such_module", "--bind", "127.0.0.1:0", *options)
    assert ended.returncode == 3
    assert "no module 'no_such_module'" in ended.stderr


def background(directory, *options):
    """Starts a daemon. Returns the output of its command, and the pid of its master."""
    words = [MLWS, "talker:app", "--daemon", "--pid", directory / "pid", *options]
    with open(directory / "out", "wb") as out:
        subprocess.run(
            [str(word) for word in words], cwd=directory, check=True, stdout=out, stderr=out, timeout=30
        )
    return int((directory / "pid").read_text())


@pytest.mark.parametrize("kept", [("--capture-output",), ("-R",)], ids=" ".join)
def test_output_of_the_application_of_a_daemon_can_be_captured(talker, kept):
    port = free_port()
    pid = background(talker, "--bind", f"127.0.0.1:{port}", "--error-logfile", talker / "log", *kept)
    try:
        with Wire(("127.0.0.1", port)) as wire:
            wire.request("/here")
        file = talker / ("out" if kept == ("-R",) else "log")
        eventually(lambda: "to stdout /here" in file.read_text())
        assert "while loading" in file.read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(
            lambda: not [process for process in processes() if process.pid == pid], "the daemon to end"
        )


# Clients cannot forge log records

HOSTILE = """
import logging
from urllib.parse import unquote

def app(environ, start_response):
    text = unquote(environ["QUERY_STRING"], errors="surrogateescape")
    logging.getLogger("gunicorn.error").warning("bad login for %s", text)
    if environ["PATH_INFO"] == "/raises":
        raise ValueError(text)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""
FORGED = "x\n[2030-01-01 00:00:00 +0000] [1] [CRITICAL] forged"
RAW = [
    FORGED,
    "x\r[2030]",
    "x\x1b[2J",
    "x\x9b2J",
    "x\x85y",
    "x\u2028forged",
    "x\u2029forged",
    "x\u202eforged",
    "x\u2066y",
]
RECORD = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[[A-Z]+\] ")


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_no_client_can_forge_a_line_of_the_log_through_a_logger(start, tmp_path, concurrency):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    server = start("hostile:app", *CONCURRENCY[concurrency], cwd=tmp_path)
    for text in RAW:
        assert server.get(f"/?{quote(text)}").status == 200
        assert server.get(f"/raises?{quote(text)}").status == 500
    assert server.get("/?%80last").status == 200
    server.log.wait_for("bad login for .+last\n")
    log = server.log.text
    assert not [text for text in RAW if text in log]
    assert all(RECORD.match(line) or line.startswith("  ") or not line for line in log.split("\n"))
    assert log.count("bad login for") == 2 * len(RAW) + 1
    assert "\n  [2030-01-01 00:00:00 +0000] [1] [CRITICAL] forged\n" in log
    assert "bad login for x\\x1b[2J\n" in log
    assert "bad login for x\\u202eforged\n" in log
    assert re.search(r"\n  Traceback .*\n    File .*\n(  .*\n)*  ValueError: x\n", log), (
        "a traceback is readable"
    )


def test_records_of_a_logger_are_whole_lines_of_json(start, tmp_path):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    server = start("hostile:app", "--error-logformat", "json", cwd=tmp_path)
    for text in RAW:
        server.get(f"/?{quote(text)}")
    server.stop()
    messages = [json.loads(line)["message"] for line in server.log.wait_for_end().splitlines()]
    assert [message for message in messages if "bad login" in message] == [
        f"bad login for {text}" for text in RAW
    ]


# Requests that the server rejects

LIMITED = ("--limit-request-body", "10", "--head-timeout", "0.5", "--access-logfile", "-")
REJECTED = {
    "400": (b"BAD\r\n\r\n", '"BAD  HTTP/1.1" 400'),
    "408": (b"GET /slow HT", '"GET /slow HTTP/1.1" 408'),
    "413": (b"POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n", '"POST /large HTTP/1.1" 413'),
    "414": (b"GET /" + b"x" * 9999 + b" HTTP/1.1\r\nHost: a\r\n\r\n", f'"GET /{"x" * 1019} HTTP/1.1" 414'),
    "431": (b"GET /many HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200 + b"\r\n", '"GET /many HTTP/1.1" 431'),
    "501": (
        b"POST /gzip HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        '"POST /gzip HTTP/1.1" 501',
    ),
}


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_a_rejected_request_is_in_both_logs(start, concurrency):
    server = start("raw", *LIMITED, *CONCURRENCY[concurrency])
    for status, (request, line) in REJECTED.items():
        assert server.talk(request).startswith(f"HTTP/1.1 {status} ".encode())
        server.log.wait_for(rf"\[INFO\] rejected a request from 127\.0\.0\.1: {status} \w.*\n")
        server.out.wait_for(rf"127\.0\.0\.1 - - \[.+\] {re.escape(line)} \d+ ")
    assert server.out.text.count("\n") == len(REJECTED)


def test_a_rejected_request_does_not_have_the_line_of_the_request_before_it(start):
    server = start("raw", "--access-logfile", "-")
    good = b"GET /answers/hello HTTP/1.1\r\nHost: a\r\nReferer: before\r\n\r\n"
    assert b" 400 " in server.talk(good + b"\0\0\0\0\r\n\r\n")
    server.out.wait_for(r'"\\x00\\x00\\x00\\x00  HTTP/1\.1" 400 \d+ "-" "-"\n')


def test_rejections_beyond_a_limit_are_counted(start):
    server = start("raw", "--access-logfile", "-")
    for _ in range(100):
        assert b" 400 " in server.talk(b"BAD\r\n\r\n")

    def counted():
        logged = server.log.text.count("rejected a request")
        suppressed = sum(map(int, re.findall(r"\[INFO\] (\d+) more requests were rejected", server.log.text)))
        return logged + suppressed == 100 and logged

    logged = eventually(counted, "the count")
    seconds = {line[:27] for line in server.log.text.splitlines() if "rejected a request" in line}
    assert logged <= 10 * (len(seconds) + 1), "of each second, the first ten"
    server.stop()
    assert server.out.wait_for_end().count('"BAD  HTTP/1.1" 400') == 100


def test_at_debug_level_every_rejection_is_logged(start):
    server = start("raw", "--log-level", "debug")
    for _ in range(50):
        assert b" 400 " in server.talk(b"BAD\r\n\r\n")
    eventually(lambda: server.log.text.count("rejected a request") == 50)


def test_a_full_queue_is_a_warning(start, gate):
    server = start("raw", "--threads", "1", "--max-queue", "1", "--access-logfile", "-")
    with contextlib.ExitStack() as wires:
        held = [wires.enter_context(server.wire()) for _ in range(8)]
        for wire in held:
            wire.send(f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        server.log.wait_for(r"\[WARNING\] rejected a request from 127\.0\.0\.1: 503 the server has too many")
        # A thread that is in the application does not delay these lines.
        server.out.wait_for(rf'"GET {re.escape(gate.path)} HTTP/1\.1" 503 ')
        gate.open()


# The access log has the bytes that were sent, when they have been sent

TOTAL = 8 * 200_000


@pytest.mark.parametrize("concurrency", ["inline", "threads"])
def test_a_response_that_waits_for_its_client_is_logged_when_it_is_sent(start, record, concurrency):
    server = start("raw", "--access-logfile", "-", *CONCURRENCY[concurrency])
    path = f"/large/closed?lines=200000&record={record}"
    with ask(server, path, wire=SlowWire) as wire:
        eventually(lambda: "close" in record.read_text(), "the application to be done")
        server.get("/answers/hello")
        server.out.wait_for("/answers/hello")
        assert "/large/closed" not in server.out.text
        wire.hurry()
        assert len(wire.answer().body) == TOTAL
        server.out.wait_for(rf'"GET /large/closed\S* HTTP/1\.1" 200 {TOTAL} ')


@pytest.mark.parametrize("kind", ["closed", "whole"])
@pytest.mark.parametrize("concurrency", ["inline", "threads"])
def test_a_client_that_disconnects_midway_is_logged_with_the_bytes_sent(start, record, concurrency, kind):
    server = start("raw", "--access-logfile", "-", *CONCURRENCY[concurrency])
    with ask(server, f"/large/{kind}?lines=200000&record={record}", wire=SlowWire) as wire:
        assert wire.head()[1] == 200
        server.get("/answers/hello")  # the other response does not occupy the thread
        wire.reset()
    sent = server.out.wait_for(rf'"GET /large/{kind}\S* HTTP/1\.1" 200 (\d+) ').group(1)
    assert int(sent) < TOTAL


def test_responses_that_are_unsent_at_shutdown_are_logged_too(start, record):
    server = start("raw", "--access-logfile", "-", "--graceful-timeout", "1")
    with ask(server, f"/large/closed?lines=200000&record={record}", wire=SlowWire):
        eventually(lambda: "close" in record.read_text(), "the application to be done")
        os.kill(server.pid, signal.SIGQUIT)
        server.wait()
    assert (
        int(re.search(r"/large/closed\S* HTTP/1\.1\" 200 (\d+) ", server.out.wait_for_end()).group(1)) < TOTAL
    )
