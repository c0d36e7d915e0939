"""Hooks of a Python config file, called as by gunicorn."""

from __future__ import annotations

import os
import re
import signal
import textwrap

import pytest
from conftest import CONCURRENCY
from harness import APPS, MLWS, Command, Server, eventually, gone

NOTING = """
import os

def note(*words):
    with open({record!r}, "a") as record:
        record.write(" ".join(map(str, words)) + "\\n")

"""


@pytest.fixture
def configured(tmp_path, record):
    """Starts a server with a config file in which hooks can `note(...)` their arguments."""

    def start(text, *options, app="whoami:application", cwd=APPS):
        path = tmp_path / "hooks.conf.py"
        path.write_text(NOTING.format(record=str(record)) + textwrap.dedent(text))
        return Server(app, *options, command=(MLWS, "-c", str(path)), cwd=cwd)

    return start


def notes(record):
    return [tuple(line.split()) for line in record.read_text().splitlines()]


def noted(record, name, count=1):
    """The notes of this name, once their number is reached."""

    def found():
        notes_of = [note[1:] for note in notes(record) if note[0] == name]
        return notes_of if len(notes_of) >= count else None

    return eventually(found, f"{count} times {name}")


ALL = """
def on_starting(server): note("on_starting", server.pid, os.getpid())
def when_ready(server): note("when_ready", os.getpid(), len(server.WORKERS), server.address[0][0])
def nworkers_changed(server, new, old): note("nworkers_changed", new, old)
def pre_fork(server, worker): note("pre_fork", os.getpid(), worker.age, worker.pid)
def post_fork(server, worker): note("post_fork", os.getpid(), worker.pid, worker.age)
def post_worker_init(worker): note("post_worker_init", os.getpid(), worker.wsgi.__name__)
def worker_exit(server, worker): note("worker_exit", os.getpid(), worker.pid)
def child_exit(server, worker): note("child_exit", os.getpid(), worker.pid, worker.age)
def on_reload(server): note("on_reload", os.getpid(), server.cfg.workers)
def worker_int(worker): note("worker_int", worker.pid)
def on_exit(server): note("on_exit", os.getpid())
"""


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
@pytest.mark.parametrize("options", CONCURRENCY.values(), ids=CONCURRENCY.keys())
def test_hooks_run_in_the_order_of_the_server_lifecycle(configured, record, options, preload):
    with configured(ALL, "--workers", "2", *options, *preload) as server:
        master = str(server.pid)
        assert server.get("/").status == 200
        server.stop()
    all_notes = notes(record)
    order = [note[0] for note in all_notes]
    assert order[:3] == ["nworkers_changed", "on_starting", "when_ready"]
    assert order[-1] == "on_exit"
    assert all_notes[1] == ("on_starting", master, master)
    assert ("nworkers_changed", "2", "None") in all_notes
    assert ("when_ready", master, "0", "127.0.0.1") in all_notes
    workers = {note[1] for note in all_notes if note[0] == "post_fork"}
    assert len(workers) == 2
    assert {note[2] for note in all_notes if note[0] == "post_fork"} == workers, (
        "worker.pid is that of the process"
    )
    ages = [("1", "[booting]"), ("2", "[booting]")]
    assert sorted(note[2:] for note in all_notes if note[0] == "pre_fork") == ages
    for name in ("post_worker_init", "worker_exit"):
        assert {note[1] for note in all_notes if note[0] == name} == workers, name
    # With --preload there is a process for the generation, which forks the workers.
    forkers = {note[1] for note in all_notes if note[0] == "pre_fork"}
    assert len(forkers) == 1
    assert (forkers == {master}) == (not preload)
    exits = [note[1:] for note in all_notes if note[0] == "child_exit"]
    (forker,) = forkers
    assert {(parent, pid) for parent, pid, age in exits if age != "0"} == {(forker, pid) for pid in workers}
    # It is also called for other processes that ran the application.
    others = [(parent, pid) for parent, pid, age in exits if age == "0"]
    assert [pid for parent, pid in others if parent == master] == ([forker] if preload else [])
    of_requests = [parent for parent, _ in others if parent != master]
    assert len(of_requests) == (1 if options == CONCURRENCY["fork"] else 0)
    assert set(of_requests) <= workers
    for worker in workers:
        own = [
            note[0]
            for note in all_notes
            if worker in note[1:] and (note[0], note[1]) != ("child_exit", worker)
        ]
        assert own == ["post_fork", "post_worker_init", "worker_exit", "child_exit"]


