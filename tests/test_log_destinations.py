"""Logs to Python's logging and to syslog, and metrics for statsd."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading

import pytest
from conftest import CONCURRENCY
from harness import APPS, DEADLINE, MLWS, ROOT, Command, Server, Wire, eventually, free_port

# As real projects have it.
INI = """
[loggers]
keys=root, gunicorn.error, gunicorn.access

[handlers]
keys=console, error_file, access_file

[formatters]
keys=generic, access

[logger_root]
level=INFO
handlers=console

[logger_gunicorn.error]
level=DEBUG
handlers=error_file
propagate=1
qualname=gunicorn.error

[logger_gunicorn.access]
level=INFO
handlers=access_file
propagate=0
qualname=gunicorn.access

[handler_console]
class=StreamHandler
formatter=generic
args=(sys.stderr, )

[handler_error_file]
class=logging.FileHandler
formatter=generic
args=('%(here)s/error.log',)

[handler_access_file]
class=logging.FileHandler
formatter=access
args=('%(here)s/access.log',)

[formatter_generic]
format=%(asctime)s|%(process)d|%(levelname)s|%(name)s|%(message)s
class=logging.Formatter

[formatter_access]
format=%(message)s
class=forms.Record
"""

FORMS = '''
import json, logging


class Record(logging.Formatter):
    """As people do who want JSON of gunicorn."""

    def format(self, record):
        args = record.args
        keys = ["h", "r", "s", "b", "B", "T", "D", "{user-agent}i", "{Content-Type}o", "{path_info}e", "nothing"]
        return json.dumps({"message": record.getMessage(), **{key: args[key] for key in keys}})


def app(environ, start_response):
    logging.getLogger("shop").info("the shop is asked")
    if environ["PATH_INFO"] == "/fails":
        raise ValueError("on purpose")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hi"]
'''


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "log.ini").write_text(INI)
    (tmp_path / "forms.py").write_text(FORMS)
    return tmp_path


def serving(*options, directory=None, app="forms:app", **settings):
    """A command that serves on a port that is not in its log."""
    port = free_port()
    command = Command(MLWS, app, "--bind", f"127.0.0.1:{port}", *options, cwd=directory or APPS, **settings)
    command.address = ("127.0.0.1", port)
    eventually(lambda: not command.running() or listens(command.address), "the server")
    return command


def listens(address):
    try:
        Wire(address).close()
    except ConnectionRefusedError:
        return False
    return True


def get(command, path="/", headers=""):
    with Wire(command.address) as wire:
        return wire.request(path, headers=headers)


# Python's logging


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_a_log_config_has_both_logs(directory, concurrency):
    options = ("--log-config", "log.ini", "--error-logfile", directory / "unused", *CONCURRENCY[concurrency])
    with serving(*options, "--access-logfile", directory / "unused.too", directory=directory) as server:
        assert get(server, "/a%20%25b", 'User-Agent: a "tester" \xe9\r\n').status == 200
        assert get(server, "/fails").status == 500
        access, error = directory / "access.log", directory / "error.log"
        eventually(lambda: access.read_text().count("\n") == 2 and "on purpose" in error.read_text())
        first = next(line for line in map(json.loads, access.read_text().splitlines()) if line["s"] == "200")
        assert re.fullmatch(
            r'127\.0\.0\.1 - - \[.*\] "GET /a%20%25b HTTP/1\.1" 200 2 "-" "a \\x22tester\\x22 \S+"',
            first["message"],
        )
        assert (first["h"], first["b"], first["B"], first["T"]) == ("127.0.0.1", "2", 2, 0)
        assert first["{Content-Type}o"] == "text/plain"
        assert (first["{path_info}e"], first["nothing"]) == ("/a %b", "-")
        assert first["{user-agent}i"].startswith(r"a \x22tester\x22")
        assert re.search(r"\|INFO\|gunicorn\.error\|Listening at: .*\(forms:app, ", error.read_text())
        assert re.search(r"\|ERROR\|gunicorn\.error\|GET /fails: the application failed\n", error.read_text())
        server.log.wait_for(r"\|INFO\|shop\|the shop is asked")  # the root logger's handler
        server.log.wait_for(r"\|INFO\|gunicorn\.error\|Listening at: ")  # by propagation
    assert (directory / "unused").read_text() == ""
    assert not (directory / "unused.too").exists()


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_a_log_config_has_the_requests_that_the_server_rejects(directory, concurrency):
    with serving("--log-config", "log.ini", *CONCURRENCY[concurrency], directory=directory) as server:
        with Wire(server.address) as wire:
            wire.send(b"GET /none\r\n\r\n")
            assert wire.answer().status == 400
        access = directory / "access.log"
        eventually(access.read_text, "its line")
        record = json.loads(access.read_text())
        assert '"GET /none HTTP/1.1" 400 ' in record["message"]
        assert (record["s"], record["{path_info}e"]) == ("400", "-")
        assert record["B"] == int(record["b"]) > 0
        eventually(
            lambda: "|rejected a request from 127.0.0.1: 400 " in (directory / "error.log").read_text()
        )


def test_a_log_config_has_no_forged_lines_in_the_records_of_the_server(directory):
    (directory / "forms.py").write_text(
        FORMS.replace('"on purpose"', 'environ["QUERY_STRING"].replace("+", "\\n")')
    )
    with serving("--log-config", "log.ini", directory=directory) as server:
        assert get(server, "/fails?a+forged").status == 500
        eventually(lambda: "\n  forged\n" in (directory / "error.log").read_text())


def test_usr1_reopens_the_files_of_a_log_config(directory):
    with serving("--log-config", "log.ini", directory=directory) as server:
        get(server)
        eventually(lambda: (directory / "access.log").read_text())
        for name in ("access.log", "error.log"):
            (directory / name).rename(directory / f"{name}.1")
        os.kill(server.pid, signal.SIGUSR1)
        eventually(lambda: get(server).status == 200 and (directory / "access.log").exists(), pause=0.1)
        eventually(lambda: (directory / "error.log").exists())


def test_a_reload_applies_a_changed_log_config_to_new_workers(directory):
    with serving("--log-config", "log.ini", directory=directory) as server:
        (directory / "log.ini").write_text(INI.replace("/access.log", "/other.log"))
        os.kill(server.pid, signal.SIGHUP)
        other = directory / "other.log"
        eventually(lambda: get(server).status == 200 and other.exists() and other.read_text(), pause=0.1)
        error = directory / "error.log"
        (directory / "log.ini").write_text("[loggers]\n")
        os.kill(server.pid, signal.SIGHUP)
        eventually(lambda: "Reload failed" in error.read_text())
        server.log.wait_for(r"CRITICAL\] --log-config log\.ini: ")
        assert get(server).status == 200


def test_a_hanging_request_is_logged_where_python_cannot_run(directory):
    """A thread holds the GIL forever."""
    options = (
        "--log-config",
        directory / "log.ini",
        "--timeout",
        "1",
        "--threads",
        "2",
        "--pythonpath",
        directory,
    )
    with serving(*options, app="raw") as server:
        assert get(server, "/hangs/keeps_the_gil").status == 504
        server.log.wait_for(
            r"\[ERROR\] request timeout: GET /hangs/keeps_the_gil from 127\.0\.0\.1 has been in the application"
        )
        server.log.wait_for(r"hangs\.py")
        error = directory / "error.log"
        eventually(lambda: "Worker replaced" in error.read_text())


def test_a_json_config_is_merged_with_the_defaults(directory):
    config = {"root": {"level": "WARNING", "handlers": ["console"]}, "handlers": None, "formatters": None}
    config["handlers"] = {
        "console": {"class": "logging.StreamHandler", "formatter": "mine", "stream": "ext://sys.stdout"},
        "error_console": {
            "class": "logging.StreamHandler",
            "formatter": "mine",
            "stream": "ext://sys.stderr",
        },
    }
    config["formatters"] = {"mine": {"format": "mine %(name)s %(message)s"}}
    (directory / "log.json").write_text(json.dumps(config))
    with serving("--log-config-json", "log.json", directory=directory) as server:
        get(server)
        server.log.wait_for("mine gunicorn.error Listening at: ")
        server.out.wait_for(r'mine gunicorn\.access 127\.0\.0\.1 - - .*"GET / HTTP/1\.1" 200')


def test_a_log_that_the_config_does_not_name_is_unchanged(directory):
    config = {"loggers": {"shop": {"level": "INFO", "handlers": ["console"]}}}
    (directory / "log.json").write_text(json.dumps(config))
    access = directory / "access.log"
    with Server(
        "forms:app", "--log-config-json", "log.json", "--access-logfile", access, cwd=directory
    ) as server:
        server.get("/")
        server.out.wait_for("the shop is asked")
        eventually(lambda: '"GET / HTTP/1.1" 200' in access.read_text())
    assert re.search(r"^\[.+\] \[\d+\] \[INFO\] Listening at: ", server.log.text, re.MULTILINE)


def test_the_example_of_the_documentation_works(directory):
    text = (ROOT / "docs" / "logs.md").read_text()
    (directory / "log.json").write_text(text.partition("```json\n")[2].partition("```")[0])
    with serving("--log-config-json", "log.json", directory=directory) as server:
        get(server)
        server.log.wait_for(r"\] \[\d+\] \[INFO\] Listening at: .*forms:app")
        eventually(
            lambda: re.match(
                r'127\.0\.0\.1 - - .*"GET / HTTP/1\.1" 200', (directory / "access.log").read_text()
            )
        )


def test_the_access_log_of_a_config_may_be_json(directory):
    with serving("--log-config", "log.ini", "--access-logformat", "json", directory=directory) as server:
        get(server, "/100%25?%s")
        eventually(lambda: (directory / "access.log").read_text())
        record = json.loads((directory / "access.log").read_text())
        assert json.loads(record["message"])["target"] == "/100%25?%s"


BAD_HANDLER = '{"handlers": {"a": {"class": "logging.FileHandler", "filename": "/no/such/directory"}}}'


@pytest.mark.parametrize(
    ("option", "text", "why"),
    [
        ("--log-config", None, "No such file"),
        ("--log-config", "nonsense", "no section headers|is invalid"),
        ("--log-config", INI.replace("class=forms.Record", "class=forms.Nothing"), "Nothing"),
        ("--log-config-json", None, "No such file"),
        ("--log-config-json", "{", "JSONDecodeError"),
        ("--log-config-json", "[1]", "TypeError"),
        ("--log-config-json", BAD_HANDLER, "handler 'a': .*No such file"),
    ],
)
def test_an_invalid_log_config_is_a_startup_error(directory, option, text, why):
    path = directory / "config"
    if text is not None:
        path.write_text(text)
    words = [MLWS, "forms:app", "--bind", "127.0.0.1:0", option, path]
    ended = subprocess.run(
        words, cwd=directory, check=False, capture_output=True, text=True, timeout=DEADLINE
    )
    assert ended.returncode == 2
    assert re.search(rf"{option} \S+/config: .*({why})", ended.stderr, re.DOTALL)
    assert "Traceback" not in ended.stderr


# Syslog


@pytest.fixture
def syslog():
    """A collector of datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(DEADLINE)
        yield collector


