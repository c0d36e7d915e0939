"""Compares accepted requests with h11 and llhttp (via httptools), and responses with h11.

This parser may reject what the others accept, but not vice versa. For each request that it accepts, the others must find
the same request in exactly the same bytes. EXEMPTIONS lists the intended differences with their reasons; each use is
counted. Responses have no exemptions: h11 finds exactly one per request, or detects that it is truncated.

    cargo build --release --example verdict
    python differential.py target/release/examples/verdict --inputs 200000 corpus
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h11
import httptools

HEADS = {
    "head": (b"", b""),
    "machine": (b"", b""),
    "chunked": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
    "target": (b"GET ", b" HTTP/1.1\r\nHost: a\r\n\r\n"),
}
SPECIAL = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b'"', b"\\", b"=", b"#", b"?", b"*", b"/",
    b"-", b"+", b"_", b"0", b"5", b"F", b"\x0b", b"\x0c", b"\x7f", b"\x85", b"\xa0", b"\xe9", b"0\r\n\r\n", b"ffffffffffffffff",
    b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Host: a\r\n", b"HTTP/1.0", b"Upgrade: h2c\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"5\r\nhello\r\n", b"\n?\n", b"\n?H\n", b"\n?0\n", b"\n!204 x\n", b"\n#5\n",
    b"\n+hello\n", b"\nx", b"\\r\\n",
]  # fmt: skip


@dataclass
class OtherResult:
    """The result of another parser for the bytes of one message."""

    method: bytes = b""
    target: bytes = b""
    version: str = ""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    messages: int = 0
    rest: bytes = b""
    keep_alive: bool = False
    rejected: str | None = None


@dataclass(frozen=True)
class Exemption:
    """A reviewed, intended difference.

    `change` removes only what the two parsers treat differently; the results must then be equal. It returns the changed
    bytes and our changed result, or None if the exemption does not apply.
    """

    name: str
    parser: str
    reason: str
    change: Callable[[bytes, dict], tuple[bytes, dict] | None]


def skip_empty_line(wire: bytes, ours: dict) -> tuple[bytes, dict] | None:
    return (wire[2:], ours) if wire.startswith(b"\r\n") else None


def rename_method(wire: bytes, ours: dict) -> tuple[bytes, dict] | None:
    if ours["method"] in LLHTTP_METHODS:
        return None
    return wire.replace(ours["method"], b"POST", 1), ours | {"method": b"POST"}


def rename_upgrade(wire: bytes, ours: dict) -> tuple[bytes, dict] | None:
    return rename(b"upgrade", b"upgrad3", wire, ours)


def rename_trailers(wire: bytes, ours: dict) -> tuple[bytes, dict] | None:
    if not any(name.lower() == b"transfer-encoding" for name, _ in ours["fields"]):
        return None
    end = wire.find(b"\r\n\r\n", 1) + 4  # an empty line may precede the request
    size = -1
    while size != 0:
        line, _, _ = wire[end:].partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        end += len(line) + 2 + (size + 2 if size else 0)
    renamed = wire[:end] + re.sub(rb"(?im)^connection:", b"c0nnection:", wire[end:])
    return (renamed, ours) if renamed != wire else None


def trim_zeros(wire: bytes, ours: dict) -> tuple[bytes, dict] | None:
    field = re.compile(rb"(?i)(\r\ncontent-length:[ \t]*)0{20,}([0-9])")
    fields = [
        (name, re.sub(rb"^0{20,}([0-9])", rb"\1", value) if name.lower() == b"content-length" else value)
        for name, value in ours["fields"]
    ]
    return (field.sub(rb"\1\2", wire, count=1), ours | {"fields": fields}) if field.search(wire) else None


def rename_proxy_connection(wire: bytes, ours: dict) -> tuple[bytes, dict] | None:
    return rename(b"proxy-connection", b"pr0xy-connection", wire, ours)


def rename(name: bytes, other: bytes, wire: bytes, ours: dict) -> tuple[bytes, dict] | None:
    """Renames the fields with this name. The new name has the same length."""
    start = wire.find(b"\r\n\r\n", 1)  # an empty line may precede the request
    head, body = wire[:start], wire[start:]
    renamed = re.sub(rb"(?i)\n" + name + b":", b"\n" + other + b":", head)
    fields = [(other if key.lower() == name else key, value) for key, value in ours["fields"]]
    return (renamed + body, ours | {"fields": fields}) if renamed != head else None


def ignore_http10_keep_alive(wire: bytes, ours: dict) -> tuple[bytes, dict] | None:
    return (wire, ours | {"keep_alive": False}) if ours["version"] == "1.0" else None


LLHTTP_METHODS = frozenset(
    b"DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL"
    b" REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK UNLINK SOURCE"
    b" QUERY".split()
)
EXEMPTIONS = [
    Exemption(
        "h11: an empty line before the request",
        "h11",
        "RFC 9112, section 2.2: a server should ignore at least one. We ignore one, h11 none.",
        skip_empty_line,
    ),
    Exemption(
        "h11: a persistent HTTP/1.0 connection",
        "h11",
        "h11 closes after each HTTP/1.0 request. We support Connection: keep-alive (RFC 9112, section C.2.2).",
        ignore_http10_keep_alive,
    ),
    Exemption(
        "h11: a Content-Length with more than 20 digits",
        "h11",
        "RFC 9110, section 8.6 allows any number of digits. Leading zeros do not change the value.",
        trim_zeros,
    ),
    Exemption(
        "llhttp: an unknown method",
        "llhttp",
        "RFC 9110, section 9.1: the set of methods is extensible. Only CONNECT affects framing.",
        rename_method,
    ),
    Exemption(
        "llhttp: Upgrade",
        "llhttp",
        "llhttp switches protocols; a server may ignore Upgrade (RFC 9110, section 7.8).",
        rename_upgrade,
    ),
    Exemption(
        "llhttp: Proxy-Connection",
        "llhttp",
        "llhttp treats it as Connection. Servers should ignore it (RFC 9112, section C.2.2).",
        rename_proxy_connection,
    ),
    Exemption(
        "llhttp: Connection in trailers",
        "llhttp",
        "We discard trailers; connection fields are not allowed there (RFC 9110, section 6.5.1). llhttp evaluates them.",
        rename_trailers,
    ),
]


def read_h11(wire: bytes) -> OtherResult:
    other = OtherResult()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        connection.receive_data(wire)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                other.method, other.target = event.method, event.target
                other.version = event.http_version.decode()
                other.fields = list(event.headers)
            elif isinstance(event, h11.Data):
                other.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                other.messages += 1
                other.rest = connection.trailing_data[0]
                other.keep_alive = connection.their_state in (h11.DONE, h11.MIGHT_SWITCH_PROTOCOL)
                return other
            else:
                return other
    except h11.RemoteProtocolError as error:
        other.rejected = str(error)
        return other


class Callbacks:
    def __init__(self) -> None:
        self.other = OtherResult()
        self.begun = 0
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.other.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.other.version:  # a trailer
            return
        self.other.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.other.method = self.parser.get_method()
        self.other.version = self.parser.get_http_version()

    def on_body(self, body: bytes) -> None:
        self.other.body += body

    def on_message_complete(self) -> None:
        self.other.messages += 1
        self.other.keep_alive = self.parser.should_keep_alive()


def read_llhttp(wire: bytes) -> OtherResult:
    callbacks = Callbacks()
    other = callbacks.other
    try:
        callbacks.parser.feed_data(wire)
    except httptools.HttpParserUpgrade as upgrade:
        other.rejected = f"upgrade at {upgrade.args[0]}"
    except httptools.HttpParserError as error:
        other.rejected = f"{type(error).__name__}: {error}"
    if callbacks.begun > 1:
        other.rest = b"another message"
    return other


def difference(ours: dict, other: OtherResult) -> str | None:
    """A short description of how the other result differs from ours."""
    if other.rejected is not None:
        return f"rejected: {other.rejected}"
    if other.messages != ours["complete"]:
        return f"{other.messages} complete messages"
    if other.rest:
        return f"{len(other.rest)} bytes are left over"
    for name in ("method", "target", "version", "body"):
        if getattr(other, name) != ours[name]:
            return f"{name} is {getattr(other, name)!r}"
    if len(ours["fields"]) != len(other.fields):
        return f"{len(other.fields)} fields"
    for (name, value), (their_name, their_value) in zip(ours["fields"], other.fields):
        if name.lower() == b"transfer-encoding":  # h11 returns it in lower case
            value, their_value = value.lower(), their_value.lower()
        if (name.lower(), value) != (their_name.lower(), their_value.strip(b" \t")):
            return f"field is {their_name!r}: {their_value!r}"
    if ours["complete"] and ours["keep_alive"] and not other.keep_alive:
        return "the connection closes"
    return None


def unhex(message: dict) -> dict:
    for name in ("method", "target", "body", "wire"):
        if name in message:
            message[name] = bytes.fromhex(message[name])
    if "fields" in message:
        message["fields"] = [(bytes.fromhex(name), bytes.fromhex(value)) for name, value in message["fields"]]
    return message


def disagreement(parser: str, ours: dict, wire: bytes, used: Counter[str]) -> str | None:
    """The difference that remains after all applicable exemptions."""
    read = PARSERS[parser]
    found = difference(ours, read(wire))
    for exemption in EXEMPTIONS:
        if found is None:
            return None
        if exemption.parser == parser and (changed := exemption.change(wire, ours)):
            used[exemption.name] += 1
            wire, ours = changed
            found = difference(ours, read(wire))
    return found


PARSERS = {"h11": read_h11, "llhttp": read_llhttp}


KEY = re.compile(r"""[0-9]+|b['"].*""")  # the parts that vary between inputs


@dataclass
class Report:
    inputs: int = 0
    accepted: int = 0
    compared: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    stricter: Counter[str] = field(default_factory=Counter)
    differences: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def record(self, kind: str, found: str, wire: bytes) -> None:
        key = f"{kind}: {KEY.sub('#', found)}"
        if key not in self.differences or len(wire) < len(self.differences[key][0]):
            self.differences[key] = (wire, found)


def check_requests(wire: bytes, verdict: dict, report: Report) -> None:
    for ours in map(unhex, verdict["messages"]):
        message = wire[ours["start"] : ours["end"]]
        report.accepted += 1
        for parser in PARSERS:
            report.compared[parser] += 1
            if found := disagreement(parser, ours, message, report.used):
                report.record(parser, found, message)
    check_stream(wire, verdict["messages"], report)
    if not verdict["messages"] and verdict["end"] not in ("incomplete", "betweenrequests"):
        for parser, read in PARSERS.items():
            other = read(wire)
            if other.rejected is None and other.messages:
                report.stricter[f"{verdict['end']}, not {parser}"] += 1


def check_stream(wire: bytes, messages: list[dict], report: Report) -> None:
    """llhttp parses several requests in one input the same way as one by one."""
    if len(messages) < 2 or any(read_llhttp(wire[ours["start"] : ours["end"]]).rejected for ours in messages):
        return
    report.compared["llhttp, streams"] += 1
    other = read_llhttp(wire[: messages[-1]["end"]])
    targets = b"".join(ours["target"] for ours in messages)
    bodies = b"".join(ours["body"] for ours in messages)
    if (other.rejected, other.messages) != (None, sum(ours["complete"] for ours in messages)):
        report.record("stream", other.rejected or f"{other.messages} messages", wire)
    elif (other.target, other.body) != (targets, bodies):
        report.record("stream", "different targets or bodies", wire)


def check_responses(script: bytes, exchanges: list[dict], report: Report) -> None:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    for ours in map(unhex, exchanges):
        report.accepted += 1
        report.compared["h11"] += 1
        try:
            found = response_difference(connection, ours)
        except h11.ProtocolError as error:
            found = f"rejected: {error}"
        if found:
            report.record("response", found, script)
            return


def response_difference(connection: h11.Connection, ours: dict) -> str | None:
    method = "HEAD" if ours["is_head"] else "GET"
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(ours["wire"])
    heads, body, ended, is_closed = 0, b"", False, False
    while not ended:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            heads += 1
            if event.status_code != ours["status"]:
                return f"status is {event.status_code}"
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            ended = True
        elif event is h11.NEED_DATA and not is_closed:
            if ours["keep_alive"] and ours["complete"]:
                return "incomplete"
            is_closed = True
            try:
                connection.receive_data(b"")
                if not ours["complete"]:
                    connection.next_event()
                    return "a truncated body appears complete"
            except h11.RemoteProtocolError:
                if ours["complete"]:
                    raise
                return None if (heads, body) == (1, ours["body"]) else "the truncated body differs"
        else:
            return f"unexpected event {event!r}"
    if heads != 1 or body != ours["body"] or not ours["complete"]:
        return f"{heads} heads, a body of {len(body)} bytes"
    if connection.trailing_data[0]:
        return "bytes are left over"
    if ours["sends_close"] != (connection.their_state in (h11.MUST_CLOSE, h11.CLOSED)):
        return f"the connection is {connection.their_state}"
    if ours["keep_alive"]:
        connection.start_next_cycle()
    return None


def mutated(sources: list[bytes], rng: random.Random) -> bytes:
    """One of the sources, usually mutated."""
    wire = bytearray(rng.choice(sources))
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        at = rng.randint(0, len(wire))
        end = min(len(wire), at + rng.choice((0, 0, 1, 1, 2, 4, 16)))
        kind = rng.randrange(8)
        if kind < 3:
            wire[at:end] = rng.choice(SPECIAL)
        elif kind == 3:
            wire[at:end] = b""
        elif kind == 4:
            wire[at:end] = bytes([rng.randrange(256)])
        elif kind == 5:
            wire[at:end] = rng.choice(bytes(wire).splitlines(keepends=True) or [b""])
        elif kind == 6:
            wire += rng.choice(sources)
        else:
            other = rng.choice(sources)
            wire[at:] = other[rng.randint(0, len(other)) :]
    return bytes(wire)


def every_byte() -> list[bytes]:
    """Every byte at every position where parsers are known to differ."""
    get, post, host = (
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\n",
        b" HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    chunked, end = post + b"Transfer-Encoding: chunked\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n"
    sizes = [b'5;a="@"', b'5;a="\\@"', b"5;@a=b", b"5;a@", b"5;a=b@", b'5;a="b"@', b"5@", b"@5", b"5@;a"]
    trailers = [b"a@: b", b"a: b@c", b"a: b@", b"a:@", b"@"]
    fields = [
        b"X@: b",
        b"@X: b",
        b"X: b@",
        b"X:@b",
        b"X: b@c",
        b"Connection:@close",
        b"Connection: close@",
        b"Connection: a,@close",
    ]
    lengths = [
        b"Content-Length: 3@",
        b"Content-Length:@3",
        b"Content-Length: 3 @",
        b"Content-Length@: 3",
        b"Content-Length: @3",
    ]
    codings = [b"Transfer-Encoding: chunked@", b"Transfer-Encoding:@chunked", b"Transfer-Encoding@: chunked"]
    targets = [b"/@", b"/?@", b"http://a@/", b"http://a@b", b"http://a:80@", b"http:@//a", b"@"]
    places = [
        *(chunked + size + end for size in sizes),
        *(chunked + b"0\r\n" + trailer + b"\r\n\r\n" for trailer in trailers),
        *(get + field + b"\r\n\r\n" for field in fields),
        *(post + length + b"\r\n\r\nabc" for length in lengths),
        *(post + coding + b"\r\n\r\n0\r\n\r\n" for coding in codings),
        *(b"GET " + target + host for target in targets),
        *(chunked + b"5" + line + b"hello" + line + b"0" + line + line for line in (b"@\n", b"\r@", b"@")),
        *(b"GET / HTTP/1.1" + line + b"Host: a" + line + line for line in (b"@\n", b"\r@", b"@")),
        b"G@ /" + host,
        b"GET@/" + host,
        b"GET /@HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a@\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:@a\r\n\r\n",
        b"GET / HTTP/1@1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.@\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive@\r\n\r\n",
    ]  # fmt: skip
    return [place.replace(b"@", bytes([byte])) for place in places for byte in range(256)]


def batches(
    given: list[bytes], sources: list[bytes], count: int, rng: random.Random
) -> Iterator[list[bytes]]:
    """The given inputs and the sources unchanged, then mutated sources, up to `count`."""
    unchanged = [*given, *sources]
    inputs = iter([*unchanged, *(b"" for _ in range(count - len(unchanged)))])
    while batch := [wire or mutated(sources, rng) for _, wire in zip(range(2000), inputs)]:
        yield batch


def run_verdict(verdict: str, what: str, batch: list[bytes]) -> list:
    lines = "".join(f"{wire.hex()}\n" for wire in batch)
    done = subprocess.run([verdict, what], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def load(directories: list[Path]) -> tuple[list[bytes], list[bytes]]:
    """Returns the inputs for requests and the scripts for responses, without duplicates."""
    requests: dict[bytes, None] = {}
    scripts: dict[bytes, None] = {}
    for directory in directories:
        for path in sorted(path for path in directory.glob("*/*") if path.is_file()):
            content = path.read_bytes()
            if path.parent.name == "response":
                scripts[content] = None
            elif path.parent.name in HEADS:
                before, after = HEADS[path.parent.name]
                requests[before + content + after] = None
    return list(requests), list(scripts)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("verdict", help="path of the built example verdict")
    arguments.add_argument(
        "corpora", nargs="+", type=Path, help="directories with one subdirectory per target"
    )
    arguments.add_argument(
        "--inputs", type=int, default=200_000, help="number of requests; half as many responses"
    )
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    rng = random.Random(options.seed)
    requests, scripts = load(options.corpora)
    failed = False
    for what, given, sources, count, check in (
        ("requests", every_byte(), requests, options.inputs, check_requests),
        ("responses", [], scripts, options.inputs // 2, check_responses),
    ):
        report = Report()
        for batch in batches(given, sources, count, rng):
            for wire, verdict in zip(batch, run_verdict(options.verdict, what, batch)):
                report.inputs += 1
                check(wire, verdict, report)
        print(
            f"{report.inputs} {what} from {len(sources)} sources: {report.accepted} messages, {dict(report.compared)}"
        )
        for name, times in report.used.most_common():
            print(f"  exemption {name}: {times}")
        for name, times in report.stricter.most_common():
            print(f"  we reject {name}: {times}")
        for name, (wire, found) in sorted(report.differences.items()):
            print(f"  DIFFERENCE {name}\n    {found}\n    {wire!r}")
        failed |= bool(report.differences)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
