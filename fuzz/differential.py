"""Holds what we accept against h11 and llhttp (by httptools), and what we answer against h11.

The one thing to know: we may refuse what they accept, never the other way round. For each request that we accept, they
have to find the same request in exactly the same bytes; the exceptions are in EXCEPTIONS, each with its reason and
counted. Responses have no exceptions: h11 finds exactly one for each request, or sees that it was cut.

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
ODD = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b'"', b"\\", b"=", b"#", b"?", b"*", b"/",
    b"-", b"+", b"_", b"0", b"5", b"F", b"\x0b", b"\x0c", b"\x7f", b"\x85", b"\xa0", b"\xe9", b"0\r\n\r\n", b"ffffffffffffffff",
    b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Host: a\r\n", b"HTTP/1.0", b"Upgrade: h2c\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"5\r\nhello\r\n", b"\n?\n", b"\n?H\n", b"\n?0\n", b"\n!204 x\n", b"\n#5\n",
    b"\n+hello\n", b"\nx", b"\\r\\n",
]  # fmt: skip


@dataclass
class Seen:
    """What another parser makes of the bytes of one message."""

    method: bytes = b""
    target: bytes = b""
    version: str = ""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    messages: int = 0
    rest: bytes = b""
    keep_alive: bool = False
    refused: str | None = None


@dataclass(frozen=True)
class Exemption:
    """A difference that was looked at and is meant.

    `change` takes away what the two see differently, and nothing else; then they have to agree. It returns the bytes and
    our reading of them, or None where the exemption is not for these.
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
    end = wire.find(b"\r\n\r\n", 1) + 4  # an empty line may come first
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
    """Gives the fields of that name another one, as long."""
    start = wire.find(b"\r\n\r\n", 1)  # an empty line may come first
    head, body = wire[:start], wire[start:]
    renamed = re.sub(rb"(?i)\n" + name + b":", b"\n" + other + b":", head)
    fields = [(other if its.lower() == name else its, value) for its, value in ours["fields"]]
    return (renamed + body, ours | {"fields": fields}) if renamed != head else None


def forget_old_connection(wire: bytes, ours: dict) -> tuple[bytes, dict] | None:
    return (wire, ours | {"keep_alive": False}) if ours["version"] == "1.0" else None


LLHTTP_METHODS = frozenset(
    b"DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL"
    b" REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK UNLINK SOURCE"
    b" QUERY".split()
)
EXCEPTIONS = [
    Exemption(
        "h11: an empty line before the request",
        "h11",
        "RFC 9112, section 2.2: a server should ignore at least one; we take one, h11 none.",
        skip_empty_line,
    ),
    Exemption(
        "h11: an HTTP/1.0 connection stays open",
        "h11",
        "h11 closes after each request of HTTP/1.0; Connection: keep-alive (RFC 9112, section C.2.2) is heard here.",
        forget_old_connection,
    ),
    Exemption(
        "h11: a Content-Length with more than 20 digits",
        "h11",
        "RFC 9110, section 8.6: any number of digits; with zeros in front it is the same number for everybody else.",
        trim_zeros,
    ),
    Exemption(
        "llhttp: a method that it does not know",
        "llhttp",
        "RFC 9110, section 9.1: the set of methods is open, and the app answers. It frames nothing, CONNECT apart.",
        rename_method,
    ),
    Exemption(
        "llhttp: Upgrade",
        "llhttp",
        "llhttp hands the connection over to its user; an HTTP server may ignore Upgrade (RFC 9110, section 7.8).",
        rename_upgrade,
    ),
    Exemption(
        "llhttp: Proxy-Connection",
        "llhttp",
        "llhttp takes it for Connection. It was made for proxies, and failed (RFC 9112, section C.2.2).",
        rename_proxy_connection,
    ),
    Exemption(
        "llhttp: Connection among the trailers",
        "llhttp",
        "Trailers are dropped here, as RFC 9110, section 6.5.1, says for fields of the connection; llhttp hears them.",
        rename_trailers,
    ),
]


def read_h11(wire: bytes) -> Seen:
    seen = Seen()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        connection.receive_data(wire)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                seen.method, seen.target = event.method, event.target
                seen.version = event.http_version.decode()
                seen.fields = list(event.headers)
            elif isinstance(event, h11.Data):
                seen.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                seen.messages += 1
                seen.rest = connection.trailing_data[0]
                seen.keep_alive = connection.their_state in (h11.DONE, h11.MIGHT_SWITCH_PROTOCOL)
                return seen
            else:
                return seen
    except h11.RemoteProtocolError as error:
        seen.refused = str(error)
        return seen


