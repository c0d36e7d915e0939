"""The limit on open files: raised for connections, partly reserved for the application, and restored for child programs."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import pytest
from harness import MLWS, Command, eventually

SOFT = 256
HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
IS_RAISABLE = HARD == resource.RLIM_INFINITY or HARD >= 1024

APP = """
import json, resource, subprocess


def limit_of(*words, **how):
    # It looks at its limit once its start is over here.
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how) as program:
        return int(program.communicate(b"!")[0])


def lower():
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    if environ["PATH_INFO"] == "/open":
        with open(__file__):
            return [b"true"]
    limits = {
        "own": resource.getrlimit(resource.RLIMIT_NOFILE),
        "program": limit_of("sh", "-c", "read x; ulimit -Sn"),
        "hard": limit_of("sh", "-c", "read x; ulimit -Hn"),
        "lowered": limit_of("sh", "-c", "read x; ulimit -Sn", preexec_fn=lower),
    }
    return [json.dumps(limits).encode()]
"""


@pytest.fixture
def limited(start, tmp_path):
    """Starts a server with these limits on open files."""
    (tmp_path / "opens.py").write_text(APP)

    def limited(soft, hard, *options):
        script = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
        return start("opens:app", *options, command=("sh", "-c", script, "sh", MLWS), cwd=tmp_path)

    return limited


@pytest.mark.skipif(not IS_RAISABLE, reason="the hard limit is low")
@pytest.mark.parametrize("options", [(), ("--preload",), ("--fork",)], ids=["threads", "preload", "fork"])
def test_the_limit_is_raised_but_not_for_child_programs(options, limited):
    hard = 1024
    limits = json.loads(limited(SOFT, hard, *options).get("/").text)
    assert limits == {"own": [hard, hard], "program": SOFT, "hard": hard, "lowered": 100}


@pytest.mark.skipif(not IS_RAISABLE, reason="the hard limit is low")
def test_serve_restores_the_limit_of_its_program(tmp_path):
    (tmp_path / "opens.py").write_text(APP)
    program = (
        "import resource\n"
        "from mylittlewebserver import serve\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({SOFT}, 1024))\n"
        "serve('opens:app', bind='127.0.0.1:0')\n"
        "print('afterwards', resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    with Command(sys.executable, "-c", program, cwd=tmp_path) as command:
        command.log.wait_for("Listening at: ")
        command.stop()
        assert command.out.wait_for_end() == f"afterwards {SOFT}\n"


def test_silent_clients_leave_descriptors_to_the_application(limited):
    server = limited(SOFT, SOFT)
    server.log.wait_for(
        r"connections per worker: 160 instead of 60000, because the limit on open files is 256"
    )
    with server.wire() as kept:
        assert kept.request("/open").status == 200
        silent = [server.wire() for _ in range(250)]
        worker = server.workers()[0]
        eventually(lambda: connections(worker) >= 160, "as many connections as there can be")
        assert kept.request("/open").text == "true"
        assert server.get("/open").text == "true"  # in place of one that is silent
        assert connections(worker) <= 160
        assert kept.request("/open").text == "true"
    for wire in silent:
        wire.close()


def connections(pid):
    """The number of client connections of the process."""

    def of(number):
        try:
            return os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            return ""

    sockets = [of(number) for number in os.listdir(f"/proc/{pid}/fd")]
    own = {text[8:-1] for text in sockets if text.startswith("socket:[")}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[9] in own and row[3] in ("01", "08") for row in rows)
