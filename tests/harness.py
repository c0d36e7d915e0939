"""Starts the real server as its users do, and sends it requests.

Everything here waits on a condition with a deadline; nothing sleeps for a guessed time, no test measures one.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from wire import DEADLINE, Answer, Wire

APPS = Path(__file__).parent / "apps"
ROOT = Path(__file__).parent.parent
MLWS = str(Path(sys.executable).with_name("mlws"))


def eventually(condition, message="the condition", deadline=DEADLINE, pause=0.01):
    """Waits until `condition()` is true and returns what it returned; fails when the deadline passes."""
    end = time.monotonic() + deadline
    while not (result := condition()):
        assert time.monotonic() < end, f"waited {deadline} s in vain for {message}"
        time.sleep(pause)
    return result


class Lines:
    """The output of a process on one of its streams.

    It is read continuously, so that the process never blocks, and stored.
    """

    def __init__(self, stream):
        self._changed = threading.Condition()
        self._text = ""
        self._ended = False
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def _read(self, stream):
        with stream:
            for line in stream:
                with self._changed:
                    self._text += line
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def text(self):
        with self._changed:
            return self._text

    def wait_for(self, pattern, since=0, deadline=DEADLINE):
        """The first match of the regular expression after character `since`, as soon as it is written."""

        def found():
            return re.search(pattern, self._text[since:])

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, deadline)
            match = found()
            assert match, f"no {pattern!r} in:\n{self._text}"
            return match

    def read_rest(self, deadline=1):
        """Waits until no process has the stream open any more."""
        self._reader.join(deadline)

    def wait_for_end(self, deadline=DEADLINE):
        self._reader.join(deadline)
        assert not self._reader.is_alive(), "some process still holds the stream open"
        return self.text


class Command:
    """A process in its own process group, with its output."""

    alive: ClassVar[list[Command]] = []

    def __init__(self, *argv, cwd=APPS, env=None, stdin=subprocess.DEVNULL):
        self.process = subprocess.Popen(
            [str(word) for word in argv],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )
        self.pid = self.process.pid
        self.log = Lines(self.process.stderr)
        self.out = Lines(self.process.stdout)
        Command.alive.append(self)

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        try:
            if failure is None:
                self.stop_if_running()
        finally:
            self.end()

    def running(self):
        return self.process.poll() is None

    def family(self):
        """The processes of the group that are not dead yet."""
        return [process for process in processes() if process.group == self.pid and process.state not in "ZX"]

    def family_pids(self):
        return sorted(process.pid for process in self.family())

    def zombies(self):
        return [process for process in processes() if process.group == self.pid and process.state == "Z"]

    def wait(self, deadline=DEADLINE):
        """The exit status, once the process has ended."""
        return self.process.wait(deadline)

    def stop(self, signum=signal.SIGTERM, statuses=(0,)):
        """Stops the process and checks that it exits with status 0 and leaves no processes."""
        self.process.send_signal(signum)
        assert self.wait() in statuses, self.log.text
        eventually(lambda: not self.family(), "the group to be empty")

    def stop_if_running(self):
        """The checks that every server has to pass after its tests."""
        if self.running():
            self.stop()
        assert "panicked" not in self.log.text

    def end(self):
        """Kills all processes of the group that are left."""
        if self in Command.alive:
            Command.alive.remove(self)
            for process in self.family():
                with contextlib.suppress(ProcessLookupError):  # it may exit at this moment
                    os.kill(process.pid, signal.SIGKILL)
            self.process.wait()


class Server(Command):
    """`mlws APP OPTIONS` on a free port of 127.0.0.1, unless the options bind something else; made when ready.

    With `bind=None` no --bind is added.
    """

    def __init__(self, app, *options, command=(MLWS,), bind="127.0.0.1:0", **settings):
        words = () if bind is None or "--bind" in options else ("--bind", bind)
        super().__init__(*command, app, *words, *options, **settings)
        try:
            addresses = self.log.wait_for(r"Listening at: (.+) \(").group(1)
            self.urls = re.findall(r"(?:https?://|unix:)[^\s,]+", addresses)
            self.host, self.port = urlsplit(self.urls[0]).hostname, urlsplit(self.urls[0]).port
        except BaseException:
            self.end()
            raise

    def workers(self):
        """The pids of the workers: the master's children."""
        return [process.pid for process in self.family() if process.parent == self.pid]

    def children(self, worker=None):
        """The pids of the children that a worker has forked for requests, finished or not."""
        worker = worker or self.workers()[0]
        return [process.pid for process in processes() if process.parent == worker]

    def wire(self, **settings):
        return Wire((self.host, self.port), **settings)

    def get(self, path, method="GET", body=None, headers=None):
        """One request by Python's own client, on a connection of its own."""
        client = http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE)
        try:
            client.request(method, path, body, headers or {})
            response = client.getresponse()
            return Answer(response.status, response.reason, response.getheaders(), response.read())
        finally:
            client.close()

    def talk(self, request):
        """Sends the bytes and returns everything received until the server closes."""
        with self.wire() as wire:
            wire.send(request)
            return wire.rest()

    def curl(self, *arguments):
        """The output of curl with these arguments, in which `URL` stands for the server's address."""
        words = [str(word).replace("URL", f"http://{self.host}:{self.port}") for word in arguments]
        command = ["curl", "--silent", "--show-error", "--max-time", str(2 * DEADLINE), *words]
        return subprocess.run(command, check=True, capture_output=True).stdout