def test_hooks_of_a_reload_have_new_functions_and_settings(configured, record, tmp_path):
    with configured(ALL, "--workers", "1") as server:
        path = tmp_path / "hooks.conf.py"
        path.write_text(path.read_text().replace('note("on_reload"', 'note("on_reload", "changed"'))
        server.process.send_signal(signal.SIGHUP)
        assert noted(record, "on_reload") == [("changed", str(server.pid), "1")]
        noted(record, "child_exit")
        assert [note[2] for note in noted(record, "post_fork", 2)] == ["1", "2"]


def test_a_hook_receives_the_number_of_workers(configured, record):
    with configured(ALL, "--workers", "1") as server:
        server.process.send_signal(signal.SIGTTIN)
        assert noted(record, "nworkers_changed", 2)[1] == ("2", "1")
        noted(record, "post_worker_init", 2)
        server.process.send_signal(signal.SIGTTOU)
        assert noted(record, "nworkers_changed", 3)[2] == ("1", "2")
        noted(record, "child_exit")


def test_an_interrupted_worker_runs_worker_int_and_a_killed_one_child_exit(configured, record):
    with configured(ALL, "--workers", "1") as server:
        (first,) = server.workers()
        server.get("/")
        os.kill(first, signal.SIGKILL)
        assert noted(record, "child_exit") == [(str(server.pid), str(first), "1")]
        assert ("worker_exit", str(first), str(first)) not in notes(record)
        noted(record, "post_worker_init", 2)
        (second,) = eventually(server.workers, "a worker")
        os.kill(second, signal.SIGINT)
        assert noted(record, "worker_int") == [(str(second),)]
        noted(record, "child_exit", 2)


def test_a_hook_runs_for_a_worker_that_hangs(configured, record):
    abort = 'def worker_abort(worker): note("worker_abort", worker.pid, worker.aborted)\n'
    options = ("--timeout", "0.3", "--threads", "2", "--workers", "1")
    with configured(abort, *options, app="raw") as server:
        (worker,) = server.workers()
        answer = server.get("/hangs/blocks")
        assert answer.status == 504
        assert noted(record, "worker_abort") == [(str(worker), "True")]


WITHOUT_FORK = {name: options for name, options in CONCURRENCY.items() if name != "fork"}


# It only calls C functions that do not release the GIL, so that no other thread runs.
HOLDS_THE_GIL = """
import ctypes, os, sys

libc = ctypes.PyDLL(None)
libc.write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
record = os.open({record!r}, os.O_WRONLY | os.O_APPEND)
sys.setswitchinterval(600)

def app(environ, start_response):
    libc.write(record, b"in\\n", 3)
    while libc.sleep(600):
        pass
"""


@pytest.mark.parametrize("options", WITHOUT_FORK.values(), ids=WITHOUT_FORK)
def test_a_worker_exits_immediately_on_request_while_a_request_holds_the_gil(
    configured, record, tmp_path, options
):
    (tmp_path / "holds.py").write_text(HOLDS_THE_GIL.format(record=str(record)))
    options = ("--workers", "1", "--timeout", "600", *options)
    with configured(ALL, *options, app="holds:app", cwd=tmp_path) as server:
        (worker,) = server.workers()
        with server.wire() as wire:
            wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            noted(record, "in")
            os.kill(worker, signal.SIGQUIT)
            eventually(lambda: gone(worker), "the worker to exit")