def datagrams(collector, pattern):
    """Received datagrams, up to one that matches the pattern."""
    found = []
    while not found or not re.search(pattern, found[-1]):
        found.append(collector.recv(1 << 16).decode())
    return found


def address(collector):
    return "udp://{}:{}".format(*collector.getsockname())


def test_both_logs_go_to_syslog_in_the_format_of_gunicorn(start, syslog):
    server = start(
        "raw", "--log-syslog", "--log-syslog-to", address(syslog), "--log-syslog-facility", "local3"
    )
    start_line = datagrams(syslog, "Listening at: ")[-1]
    assert re.fullmatch(rf"<158>gunicorn\.raw\.error: \[{server.pid}\] Listening at: .*\0", start_line)
    server.get("/answers/hello")
    access_line = datagrams(syslog, "GET /answers/hello")[-1]
    assert re.fullmatch(r'<158>gunicorn\.raw\.access: \[\d+\] 127\.0\.0\.1 - - .*" 200 6 .*\0', access_line)
    server.get("/failures/raises")
    assert any(text.startswith("<155>gunicorn.raw.error: ") for text in datagrams(syslog, "(?s)on fire"))


def test_the_access_log_can_be_excluded_from_syslog(start, syslog):
    options = ("--log-syslog", "--log-syslog-to", address(syslog), "--log-syslog-prefix", "shop")
    server = start("raw", *options, "--disable-redirect-access-to-syslog")
    server.get("/answers/hello")
    server.stop()
    records = datagrams(syslog, "Shutting down|Worker exited")
    assert all(text.startswith("<14>gunicorn.shop.error: ") for text in records)


