"""`wsgi.errors` writes complete lines to the error log, wherever it goes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal

import pytest
from conftest import CONCURRENCY
from harness import MLWS, Command, Wire, eventually, free_port, gone

APP = r"""
import io, os, threading, traceback


def app(environ, start_response):
    errors, path = environ["wsgi.errors"], environ["PATH_INFO"]
    if path == "/prints":
        print("the app", "failed", file=errors)
    elif path == "/several":
        errors.writelines(["one \u20ac\n", "tw", "o\n"])
        errors.write("three\nfour\n\n")
    elif path == "/fails":
        try:
            raise ValueError("on purpose")
        except ValueError:
            traceback.print_exc(file=errors)
    elif path == "/unfinished":
        errors.write("flushed")
        errors.flush()
        errors.write("unfinished")
    elif path == "/surrogates":
        print("caf\udce9", file=errors)
    elif path == "/threads":
        together = threading.Barrier(4)

        def write(name):
            for _ in range(50):
                together.wait()
                for piece in (name, name, name, "\n"):
                    errors.write(piece)

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    elif path == "/forks":
        errors.write("of the parent")
        pid = os.fork()
        if pid == 0:
            errors.write("of the child\n")
            errors.write("the rest of the child")
            raise SystemExit
        os.waitpid(pid, 0)
        errors.write(" alone\n")
    elif path == "/thread_ends":
        thread = threading.Thread(target=errors.write, args=("the last of a thread",))
        thread.start()
        thread.join()
    elif path == "/is_a_stream":
        assert isinstance(errors, io.TextIOBase)
        assert errors.writable() and not errors.readable() and not errors.isatty()
        assert errors.write("12\u20ac\n") == 4
        for wrong in (b"bytes", None, 1):
            try:
                errors.write(wrong)
            except TypeError:
                pass
            else:
                raise AssertionError(wrong)
        errors.close()
        assert not errors.closed
        with errors as same:
            print("still open", file=same)
        print("not closed", file=errors)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "complains.py").write_text(APP)
    return tmp_path


@pytest.fixture
def log(directory):
    return directory / "error.log"


@pytest.fixture
def serve(directory, log):
    """Starts a server whose error log is the file, and returns a function that makes a request."""
    with contextlib.ExitStack() as ends:

        def serve(*options, launcher=(), logs=("--error-logfile", "error.log")):
            port = free_port()
            words = (MLWS, "complains:app", "--bind", f"127.0.0.1:{port}", *logs, *options)
            command = ends.enter_context(Command(*launcher, *words, cwd=directory))
            if "--daemon" in options:
                assert command.wait() == 0
            eventually(lambda: log.exists() and "Listening at: " in log.read_text(), "the server")

            def request(path):
                with Wire(("127.0.0.1", port)) as wire:
                    assert wire.request(path).status == 200

            request.command = command
            return request

        yield serve


def written(log, pattern):
    """The lines of the log that are not records, once one of them matches."""

    def lines():
        return [
            line for line in log.read_text().splitlines() if not re.match(r"\[.+\] \[\d+\] \[\w+\] ", line)
        ]

    eventually(lambda: any(re.search(pattern, line) for line in lines()), pattern)
    return lines()


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_output_of_an_app_reaches_the_error_log_unchanged(serve, log, concurrency):
    request = serve(*CONCURRENCY[concurrency])
    for path in ("/prints", "/several", "/fails"):
        request(path)
    lines = written(log, "ValueError: on purpose")
    assert lines[:6] == ["the app failed", "one \u20ac", "two", "three", "four", ""]
    assert lines[6] == "Traceback (most recent call last):"
    request.command.stop()
    assert "the app failed" not in request.command.log.wait_for_end()


def test_the_level_of_the_log_does_not_matter(serve, log):
    request = serve("--log-level", "info")
    log.write_text("")
    request("/prints")
    assert written(log, "the app failed") == ["the app failed"]


def test_a_daemon_keeps_the_output_of_an_app(serve, directory, log):
    request = serve("--daemon", "--pid", "pid")
    master = int((directory / "pid").read_text())
    try:
        request("/prints")
        assert written(log, "the app failed") == ["the app failed"]
    finally:
        os.kill(master, signal.SIGTERM)
        eventually(lambda: gone(master), "the daemon to end")


@pytest.mark.parametrize("options", [(), ("--fork",), ("--preload",)], ids=str)
def test_closed_standard_streams_lose_nothing(serve, log, options):
    request = serve(*options, launcher=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"))
    request("/prints")
    assert written(log, "the app failed") == ["the app failed"]


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_a_json_log_gets_a_record_for_each_write(serve, log, concurrency):
    request = serve("--error-logformat", "json", *CONCURRENCY[concurrency])
    for path in ("/prints", "/several"):
        request(path)
    eventually(lambda: "three" in log.read_text())
    records = [json.loads(line) for line in log.read_text().splitlines()]
    ours = [(record["level"], record["message"]) for record in records if record["level"] != "INFO"]
    assert ours == [("ERROR", text) for text in ("the app failed", "one \u20ac", "two", "three\nfour")]


def test_a_log_config_gets_a_record_for_each_write(serve, directory, log):
    config = {
        "root": {"level": "WARNING", "handlers": ["file"]},
        "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["file"], "propagate": False}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(log), "formatter": "named"}},
        "formatters": {"named": {"format": "%(name)s|%(levelname)s|%(message)s"}},
    }
    (directory / "log.json").write_text(json.dumps(config))
    request = serve(logs=("--log-config-json", "log.json"))
    request("/prints")
    eventually(lambda: "gunicorn.error|ERROR|the app failed\n" in log.read_text())


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_a_line_ends_with_flush_and_with_the_request(serve, log, concurrency):
    request = serve(*CONCURRENCY[concurrency])
    request("/unfinished")
    written(log, "unfinished")
    request("/prints")
    assert written(log, "the app failed") == ["flushed", "unfinished", "the app failed"]


def test_the_lines_of_threads_do_not_mix(serve, log):
    request = serve()
    request("/threads")
    eventually(lambda: len(written(log, "")) == 200, "all lines")
    assert set(written(log, "")) == {"aaa", "bbb", "ccc", "ddd"}


def test_a_line_ends_with_its_thread(serve, log):
    request = serve()
    request("/thread_ends")
    assert written(log, "thread") == ["the last of a thread"]


def test_a_forked_process_writes_its_own_lines_only(serve, log):
    request = serve()
    request("/forks")
    lines = written(log, "alone")
    assert lines == ["of the child", "the rest of the child", "of the parent alone"]


def test_lone_surrogates_are_escaped(serve, log):
    request = serve()
    request("/surrogates")
    assert written(log, "caf") == [r"caf\udce9"]


def test_it_is_a_text_stream_that_cannot_be_closed(serve, log):
    request = serve()
    request("/is_a_stream")
    assert written(log, "not closed") == ["12\u20ac", "still open", "not closed"]