@pytest.mark.parametrize("options", WITHOUT_FORK.values(), ids=WITHOUT_FORK)
def test_worker_int_is_called_while_a_request_blocks(configured, record, options):
    with configured(ALL, "--workers", "1", "--timeout", "600", *options, app="raw") as server:
        (worker,) = server.workers()
        with server.wire() as wire:
            wire.send(f"GET /hangs/blocks?record={record} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            noted(record, "in")
            os.kill(worker, signal.SIGQUIT)
            eventually(lambda: gone(worker), "the worker to exit")
        assert noted(record, "worker_int") == [(str(worker),)]


@pytest.mark.parametrize("options", CONCURRENCY.values(), ids=CONCURRENCY.keys())
def test_a_blocking_worker_int_does_not_keep_the_worker_alive(configured, record, options):
    hooks = """
    import threading
    def worker_int(worker):
        note("worker_int", worker.pid)
        threading.Event().wait(600)
    def worker_exit(server, worker): note("worker_exit", worker.pid)
    """
    with configured(hooks, "--workers", "1", *options) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGQUIT)
        server.log.wait_for("worker_int takes longer than 500ms: the worker exits without waiting for it")
        eventually(lambda: gone(worker), "the worker to exit")
        assert noted(record, "worker_exit") == [(str(worker),)]


PROCESSES = """
def post_request(worker, req): note("post_request", os.getpid(), req.path)
def child_exit(server, worker): note("child_exit", os.getpid(), worker.pid, worker.age, worker.ppid)
"""


def test_the_exit_hook_runs_in_the_worker_for_each_request_process(configured, record):
    with configured(PROCESSES, "--workers", "1", "--fork") as server:
        worker = str(server.workers()[0])
        for number in range(3):
            server.get(f"/{number}")
        ran = [pid for pid, _ in noted(record, "post_request", 3)]
        exits = noted(record, "child_exit", 3)
        assert exits == [(worker, pid, "0", worker) for pid in ran]


def test_the_exit_hook_runs_for_request_processes_that_die_or_are_killed(configured, record):
    options = ("--workers", "1", "--fork", "--timeout", "1")
    with configured(PROCESSES, *options, app="raw") as server:
        worker = str(server.workers()[0])
        for how in ("SIGKILL", "exit"):
            assert server.get(f"/gates/die?how={how}").status == 500
        assert server.get("/hangs/blocks").status == 504
        exits = noted(record, "child_exit", 3)
        assert [note[0] for note in exits] == [worker] * 3
        assert len({note[1] for note in exits}) == 3


def test_the_exit_hook_runs_for_the_process_of_a_warm_up(configured, record):
    options = ("--workers", "1", "--fork", "--fork-warmup", "/warm")
    with configured(PROCESSES, *options) as server:
        worker = str(server.workers()[0])
        discarded, kept = [pid for pid, path in noted(record, "post_request", 2) if path == "/warm"]
        assert kept == worker
        assert noted(record, "child_exit") == [(worker, discarded, "0", worker)]


def test_an_exit_hook_that_fails_or_logs_does_not_disturb_the_worker(configured):
    failing = """
    def child_exit(server, worker):
        server.log.info("child %s has ended", worker.pid)
        1 / 0
    """
    with configured(failing, "--workers", "1", "--fork") as server, server.wire() as wire:
        for _ in range(3):
            wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert wire.answer().status == 200
        eventually(lambda: server.log.text.count("ZeroDivisionError") == 3, "three failures")
        assert len(set(re.findall(r"child (\d+) has ended", server.log.text))) == 3


