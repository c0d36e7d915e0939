"""Started as root with --user: control of a worker, or of the directories of its user, does not give root's rights."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from harness import MLWS, Command, Server, eventually
from wire import DEADLINE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")

NOBODY = pwd.getpwnam("nobody")

APP = """
import os, socket
from pathlib import Path

NOTES = Path(__file__).with_name("notes")


def note(what):
    with NOTES.open("a") as notes:
        notes.write(f"{what} {os.geteuid()}\\n")


note("app")


def app(environ, start_response):
    if environ["PATH_INFO"] == "/reload":  # what an attacker would do who has taken over the worker
        for name in os.listdir("/proc/self/fd"):
            try:
                channel = socket.socket(fileno=os.dup(int(name)))
                if channel.family == socket.AF_UNIX and not channel.getsockname():
                    channel.setblocking(False)
                    channel.send(b"r")
            except OSError:
                pass
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.geteuid()).encode()]
"""


@pytest.fixture(scope="module")
def command():
    """The command prefix with which workers can read Python, even if it is installed in a private directory of root.

    It creates a mount namespace in which that directory is replaced by one with nothing but Python.
    """
    script, spares = "", []
    for prefix in dict.fromkeys([os.path.realpath(sys.base_prefix), sys.prefix, os.path.dirname(MLWS)]):
        path = Path(prefix)
        closed = next((p for p in [*reversed(path.parents), path] if not p.stat().st_mode & 0o001), None)
        if closed is None:
            continue
        if closed == path:
            pytest.skip(f"other users cannot read {prefix}")
        spares.append(tempfile.mkdtemp())
        script += (
            f"mount --bind '{prefix}' {spares[-1]} && mount -t tmpfs -o mode=755 none '{closed}' && "
            f"mkdir -p '{prefix}' && mount --bind {spares[-1]} '{prefix}' && umount {spares[-1]} && "
        )
    words = (
        ["unshare", "-m", "--propagation", "private", "sh", "-c", f'umask 022; {script}exec "$@"', "sh"]
        if script
        else []
    )
    if words and subprocess.run([*words, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("other users cannot read Python here, and mount namespaces are not allowed")
    yield (*words, MLWS)
    for spare in spares:
        os.rmdir(spare)


@pytest.fixture
def shop():
    """The directory of an application, readable for everybody and writable for the workers' user."""
    with tempfile.TemporaryDirectory() as name:
        shop = Path(name)
        shop.chmod(0o755)
        os.chown(shop, NOBODY.pw_uid, NOBODY.pw_gid)
        (shop / "shop.py").write_text(APP)
        yield shop


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("secret\n")
    path.chmod(0o600)
    return path


def state(path):
    found = path.stat()
    return found.st_uid, found.st_gid, stat.filemode(found.st_mode), path.read_text()


def owner(path):
    return path.stat().st_uid, path.stat().st_gid


def notes(shop):
    """The code that has run, and its user."""
    path = shop / "notes"
    return set(path.read_text().splitlines()) if path.exists() else set()


def run(shop, command, *options, app="shop:app", **settings):
    words = [*command, app, "--bind", "127.0.0.1:0", *options]
    return subprocess.run(
        [str(word) for word in words],
        cwd=shop,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        **settings,
    )


# Logs


@pytest.mark.parametrize("option", ["--access-logfile", "--error-logfile"])
def test_the_start_does_not_follow_links_of_other_users(option, shop, secret, command):
    before = state(secret)
    (shop / "log").symlink_to(secret)
    ended = run(shop, command, "--user", "nobody", option, shop / "log")
    assert ended.returncode == 1
    assert "symbolic link" in ended.stderr
    assert state(secret) == before


@pytest.mark.parametrize("option", ["--access-logfile", "--error-logfile"])
@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGHUP])
def test_a_log_replaced_with_a_link_by_a_worker_is_not_opened(option, sent, shop, secret, command):
    before = state(secret)
    logs = shop / "logs"
    logs.mkdir()
    os.chown(logs, NOBODY.pw_uid, NOBODY.pw_gid)
    options = ("--user", "nobody", option, logs / "log", "shop:app", "--bind", f"unix:{shop}/socket")
    with Command(*command, *options, cwd=shop) as server:
        eventually(lambda: (shop / "socket").exists() and "app 65534" in notes(shop), "the application")
        eventually(lambda: "Listening at: " in text_of(server, logs / "log"), "the start")
        assert owner(logs / "log") == (NOBODY.pw_uid, NOBODY.pw_gid)
        (logs / "log").rename(logs / "old")
        (logs / "log").symlink_to(secret)
        server.process.send_signal(sent)
        eventually(lambda: "symbolic link" in text_of(server, logs / "old"), "the error")
        server.stop()
    assert state(secret) == before


