"""Compatibility with gunicorn: hooks are called in the same order, in the same processes, with the same arguments."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest
from harness import eventually, gone
from pairs import PATIENCE, Case, compare

# Each call is a line: the name, the pid, and the values that real config files use.
RECORDER = """
import os
MASTER = os.getpid()
pidfile = "app.pid"
threads, keepalive = 1, 2

def note(name, *facts):
    with open("calls", "a") as calls:
        calls.write(f"{name}|{os.getpid()}|{facts}\\n")

def server(it):
    places = [place if isinstance(place, str) else place[0] for place in it.address]
    return (it.pid == MASTER or it.pid == os.getppid() or it.pid == os.getpid(), it.num_workers, it.cfg.workers, it.cfg.pidfile,
        it.cfg.preload_app, it.cfg.bind, places, type(it.worker_age).__name__, it.timeout, it.proc_name, len(it.WORKERS),
        hasattr(it.log, "info"), it.app.callable is not None, it.cfg.threads, it.cfg.keepalive, it.cfg.loglevel, it.cfg.accesslog)

def worker(it):
    return (it.pid if it.pid == "[booting]" else it.pid == os.getpid() or os.getpid() == MASTER, it.age, it.alive, it.booted, it.aborted,
        it.ppid == MASTER, it.cfg.workers, it.nr, hasattr(it.log, "warning"), str(it).rstrip("0123456789>"), it.app.callable is not None)

def settings(it):
    plain = "bind", "workers", "threads", "timeout", "pidfile", "preload_app", "loglevel", "raw_env"
    values = [(name, it.settings[name].name, it.settings[name].get(), it.settings[name].value) for name in plain]
    return (it.address, bool(it.is_ssl), it.env, it.uid, it.gid, "no_such_name" in it.settings, values)

def listeners(it):
    places = [(str(one).rstrip("0123456789"), one.getsockname()[0], one.FAMILY.name, one.family.name, one.fileno() > 2) for one in it.LISTENERS]
    accepts = [one.getsockopt(__import__("socket").SOL_SOCKET, __import__("socket").SO_ACCEPTCONN) for one in it.LISTENERS]
    return (places, accepts, [one.sock.getsockname() == one.getsockname() for one in it.LISTENERS])

def request(it):
    return (it.method, it.path, it.uri, it.query, it.version, it.scheme, it.remote_addr[0], it.fragment, sorted(it.headers))

def on_starting(s): note("on_starting", server(s), settings(s.cfg), listeners(s))
def on_reload(s): note("on_reload", server(s))
def when_ready(s): note("when_ready", server(s), listeners(s))
def pre_fork(s, w): note("pre_fork", server(s), worker(w))
def post_fork(s, w): note("post_fork", server(s), worker(w), settings(w.cfg), listeners(s))
def post_worker_init(w): note("post_worker_init", worker(w), callable(w.wsgi))
def worker_int(w): note("worker_int", worker(w))
def worker_abort(w): note("worker_abort", worker(w))
def pre_exec(s): note("pre_exec", s.cfg.workers)
def child_exit(s, w): note("child_exit", server(s), worker(w))
def worker_exit(s, w): note("worker_exit", server(s)[0], w.pid == os.getpid(), w.age)
def nworkers_changed(s, new, old): note("nworkers_changed", new, old)
def on_exit(s): note("on_exit", s.pid == os.getpid(), s.LISTENERS)
def pre_request(w, r): note("pre_request", worker(w), request(r)); r.noted = "yes"; r.headers.append(("X-NOTED", "yes"))
def post_request(w, r, environ, response):
    note("post_request", worker(w), request(r), r.noted, environ["PATH_INFO"], environ["HTTP_X_NOTED"], response.status, response.status_code,
        sorted(header for header in response.headers if header[0].lower() not in ("server", "date", "connection")))