def test_the_exit_hook_runs_for_requests_that_a_stop_kills(configured, record):
    with configured(PROCESSES, "--workers", "1", "--fork", app="raw") as server:
        worker = str(server.workers()[0])
        with server.wire() as wire:
            wire.send(f"GET /hangs/blocks?record={record} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            noted(record, "in")
            (child,) = server.children()
            server.stop(signal.SIGINT)
        assert (worker, str(child), "0", worker) in noted(record, "child_exit")


REQUESTS = """
def pre_request(worker, req):
    note("pre_request", worker.pid, req.method, req.path, req.query, req.version[1], dict(req.headers)["X-ONE"])
    req.headers.append(("X-Added", "by the hook"))

def post_request(worker, req, environ, resp):
    note("post_request", req.uri, environ["PATH_INFO"], resp.status_code, dict(resp.headers).get("Content-Type"))
"""


@pytest.mark.parametrize("options", CONCURRENCY.values(), ids=CONCURRENCY.keys())
def test_hooks_run_before_and_after_each_request(configured, record, options):
    with configured(REQUESTS, *options, app="hooked:application") as server:
        answer = server.get("/a%20b?c=d", headers={"X-One": "1"})
        assert answer.status == 200
        assert answer.text == "by the hook"
        (before,) = noted(record, "pre_request")
        assert before[1:] == ("GET", "/a%20b", "c=d", "1", "1")
        (after,) = noted(record, "post_request")
        assert after[:4] == ("/a%20b?c=d", "/a", "b", "200")


def test_the_hook_after_a_request_runs_if_the_application_fails(configured, record):
    with configured(REQUESTS, app="raw") as server:
        assert server.get("/failures/raises", headers={"X-One": "1"}).status == 500
        assert noted(record, "post_request")[0][2] == "500"


def test_a_pre_request_hook_that_fails_fails_its_request(configured, record):
    failing = "def pre_request(worker, req): 1 / 0\ndef post_request(worker, req): note('post_request', 'two arguments')\n"
    with configured(failing) as server:
        assert server.get("/").status == 500
        server.log.wait_for("ZeroDivisionError")
        assert server.get("/").status == 500


def test_a_hook_that_fails_in_the_master_is_logged_and_the_server_continues(configured):
    with configured("def pre_fork(server, worker): 1 / 0\ndef on_starting(server): 2 / 0\n") as server:
        assert server.get("/").status == 200
        assert server.log.text.count("ZeroDivisionError") == 2


@pytest.mark.parametrize("name", ["post_fork(server, worker)", "post_worker_init(worker)"])
def test_a_hook_that_fails_in_a_starting_worker_is_a_startup_error(tmp_path, name):
    path = tmp_path / "hooks.conf.py"
    path.write_text(f"def {name}: 1 / 0\n")
    with Command(MLWS, "whoami:application", "-c", path, "--bind", "127.0.0.1:0") as command:
        assert command.wait() == 3
        assert "ZeroDivisionError" in command.log.wait_for_end()


def test_hooks_can_write_to_the_log(configured):
    text = """
    def when_ready(server):
        server.log.info("ready with %s workers and %s threads", server.num_workers, server.cfg.threads)
        server.log.debug("not seen")

    def post_fork(server, worker):
        worker.log.warning("forked %(what)s", {"what": worker.age})
        try:
            1 / 0
        except ZeroDivisionError:
            worker.log.exception("it failed")
        worker.log.error("pid %s", 1, "and another")
    """
    with configured(text, "--threads", "3") as server:
        server.log.wait_for(r"\[INFO\] ready with 1 workers and 3 threads")
        server.log.wait_for(r"\[WARNING\] forked 1")
        server.log.wait_for(r"\[ERROR\] pid %s \(1, 'and another'\) \(invalid log call: not all arguments")
        server.log.wait_for(r"\[ERROR\] it failed\n +Traceback")
        assert "not seen" not in server.log.text


def test_a_thread_started_by_a_hook_in_the_master_runs(configured, record):
    """Metrics exporters do this in `when_ready`."""
    text = """
    import threading, time

    def when_ready(server):
        def serve():
            while True:
                note("tick")
                time.sleep(0.01)
        threading.Thread(target=serve, daemon=True).start()
    """
    with configured(text) as server:
        count = len(noted(record, "tick"))
        noted(record, "tick", count + 5)
        assert server.get("/").status == 200
