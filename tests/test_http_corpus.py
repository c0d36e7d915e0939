"""The corpus of the parser (`crates/http1/tests/corpus`, its README describes the format) over a real socket."""

from __future__ import annotations

import json
import re

import pytest
from harness import ROOT

FLAGS = {
    "request_line": "--limit-request-line",
    "fields": "--limit-request-fields",
    "field_size": "--limit-request-field_size",
    "head": "--limit-request-head",
    "body": "--limit-request-body",
}


class Case:
    def __init__(self, path):
        top, _, text = path.read_text().partition("\n---\n")
        lines = [line.partition(" ")[::2] for line in top.splitlines()]
        self.name = path.stem
        self.bytes = unescape(text)
        self.expect = [rest for key, rest in lines if key == "expect:"]
        limits = [limit.split("=") for key, rest in lines if key == "limits:" for limit in rest.split()]
        self.options = [word for name, number in limits for word in (FLAGS.get(name), number)]
        for key, rest in lines:
            if key == "mode:":
                self.options += ["--http-compat", rest]

    @property
    def can_be_asked_for(self):
        """Some limits are not settings, and the command does not accept a limit of zero fields."""
        return None not in self.options and self.options != ["--limit-request-fields", "0"]


def unescape(text):
    """Decodes the escapes of the corpus."""

    def meant(match):
        digits, times, repeated, letter = match.groups()
        if repeated is not None:
            return unescape(repeated).decode("latin-1") * int(times)
        return chr(int(digits, 16)) if digits else {"r": "\r", "n": "\n", "t": "\t", "\\": "\\"}[letter]

    escape = r"\\(?:x(..)|\{(\d+) ((?:[^}\\]|\\.)*)\}|(.))"
    return re.sub(escape, meant, text.replace("\n", "")).encode("latin-1")


CASES = {case.name: case for case in map(Case, sorted((ROOT / "crates/http1/tests/corpus").glob("*.txt")))}
# The server answers a TLS handshake with an alert, not with a 400 (tests/test_https.py).
ASKED = [name for name, case in CASES.items() if case.can_be_asked_for and name != "12-tls"]


def test_the_corpus_is_not_empty():
    assert len(ASKED) > 400
    assert len(CASES) - len(ASKED) < 5


def final(wire, method="GET"):
    """The next response that is not `100 Continue`."""
    while (answer := wire.answer(method)).status == 100:
        pass
    return answer


@pytest.mark.parametrize("step", [None, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", ASKED)
def test_the_server_responds_as_the_corpus_says(shared, name, step):
    case = CASES[name]
    server = shared("mirror", "--threads", "1", *case.options)
    with server.wire() as wire:
        wire.send(case.bytes, 97 if step and len(case.bytes) > 4096 else step)
        end = "open"
        for expect in case.expect:
            words = expect.split(" ")
            if words[0].isdigit():
                answer = final(wire)
                assert answer.status == int(words[0])
                assert answer.header("connection") == "close"
                end = "closed"
            elif words[0] == "incomplete":
                wire.finish()
                # An empty line is not a request, so its end is not an error.
                assert case.bytes == b"\r\n" or final(wire).status == 400
                end = "closed"
            elif words[0] == "closed":
                end = "closed"
            else:
                check(final(wire, words[0]), *words)
        if end == "open":
            wire.finish()
        assert wire.closed()


def check(answer, method, target, version, *more):
    """Checks that the app saw the message that the corpus describes."""
    assert (answer.status, answer.complete) == (200, True)
    assert ("close" in more) == (answer.header("connection") == "close")
    if method == "HEAD":
        return
    seen = json.loads(answer.body)
    expected = dict(word.partition("=")[::2] for word in more)
    assert (seen["method"], seen["target"], seen["version"]) == (method, target, version)
    assert seen["body"].encode("latin-1") == unescape(expected.get("body", ""))
    if "query" in expected:
        assert seen["query"] == expected["query"]
    if "host" in expected:
        assert seen["host"] == expected["host"]
    if "decoded" in expected:
        assert seen["path"].encode("latin-1") == unescape(expected["decoded"])