"""
CALL = re.compile(r"([a-z_]+)\|([0-9]+)\|(.*)")


def calls(server):
    path = server.directory / "calls"
    return [CALL.fullmatch(line).groups() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(server, name, count=1):
    eventually(
        lambda: [call[0] for call in calls(server)].count(name) >= count,
        f"{name}, {count} times",
        deadline=15,
    )


def settled(server, count):
    """Waits until the master has registered that number of ready workers. gunicorn has no such event."""
    if server.make == "mlws":
        eventually(
            lambda: server.output().count("Worker ready") >= count,
            f"{count} workers to be up",
            deadline=PATIENCE,
        )


def noted(server):
    """Calls by process: those of the master, and those of each worker by age."""
    calls_by_pid = {}
    for name, pid, facts in calls(server):
        calls_by_pid.setdefault(pid, []).append((name, facts))
    master = calls_by_pid.pop(str(server.pid), [])
    facts = {f"master {number}: {name}": facts for number, (name, facts) in enumerate(master)}
    facts["master"] = [name for name, _ in master]
    for number, own in enumerate(calls_by_pid.values()):
        facts[f"worker {number}"] = [name for name, _ in own]
        facts.update({f"worker {number}: {name}": facts_ for name, facts_ in own})
    return facts


def a_life(server):
    server.ready()
    wait_for(server, "post_worker_init")
    server.get("/request?a=1", headers="X-Mine: 1\r\n")
    wait_for(server, "post_request")
    status = server.ends()
    return {"status": status, **noted(server)}


def two_lives(server):
    """HUP, and then an immediate stop."""
    server.ready()
    wait_for(server, "post_worker_init")
    server.kill(signal.SIGHUP)
    wait_for(server, "child_exit")
    status = server.ends(signal.SIGINT)
    return {"status": status, **noted(server)}


def resized(server):
    server.ready()
    wait_for(server, "post_worker_init")
    server.kill(signal.SIGTTIN)
    wait_for(server, "post_worker_init", 2)
    settled(server, 2)
    server.kill(signal.SIGTTOU)
    wait_for(server, "child_exit")
    settled(server, 2)
    status = server.ends()
    return {"status": status, **noted(server)}


def interrupted(server):
    server.ready()
    wait_for(server, "post_worker_init")
    server.kill(signal.SIGINT, server.workers()[0])
    wait_for(server, "post_worker_init", 2)
    settled(server, 2)
    status = server.ends()
    return {"status": status, **noted(server)}


def killed(server):
    server.ready()
    wait_for(server, "post_worker_init")
    server.kill(signal.SIGKILL, server.workers()[0])
    wait_for(server, "post_worker_init", 2)
    settled(server, 2)
    status = server.ends()
    return {"status": status, **noted(server)}


def overdue(server):
    server.ready()
    wait_for(server, "post_worker_init")
    with contextlib.suppress(ConnectionError, AssertionError):
        server.get("/hangs")
    wait_for(server, "worker_abort")
    wait_for(server, "child_exit")
    wait_for(server, "post_worker_init", 2)
    status = server.ends()
    stuck = next(pid for name, pid, _ in calls(server) if name == "worker_abort")
    own = [name for name, pid, _ in calls(server) if pid == stuck]
    return {
        "status": status,
        "its calls": [name for name in own if name != "worker_exit"],
        "its exit": "worker_exit" in own,
    }


def executed(server):
    server.ready()
    wait_for(server, "post_worker_init")
    server.kill(signal.SIGUSR2)
    wait_for(server, "pre_exec")
    second = server.directory / "app.pid.2"
    eventually(lambda: second.exists() and second.read_text().strip(), "a second pidfile")
    pid = int(second.read_text())
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: gone(pid), "the second to end")
    calls_by_pid = [(name, facts) for name, _, facts in calls(server) if name == "pre_exec"]
    return {"status": server.ends(), "pre_exec": calls_by_pid}


WORDS = ("facts", "--bind", "127.0.0.1:0", "-k", "sync")
FOUND = "gunicorn.conf.py"
SCENES = {
    "a lifecycle": (WORDS, a_life),
    "a lifecycle, preloaded": ((*WORDS, "--preload"), a_life),
    "a reload": (WORDS, two_lives),
    "TTIN and TTOU": (WORDS, resized),
    "a worker is interrupted": (WORDS, interrupted),
    "a worker is killed": (WORDS, killed),
    "a call takes too long": ((*WORDS, "-t", "1"), overdue),
    "USR2": (WORDS, executed),
}
LISTED = {
    "a lifecycle": {"worker 0: post_request": "own length"},
    "a call takes too long": {"its *": "stuck"},
    "a lifecycle, preloaded": {"master*": "generation", "worker*": "generation"},
    "TTIN and TTOU": {"master 7: child_exit": "youngest", "master 8: child_exit": "youngest"},
}


CONFIGS = Path(__file__).parent / "configs"
WORKERS = {"computed": 2, "numbers": 2, "pools": 2, "prometheus": 2, "tracing": 2, "background": 2}
OF_CONFIGS = {"tracing": {"spans": "generation", "files": "generation"}}


def config(workers):
    """Sends a request, reloads, interrupts a worker, and stops the server."""

    def look(server):
        server.ready()
        seen = {"workers": server.number(workers)}
        seen["answers"] = [server.get(path).status for path in ("/request?a=1", "/nothing")]
        seen["variables"] = {
            key: re.sub("[0-9]+", "N", value) for key, value in server.facts()["variables"].items()
        }
        old = server.workers()
        server.kill(signal.SIGHUP)
        eventually(lambda: not set(old) & set(server.workers()), "the old workers to go", deadline=PATIENCE)
        seen["workers after a reload"] = server.number(workers)
        settled(server, 2 * workers)
        one = server.workers()[0]
        server.kill(signal.SIGINT, one)
        eventually(lambda: gone(one), "the interrupted worker to go", deadline=PATIENCE)
        seen["workers after an interruption"] = server.number(workers)
        settled(server, 2 * workers + 1)
        seen["status"] = server.ends()
        lines = re.findall(r"\[([A-Z]+)\] shop: (.*)", server.output())
        seen["log"] = sorted((level, re.sub("[0-9]+", "N", line)) for level, line in lines)
        seen["files"] = [*server.files()]
        seen["spans"] = [path.read_text() for path in sorted(server.directory.glob("spans*"))]
        return seen

    return look


# The same functions in a module, which the config file names.
NAMED = 'pidfile = "app.pid"\nkeepalive = 2\n' + "".join(
    f'{name} = "hooks.{name}"\n' for name in re.findall(r"^def ([a-z_]+)\([sw]\b", RECORDER, re.M)
)
HOOKS = {
    name: Case(words, look, LISTED.get(name), files={FOUND: RECORDER})
    for name, (words, look) in SCENES.items()
}
HOOKS["a life, by names"] = Case(
    WORDS, a_life, LISTED["a lifecycle"], files={FOUND: NAMED, "hooks.py": RECORDER}
)
FILES = {
    path.stem: Case(
        ("facts", "-c", path.name),
        config(WORKERS.get(path.stem, 1)),
        OF_CONFIGS.get(path.stem),
        files={path.name: path.read_text()},
    )
    for path in sorted(CONFIGS.glob("*.py"))
}
CASES = {**HOOKS, **FILES}


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_are_called_as_by_gunicorn(name, seen):
    compare(seen(name), CASES[name].differs)


@pytest.mark.parametrize("name", FILES)
def test_real_config_files_work_as_with_gunicorn(name, seen):
    compare(seen(name), CASES[name].differs)
