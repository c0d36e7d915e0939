"""Helpers of fault tests: many clients on one thread, and the resources of a process.

Each test has a short form for every run and a long one for `--soak`; the fixture `at_length` chooses between
their numbers.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import struct
from pathlib import Path

from harness import descriptors, eventually
from wire import DEADLINE, Wire

RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing resets the connection, which leaves no port in TIME_WAIT."""


@contextlib.contextmanager
def crowd(server, count, request=b"", reads=True):
    """`count` connections, each of which has sent `request`.

    They are reset at the end. Connections that do not read have small buffers, because the kernel would
    otherwise buffer megabytes for each.
    """
    clients = []
    try:
        for _ in range(count):
            clients.append(connected(server, reads))
            clients[-1].sendall(request)
        yield clients
    finally:
        for client in clients:
            client.close()


def connected(server, reads=True):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    if not reads:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    client.settimeout(DEADLINE)
    client.connect((server.host, server.port))
    return client


def readable(clients):
    """The clients that have received something, once there is one."""
    poll = select.poll()
    numbers = {client.fileno(): client for client in clients}
    for number in numbers:
        poll.register(number, select.POLLIN)
    found = poll.poll(DEADLINE * 1000)
    assert found, f"nothing came for any of {len(clients)} clients"
    return [numbers[number] for number, _ in found]


def answer_of(client):
    """The response to a client of a crowd, which has begun to arrive."""
    wire = Wire.__new__(Wire)
    wire.socket, wire.stream = client, client.makefile("rb")
    with wire.stream:
        return wire.answer()


def settled(server):
    """The number of descriptors of the only worker, without connections and children."""
    (worker,) = server.workers()

    def alone():
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ours = [row for row in rows if int(row[1].partition(":")[2], 16) == server.port]
        # Of a listening socket (0A) or one that no process has any more (inode 0) there may be as many as there are.
        connected = [row for row in ours if row[3] != "0A" and row[9] != "0"]
        return connected == [] and server.children(worker) == []

    eventually(alone, "every connection and child to be gone")
    return descriptors(worker)


def resident(pid):
    """Private memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def ticks(pid):
    """The CPU time that a process has used, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) * 100 // os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def limited(pid, what, limit):
    """Lowers the soft limit of a running process for a while."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (limit, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, what, before)


def raise_descriptors(wanted):
    """Raises the limit on descriptors of this process and of the servers that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or wanted <= hard, f"needs {wanted} descriptors, may have {hard}"
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