class Callbacks:
    def __init__(self) -> None:
        self.seen = Seen()
        self.begun = 0
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.seen.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.seen.version:  # a trailer
            return
        self.seen.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.seen.method = self.parser.get_method()
        self.seen.version = self.parser.get_http_version()

    def on_body(self, body: bytes) -> None:
        self.seen.body += body

    def on_message_complete(self) -> None:
        self.seen.messages += 1
        self.seen.keep_alive = self.parser.should_keep_alive()


def read_llhttp(wire: bytes) -> Seen:
    callbacks = Callbacks()
    seen = callbacks.seen
    try:
        callbacks.parser.feed_data(wire)
    except httptools.HttpParserUpgrade as upgrade:
        seen.refused = f"upgrade at {upgrade.args[0]}"
    except httptools.HttpParserError as error:
        seen.refused = f"{type(error).__name__}: {error}"
    if callbacks.begun > 1:
        seen.rest = b"another message"
    return seen


def difference(ours: dict, seen: Seen) -> str | None:
    """How what they saw differs from what we saw, in a word."""
    if seen.refused is not None:
        return f"refused: {seen.refused}"
    if seen.messages != ours["complete"]:
        return f"{seen.messages} messages are complete"
    if seen.rest:
        return f"{len(seen.rest)} bytes are left"
    for name in ("method", "target", "version", "body"):
        if getattr(seen, name) != ours[name]:
            return f"{name} is {getattr(seen, name)!r}"
    if len(ours["fields"]) != len(seen.fields):
        return f"{len(seen.fields)} fields"
    for (name, value), (their_name, their_value) in zip(ours["fields"], seen.fields):
        if name.lower() == b"transfer-encoding":  # h11 gives it in lower case
            value, their_value = value.lower(), their_value.lower()
        if (name.lower(), value) != (their_name.lower(), their_value.strip(b" \t")):
            return f"field is {their_name!r}: {their_value!r}"
    if ours["complete"] and ours["keep_alive"] and not seen.keep_alive:
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
    """What is left of the difference when all exceptions that are for it have been made."""
    read = PARSERS[parser]
    found = difference(ours, read(wire))
    for exemption in EXCEPTIONS:
        if found is None:
            return None
        if exemption.parser == parser and (changed := exemption.change(wire, ours)):
            used[exemption.name] += 1
            wire, ours = changed
            found = difference(ours, read(wire))
    return found


PARSERS = {"h11": read_h11, "llhttp": read_llhttp}


KEY = re.compile(r"""[0-9]+|b['"].*""")  # what is not the same each time


@dataclass
class Report:
    inputs: int = 0
    accepted: int = 0
    compared: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    stricter: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def note(self, kind: str, found: str, wire: bytes) -> None:
        key = f"{kind}: {KEY.sub('#', found)}"
        if key not in self.wrong or len(wire) < len(self.wrong[key][0]):
            self.wrong[key] = (wire, found)


def check_requests(wire: bytes, verdict: dict, report: Report) -> None:
    for ours in map(unhex, verdict["messages"]):
        piece = wire[ours["start"] : ours["end"]]
        report.accepted += 1
        for parser in PARSERS:
            report.compared[parser] += 1
            if found := disagreement(parser, ours, piece, report.used):
                report.note(parser, found, piece)
    check_stream(wire, verdict["messages"], report)
    if not verdict["messages"] and verdict["end"] not in ("incomplete", "betweenrequests"):
        for parser, read in PARSERS.items():
            seen = read(wire)
            if seen.refused is None and seen.messages:
                report.stricter[f"{verdict['end']}, not {parser}"] += 1


def check_stream(wire: bytes, messages: list[dict], report: Report) -> None:
    """Several requests in one piece are for llhttp, too, what they are one by one."""
    if len(messages) < 2 or any(read_llhttp(wire[ours["start"] : ours["end"]]).refused for ours in messages):
        return
    report.compared["llhttp, streams"] += 1
    seen = read_llhttp(wire[: messages[-1]["end"]])
    targets = b"".join(ours["target"] for ours in messages)
    bodies = b"".join(ours["body"] for ours in messages)
    if (seen.refused, seen.messages) != (None, sum(ours["complete"] for ours in messages)):
        report.note("stream", seen.refused or f"{seen.messages} messages", wire)
    elif (seen.target, seen.body) != (targets, bodies):
        report.note("stream", "other targets or bodies", wire)


