"""A client that checks the responses of a server, and opens idle connections.

The load itself is generated in `load.py`. Certificates are not verified.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import time

from load import url
from process import CannotStart, Session
from scenarios import Scenario

PATIENCE = 10.0  # seconds for one response
TIME_TO_START = 30.0
TIME_TO_OPEN = 30.0
UNVERIFIED = ssl._create_unverified_context()
# The beginning of an HTTP/2 connection (RFC 9113, section 3.4): preface and SETTINGS. Then HEADERS of stream 1, a GET
# of / over HTTPS from localhost, with names and values of the static table (RFC 7541, appendix A).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000 04 00 00000000")
GET = bytes.fromhex("00000e 01 05 00000001  82 84 87 41 09") + b"localhost"
SETTINGS_ACK = bytes.fromhex("000000 04 01 00000000")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def first_answer(session: Session, scenario: Scenario, port: int) -> str | None:
    """Send requests until the server accepts connections, and return the fault of its first response, if any."""
    deadline = time.monotonic() + TIME_TO_START
    while True:
        try:
            return fault_of(scenario, port)
        except ConnectionRefusedError as error:
            if session.ended() or time.monotonic() > deadline:
                raise CannotStart(session.last_words()) from error
        time.sleep(0.0005)


def fault_of(scenario: Scenario, port: int) -> str | None:
    """Send a request on its own connection, and return the fault of the response, if any."""
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
    if scenario.http2:
        return ask_http2(scenario, port)
    if scenario.tls:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=PATIENCE, context=UNVERIFIED
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    method = "POST" if scenario.posted else "GET"
    try:
        connection.request(method, scenario.path, scenario.posted or None, {"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def ask_http2(scenario: Scenario, port: int) -> tuple[int, bytes]:
    """Uses nghttp, which prints the body but not the status."""
    socket.create_connection(
        ("127.0.0.1", port), PATIENCE
    ).close()  # a refused connection is no error of nghttp
    words = ["nghttp", "--timeout", f"{PATIENCE:.0f}", url(scenario, port)]
    done = subprocess.run(words, capture_output=True, check=False, timeout=2 * PATIENCE)
    if done.returncode or not done.stdout:
        raise OSError(done.stderr.decode(errors="replace").strip() or "nghttp failed")
    return 200, done.stdout


class IdleConnections:
    """Idle connections that have each received one response, like those of browsers."""

    def __init__(self, scenario: Scenario, port: int) -> None:
        self.scenario = scenario
        self.port = port
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> IdleConnections:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self.sockets:
            connection.close()

    def open(self, count: int, answer: bytes) -> None:
        """Raises OSError if the server refuses or closes one, or does not respond."""
        deadline = time.monotonic() + TIME_TO_OPEN
        for _ in range(count):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not opened within {TIME_TO_OPEN:.0f} s")
            connection = self.connect()
            self.sockets.append(connection)
            http2 = self.scenario.http2
            connection.sendall(PREFACE + GET if http2 else b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while answer not in received:
                piece = connection.recv(4096)
                if not piece:
                    raise ConnectionError("it was closed")
                received += piece
            if http2:
                connection.sendall(SETTINGS_ACK)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        if not self.scenario.tls:
            return connection
        context = ssl._create_unverified_context()
        context.set_alpn_protocols(["h2" if self.scenario.http2 else "http/1.1"])
        return context.wrap_socket(connection)

    def open_still(self) -> int:
        return sum(is_open(connection) for connection in self.sockets)


def is_open(connection: socket.socket) -> bool:
    """Reads what the server has sent after its response, such as the frames that end a response over HTTP/2."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False
