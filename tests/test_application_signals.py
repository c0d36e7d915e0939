"""Signal handlers of the application: they run in its workers, and a handler of TERM does not keep a worker from stopping."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from harness import eventually, gone, refuses_connections

MODES = {
    "inline": ("--threads", "1"),
    "threads": ("--threads", "4"),
    "fork": ("--fork",),
    "preload": ("--preload",),
    "preload fork": ("--preload", "--fork"),
}

APP = """
import os, signal, sys, threading

def note(what):
    with open("notes", "a") as file:
        file.write(f"{{what}} {{os.getpid()}}\\n")

{top}

def app(environ, start_response):
    action = environ["QUERY_STRING"]
    if action == "wait":
        note("enter")
        os.close(os.open("fifo", os.O_RDONLY))
    elif action:
        exec(ACTIONS[action])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

ACTIONS = {actions!r}
"""


class Application:
    """An application in a file, and its notes in another."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "notes").touch()
        os.mkfifo(directory / "fifo")

    def write(self, top, **actions):
        (self.directory / "signals.py").write_text(APP.format(top=top, actions=actions))

    def notes(self, what):
        """The pid of the process, for each note of this text."""
        lines = [line.rsplit(" ", 1) for line in (self.directory / "notes").read_text().splitlines()]
        return [int(pid) for word, pid in lines if word == what]

    def open_fifo(self):
        os.close(os.open(self.directory / "fifo", os.O_WRONLY))


@pytest.fixture
def application(tmp_path):
    return Application(tmp_path)


@pytest.fixture(params=MODES)
def mode(request):
    return MODES[request.param]


@pytest.fixture
def serve(start, application):
    def serve(*options):
        server = start("signals:app", *options, cwd=application.directory)
        server.preloads = "--preload" in options
        return server

    return serve


def worker_of(server):
    """The only worker, once there is one.

    With --preload the process of its generation is between it and the master.
    """

    def only_one():
        masters = server.workers() if server.preloads else [server.pid]
        found = [process.pid for process in server.family() if process.parent in masters]
        return len(found) == 1 and found[0]

    return eventually(only_one, "one worker")


def ask(server, path):
    wire = server.wire()
    wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return wire


HANDLES_USR2 = """
signal.signal(signal.SIGUSR2, lambda *_: note("usr2"))
"""
HANDLES_TERM = """
def stop(number, frame):
    note("term")
signal.signal(signal.SIGTERM, stop)
"""
CALLS_THE_ONE_BEFORE = """
def stop(number, frame):
    note("term")
    before(number, frame)
before = signal.signal(signal.SIGTERM, stop)
"""


# While the server is idle


def test_a_handler_runs_while_the_server_is_idle(serve, application, mode):
    application.write(HANDLES_USR2)
    worker = worker_of(serve(*mode))
    for count in range(1, 4):
        os.kill(worker, signal.SIGUSR2)
        eventually(lambda count=count: application.notes("usr2") == [worker] * count, "the handler to run")


def test_a_timer_fires_in_the_process_that_loaded_the_application(serve, application, mode):
    application.write(
        'signal.signal(signal.SIGALRM, lambda *_: note("tick"))\nsignal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)'
    )
    server = serve(*mode)
    loader = server.workers()[0] if server.preloads else worker_of(server)
    eventually(lambda: application.notes("tick").count(loader) > 3, "the timer to tick")


@pytest.mark.parametrize("waiting", [1, 3])
def test_a_handler_runs_while_other_threads_run_the_application(serve, application, waiting):
    application.write(HANDLES_USR2)
    server = serve("--threads", "4")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(ask(server, "/?wait")) for _ in range(waiting)]
        eventually(lambda: len(application.notes("enter")) == waiting, "the requests to wait")
        os.kill(worker_of(server), signal.SIGUSR2)
        eventually(lambda: application.notes("usr2"), "the handler to run")
        application.open_fifo()
        for wire in wires:
            assert wire.answer().status == 200