def check_responses(script: bytes, exchanges: list[dict], report: Report) -> None:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    for ours in map(unhex, exchanges):
        report.accepted += 1
        report.compared["h11"] += 1
        try:
            found = response_difference(connection, ours)
        except h11.ProtocolError as error:
            found = f"refused: {error}"
        if found:
            report.note("response", found, script)
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
                return "not complete"
            is_closed = True
            try:
                connection.receive_data(b"")
                if not ours["complete"]:
                    connection.next_event()
                    return "a cut body looks whole"
            except h11.RemoteProtocolError:
                if ours["complete"]:
                    raise
                return None if (heads, body) == (1, ours["body"]) else "the cut body is another"
        else:
            return f"an event {event!r}"
    if heads != 1 or body != ours["body"] or not ours["complete"]:
        return f"{heads} heads, a body of {len(body)} bytes"
    if connection.trailing_data[0]:
        return "bytes are left"
    if ours["sends_close"] != (connection.their_state in (h11.MUST_CLOSE, h11.CLOSED)):
        return f"the connection is {connection.their_state}"
    if ours["keep_alive"]:
        connection.start_next_cycle()
    return None


def mutated(sources: list[bytes], dice: random.Random) -> bytes:
    """One of the sources, most often with something done to it."""
    wire = bytearray(dice.choice(sources))
    for _ in range(dice.choice((0, 1, 1, 2, 2, 3, 5))):
        at = dice.randint(0, len(wire))
        end = min(len(wire), at + dice.choice((0, 0, 1, 1, 2, 4, 16)))
        what = dice.randrange(8)
        if what < 3:
            wire[at:end] = dice.choice(ODD)
        elif what == 3:
            wire[at:end] = b""
        elif what == 4:
            wire[at:end] = bytes([dice.randrange(256)])
        elif what == 5:
            wire[at:end] = dice.choice(bytes(wire).splitlines(keepends=True) or [b""])
        elif what == 6:
            wire += dice.choice(sources)
        else:
            other = dice.choice(sources)
            wire[at:] = other[dice.randint(0, len(other)) :]
    return bytes(wire)


def every_byte() -> list[bytes]:
    """Every byte at every place where parsers have been known to differ."""
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
    given: list[bytes], sources: list[bytes], count: int, dice: random.Random
) -> Iterator[list[bytes]]:
    """What is given and the sources as they are, then mutated sources, up to `count`."""
    whole = [*given, *sources]
    inputs = iter([*whole, *(b"" for _ in range(count - len(whole)))])
    while batch := [wire or mutated(sources, dice) for _, wire in zip(range(2000), inputs)]:
        yield batch


def judge(verdict: str, what: str, batch: list[bytes]) -> list:
    lines = "".join(f"{wire.hex()}\n" for wire in batch)
    done = subprocess.run([verdict, what], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def load(folders: list[Path]) -> tuple[list[bytes], list[bytes]]:
    """What is to be sent as requests, and the scripts of responses; doubles are left out."""
    requests: dict[bytes, None] = {}
    scripts: dict[bytes, None] = {}
    for folder in folders:
        for path in sorted(path for path in folder.glob("*/*") if path.is_file()):
            content = path.read_bytes()
            if path.parent.name == "response":
                scripts[content] = None
            elif path.parent.name in HEADS:
                before, behind = HEADS[path.parent.name]
                requests[before + content + behind] = None
    return list(requests), list(scripts)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("verdict", help="the built example of that name")
    arguments.add_argument("corpora", nargs="+", type=Path, help="folders with one folder for each target")
    arguments.add_argument(
        "--inputs", type=int, default=200_000, help="how many requests, and half as many responses"
    )
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    dice = random.Random(options.seed)
    requests, scripts = load(options.corpora)
    failed = False
    for what, given, sources, count, check in (
        ("requests", every_byte(), requests, options.inputs, check_requests),
        ("responses", [], scripts, options.inputs // 2, check_responses),
    ):
        report = Report()
        for batch in batches(given, sources, count, dice):
            for wire, verdict in zip(batch, judge(options.verdict, what, batch)):
                report.inputs += 1
                check(wire, verdict, report)
        print(
            f"{report.inputs} {what} from {len(sources)} sources: {report.accepted} messages, {dict(report.compared)}"
        )
        for name, times in report.used.most_common():
            print(f"  exception {name}: {times}")
        for name, times in report.stricter.most_common():
            print(f"  we refuse {name}: {times}")
        for name, (wire, found) in sorted(report.wrong.items()):
            print(f"  DISAGREEMENT {name}\n    {found}\n    {wire!r}")
        failed |= bool(report.wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
