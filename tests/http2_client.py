"""HTTP/2 clients for tests: one on the package h2, which checks what it receives, and one that sends any frame."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading

import hpack
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings
from harness import eventually
from test_memory_bounds import Peak
from wire import DEADLINE, Answer

HELLO = "/answers/hello"
CLEARTEXT = ("--http2-cleartext", "prior-knowledge")
IMPATIENT = (
    *("--write-timeout", "1", "--head-timeout", "1", "--body-timeout", "1"),
    *("--response-memory", "8M", "--response-spool", "1M"),
)
"""Short timeouts and small buffers for responses."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_STREAM = 2**31 - 1
MB = 1 << 20

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM = ACK = 1
END_HEADERS = 4
NO_FLAGS = 0


def trusting(authority, *protocols):
    """A TLS context that offers these protocols."""
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_alpn_protocols(list(protocols or ("h2",)))
    return context


def next_bytes(connection):
    """The next bytes. Empty at the end of the connection."""
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def setting(code, value):
    """An entry of a SETTINGS frame."""
    return struct.pack(">HI", code, value)


def connected(server, context=None, before=b"", receive_buffer=None, source=None):
    """A socket, with TLS if there is a context. `before` precedes the handshake."""
    raw = socket.socket()
    raw.settimeout(DEADLINE)
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source:
        raw.bind((source, 0))
    raw.connect((server.host, server.port))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.sendall(before)
    if context is None:
        return raw
    try:
        return context.wrap_socket(raw, server_hostname="localhost")
    except BaseException:
        raw.close()
        raise


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Frames:
    """Splits received bytes into frames."""

    def __init__(self):
        self._received = b""

    def split(self, data):
        """The frames that are complete: (kind, flags, stream, payload)."""
        self._received += data
        found = []
        while len(self._received) >= 9:
            end = 9 + int.from_bytes(self._received[:3], "big")
            if len(self._received) < end:
                break
            kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
            found.append((kind, flags, stream & MAX_STREAM, self._received[9:end]))
            self._received = self._received[end:]
        return found


def goaway_of(payload):
    """(last stream, error code)."""
    last, code = struct.unpack(">II", payload[:8])
    return last & MAX_STREAM, code


class Stream(Answer):
    """A request and what was received in response."""

    def __init__(self, number):
        super().__init__(None, None, [], bytearray(), complete=False)
        self.number = number
        self.interim = []
        """The statuses of interim responses."""
        self.interim_headers = []
        self.trailers = None
        self.reset = None
        """The error code of the RST_STREAM frame."""

    def __repr__(self):
        return f"<stream {self.number}: status {self.status}, {len(self.body)} bytes, complete {self.complete}, reset {self.reset}>"