def test_a_handler_runs_on_the_main_thread(serve, application, mode):
    application.write(
        "signal.signal(signal.SIGUSR2, lambda *_: note(threading.current_thread() is threading.main_thread()))"
    )
    worker = worker_of(serve(*mode))
    os.kill(worker, signal.SIGUSR2)
    eventually(lambda: application.notes("True") == [worker], "the handler to run on the main thread")


# What a handler raises


@pytest.mark.parametrize(
    ("raises", "status"),
    [("sys.exit()", 0), ("sys.exit(5)", 5), ("sys.exit('why')", 1), ("raise KeyboardInterrupt", 130)],
)
def test_a_handler_that_raises_system_exit_stops_its_worker_gracefully(
    serve, application, mode, raises, status
):
    application.write(f"def end(*_): {raises}\nsignal.signal(signal.SIGUSR2, end)")
    server = serve(*mode)
    worker = worker_of(server)
    os.kill(worker, signal.SIGUSR2)
    server.log.wait_for(rf"Worker exited unexpectedly \(pid: {worker}\), status {status}")
    eventually(lambda: worker_of(server) != worker, "another worker")
    assert server.get("/").status == 200


def test_other_exceptions_of_a_handler_are_logged_and_the_worker_continues(serve, application, mode):
    application.write("def fail(*_): raise LookupError('no such thing')\nsignal.signal(signal.SIGUSR2, fail)")
    server = serve(*mode)
    worker = worker_of(server)
    os.kill(worker, signal.SIGUSR2)
    server.log.wait_for(r"Signal handler failed\n(.*\n)+ +LookupError: no such thing")
    assert server.get("/").status == 200
    assert worker_of(server) == worker


# TERM


TERMS = {
    "to the master": lambda server: os.kill(server.pid, signal.SIGTERM),
    "to every process": lambda server: os.killpg(server.pid, signal.SIGTERM),
}


@pytest.mark.parametrize("send", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("top", [HANDLES_TERM, CALLS_THE_ONE_BEFORE], ids=["alone", "calls the one before"])
def test_the_term_handler_is_called_once_and_the_server_exits(serve, application, mode, top, send):
    application.write(top)
    server = serve(*mode)
    worker = worker_of(server)
    assert server.get("/").status == 200
    send(server)
    assert server.wait() == 0
    eventually(lambda: not server.family(), "the group to be empty")
    assert application.notes("term") == [worker]
    assert "WARNING" not in server.log.text
    assert "ERROR" not in server.log.text


@pytest.mark.parametrize("top", [HANDLES_TERM, CALLS_THE_ONE_BEFORE], ids=["alone", "calls the one before"])
def test_a_worker_with_a_term_handler_drains_on_term_and_is_replaced(serve, application, mode, top):
    application.write(top)
    server = serve(*mode)
    worker = worker_of(server)
    os.kill(worker, signal.SIGTERM)
    server.log.wait_for(rf"Worker exited unexpectedly \(pid: {worker}\), status 0")
    eventually(lambda: worker_of(server) != worker, "another worker")
    assert application.notes("term") == [worker]
    assert server.get("/").status == 200


def test_a_reload_calls_the_term_handler_of_the_old_worker(serve, application, mode):
    application.write(HANDLES_TERM)
    server = serve(*mode)
    worker = worker_of(server)
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: gone(worker), "the worker to go")
    assert application.notes("term") == [worker]


def test_a_term_handler_that_exits_does_not_interrupt_a_running_request(serve, application, mode):
    application.write('def stop(*_):\n    note("term")\n    sys.exit(0)\nsignal.signal(signal.SIGTERM, stop)')
    server = serve(*mode)
    worker = worker_of(server)
    with ask(server, "/?wait") as wire:
        eventually(lambda: application.notes("enter"), "the request to wait")
        os.killpg(server.pid, signal.SIGTERM)
        server.log.wait_for("Shutting down: ")
        application.open_fifo()
        assert wire.answer().status == 200
    assert server.wait() == 0
    assert application.notes("term") == [worker]


