"""Compatibility with gunicorn: signals, changed files and failures have the same effect."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from harness import eventually, gone
from pairs import PATIENCE, Case, compare

APP = """
import contextlib
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(TEXT))), ("Connection", "close")][:1])
    return [TEXT]
TEXT = b"%s"
"""
WORDS = ("shop", "--bind", "127.0.0.1:0")
FOUND = "gunicorn.conf.py"


def change(server, name, text):
    """Replaces the file atomically."""
    new = server.directory / f"{name}.new"
    new.write_text(text)
    new.rename(server.directory / name)


def during_a_request(server, signum, then=lambda: None):
    """The response to a request that was sent before the signal."""
    with server.wire() as wire:
        wire.send(b"GET /long HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        eventually(lambda: (server.directory / "inside").exists(), "the request to be inside the app")
        server.kill(signum)
        then()
        (server.directory / "go").touch()
        try:
            answer = wire.answer()
            return answer.status, answer.complete
        except (AssertionError, ConnectionResetError):
            return "cut"


def term(server):
    server.ready()
    response = during_a_request(server, signal.SIGTERM)
    return {"response": response, "status": server.wait(), "files": [*server.files()]}


def quit_(signum):
    def look(server):
        server.ready()
        response = during_a_request(server, signum, then=server.wait)
        return {"response": response, "status": server.wait(), "files": [*server.files()]}

    return look


def hup_with_other_settings(server):
    seen = {}
    server.ready()
    seen["workers before"] = server.number(1)
    old = server.workers()
    change(server, FOUND, "workers = 3\numask = 0o77\npidfile = 'other.pid'\n")
    change(server, "shop.py", APP % "new")
    server.kill(signal.SIGHUP)
    seen["new"] = server.eventually_answers("/", "new")
    eventually(lambda: not set(old) & set(server.workers()), "the old workers to go", deadline=PATIENCE)
    seen["workers"] = server.number(3)
    seen["pidfiles"] = sorted(path.name for path in server.directory.glob("*.pid"))
    seen["status"] = server.ends()
    seen["files"] = [*server.files()]
    return seen


def hup_with_a_config_module(server):
    """Both the module and one that it imports from itself are changed."""
    server.ready()
    seen = {"before": server.number(1)}
    change(server, "conf/__init__.py", "from conf.sizes import SIZE\nworkers = SIZE + 1\n")
    change(server, "conf/sizes.py", "SIZE = 2\n")
    change(server, "shop.py", APP % "new")
    server.kill(signal.SIGHUP)
    seen["new"] = server.eventually_answers("/", "new")
    seen["workers"] = server.number(3)
    seen["status"] = server.ends()
    return seen


def hup_with_another_address(server):
    server.ready()
    change(server, FOUND, "bind = ['unix:b.sock', 'unix:c.sock']")
    server.kill(signal.SIGHUP)
    seen = {name: server.eventually_answers("/", "old", address=f"unix:{name}.sock") for name in "bc"}
    seen["the old socket's file"] = (server.directory / "a.sock").exists()
    seen["status"] = server.ends()
    seen["files"] = [*server.files()]
    return seen


def hup_with(name, text):
    """A reload that fails."""

    def look(server):
        server.ready()
        server.number(1)
        change(server, name, text)
        server.kill(signal.SIGHUP)
        error = r"Traceback|cannot|failed|Error|rror:"
        server.log.wait_for(error)
        with_status = server.ended_by_itself()
        return {"keeps running": with_status is None, "answers": with_status is None and server.get("/").text}

    return look


def hup_preloaded(server):
    server.ready()
    seen = {"before": server.get("/").text}
    old = server.workers()
    change(server, "shop.py", APP % "new")
    server.kill(signal.SIGHUP)
    eventually(lambda: not set(old) & set(server.workers()) and server.workers(), "new workers")
    seen["after"] = server.get("/").text
    return seen


def more_and_fewer(server):
    server.ready()
    seen = {"at first": server.number(1)}
    for name, signum, number in (
        ("TTIN", "TTIN", 2),
        ("TTIN again", "TTIN", 3),
        ("TTOU", "TTOU", 2),
        ("TTOU again", "TTOU", 1),
    ):
        server.kill(signal.Signals[f"SIG{signum}"])
        seen[name] = server.number(number)
    server.kill(signal.SIGTTOU)
    seen["one stays"] = server.get("/").status, server.number(1)
    server.kill(signal.SIGTTIN)
    server.number(2)
    server.kill(signal.SIGHUP)
    seen["HUP"] = server.number(1)
    return seen


def reopened(server):
    server.ready()
    server.get("/")
    error, access = server.directory / "error.log", server.directory / "access.log"
    eventually(lambda: access.read_text(), "the access log")
    for path in (error, access):
        path.rename(path.with_suffix(".old"))
    server.kill(signal.SIGUSR1)
    eventually(lambda: error.exists() and access.exists(), "new files")

    def logged():
        server.get("/")
        return access.read_text()

    eventually(logged, "a line in the new file")
    return {
        "status": server.ends(),
        "the error log is used": bool(error.read_text()),
        "files": server.files(),
    }


def winch_in_the_foreground(server):
    server.ready()
    server.number(1)
    old = server.workers()
    server.kill(signal.SIGWINCH)
    server.log.wait_for("SIGWINCH ignored|Draining all workers", deadline=PATIENCE)
    if server.make == "mlws":
        eventually(lambda: gone(old[0]), "the worker to go")
    return {"old worker keeps running": not gone(old[0])}


def second_master(server):
    server.ready()
    first, second = server.directory / "app.pid", server.directory / "app.pid.2"
    server.kill(signal.SIGUSR2)
    eventually(lambda: second.exists() and second.read_text().strip(), "a second pidfile")
    pid = int(second.read_text())
    seen = {"the first's file": int(first.read_text()) == server.pid, "not the first": pid != server.pid}
    server.master = pid
    seen["workers of the second"] = server.number(1)
    seen["answer of both"] = server.get("/").status
    server.process.send_signal(signal.SIGTERM)
    seen["status of the first"] = server.wait()
    eventually(
        lambda: first.exists() and int(first.read_text() or 0) == pid, "the second to become the first"
    )
    seen["the second's file"] = second.exists()
    seen["answer of the second"] = server.get("/").status
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: gone(pid), "the second to end")
    seen["files"] = [*server.files()]
    return seen


def killed(signum):
    def look(server):
        server.ready()
        server.number(2)
        old = server.workers()
        server.get("/")
        server.kill(signum, old[0])
        eventually(lambda: old[0] not in server.workers(), "the worker to go")
        seen = {"workers": server.number(2), "the other lives": old[1] in server.workers()}
        seen["answer"] = server.get("/").status
        seen["status"] = server.ends()
        return seen

    return look


def recycled(server):
    server.ready()
    pids = set()

    def changed():
        pids.add(server.get("/pid").text)  # no connection is refused meanwhile
        return len(pids) > 2

    eventually(changed, "two successors")
    return {"workers": server.number(1), "status": server.ends()}


def overdue(server):
    server.ready()
    server.number(1)
    old = server.workers()
    try:
        answer = server.get("/hangs").status
    except (ConnectionError, AssertionError):
        answer = "cut"
    eventually(lambda: server.workers() and old[0] not in server.workers(), "another worker")
    return {"answer": answer, "answer of the next": server.get("/pid").status, "status": server.ends()}


def reloaded(server):
    server.ready()
    seen = {"before": server.get("/").text}
    versions = iter(range(100))

    def changed(text, is_seen):
        """Repeats the change, because gunicorn misses it until its new worker has scanned once."""

        def once():
            change(server, "shop.py", f"{text}# {next(versions)}")
            with contextlib.suppress(AssertionError, OSError):
                return eventually(is_seen, "the change to show", deadline=2)
            return False

        return eventually(once, "a change to be seen")

    seen["changed"] = changed(APP % "new", lambda: server.get("/").text == "new")
    changed("this is no Python", lambda: server.get("/").status == 500)
    seen["mended"] = changed(APP % "mended", lambda: server.get("/").text == "mended")
    seen["status"] = server.ends()
    return seen


def daemon(server):
    seen = {"status of the command": server.wait()}
    pidfile = server.directory / "app.pid"
    eventually(lambda: pidfile.exists() and pidfile.read_text().strip(), "a pidfile")
    server.master = int(pidfile.read_text())
    server.addresses = ["unix:app.sock"]
    seen["workers"] = server.number(2)
    seen["answer"] = server.get("/pid").status
    seen["directory and mask"] = [server.facts()[key] for key in ("directory", "umask")]
    old = server.workers()
    server.kill(signal.SIGWINCH)
    eventually(lambda: not set(old) & set(server.workers()), "the workers to go")
    seen["after WINCH"] = len(server.workers())
    server.kill(signal.SIGHUP)
    seen["after HUP"] = server.number(2)
    seen["output"] = [server.out.text, server.log.text]
    server.kill(signal.SIGTERM)
    eventually(lambda: gone(server.master), "the daemon to end")
    seen["files"] = [*server.files()]
    return seen


SHOP = {"shop.py": APP % "old"}
FACTS = ("facts", "--bind", "127.0.0.1:0")
SCENES = {
    "TERM": (("facts", "-b", "unix:app.sock", "-p", "app.pid"), term, {}),
    "INT": (("facts", "-b", "unix:app.sock", "-p", "app.pid"), quit_(signal.SIGINT), {}),
    "QUIT": (("facts", "-b", "unix:app.sock", "-p", "app.pid"), quit_(signal.SIGQUIT), {}),
    "HUP with other settings": (WORDS, hup_with_other_settings, {**SHOP, FOUND: "pidfile = 'app.pid'"}),
    "HUP with a config module": (
        (*WORDS, "-c", "python:conf"),
        hup_with_a_config_module,
        {
            **SHOP,
            "conf/__init__.py": "from conf.sizes import SIZE\nworkers = SIZE\n",
            "conf/sizes.py": "SIZE = 1\n",
        },
    ),
    "HUP with another address": (
        ("shop",),
        hup_with_another_address,
        {**SHOP, FOUND: "bind = ['unix:a.sock', 'unix:c.sock']"},
    ),
    "HUP with an app that fails": (WORDS, hup_with("shop.py", "1 / 0"), SHOP),
    "HUP with a config file that fails": (WORDS, hup_with(FOUND, "1 / 0"), {**SHOP, FOUND: ""}),
    "HUP with a setting that is wrong": (WORDS, hup_with(FOUND, "workers = 'many'"), {**SHOP, FOUND: ""}),
    "HUP, preloaded": ((*WORDS, "--preload"), hup_preloaded, SHOP),
    "TTIN and TTOU": (WORDS, more_and_fewer, SHOP),
    "USR1": ((*WORDS, "--log-file", "error.log", "--access-logfile", "access.log"), reopened, SHOP),
    "WINCH": ((*WORDS, "--log-level", "debug"), winch_in_the_foreground, SHOP),
    "USR2": ((*WORDS, "-p", "app.pid"), second_master, SHOP),
    "a worker is killed": ((*WORDS, "-w", "2"), killed(signal.SIGKILL), SHOP),
    "TERM to a worker": ((*WORDS, "-w", "2"), killed(signal.SIGTERM), SHOP),
    "QUIT to a worker": ((*WORDS, "-w", "2"), killed(signal.SIGQUIT), SHOP),
    "a worker is aborted": ((*WORDS, "-w", "2"), killed(signal.SIGABRT), SHOP),
    "max-requests": ((*FACTS, "--max-requests", "3"), recycled, {}),
    "timeout": ((*FACTS, "-t", "1", "-k", "sync"), overdue, {}),
    "--reload": ((*WORDS, "--reload", "--reload-engine", "poll"), reloaded, SHOP),
    "a daemon": (
        ("facts", "-D", "-p", "app.pid", "-b", "unix:app.sock", "-w", "2", "--log-file", "error.log"),
        daemon,
        {},
    ),
}

ENDED = {"keeps running": "safe reload", "answers": "safe reload"}
LISTED = {
    "INT": {"response": "fast end"},
    "QUIT": {"response": "fast end"},
    "HUP with another address": {"the old socket's file": "socket files", "files": "socket files"},
    "HUP with a config module": {"workers": "config module"},
    "HUP with an app that fails": ENDED,
    "HUP with a config file that fails": ENDED,
    "HUP with a setting that is wrong": ENDED,
    "HUP, preloaded": {"after": "preload reload"},
    "USR1": {"files": "log mode"},
    "WINCH": {"old worker keeps running": "winch"},
    "timeout": {"answer": "timeouts"},
}


CASES = {
    name: Case(words, look, LISTED.get(name), files=files) for name, (words, look, files) in SCENES.items()
}


@pytest.mark.parametrize("name", CASES)
def test_signals_have_the_same_effect_as_with_gunicorn(name, seen):
    compare(seen(name), CASES[name].differs)