@pytest.mark.parametrize("kind", ["dgram", "stream", None])
def test_syslog_on_a_unix_socket_is_reconnected(start, tmp_path, kind):
    path = tmp_path / "log"

    def collect():
        path.unlink(missing_ok=True)
        collector = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM
        )
        collector.bind(str(path))
        collector.settimeout(DEADLINE)
        if kind != "stream":
            return collector
        collector.listen()
        return collector

    first = collect()
    suffix = f"#{kind}" if kind else ""
    server = start("raw", "--log-syslog", "--log-syslog-to", f"unix://{path}{suffix}")
    wire = first.accept()[0] if kind == "stream" else first
    wire.settimeout(DEADLINE)
    assert datagrams(wire, "Listening at: ")
    wire.close()
    first.close()
    with collect() as second:
        second.settimeout(0.1)

        def comes_back():
            assert server.get("/answers/hello").status == 200
            try:
                wire = second.accept()[0] if kind == "stream" else second
                wire.settimeout(0.1)
                return b"GET /answers/hello" in wire.recv(1 << 16)
            except TimeoutError:
                return False

        eventually(comes_back, "syslog to be found again")


class Streams:
    """A collector of streams, by connection."""

    def __init__(self, listener):
        self.listener, self.received = listener, []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self.listener.accept()
                self.received.append(b"")
                threading.Thread(target=self.read, args=(stream, len(self.received) - 1), daemon=True).start()

    def read(self, stream, index):
        with stream, contextlib.suppress(OSError):
            while data := stream.recv(1 << 16):
                self.received[index] += data

    def records(self):
        """The complete records of each stream."""
        return [data.decode().split("\0")[:-1] for data in list(self.received)]


