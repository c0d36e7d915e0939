"""Process management: pidfiles, daemons, users, service managers, and process 1 of a container."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
from harness import APPS, MLWS, Command, Server, eventually, gone, processes, run
from wire import DEADLINE, Wire

as_root = pytest.mark.skipif(
    os.geteuid() != 0
    or subprocess.run(["test", "-r", APPS / "whoami.py"], user="nobody", check=False).returncode,
    reason="only root can change its user, which must be able to read the app",
)
AS_NOBODY = (
    "setpriv",
    "--reuid",
    "nobody",
    "--regid",
    str(pwd.getpwnam("nobody").pw_gid),
    "--clear-groups",
    MLWS,
)


def result_of(server, path):
    return json.loads(server.get(f"/processes/{path}").text)


def who(server):
    return json.loads(server.get("/").text)


def gone_pid():
    """The pid of a process that has exited."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


# Pidfiles


def test_a_pidfile_names_the_master_for_as_long_as_it_serves(start, tmp_path):
    pidfile = tmp_path / "pid"
    server = start("raw", "--pid", pidfile, "--workers", "2")
    assert pidfile.read_text() == f"{server.pid}\n"
    assert stat.S_IMODE(pidfile.stat().st_mode) == 0o644
    os.kill(server.workers()[0], signal.SIGKILL)  # an exiting worker does not remove the file
    eventually(lambda: len(server.workers()) == 2)
    assert pidfile.read_text() == f"{server.pid}\n"
    server.stop()
    assert os.listdir(tmp_path) == []


def test_a_pidfile_of_a_running_process_is_an_error(tmp_path):
    pidfile, path = tmp_path / "pid", tmp_path / "socket"
    pidfile.write_text(f"{os.getpid()}\n")
    ended = run("raw", "--pid", pidfile, "--bind", f"unix:{path}")
    assert ended.returncode == 1
    assert f"contains pid {os.getpid()} of a running process: " in ended.stderr
    assert pidfile.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_stale_pidfile_is_replaced(start, tmp_path):
    pidfile = tmp_path / "pid"
    pidfile.write_text(f"{gone_pid()}\n")
    server = start("raw", "--pid", pidfile)
    assert pidfile.read_text() == f"{server.pid}\n"


def test_a_pidfile_taken_over_by_another_process_is_left_alone(start, tmp_path):
    pidfile = tmp_path / "pid"
    server = start("raw", "--pid", pidfile)
    pidfile.write_text("1\n")
    server.stop()
    assert pidfile.read_text() == "1\n"


# Logs