def test_a_worker_with_a_term_handler_stops_accepting_while_a_request_runs(serve, application):
    application.write(HANDLES_TERM)
    server = serve("--threads", "4")
    with ask(server, "/?wait") as wire:
        eventually(lambda: application.notes("enter"), "the request to wait")
        os.kill(server.pid, signal.SIGTERM)
        eventually(lambda: refuses_connections(server), "the listening socket to be closed")
        application.open_fifo()
        assert wire.answer().status == 200
    assert server.wait() == 0


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "signal.SIG_DFL", "before"])
def test_a_signal_handler_of_the_application_does_not_prevent_a_drain(serve, application, mode, handler):
    """A library may also restore the previous handler."""
    application.write(
        "before = signal.getsignal(signal.SIGTERM)\nassert callable(before)\n"
        f"signal.signal(signal.SIGTERM, lambda *_: None)\nsignal.signal(signal.SIGTERM, {handler})"
    )
    server = serve(*mode)
    worker = worker_of(server)
    os.kill(worker, signal.SIGTERM)
    server.log.wait_for(rf"Worker exited unexpectedly \(pid: {worker}\), status 0")
    assert server.get("/").status == 200


def test_a_native_handler_that_calls_the_previous_one_stays_installed(serve, application, mode):
    application.write(
        "import faulthandler\nfaulthandler.register(signal.SIGTERM, file=open('stacks', 'w'), chain=True)"
    )
    server = serve(*mode)
    worker = worker_of(server)
    os.kill(worker, signal.SIGTERM)
    server.log.wait_for(rf"Worker exited unexpectedly \(pid: {worker}\), status 0")
    assert "most recent call first" in (application.directory / "stacks").read_text()


def test_a_handler_installed_by_a_request_does_not_prevent_a_drain(serve, application):
    application.write("", install="signal.signal(signal.SIGTERM, lambda *_: note('term'))")
    server = serve()
    worker = worker_of(server)
    assert server.get("/?install").status == 200

    def goes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)
        return gone(worker)

    eventually(goes, "the worker to drain", pause=0.1)
    assert application.notes("term")
    assert f"(pid: {worker}), status 0" in server.log.wait_for(".*Worker exited.*").group(0)


def test_the_handler_installed_by_the_server_stops_the_worker_gracefully(serve, application, mode):
    application.write("", stop="signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)")
    server = serve(*mode)
    worker = worker_of(server)
    assert server.get("/?stop").status == 200
    if "--fork" in mode:  # the process of a request is no worker
        assert server.get("/?stop").status == 200
        assert worker_of(server) == worker
    else:
        server.log.wait_for(rf"Worker exited unexpectedly \(pid: {worker}\), status 0")


# Processes that the application starts


FORKS = """
child = os.fork()
if not child:
    note("forked")
    while True:
        signal.pause()
while str(child) not in open("notes").read():
    pass
os.kill(child, signal.SIGTERM)
note(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
"""


@pytest.mark.parametrize("options", [MODES["inline"], MODES["threads"], MODES["preload"]], ids=" ".join)
def test_a_process_forked_by_the_application_has_its_term_handler_or_the_default(serve, application, options):
    application.write(
        "def stop(*_):\n    note('term')\n    os._exit(7)\nsignal.signal(signal.SIGTERM, stop)", fork=FORKS
    )
    server = serve(*options)
    assert server.get("/?fork").status == 200
    assert len(application.notes("7")) == 1
    assert application.notes("term") == application.notes("forked")
    server.stop(statuses=(0, 7))
    (application.directory / "notes").write_text("")
    application.write("", fork=FORKS)
    assert serve(*options).get("/?fork").status == 200
    assert len(application.notes("-15")) == 1
