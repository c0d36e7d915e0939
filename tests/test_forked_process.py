"""A process forked by the application never continues as the server, however it ends."""

from __future__ import annotations

import pytest
from conftest import CONCURRENCY
from harness import eventually

#: How the forked process ends, and the status that a Python program has then.
ENDS = {"0": 0, "3": 3, "message": 1, "raise": 1, "return": 0, "thread": 0}


def statuses(record):
    return [line for line in record.read_text().splitlines() if line.startswith("status")]


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("where", ["in_call", "in_iterator", "in_close"])
def test_a_forked_process_exits_instead_of_returning_to_the_server(server, record, where, how):
    request = (
        f"GET /escapes/{where}?how={how}&record={record} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    )
    before = len(server.family())
    with server.wire() as wire:
        wire.send(request.encode())
        answer = wire.rest()
    assert answer.count(b"HTTP/1.1 ") == 1
    eventually(lambda: statuses(record) == [f"status {ENDS[how]}"], "the status of the forked process")
    eventually(lambda: len(server.family()) <= before, "the forked process to be gone")
    assert ("thread done" in record.read_text()) == (how == "thread")
    assert server.get("/answers/hello").text == "hello\n"


def test_the_log_says_why_a_forked_process_ended(server, record):
    for how, pattern in {
        "3": "Process forked by the application exits with status 3",
        "message": "a message on purpose",
        "raise": "Process forked by the application failed(.|\n)*LookupError: on purpose",
        "return": r"call os\._exit",
    }.items():
        before = len(server.log.text)
        assert server.get(f"/escapes/in_call?how={how}&record={record}").status == 200
        server.log.wait_for(pattern, since=before)


@pytest.mark.parametrize("hook", ["pre_request(worker, req)", "post_request(worker, req, environ, resp)"])
def test_a_process_forked_in_a_hook_exits(start, tmp_path, record, concurrency, hook):
    config = tmp_path / "conf.py"
    config.write_text(
        "import os, sys\n"
        f"def {hook}:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        sys.exit(5)\n"
        "    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        f"    with open({str(record)!r}, 'a') as file:\n"
        "        file.write(f'status {status}\\n')\n"
    )
    server = start("raw", *CONCURRENCY[concurrency], "-c", config)
    assert server.get("/answers/hello").text == "hello\n"
    eventually(lambda: statuses(record) == ["status 5"], "the status of the forked process")


def test_a_process_forked_during_import_exits(start, tmp_path, record, concurrency):
    (tmp_path / "forking.py").write_text(
        "import os\n"
        "pid = os.fork()\n"
        "if pid:\n"
        "    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        f"    with open({str(record)!r}, 'a') as file:\n"
        "        file.write(f'status {status}\\n')\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '0')])\n"
        "    return []\n"
    )
    server = start("forking:app", *CONCURRENCY[concurrency], cwd=tmp_path)
    assert server.get("/").status == 200
    assert statuses(record) == ["status 0"]
