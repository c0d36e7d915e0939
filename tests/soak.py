"""What tests of faults need beyond `harness`: crowds of clients on one thread, and what a process uses.

Each test has a short form for every run and a long one for `--soak`; the fixture `at_length` chooses between their numbers.
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
"""For SO_LINGER: to close is to reset, and leaves no port behind that cannot be used again for a minute."""


def ask(server, path):
    """A wire on which the request was sent and no answer was awaited yet."""
    wire = server.wire()
    wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return wire


@contextlib.contextmanager
def crowd(server, count, request=b"", reads=True):
    """That many connections, each of which has sent `request`; they are reset at the end. Those that are not going to
    read are made to take little: the system would buffer megabytes for each."""
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
    """Those for whom something has come, once there is one."""
    poll = select.poll()
    numbers = {client.fileno(): client for client in clients}
    for number in numbers:
        poll.register(number, select.POLLIN)
    found = poll.poll(DEADLINE * 1000)
    assert found, f"nothing came for any of {len(clients)} clients"
    return [numbers[number] for number, _ in found]


def answer_of(client):
    """The answer that has begun to come for a client of a crowd."""
    wire = Wire.__new__(Wire)
    wire.socket, wire.stream = client, client.makefile("rb")
    with wire.stream:
        return wire.answer()


def settled(server):
    """How many descriptors the only worker has with no connection and no child left."""
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
    """Bytes of memory that a process has for itself."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def ticks(pid):
    """The processor time that a process has used so far, in hundredths of a second."""
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
    """Lets this process, and the servers it starts, have that many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or wanted <= hard, f"needs {wanted} descriptors, may have {hard}"
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
