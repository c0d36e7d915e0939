"""Python's logging handlers may block: they block neither the event loop nor, for long, the exit of a worker."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from conftest import CONCURRENCY
from harness import APPS, eventually, gone

# The handler waits for the test at some records, and then writes them to a file.
MODULE = """
import logging
import threading

from raw.gates import pass_gate


class Gated(logging.FileHandler):
    def __init__(self, filename, gate):
        super().__init__(filename)
        self.gate = gate

    def emit(self, record):
        if record.getMessage().startswith(("rejected", "slow")):
            pass_gate(self.gate)
        super().emit(record)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/logs":
        logging.getLogger("gunicorn.error").warning("slow")
    if environ["PATH_INFO"] == "/attaches":
        logging.getLogger("gunicorn.error").addHandler(Gated("error.log", environ["HTTP_GATE"]))
    if environ["PATH_INFO"] == "/hangs":
        threading.Event().wait(600)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hi"]
"""
WITHOUT_FORK = {name: options for name, options in CONCURRENCY.items() if name != "fork"}
# The event loop rejects it without calling the application, and logs that.
REFUSED = b"NONSENSE\r\n\r\n"


@pytest.fixture
def gated(tmp_path, start, gate):
    """Starts a server whose log goes to stderr and to a handler that blocks at the gate."""
    (tmp_path / "gated.py").write_text(MODULE)
    handlers = {
        "gated": {
            "class": "gated.Gated",
            "filename": str(tmp_path / "error.log"),
            "gate": str(gate.directory),
        },
        "console": {"class": "logging.StreamHandler"},
    }
    logger = {"level": "DEBUG", "handlers": ["gated", "console"], "propagate": False}
    config = {"loggers": {"gunicorn.error": logger}, "handlers": handlers}
    (tmp_path / "log.json").write_text(json.dumps(config))

    def start_gated(*options):
        env = {"PYTHONPATH": f"{tmp_path}:{APPS}"}
        options = ("--log-config-json", tmp_path / "log.json", "--workers", "1", *options)
        return start("gated:app", *options, env=env)

    return start_gated


def handled(directory, name="error.log"):
    """The records that the handler has written."""
    return [
        line for line in (directory / name).read_text().splitlines() if line.startswith(("rejected", "slow"))
    ]


def written_natively(server):
    """The records that bypassed Python's logging."""
    return re.findall(r"^\[.+\] \[(?:INFO|DEBUG)\] (rejected.*)", server.log.text, re.MULTILINE)


def provoke_rejections(server, times=1):
    for _ in range(times):
        assert b" 400 " in server.talk(REFUSED)
    return times


def reject_until_the_handler_blocks(server, gate):
    """Returns how many there were. Records of the monitor thread without a leader do not go to the handler."""
    times = 0

    def is_blocked():
        nonlocal times
        times += provoke_rejections(server)
        return gate.inside()

    eventually(is_blocked, "the handler to block")
    return times


@pytest.mark.parametrize("options", WITHOUT_FORK.values(), ids=WITHOUT_FORK)
def test_a_handler_that_blocks_on_a_record_of_the_event_loop_delays_no_client(gated, gate, tmp_path, options):
    server = gated(*options)
    rejected = reject_until_the_handler_blocks(server, gate)
    for _ in range(5):
        assert server.get("/").status == 200
    rejected += provoke_rejections(server, 5)
    assert handled(tmp_path) == []
    gate.open()
    eventually(lambda: len(handled(tmp_path) + written_natively(server)) >= rejected, "all records")
    server.stop()
    assert handled(tmp_path)
    assert len(handled(tmp_path) + written_natively(server)) == rejected


@pytest.mark.parametrize("options", WITHOUT_FORK.values(), ids=WITHOUT_FORK)
def test_a_blocking_handler_attached_while_serving_delays_no_client(start, gate, tmp_path, options):
    (tmp_path / "gated.py").write_text(MODULE)
    env = {"PYTHONPATH": f"{tmp_path}:{APPS}"}
    server = start("gated:app", "--log-level", "debug", *options, cwd=tmp_path, env=env)
    provoke_rejections(server)
    assert server.get("/attaches", headers={"Gate": str(gate.directory)}).status == 200
    reject_until_the_handler_blocks(server, gate)
    for _ in range(5):
        assert server.get("/").status == 200
    gate.open()
    eventually(lambda: handled(tmp_path), "a record from the handler")
    server.stop()


@pytest.mark.parametrize("options", CONCURRENCY.values(), ids=CONCURRENCY)
def test_the_last_records_of_the_event_loop_are_handled_before_the_worker_exits(
    gated, gate, tmp_path, options
):
    gate.open()
    server = gated(*options)
    rejected = provoke_rejections(server, 20)
    server.stop()
    assert len(handled(tmp_path) + written_natively(server)) == rejected


def test_what_is_queued_for_a_blocked_handler_is_written_natively_when_a_stuck_worker_exits(gated, gate):
    server = gated("--threads", "1", "--timeout", "1")
    (worker,) = server.workers()
    rejected = reject_until_the_handler_blocks(server, gate)
    rejected += provoke_rejections(server, 5)
    assert server.get("/hangs").status == 504
    eventually(lambda: gone(worker), "the worker to exit")
    eventually(lambda: len(written_natively(server)) >= rejected - 1, "all records but that of the handler")
    assert len(written_natively(server)) == rejected - 1


def test_usr1_reopens_files_of_handlers_without_waiting_for_a_blocked_one(gated, gate, tmp_path):
    native = tmp_path / "native.log"
    server = gated("--threads", "4", "--error-logfile", native)
    (worker,) = server.workers()
    with server.wire() as wire:
        wire.send(b"GET /logs HTTP/1.1\r\nHost: test\r\n\r\n")
        gate.wait_for(1)
        for path in (native, tmp_path / "error.log"):
            path.rename(f"{path}.1")
        os.kill(worker, signal.SIGUSR1)
        eventually(native.exists, "the log of the server itself")
        for _ in range(5):
            assert server.get("/").status == 200
        gate.open()
        assert wire.answer().status == 200
    eventually((tmp_path / "error.log").exists, "the file of the handler")
    assert handled(tmp_path, "error.log.1") == ["slow"]