def test_the_log_goes_to_a_file(start, tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    with Command(MLWS, "raw", "--bind", "127.0.0.1:0", "--error-logfile", log) as server:
        eventually(lambda: "Listening at: " in log.read_text())
        server.stop()
        assert "Shutting down" in log.read_text()
        assert log.read_text().startswith("before\n[")
        assert server.log.wait_for_end() == ""


def test_a_startup_error_is_reported_in_the_log_file_and_on_stderr(tmp_path):
    log = tmp_path / "log"
    ended = run("no_such_module", "--bind", "127.0.0.1:0", "--log-file", log)
    assert ended.returncode == 3
    for text in (ended.stderr, log.read_text()):
        assert "no module 'no_such_module'" in text
    assert "stopping workers immediately" not in ended.stderr


def test_a_log_file_that_cannot_be_opened_is_an_error():
    ended = run("raw", "--bind", "127.0.0.1:0", "--error-logfile", "/no/such/directory/log")
    assert ended.returncode == 1
    assert "cannot open the log /no/such/directory/log: " in ended.stderr


# Daemons


@pytest.fixture
def daemon(tmp_path):
    """Runs a command that starts a daemon with a pidfile in `tmp_path`. The daemon is stopped after the test."""

    def start(*arguments, env=os.environ, **settings):
        # Names of processes replace their command line, and leave their environment alone if so configured.
        environment = {**env, "MLWS_TEST": str(tmp_path), "SPT_NOENV": "1"}
        return run(*arguments, "--daemon", "--pid", tmp_path / "pid", env=environment, **settings)

    yield start
    for pid in running_with(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not running_with(tmp_path))


def running_with(word):
    """The processes that have this word in their command line or their environment."""
    found = []
    for process in processes():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            texts = [Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
            if process.state not in "ZX" and any(str(word).encode() in text for text in texts):
                found.append(process.pid)
    return found


def test_a_daemon_serves_when_its_command_returns_and_exits_on_term(daemon, tmp_path):
    options = ("--bind", "127.0.0.1:0", "--workers", "2", "--error-logfile", tmp_path / "log")
    started = daemon("raw", *options, "--access-logfile", tmp_path / "access")
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    log = (tmp_path / "log").read_text()
    url = log.partition("Listening at: ")[2].split()[0]
    with urlopen(f"{url}/processes/streams", timeout=DEADLINE) as answer:
        assert json.load(answer) == ["/dev/null"] * 3
    master = int((tmp_path / "pid").read_text())
    [found] = [process for process in processes() if process.pid == master]
    assert found.group not in (
        master,
        os.getpgrp(),
    )  # it is not a session leader, which could acquire a terminal
    assert found.parent != os.getpid()
    assert os.readlink(f"/proc/{master}/fd/2") == "/dev/null"
    assert len(running_with(tmp_path)) == 3
    os.kill(master, signal.SIGTERM)
    eventually(lambda: not running_with(tmp_path), "the daemon to end")
    assert sorted(os.listdir(tmp_path)) == ["access", "log"]
    assert "GET /processes/streams" in (tmp_path / "access").read_text()
    assert "Shutting down" in (tmp_path / "log").read_text()


def test_a_daemon_finishes_its_requests_after_a_second_term(daemon, gate, tmp_path):
    log = tmp_path / "log"
    assert daemon("raw", "--bind", "127.0.0.1:0", "--error-logfile", log).returncode == 0
    port = int(re.search(r"Listening at: http://127.0.0.1:(\d+)", log.read_text()).group(1))
    master = int((tmp_path / "pid").read_text())
    with Wire(("127.0.0.1", port)) as wire:
        wire.send(f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        gate.wait_for(1)
        os.kill(master, signal.SIGTERM)
        eventually(lambda: "Shutting down: " in log.read_text(), "the daemon to stop")
        os.kill(master, signal.SIGTERM)
        gate.open()
        assert wire.answer().text == "passed\n"
    eventually(lambda: not running_with(tmp_path), "the daemon to end")
    assert "stopping workers immediately" not in log.read_text()


def test_a_daemon_without_a_log_file_logs_a_warning(daemon, tmp_path):
    started = daemon("raw", "--bind", "127.0.0.1:0")
    assert started.returncode == 0
    assert "Listening at: " in started.stderr
    assert "its log is lost" in started.stderr
    assert running_with(tmp_path)


def test_a_daemon_that_cannot_import_its_app_is_an_error_of_the_command(daemon, tmp_path):
    (tmp_path / "broken.py").write_text("print('hello')\nraise RuntimeError('no database')\n")
    started = daemon("broken", "--bind", "127.0.0.1:0", "--chdir", tmp_path)
    assert started.returncode == 3
    assert "RuntimeError: no database" in started.stderr
    assert "Traceback" in started.stderr
    assert started.stdout == "hello\n"
    eventually(lambda: not running_with(tmp_path), "the daemon to end")
    assert not (tmp_path / "pid").exists()


def test_a_daemon_that_cannot_bind_is_an_error_of_the_command(daemon, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        started = daemon("raw", "--bind", f"127.0.0.1:{taken.getsockname()[1]}")
    assert started.returncode == 1
    assert "in use" in started.stderr


def test_a_daemon_that_is_killed_before_it_is_ready_is_an_error_of_the_command(daemon, tmp_path):
    """Its app kills the master before it reports that it is ready."""
    (tmp_path / "deadly.py").write_text("import os\nos.kill(os.getppid(), 9)\n")
    started = daemon("deadly", "--bind", "127.0.0.1:0", "--chdir", tmp_path)
    assert started.returncode == 1


# Users, groups and masks


@as_root
def test_workers_run_as_another_user_and_cannot_regain_root(start):
    nobody = pwd.getpwnam("nobody")
    server = start("whoami", "--user", "nobody", "--workers", "2")
    found = who(server)
    assert (found["uid"], found["gid"], found["groups"]) == (nobody.pw_uid, nobody.pw_gid, [nobody.pw_gid])
    assert not found["root"]
    assert os.stat(f"/proc/{server.pid}").st_uid == 0


@as_root
@pytest.mark.parametrize("fork", [(), ("--fork",)], ids=["inline", "fork"])
def test_users_and_groups_may_be_numbers(start, fork):
    found = who(start("whoami", "-u", "4321", "-g", "1234", *fork))
    assert (found["uid"], found["gid"], found["groups"]) == (4321, 1234, [1234])


@as_root
def test_initgroups_sets_the_supplementary_groups_of_the_user(start):
    members = [(name, group.gr_gid) for group in grp.getgrall() for name in group.gr_mem]
    if not members:
        pytest.skip("no user here has a second group")
    name, second = members[0]
    found = who(start("whoami", "--user", name, "--group", "1234", "--initgroups"))
    assert sorted(found["groups"]) == sorted(os.getgrouplist(name, 1234))
    assert second in found["groups"]


@pytest.mark.parametrize("option", ["--user", "--group"])
def test_an_unknown_name_is_an_error_before_anything_is_bound(option, tmp_path):
    path = tmp_path / "socket"
    ended = run("raw", option, "no-such-name", "--bind", f"unix:{path}")
    assert ended.returncode == 2
    assert f"unknown {option[2:]} 'no-such-name'" in ended.stderr
    assert not path.exists()


@as_root
@pytest.mark.skipif(
    subprocess.run([*AS_NOBODY, "--version"], capture_output=True, check=False).returncode != 0,
    reason="the user nobody cannot run this interpreter",
)
def test_a_user_other_than_root_can_only_select_itself(start):
    ended = run("whoami", "--bind", "127.0.0.1:0", "--user", "root", command=AS_NOBODY)
    assert ended.returncode == 1
    assert "only root can run workers as user 0" in ended.stderr
    found = who(start("whoami", "--user", "nobody", command=AS_NOBODY))
    assert found["uid"] == pwd.getpwnam("nobody").pw_uid


@as_root
def test_sockets_and_logs_belong_to_the_workers(tmp_path):
    nobody = pwd.getpwnam("nobody")
    path, log, access = tmp_path / "socket", tmp_path / "log", tmp_path / "access"
    options = ("--user", "nobody", "--error-logfile", log, "--access-logfile", access)
    with Command(MLWS, "whoami", "--bind", f"unix:{path}", *options):
        eventually(lambda: log.exists() and "Listening at: " in log.read_text())
        for file in (path, log, access):
            assert (file.stat().st_uid, file.stat().st_gid) == (nobody.pw_uid, nobody.pw_gid)
        assert stat.S_IMODE(path.stat().st_mode) == 0o777


def test_only_regular_files_change_their_owner(start):
    owner = os.stat("/dev/null").st_uid
    start("raw", "--user", str(os.geteuid()), "--access-logfile", "/dev/null")
    assert os.stat("/dev/null").st_uid == owner


def test_the_umask_applies_to_sockets_and_workers(start, tmp_path):
    path = tmp_path / "socket"
    server = start("whoami", "--bind", f"unix:{path}", "--bind", "127.0.0.1:0", "--umask", "027")
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    server.port = int(server.urls[1].rpartition(":")[2])
    server.host = "127.0.0.1"
    assert who(server)["umask"] == 0o27


def test_without_the_option_the_umask_is_inherited(start):
    found = os.umask(0o31)
    try:
        assert who(start("whoami"))["umask"] == 0o31
    finally:
        os.umask(found)


# Service managers


def test_a_service_manager_is_notified_of_start_and_stop(start, manager):
    env = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    server = start("raw", "--workers", "2", env=env)
    words = manager.recv(1000).decode().splitlines()
    assert words == ["READY=1", f"STATUS=serving on {server.urls[0]} (2 workers, 1 thread each)"]
    names, env = result_of(server, "variables")
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        assert name not in names
        assert name not in env
    server.stop()
    assert "STOPPING=1" in manager.recv(1000).decode().splitlines()


def test_an_abstract_notify_socket_is_notified_too(start):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0mlws-test-{os.getpid()}")
        manager.settimeout(DEADLINE)
        start("raw", env={"NOTIFY_SOCKET": f"@mlws-test-{os.getpid()}"})
        assert manager.recv(1000).startswith(b"READY=1\n")


def test_a_missing_service_manager_is_not_an_error(start, tmp_path):
    server = start("raw", env={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    server.log.wait_for("Failed to notify the service manager")
    assert server.get("/").status == 200


def test_a_daemon_sends_its_pid_to_the_service_manager(daemon, manager, tmp_path):
    env = {**os.environ, "NOTIFY_SOCKET": manager.getsockname()}
    daemon("raw", "--bind", "127.0.0.1:0", env=env)
    pid = (tmp_path / "pid").read_text().strip()
    assert manager.recv(1000).decode() == f"MAINPID={pid}"
    assert manager.recv(1000).startswith(b"READY=1\n")


def activated(count, pid="$$"):
    """The start of a command that passes its stdin, a socket, on as descriptor 3 and up."""
    copies = " ".join(f"{3 + number}<&0" for number in range(count))
    script = f'export LISTEN_PID={pid} LISTEN_FDS={count} LISTEN_FDNAMES=http; exec {copies} 0</dev/null; exec "$@"'
    return ("sh", "-c", script, "sh", MLWS)


def test_an_inherited_socket_replaces_bind(start):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = start("raw", "--bind", "127.0.0.1:1", command=activated(1), stdin=listening)
        port = listening.getsockname()[1]
    assert server.urls == [f"http://127.0.0.1:{port}"]
    server.log.wait_for(
        f"Inherited sockets from the service manager, --bind is ignored: http://127.0.0.1:{port}\n"
    )
    assert result_of(server, "inheritable") == []
    names, env = result_of(server, "variables")
    assert not any(name.startswith("LISTEN_") for name in names)
    assert "LISTEN_" not in env


def test_an_inherited_unix_socket_is_not_removed(start, tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        server = start("raw", command=activated(1), stdin=listening)
    assert server.urls == [f"unix:{path}"]
    server.stop()
    assert path.exists()


def test_sockets_for_another_process_are_not_used(start):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = start("raw", command=activated(1, pid="1"), stdin=listening)
        assert server.port != listening.getsockname()[1]


def test_missing_inherited_sockets_are_an_error():
    script = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec 3<&-; exec "$@"'
    ended = run("raw", command=("sh", "-c", script, "sh", MLWS))
    assert ended.returncode == 1
    assert "cannot listen on fd://3" in ended.stderr


# Process 1


CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", MLWS)


@pytest.fixture
def contained():
    """Starts a server as process 1 of its own process namespace; it must be ended by the test."""
    probe = subprocess.run([*CONTAINER[:-1], "true"], check=False, capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no process namespaces here: {probe.stderr}")
    servers = []

    def contained(*arguments):
        servers.append(Server(*arguments, command=CONTAINER))
        [servers[-1].init] = children(servers[-1].pid)
        [servers[-1].master] = children(servers[-1].init)
        return servers[-1]

    yield contained
    for server in servers:
        server.end()


def children(pid):
    return [process.pid for process in processes() if process.parent == pid]


def test_process_1_reaps_orphans_and_leaves_the_children_of_the_app_to_it(contained, tmp_path):
    server = contained("raw", "--workers", "2")
    assert len(children(server.master)) == 2
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server.get(f"/processes/orphan?fifo={fifo}")
    [orphan] = eventually(lambda: set(children(server.init)) - {server.master}, "the orphan")
    assert json.loads(server.get("/gates/run").text) == [0, 7, 0, "hi\n"]
    os.close(os.open(fifo, os.O_WRONLY))
    eventually(lambda: orphan not in [process.pid for process in processes()], "the orphan to be reaped")
    assert json.loads(server.get("/gates/run").text) == [0, 7, 0, "hi\n"]
    assert server.zombies() == []
    os.kill(server.init, signal.SIGTERM)
    assert server.wait() == 0


def test_process_1_forwards_signals_and_all_processes_stop_gracefully(contained, gate):
    server = contained("raw", "--workers", "2")
    with server.wire() as wire:
        wire.send(f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        gate.wait_for(1)
        os.kill(server.init, signal.SIGTERM)
        server.log.wait_for("Shutting down: draining")
        gate.open()
        assert wire.answer().text == "passed\n"
    assert server.wait() == 0
    assert server.log.wait_for_end().count("Shutting down: draining") == 1
    assert "stopping workers immediately" not in server.log.text


def test_process_1_forwards_a_second_term_which_has_no_effect(contained, gate):
    server = contained("raw")
    with server.wire() as wire:
        wire.send(f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        gate.wait_for(1)
        os.kill(server.init, signal.SIGTERM)
        server.log.wait_for("Shutting down: draining")
        for process in (server.init, server.master, server.init):
            os.kill(process, signal.SIGTERM)
        gate.open()
        assert wire.answer().text == "passed\n"
    assert server.wait() == 0
    assert "stopping workers immediately" not in server.log.wait_for_end()


def test_process_1_exits_with_the_status_of_the_master(contained):
    server = contained("raw")
    os.kill(server.master, signal.SIGKILL)
    assert server.wait() == 128 + signal.SIGKILL
    eventually(lambda: gone(server.init))


def test_process_1_reports_that_the_app_cannot_be_imported(contained):
    ended = run("no_such_module", "--bind", "127.0.0.1:0", command=CONTAINER)
    assert ended.returncode == 3
    assert "no module 'no_such_module'" in ended.stderr


def test_code_after_serve_runs_once_in_process_1(contained, tmp_path):
    record = tmp_path / "record"
    program = f"""
import os
from mylittlewebserver import serve
serve("raw", bind="127.0.0.1:0")
print(os.getpid(), file=open({str(record)!r}, "a"))
"""
    with Command(*CONTAINER[:-1], Path(MLWS).with_name("python"), "-c", program) as command:
        command.log.wait_for("Listening at: ")
        [init] = children(command.pid)
        os.kill(init, signal.SIGTERM)
        assert command.wait() == 0
    assert record.read_text() == "1\n"


# Process titles and addresses


def test_processes_have_titles_if_setproctitle_is_installed(tmp_path):
    pytest.importorskip("setproctitle")
    with Server("raw", "--preload", "--name", "shop", "--workers", "1") as server:
        titles = {process.pid: title_of(process.pid) for process in server.family()}
        assert titles[server.pid] == "mlws: master [shop]"
        assert sorted(titles.values()) == [
            "mlws: master [shop]",
            "mlws: master of a generation [shop]",
            "mlws: worker [shop]",
        ]


def title_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def test_two_servers_can_share_an_address_with_reuse_port():
    with Server("raw", "--reuse-port") as one:
        address = f"{one.host}:{one.port}"
        with Server("raw", "--bind", address, "--reuse-port") as two:
            assert two.urls == one.urls
        second = Command(MLWS, "raw", "--bind", address)
        assert second.wait() == 1
        assert "cannot listen" in second.log.wait_for_end()
