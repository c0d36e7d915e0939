"""HTTP/2: which protocol a connection uses: ALPN, prior knowledge, and PROXY headers before it (docs/http2.md)."""

from __future__ import annotations

import contextlib
import json
import ssl

import pytest
from http2_client import CLEARTEXT, HELLO, PREFACE, Http2Client, RawClient, connected, trusting
from wire import Wire


@contextlib.contextmanager
def http1(server, context=None, **how):
    """A connection that is read as HTTP/1."""
    wire = Wire.__new__(Wire)
    wire.socket = connected(server, context, **how)
    wire.stream = wire.socket.makefile("rb")
    with wire:
        yield wire


def test_alpn_chooses(shared, certificate, authority):
    server = shared("raw", *certificate)
    both = trusting(authority, "h2", "http/1.1")
    with Http2Client(server, both) as client:
        assert client.socket.selected_alpn_protocol() == "h2"
        assert client.get().status == 200
    with http1(server, trusting(authority, "http/1.1")) as wire:
        assert wire.request(HELLO).status == 200
    plain = ssl.create_default_context(cafile=authority.certificate)
    with http1(server, plain) as wire:
        assert wire.request(HELLO).status == 200


@pytest.mark.parametrize("protocols", ["h1", ""])
def test_http2_can_be_switched_off(start, certificate, authority, protocols):
    server = start("raw", "--http-protocols", protocols, *certificate)
    with http1(server, trusting(authority, "h2", "http/1.1")) as wire:
        assert wire.socket.selected_alpn_protocol() == "http/1.1"
        assert wire.request(HELLO).status == 200


def test_the_preface_is_an_error_where_http1_was_chosen(shared, certificate, authority):
    server = shared("raw", *certificate)
    with http1(server, trusting(authority, "http/1.1")) as wire:
        wire.send(PREFACE)
        assert wire.answer().status in (400, 505)


def test_http1_is_an_error_where_http2_was_chosen(shared, certificate, authority):
    server = shared("raw", *certificate)
    with RawClient(server, trusting(authority), start=False) as client:
        client.send_bytes(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        client.goaway()
    with Http2Client(server, trusting(authority)) as client:
        assert client.get().status == 200


def test_cleartext_needs_the_setting(shared):
    server = shared("raw")
    with http1(server) as wire:
        wire.send(PREFACE)
        assert wire.answer().status in (400, 505)
        assert wire.closed()


def test_cleartext_is_for_trusted_peers_only(start):
    server = start("raw", *CLEARTEXT, "--forwarded-allow-ips", "127.0.0.2")
    with http1(server) as wire:
        wire.send(PREFACE)
        assert wire.answer().status in (400, 505)
        assert wire.closed()
    with Http2Client(server, source="127.0.0.2") as client:
        assert client.get().status == 200
    with http1(server, source="127.0.0.2") as wire:
        assert wire.request(HELLO).status == 200


@pytest.mark.parametrize("step", [1, 5, 23, 24, 25, 1000])
def test_the_preface_may_arrive_in_parts(shared, step):
    server = shared("raw", "--threads", "2", *CLEARTEXT)
    with RawClient(server, start=False) as client:
        block = client.head()
        sent = PREFACE + bytes.fromhex("000000040000000000") + len(block).to_bytes(3, "big")
        sent += bytes.fromhex("010500000001") + block
        for begin in range(0, len(sent), step):
            client.send_bytes(sent[begin : begin + step])
        assert client.status_of(1) == 200


def test_a_request_that_begins_like_the_preface_is_http1(shared):
    server = shared("raw", "--threads", "2", *CLEARTEXT)
    with http1(server) as wire:
        wire.send(b"PRI /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n", step=1)
        assert wire.answer().status == 200


def test_an_upgrade_is_ignored(shared):
    server = shared("raw", "--threads", "2", *CLEARTEXT)
    with http1(server) as wire:
        headers = (
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        )
        for _ in range(2):
            answer = wire.request("/environs/show", headers=headers)
            assert (answer.status, answer.header("upgrade")) == (200, None)
            assert json.loads(answer.body)["environ"]["SERVER_PROTOCOL"] == "HTTP/1.1"


PROXY_HEADERS = {
    "v1": b"PROXY TCP4 203.0.113.9 203.0.113.1 4711 443\r\n",
    "v2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + bytes([203, 0, 113, 9, 203, 0, 113, 1])
    + b"\x12\x67\x01\xbb",
}


@pytest.mark.parametrize("version", PROXY_HEADERS)
def test_a_proxy_header_comes_before_http2(shared, transport, certificate, authority, version):
    tls = transport == "tls"
    server = shared("raw", "--proxy-protocol", "auto", *(certificate if tls else CLEARTEXT))
    context = trusting(authority) if tls else None
    with Http2Client(server, context, before=PROXY_HEADERS[version]) as client:
        found = json.loads(client.request("/environs/show").body)["environ"]
        assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == ("203.0.113.9", "4711")