def text_of(server, log):
    return server.log.text + (log.read_text() if log.exists() and not log.is_symlink() else "")


def test_new_logs_belong_to_the_workers_and_existing_ones_keep_their_owner(tmp_path, shop, command):
    """The user may create files in its own directory; elsewhere root does it."""
    logs = shop / "logs"
    logs.mkdir()
    os.chown(logs, NOBODY.pw_uid, NOBODY.pw_gid)
    roots = tmp_path / "access.log"
    for access, error in ((logs / "access", logs / "error"), (roots, tmp_path / "error.log")):
        words = ("shop:app", "--bind", f"unix:{shop}/socket", "--user", "nobody")
        with Command(*command, *words, "--access-logfile", access, "--error-logfile", error, cwd=shop):
            eventually(lambda error=error: error.exists() and "Listening at: " in error.read_text())
        assert owner(access) == owner(error) == (NOBODY.pw_uid, NOBODY.pw_gid)
        assert stat.S_IMODE(access.stat().st_mode) == stat.S_IMODE(error.stat().st_mode) == 0o640
    os.chown(roots, 0, 0)
    server = Server("shop:app", "--user", "nobody", "--access-logfile", roots, command=command, cwd=shop)
    with server:
        assert server.get("/").text == str(NOBODY.pw_uid)
        eventually(lambda: "GET / " in roots.read_text(), "the line")
        assert owner(roots) == (0, 0)


def test_root_follows_its_own_links(tmp_path, shop, command):
    (tmp_path / "link").symlink_to("log")
    server = Server("shop:app", "--access-logfile", tmp_path / "link", command=command, cwd=shop)
    with server:
        server.get("/")
        eventually(lambda: "GET / " in (tmp_path / "log").read_text(), "the line")


# Requests of workers to the master


def test_a_worker_cannot_request_a_reload(shop, command):
    with Server("shop:app", "--user", "nobody", command=command, cwd=shop) as server:
        server.get("/reload")
        server.process.send_signal(signal.SIGTTIN)  # handled after the request of the worker
        server.log.wait_for("Worker ready[^$]*Worker ready")
        assert "reload" not in server.log.text.lower()


# Sockets


def test_a_unix_socket_in_any_directory_belongs_to_the_workers(tmp_path, shop, command):
    for path in (shop / "socket", tmp_path / "socket"):
        with Command(*command, "shop:app", "--bind", f"unix:{path}", "--user", "nobody", cwd=shop) as server:
            server.log.wait_for("Listening at: ")
            assert owner(path) == (NOBODY.pw_uid, NOBODY.pw_gid)
            assert stat.S_IMODE(path.stat().st_mode) == 0o777
        assert not path.exists()


# Code of the application

INI = """
[loggers]
keys=root,access
[handlers]
keys=file
[formatters]
keys=plain
[logger_root]
handlers=file
level=INFO
[logger_access]
handlers=file
level=INFO
qualname=gunicorn.access
propagate=0
[handler_file]
class=shop_handlers.Handler
args=('python.log',)
formatter=plain
[formatter_plain]
format=%(message)s
"""
HANDLERS = "import logging\nimport shop\nshop.note('handlers')\nclass Handler(logging.FileHandler): pass\n"


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["workers", "preload"])
def test_a_log_config_runs_as_the_workers_user_only(preload, shop, command):
    (shop / "log.ini").write_text(INI)
    (shop / "shop_handlers.py").write_text(HANDLERS)
    (shop / "queue.py").write_text("import shop\nshop.note('queue')\n")
    options = ("--user", "nobody", "--log-config", "log.ini", *preload)
    with Server("shop:app", *options, command=command, cwd=shop) as server:
        log = shop / "python.log"
        for reloads in (True, False):
            # The old workers respond until the new ones are ready.
            served = lambda: server.get("/").text == str(NOBODY.pw_uid) and "GET / " in log.read_text()  # noqa: E731
            eventually(served, "the line")
            assert owner(log)[0] == NOBODY.pw_uid
            if reloads:
                log.unlink()
                server.process.send_signal(signal.SIGHUP)
                eventually(log.exists, "the reload")
    assert notes(shop)
    assert all(line.endswith(" 65534") for line in notes(shop))