@pytest.mark.parametrize("concurrency", CONCURRENCY)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_no_two_processes_share_a_stream_to_syslog(start, tmp_path, kind, concurrency):
    if kind == "tcp":
        listener = socket.create_server(("127.0.0.1", 0))
        target = "tcp://{}:{}".format(*listener.getsockname())
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "log"))
        listener.listen(128)
        target = f"unix://{tmp_path}/log#stream"
    with listener:
        streams = Streams(listener)
        options = ("--log-syslog", "--log-syslog-to", target, "--workers", "2")
        server = start("raw", *options, *CONCURRENCY[concurrency])
        for number in range(20):
            assert server.get(f"/answers/hello?{number}").status == 200

        def complete():
            text = "".join(record for records in streams.records() for record in records)
            return all(f"GET /answers/hello?{number} " in text for number in range(20))

        eventually(complete, "a record of each request")
        server.stop()
        eventually(lambda: any("Shutting down" in record for each in streams.records() for record in each))
        writers = [
            {re.search(r": \[(\d+)\] ", record).group(1) for record in each} for each in streams.records()
        ]
    writers = [each for each in writers if each]
    assert all(len(each) == 1 for each in writers), "two processes in one stream"
    assert len(writers) >= 3
    assert str(server.pid) in set().union(*writers)


def test_a_syslog_over_tcp_that_is_not_read_does_not_block_requests(start):
    with socket.create_server(("127.0.0.1", 0)) as collector:
        port = collector.getsockname()[1]
        server = start("raw", "--log-syslog", "--log-syslog-to", f"tcp://127.0.0.1:{port}")
        wire, _ = collector.accept()
        assert "gunicorn.raw.error" in wire.recv(1 << 16).decode()
        with server.wire() as client:
            for _ in range(4000):
                assert client.request("/answers/hello", headers=f"User-Agent: {'x' * 2000}\r\n").status == 200
        wire.close()
    assert server.get("/answers/hello").status == 200


def test_a_missing_syslog_is_only_reported(start, tmp_path):
    server = start("raw", "--log-syslog", "--log-syslog-to", f"unix://{tmp_path}/none")
    server.log.wait_for("WARNING.*connecting to .* failed")
    assert server.get("/answers/hello").status == 200


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--log-syslog-to", "localhost"),
        ("--log-syslog-to", "udp://localhost:x"),
        ("--log-syslog-facility", "none"),
        ("--statsd-host", "localhost"),
    ],
)
def test_an_invalid_address_is_a_startup_error(option, value):
    words = [MLWS, "raw", "--bind", "127.0.0.1:0", option, value]
    ended = subprocess.run(words, cwd=APPS, check=False, capture_output=True, text=True, timeout=DEADLINE)
    assert ended.returncode == 2
    assert option in ended.stderr


# Statsd


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_statsd_receives_requests_records_and_workers(start, syslog, concurrency):
    host, port = syslog.getsockname()
    tags = ("--statsd-prefix", "shop.", "--dogstatsd-tags", "a:1,b:2")
    server = start("raw", "--statsd-host", f"{host}:{port}", *tags, *CONCURRENCY[concurrency])
    assert "shop.gunicorn.workers:1|g|#a:1,b:2" in datagrams(syslog, "workers")[-1]
    server.get("/answers/status?status=404%20Not%20Found")
    metrics = datagrams(syslog, "requests")[-1].split("\n")
    assert re.fullmatch(r"shop\.gunicorn\.request\.duration:\d+(\.\d+)?\|ms\|#a:1,b:2", metrics[0])
    assert metrics[1:] == [
        "shop.gunicorn.requests:1|c|@1.0|#a:1,b:2",
        "shop.gunicorn.request.status.404:1|c|@1.0|#a:1,b:2",
    ]
    server.get("/failures/raises")
    assert datagrams(syslog, "log")[-1] == "shop.gunicorn.log.exception:1|c|@1.0|#a:1,b:2"
    assert "status.500:1" in datagrams(syslog, "requests")[-1]


def test_statsd_counts_the_workers_of_a_preloaded_application_once(start, syslog):
    host, port = syslog.getsockname()
    start("raw", "--statsd-host", f"{host}:{port}", "--preload", "--workers", "2")
    gauges = datagrams(syslog, "workers:2")
    assert set(gauges) <= {"gunicorn.workers:1|g", "gunicorn.workers:2|g"}
