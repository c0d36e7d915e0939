"""A client that asks one server a few things: is the answer right, and how many connections does it keep?

The load itself is wrk's, in `load.py`.
"""

from __future__ import annotations

import http.client
import select
import socket
import time

from process import CannotStart, Session
from scenarios import Scenario

PATIENCE = 10.0  # seconds for one answer
TIME_TO_START = 30.0
TIME_TO_OPEN = 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def first_answer(session: Session, scenario: Scenario, port: int) -> str | None:
    """Ask until the server takes connections, and say what is wrong with its first answer."""
    deadline = time.monotonic() + TIME_TO_START
    while True:
        try:
            return fault_of(scenario, port)
        except ConnectionRefusedError as refused:
            if session.ended() or time.monotonic() > deadline:
                raise CannotStart(session.last_words()) from refused
        time.sleep(0.0005)


def fault_of(scenario: Scenario, port: int) -> str | None:
    """Ask once, on a connection of its own, and say what is wrong with the answer."""
    try:
        status, body = ask(scenario, port)
    except ConnectionRefusedError:
        raise
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error or type(error).__name__}"
    if status != 200:
        return f"status {status}"
    if body != scenario.answer:
        return f"wrong body: {len(body):,} bytes, {len(scenario.answer):,} are right"
    return None


def ask(scenario: Scenario, port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    method = "POST" if scenario.posted else "GET"
    try:
        connection.request(method, scenario.path, scenario.posted or None, {"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class IdleConnections:
    """Connections that have each had one answer and now wait for nothing, as browsers' connections do."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> IdleConnections:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self.sockets:
            connection.close()

    def open(self, count: int, answer: bytes) -> None:
        """Errors: OSError where the server refuses, closes or does not answer one."""
        deadline = time.monotonic() + TIME_TO_OPEN
        for _ in range(count):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not opened within {TIME_TO_OPEN:.0f} s")
            connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
            self.sockets.append(connection)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while not received.endswith(answer):
                piece = connection.recv(4096)
                if not piece:
                    raise ConnectionError("it was closed")
                received += piece

    def open_still(self) -> int:
        """What is readable now has been closed by the server: all answers have been read."""
        poll = select.poll()
        for connection in self.sockets:
            poll.register(connection, select.POLLIN)
        return len(self.sockets) - len(poll.poll(0))