def test_check_config_loads_the_application_as_the_workers_user(shop, command):
    ended = run(shop, command, "--user", "nobody", "--check-config")
    assert ended.returncode == 0, ended.stderr
    assert notes(shop) == {"app 65534"}


def test_a_hook_cannot_load_the_application_as_root(shop, command):
    (shop / "gunicorn.conf.py").write_text("def on_starting(server):\n    server.app.wsgi()\n")
    with Server("shop:app", "--user", "nobody", command=command, cwd=shop) as server:
        server.log.wait_for("the application is not loaded as root")
        assert server.get("/").status == 200
    assert notes(shop) == {"app 65534"}


# Config files


@pytest.mark.parametrize("name", ["gunicorn.conf.py", "mlws.toml", "pyproject.toml", "shop.ini"])
@pytest.mark.parametrize("other", ["user 65534", "group 65534", "everybody"])
def test_a_config_file_that_others_can_change_is_rejected(name, other, shop, command):
    texts = {
        "gunicorn.conf.py": "open('ran', 'w').close()\n",
        "mlws.toml": "workers = 1\n",
        "pyproject.toml": "[tool.mylittlewebserver]\nworkers = 1\n",
        "shop.ini": "[server:main]\nuse = egg:mylittlewebserver\n",
    }
    path = shop / name
    path.write_text(texts[name])
    if other.startswith("user"):
        os.chown(path, NOBODY.pw_uid, 0)
    elif other.startswith("group"):
        os.chown(path, 0, NOBODY.pw_gid)
        path.chmod(0o664)
    else:
        path.chmod(0o646)
    options = ["--paste", name] if name == "shop.ini" else ["shop:app"]
    words = [*command, "--bind", "127.0.0.1:0", "--check-config", *options]
    ended = subprocess.run(words, cwd=shop, capture_output=True, text=True, timeout=2 * DEADLINE, check=False)
    assert ended.returncode == 2
    assert f"{other} can change this file, so root does not read it" in ended.stderr
    assert not (shop / "ran").exists()


def test_the_user_of_sudo_may_own_the_config_file(shop, command):
    path = shop / "gunicorn.conf.py"
    path.write_text("open('ran', 'w').close()\n")
    os.chown(path, NOBODY.pw_uid, 0)
    words = [*command, "shop:app", "--check-config"]
    env = {**os.environ, "SUDO_UID": str(NOBODY.pw_uid)}
    subprocess.run(words, cwd=shop, env=env, check=True, capture_output=True, timeout=2 * DEADLINE)
    assert (shop / "ran").exists()


def test_a_planted_compiled_config_file_is_not_run(shop, command):
    (shop / "gunicorn.conf.py").write_text("workers = 1\n")
    planted = shop / "__pycache__"
    planted.mkdir()
    script = "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2], invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
    (shop / "evil.py").write_text("open('ran', 'w').close()\n")
    cached = planted / f"gunicorn.conf.{sys.implementation.cache_tag}.pyc"
    subprocess.run([sys.executable, "-c", script, shop / "evil.py", cached], check=True)
    assert run(shop, command, "--check-config").returncode == 0
    assert not (shop / "ran").exists()


# Users


def test_a_uid_without_a_passwd_entry_requires_a_group(shop, command):
    shop.chmod(0o777)
    used = {user.pw_uid for user in pwd.getpwall()}
    number = next(uid for uid in range(4_000_000_000, 4_000_001_000) if uid not in used)
    ended = run(shop, command, "--user", str(number))
    assert ended.returncode == 2
    assert f"user {number} has no passwd entry" in ended.stderr
    with Server("shop:app", "--user", str(number), "--group", "1234", command=command, cwd=shop) as server:
        assert server.get("/").text == str(number)
