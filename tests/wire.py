"""A client that parses responses strictly, and sees every byte."""

from __future__ import annotations

import re
import socket

DEADLINE = 30.0
"""Seconds after which waiting for a condition fails, long enough for a loaded machine."""


class Answer:
    """A response and its framing: `length`, `chunked`, `close` or `none`."""

    def __init__(self, status, reason, headers, body, framing=None, complete=True):
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body
        self.framing = framing
        self.complete = complete

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name):
        """The one value of a header, or None."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def text(self):
        return self.body.decode()


class Wire:
    """One connection, byte by byte. It parses responses strictly by RFC 9112."""

    def __init__(self, address, family=None, receive_buffer=None, source=None):
        family = family or (socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.stream.close()
        self.socket.close()

    def reset(self):
        """Closes with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def send(self, data, step=None):
        """Sends all of it, in packets of `step` bytes; a server that has closed already is no error."""
        try:
            for start in range(0, len(data), step or len(data) or 1):
                self.socket.sendall(data[start : start + (step or len(data))])
        except (BrokenPipeError, ConnectionResetError):
            pass

    def finish(self):
        """Half-closes the connection."""
        self.socket.shutdown(socket.SHUT_WR)

    def rest(self):
        """Everything up to the end of the connection, which the server must close without a reset."""
        return self.stream.read()

    def closed(self):
        """Returns whether the server closes the connection without sending more data."""
        try:
            return self.stream.read(1) == b""
        except ConnectionResetError:
            return True

    def request(self, path, method="GET", body=b"", headers="", version="1.1"):
        """Sends a simple request and reads its response."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {path} HTTP/{version}\r\nHost: test\r\n{length}{headers}\r\n"
        self.send(head.encode("latin-1") + body)
        return self.answer(method)

    def head(self):
        """The status line and the headers of the next response: (version, status, reason, headers)."""
        line = self._line()
        match = re.fullmatch(r"HTTP/(1\.[01]) ([0-9]{3}) ([^\r\n]*)", line)
        assert match, f"not a status line: {line!r}"
        headers = []
        while line := self._line():
            header = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\r\n\0]*)", line)
            assert header, f"not a header: {line!r}"
            headers.append((header.group(1), header.group(2).strip(" \t")))
        return match.group(1), int(match.group(2)), match.group(3), headers

    def answer(self, method="GET"):
        """The next response with its body. Interim responses are errors."""
        _, status, reason, headers = self.head()
        answer = Answer(status, reason, headers, b"", "none")
        length, coding = answer.header("content-length"), answer.header("transfer-encoding")
        assert length is None or coding is None, "both Content-Length and Transfer-Encoding"
        if status < 200 or status == 204:
            assert (length, coding) == (None, None), f"a {status} with {headers}"
        if method == "HEAD" or status < 200 or status in (204, 304):
            return answer
        if coding is not None:
            assert coding == "chunked"
            answer.framing = "chunked"
            answer.body, answer.complete = self._chunks()
        elif length is not None:
            assert re.fullmatch("[0-9]+", length)
            answer.framing = "length"
            answer.body = self._read(int(length))
            answer.complete = len(answer.body) == int(length)
        else:
            answer.framing = "close"
            answer.body = self.rest()
        return answer

    def _line(self):
        line = self.stream.readline(70_000)
        assert line.endswith(b"\r\n"), f"not a whole line: {line!r}"
        return line[:-2].decode("latin-1")

    def _read(self, count):
        """That many bytes, or fewer if the connection ends first."""
        pieces = []
        try:
            while count and (piece := self.stream.read1(min(count, 1 << 20))):
                pieces.append(piece)
                count -= len(piece)
        except ConnectionResetError:
            pass
        return b"".join(pieces)

    def chunk(self):
        """The next chunk: empty for the last one, None if the connection ended."""
        try:
            line = self.stream.readline(1000)
        except ConnectionResetError:
            return None
        if not line.endswith(b"\r\n"):
            return None
        assert re.fullmatch(rb"[0-9a-fA-F]+\r\n", line), f"not a chunk size: {line!r}"
        size = int(line, 16)
        data = self._read(size + 2)
        if len(data) < size + 2:
            return None
        assert data.endswith(b"\r\n"), "chunk data without its end"
        return data[:-2]

    def _chunks(self):
        body = []
        while chunk := self.chunk():
            body.append(chunk)
        return b"".join(body), chunk is not None