class Http2Client:
    """A connection. Window updates are sent for the data that is received, except if `reads` is false."""

    def __init__(self, server, context=None, settings=None, reads=True, **how):
        self.socket = connected(server, context, **how)
        self.scheme = "https" if context else "http"
        self.reads = reads
        self.ended = False
        self.goaways = []
        self.streams = {}
        self._frames = Frames()
        configuration = H2Configuration(
            header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.connection = H2Connection(configuration)
        initial = {SettingCodes.ENABLE_PUSH: 0, **(settings or {})}
        self.connection.local_settings = Settings(client=True, initial_values=initial)
        self.connection.initiate_connection()
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def close(self):
        self.socket.close()

    def flush(self):
        """Sends what h2 has to send. The server may have closed the connection."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(self.connection.data_to_send())

    def open(self, path, method="GET", headers=(), end=True, authority="test", pseudo=None):
        """Sends a request head. `pseudo` replaces the pseudo-headers."""
        stream = Stream(self.connection.get_next_available_stream_id())
        if pseudo is None:
            pseudo = [
                (":method", method),
                (":scheme", self.scheme),
                (":authority", authority),
                (":path", path),
            ]
        self.streams[stream.number] = stream
        self.connection.send_headers(stream.number, [*pseudo, *headers], end_stream=end)
        self.flush()
        return stream

    def send(self, stream, data, end=False):
        """Sends body data as flow control allows. Data from the server is received meanwhile."""
        data = memoryview(data)
        while True:
            window = self.connection.local_flow_control_window(stream.number)
            part = data[: min(window, self.connection.max_outbound_frame_size)]
            if data and not part:
                self.receive()
                assert stream.reset is None and not self.ended, f"{stream!r} takes no more data"
                continue
            data = data[len(part) :]
            self.connection.send_data(stream.number, part.tobytes(), end_stream=end and not data)
            self.flush()
            if not data:
                return

    def send_trailers(self, stream, trailers):
        self.connection.send_headers(stream.number, trailers, end_stream=True)
        self.flush()

    def cancel(self, stream, code=ErrorCodes.CANCEL):
        self.connection.reset_stream(stream.number, code)
        self.flush()

    def read_more(self, stream=None, size=MB):
        """Extends the window of the connection, and of a stream."""
        self.connection.increment_flow_control_window(size)
        if stream:
            self.connection.increment_flow_control_window(size, stream.number)
        self.flush()

    def receive(self):
        """Waits for more bytes and handles the frames in them. False at the end of the connection."""
        data = next_bytes(self.socket)
        self.ended = not data
        if self.ended:
            return False
        for kind, flags, stream, payload in self._frames.split(data):
            if kind == GOAWAY:
                # h2 would accept no more frames of the streams that have not ended
                self.goaways.append(goaway_of(payload))
                continue
            for event in self.connection.receive_data(frame(kind, flags, stream, payload)):
                self._handle(event)
        self.flush()
        return True

    def _handle(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        match event:
            case events.InformationalResponseReceived():
                (_, status), *headers = event.headers
                stream.interim.append(int(status))
                stream.interim_headers += headers
            case events.ResponseReceived():
                assert event.headers[0][0] == ":status"
                stream.status = int(event.headers[0][1])
                stream.headers = [(name, value) for name, value in event.headers if name != ":status"]
            case events.DataReceived():
                stream.body += event.data
                if self.reads and event.flow_controlled_length:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case events.TrailersReceived():
                stream.trailers = event.headers
            case events.StreamEnded():
                stream.complete = True
            case events.StreamReset():
                stream.reset = ErrorCodes(event.error_code)

    def wait(self, condition, message="the condition"):
        """Receives until the condition is true."""
        while not condition():
            assert self.receive(), f"the connection ended before {message}; GOAWAY: {self.goaways}"

    def finish(self, *streams):
        """Receives until these streams have ended or have been reset, and returns the last one."""
        for stream in streams:
            self.wait(
                lambda stream=stream: stream.complete or stream.reset is not None, f"the end of {stream!r}"
            )
        return streams[-1]

    def request(self, path, method="GET", body=None, headers=(), **how):
        """Sends a request and waits for the end of the response."""
        stream = self.open(path, method, headers, end=body is None, **how)
        if body is not None:
            self.send(stream, body, end=True)
        return self.finish(stream)

    def get(self, path=HELLO):
        return self.request(path)

    def ping(self):
        """Sends a PING, and receives until it is acknowledged: everything sent before was then processed."""
        self.connection.ping(b"position")
        self.flush()
        done = []
        handle = self._handle

        def watching(event):
            if isinstance(event, events.PingAckReceived):
                done.append(event)
            handle(event)

        self._handle = watching
        try:
            self.wait(lambda: done, "the acknowledgement of a PING")
        finally:
            self._handle = handle

    def closed(self):
        """Receives until the server closes the connection."""
        while self.receive():
            pass
        return True


class RawClient:
    """A connection on which any frame can be sent. It acknowledges nothing."""

    def __init__(self, server, context=None, settings=b"", start=True, **how):
        self.socket = connected(server, context, **how)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.decoder.max_header_list_size = MB
        self.received = []
        self.statuses = {}
        self.ended = False
        self._frames = Frames()
        if start:
            self.send_bytes(PREFACE + frame(SETTINGS, NO_FLAGS, 0, settings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_bytes(self, data):
        """Returns false if the server has closed the connection."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def send(self, kind, flags=NO_FLAGS, stream=0, payload=b""):
        return self.send_bytes(frame(kind, flags, stream, payload))

    def head(self, path=HELLO, method="GET", headers=(), scheme="http"):
        """An encoded header block."""
        pseudo = [(":method", method), (":scheme", scheme), (":authority", "test"), (":path", path)]
        return self.encoder.encode([*pseudo, *headers], huffman=False)

    def open(self, stream, path=HELLO, method="GET", headers=(), end=True):
        """Sends a request head, in as many frames as it needs."""
        block = self.head(path, method, headers)
        parts = [block[begin : begin + 16_384] for begin in range(0, len(block), 16_384)]
        kinds = [HEADERS] + [CONTINUATION] * (len(parts) - 1)
        flags = [END_STREAM if end else NO_FLAGS] + [NO_FLAGS] * (len(parts) - 1)
        flags[-1] |= END_HEADERS
        return self.send_bytes(b"".join(map(frame, kinds, flags, [stream] * len(parts), parts)))

    def receive(self):
        """Waits for more frames. False at the end of the connection."""
        data = next_bytes(self.socket)
        self.ended = not data
        if self.ended:
            return False
        for received in self._frames.split(data):
            self.received.append(received)
            kind, _, stream, payload = received
            if kind == HEADERS:
                self.statuses[stream] = int(dict(self.decoder.decode(payload))[":status"])
        return True

    def wait_for(self, condition, message="the condition"):
        while not (found := condition()):
            assert self.receive(), f"the connection ended before {message}: {self.received[-5:]}"
        return found

    def frames(self, kind, stream=None):
        """The payloads of the received frames of a type."""
        return [
            payload
            for found, _, number, payload in self.received
            if found == kind and stream in (None, number)
        ]

    def goaway(self):
        """The error code of the GOAWAY that closes the connection, once the server has closed it."""
        while self.receive():
            pass
        codes = [ErrorCodes(goaway_of(payload)[1]) for payload in self.frames(GOAWAY)]
        return codes[-1] if codes else None

    def reset_of(self, stream):
        """The error code with which a stream was reset, once it was."""
        found = self.wait_for(lambda: self.frames(RST_STREAM, stream), f"RST_STREAM of {stream}")
        return ErrorCodes(int.from_bytes(found[0], "big"))

    def status_of(self, stream):
        """The status of the response, once it has been received."""
        return self.wait_for(lambda: self.statuses.get(stream), f"a response on {stream}")

    def ping(self, text=b"position"):
        """Sends a PING and waits for its acknowledgement."""
        self.send(PING, payload=text)
        self.wait_for(lambda: (PING, ACK, 0, text) in self.received, "the acknowledgement of a PING")


class Neighbour(threading.Thread):
    """A client on a connection of its own, which sends one request after the other until it is stopped."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self._client = Http2Client(server)
        self._stopped = threading.Event()
        self.failures = []
        self.served = 0

    def run(self):
        try:
            while not self._stopped.wait(0.02):
                assert self._client.get().status == 200
                self.served += 1
        except Exception as failure:
            self.failures.append(failure)

    def stop(self):
        self._stopped.set()
        self.join()
        self._client.close()


@contextlib.contextmanager
def neighbour(server, bound):
    """Another client is served during the block, and the memory of the workers grows by at most `bound` bytes."""
    workers = server.workers()
    with contextlib.ExitStack() as ends:
        other = Neighbour(server)
        ends.callback(other.stop)
        other.start()
        eventually(lambda: other.served or other.failures, "the neighbour to be served")
        peaks = [ends.enter_context(Peak(worker)) for worker in workers]
        yield
        served = other.served
        eventually(lambda: other.served > served or other.failures, "the neighbour to be served")
        assert other.failures == []
        assert [peak.look() < bound for peak in peaks] == [True] * len(peaks), [peak.most for peak in peaks]
    assert server.workers() == workers
