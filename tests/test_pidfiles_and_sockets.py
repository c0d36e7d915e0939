"""Pidfiles and Unix sockets: a server replaces and removes only its own, and no start blocks on those of another process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess

import pytest
from harness import MLWS, Command, eventually, gone, run


@pytest.fixture
def path(tmp_path):
    return tmp_path / "socket"


def serving(path, *options):
    command = Command(MLWS, "raw", "--bind", f"unix:{path}", *options)
    command.log.wait_for("Listening at: ")
    return command


# Pidfiles


def test_a_fifo_as_a_pidfile_is_an_error_and_does_not_block_the_start(tmp_path):
    os.mkfifo(tmp_path / "pid")
    ended = run("raw", "--bind", "127.0.0.1:0", "--pid", tmp_path / "pid")
    assert ended.returncode == 1
    assert "not a regular file" in ended.stderr


def test_a_pidfile_is_locked_as_long_as_the_master_lives(start, tmp_path):
    pidfile = tmp_path / "pid"
    server = start("raw", "--pid", pidfile)
    child = subprocess.Popen(["true"])
    child.wait()
    pidfile.write_text(f"{child.pid}\n")  # the pid is another process in another container
    ended = run("raw", "--bind", "127.0.0.1:0", "--pid", pidfile)
    assert ended.returncode == 1
    assert "is locked by a running server" in ended.stderr
    pidfile.write_text(f"{server.pid}\n")
    server.stop()
    assert not pidfile.exists()


def test_workers_that_outlive_a_killed_master_do_not_keep_its_pidfile_locked(start, tmp_path):
    pidfile = tmp_path / "pid"
    with Command(MLWS, "raw", "--bind", f"unix:{tmp_path}/socket", "--pid", pidfile) as killed:
        killed.log.wait_for("Listening at: ")
        workers = [pid for pid in killed.family_pids() if pid != killed.pid]
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)  # it cannot exit now
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        server = start("raw", "--pid", pidfile)
        assert pidfile.read_text() == f"{server.pid}\n"
    eventually(lambda: all(map(gone, workers)), "the old workers to end")


# Unix sockets


def test_a_server_removes_only_its_own_socket(path):
    with serving(path):
        pass
    assert not path.exists()
    with serving(path):
        path.unlink()
        path.write_text("precious")
    assert path.read_text() == "precious"
    path.unlink()
    with serving(path) as first:
        path.unlink()
        with serving(path):
            first.stop()
            assert path.is_socket()
    assert not path.exists()


def test_the_start_does_not_wait_for_a_server_with_a_full_backlog(path):
    with socket.socket(socket.AF_UNIX) as other, contextlib.ExitStack() as clients:
        other.bind(str(path))
        other.listen(1)
        with contextlib.suppress(BlockingIOError):
            for _ in range(100):
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        ended = run("raw", "--bind", f"unix:{path}")
    assert ended.returncode == 1
    assert "in use" in ended.stderr


def test_a_stale_socket_is_replaced_and_nothing_else_is_left(path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    before = path.stat().st_ino
    with serving(path) as server:
        assert path.stat().st_ino != before
        assert os.listdir(path.parent) == [path.name]
        assert f"Listening at: unix:{path} (" in server.log.text
    assert os.listdir(path.parent) == []


def test_a_new_master_recognizes_the_socket_by_its_path(path):
    with serving(path) as server:
        server.process.send_signal(signal.SIGUSR2)
        server.log.wait_for(f"Listening[^$]*Listening at: unix:{path} ")
        server.process.send_signal(signal.SIGTERM)
        server.wait()
        assert path.is_socket()
        masters = [process for process in server.family() if process.parent not in server.family_pids()]
        for master in masters:
            os.kill(master.pid, signal.SIGTERM)
        eventually(lambda: not server.family(), "the end")
    assert not path.exists()


def test_a_path_of_the_maximum_length_is_bound(tmp_path):
    name = "s" * (107 - len(str(tmp_path)) - 1)
    with serving(tmp_path / name):
        assert (tmp_path / name).is_socket()
    assert os.listdir(tmp_path) == []


# Descriptors


@pytest.mark.parametrize("number", [0, 1, 2])
def test_standard_streams_cannot_be_listeners(number):
    ended = run("raw", "--bind", f"fd://{number}")
    assert ended.returncode == 1
    assert f"cannot listen on fd://{number}: stdin, stdout and stderr" in ended.stderr


def test_a_descriptor_is_inherited_once():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        ended = run("raw", "--bind", f"fd://{number}", "--bind", f"fd://{number}", pass_fds=[number])
        assert ended.returncode == 1
        assert "is in use already" in ended.stderr