class Process:
    """An entry of the process table."""

    def __init__(self, pid, state, parent, group):
        self.pid = pid
        self.state = state
        self.parent = parent
        self.group = group

    def __repr__(self):
        return f"<{self.pid} {self.state} of {self.parent}>"


def processes():
    """All running processes."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, parent, group = stat.rpartition(") ")[2].split()[:3]
            found.append(Process(int(entry), state, int(parent), int(group)))
    return found


def gone(pid):
    """Returns whether no process with this pid runs. Zombies do not count."""
    return all(process.pid != pid or process.state in "ZX" for process in processes())


def descriptors(pid):
    """The number of open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def rests(pid):
    """Waits until the process uses no CPU time between two checks. A busy loop never comes to rest."""
    looks = []

    def at_rest():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        looks.append((fields[11], fields[12]))
        return len(looks) > 1 and looks[-1] == looks[-2]

    eventually(at_rest, f"process {pid} to rest", pause=0.2)


class Gate:
    """Holds requests inside the app (`/gates/wait?gate=...`) until the test releases them."""

    def __init__(self, directory):
        self.directory = directory
        self.arrivals = directory / "arrivals"
        self.arrivals.touch()
        os.mkfifo(directory / "fifo")
        self._fifo = None

    @property
    def path(self):
        return f"/gates/wait?gate={self.directory}"

    def entries(self):
        """(what, pid) of each `enter` and `leave`, in order."""
        return [tuple(line.split()) for line in self.arrivals.read_text().splitlines()]

    def inside(self):
        words = [what for what, _ in self.entries()]
        return words.count("enter") - words.count("leave")

    def wait_for(self, count):
        eventually(lambda: self.inside() >= count, f"{count} requests at the gate")

    def pids(self):
        return [int(pid) for what, pid in self.entries() if what == "enter"]

    def open(self):
        """From now on requests pass without waiting."""
        if self._fifo is None:
            self._fifo = os.open(self.directory / "fifo", os.O_RDWR)

    def end(self):
        """Releases all current and future requests: a regular file replaces the FIFO, so that open() does not block."""
        self.open()
        opened = self.directory / "opened"
        opened.touch()
        os.replace(opened, self.directory / "fifo")
        os.close(self._fifo)


def run(*arguments, command=(MLWS,), cwd=APPS, **settings):
    """The completed process of a command that exits by itself."""
    words = [str(word) for word in (*command, *arguments)]
    return subprocess.run(
        words, cwd=cwd, capture_output=True, text=True, timeout=2 * DEADLINE, check=False, **settings
    )


def refuses_connections(server):
    """Returns whether connections are refused."""
    try:
        server.wire().close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # it has just been closed; try again
    return False


def free_port():
    """A port that was free a moment ago, for programs that do not accept port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
