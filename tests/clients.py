"""Clients that read slowly or not at all, and the resources that server processes use meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

from harness import eventually
from wire import DEADLINE, Wire


class SlowWire(Wire):
    """A connection with a small receive buffer, so that a response soon waits in the server."""

    def __init__(self, address):
        # The segment size keeps the server's send buffer small, too. Both have to be set before the connection is made.
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        self.socket.connect(address)
        self.stream = self.socket.makefile("rb")

    def hurry(self):
        """From now on the client reads without pauses."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def dawdle(self):
        """From now on the client reads a little at a time."""
        self.hurry()
        self.stream = Paced(self.stream)


class Paced:
    """A stream that is read 32 KiB at a time, with a pause after each."""

    def __init__(self, stream):
        self._stream = stream

    def read1(self, size):
        time.sleep(0.001)
        return self._stream.read1(min(size, 32768))

    def __getattr__(self, name):
        return getattr(self._stream, name)


def target(path, **query):
    """`path` with the query."""
    return path + "?" + "&".join(f"{name}={str(value).replace(' ', '%20')}" for name, value in query.items())


def get(path, headers=""):
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n".encode()


def ask(server, path, headers="", wire=Wire):
    """A connection on which the request was sent and no byte of the response has been read."""
    made = wire((server.host, server.port))
    made.send(get(path, headers))
    return made


def together(*works, deadline=3 * DEADLINE):
    """Calls all functions concurrently, each on a thread, and returns their results.

    Fails if one of them fails or does not finish in time.
    """
    results, failures = [None] * len(works), []

    def run(number, work):
        try:
            results[number] = work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=job, daemon=True) for job in enumerate(works)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + deadline
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads), "a client waits in vain"
    return results


def resident(*pids):
    """The resident memory of the processes in bytes; one that has ended has none."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
    return total


def unlinked_files(pid):
    """The number of unlinked files that the process has open."""
    places = []
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            places.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return sum(place.endswith(" (deleted)") for place in places)


def stands_still(look, pause=0.1):
    """Waits until `look()` returns the same value three times in a row, and returns it."""
    looks = []

    def same():
        looks.append(look())
        return len(looks) > 2 and looks[-1] == looks[-2] == looks[-3]

    eventually(same, "nothing to change any more", pause=pause)
    return looks[-1]
