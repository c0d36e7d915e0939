"""HTTPS: certificates, handshakes, bodies of any size in each concurrency mode, and errors (docs/https.md)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from certificates import DAY, Authority
from clients import get, together
from conftest import CONCURRENCY
from harness import MLWS, Command, eventually
from wire import DEADLINE, Wire

HELLO = "/answers/hello"
MEGABYTES = 1 << 20


class TlsWire(Wire):
    """A connection over TLS, read as strictly as one without. An end without close_notify is an error."""

    def __init__(self, address, context, name="localhost", before=b"", receive_buffer=None, session=None):
        raw = socket.socket()
        raw.settimeout(DEADLINE)
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.connect(address)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.sendall(before)
        try:
            self.socket = context.wrap_socket(
                raw, server_hostname=name, suppress_ragged_eofs=False, session=session
            )
        except BaseException:
            raw.close()
            raise
        self.stream = self.socket.makefile("rb")


@pytest.fixture(scope="module")
def issued(authority):
    return authority.issue("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def options(issued):
    return ("--certfile", str(issued.certificate), "--keyfile", str(issued.key))


@pytest.fixture(scope="module")
def context(authority):
    return trusting(authority)


@pytest.fixture
def secure(shared, concurrency, options):
    """The collection of small apps, over HTTPS, run in each way."""
    return shared("raw", *CONCURRENCY[concurrency], *options)


def trusting(authority, client=None, version=None):
    """A client's context that accepts certificates of this authority only."""
    context = ssl.create_default_context(cafile=authority.certificate)
    if client:
        context.load_cert_chain(client.certificate, client.key)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def connect(server, context, **settings):
    return TlsWire((server.host, server.port), context, **settings)


def ask(server, context, path=HELLO, **settings):
    """The response to one request on its own connection."""
    with connect(server, context, **settings) as wire:
        return wire.request(path)


def environ(server, context, **settings):
    return shown(ask(server, context, "/environs/show", **settings))


def shown(answer):
    return json.loads(answer.body)["environ"]


def certificate_of(server, context, name="localhost"):
    with connect(server, context, name=name) as wire:
        return wire.socket.getpeercert(binary_form=True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_application_sees_what_was_negotiated(secure, authority, version):
    found = environ(secure, trusting(authority, version=version))
    assert (found["wsgi.url_scheme"], found["HTTPS"]) == ("https", "on")
    name = "TLSv1.2" if version == ssl.TLSVersion.TLSv1_2 else "TLSv1.3"
    assert (found["SSL_PROTOCOL"], found["SSL_TLS_SNI"]) == (name, "localhost")
    assert (found["SSL_SESSION_RESUMED"], found["SSL_CLIENT_VERIFY"]) == ("Initial", "NONE")
    with connect(secure, trusting(authority, version=version)) as wire:
        cipher = wire.socket.cipher()[0]
    assert found["SSL_CIPHER"] == cipher


def test_the_start_line_shows_https_urls(secure):
    assert secure.urls == [f"https://127.0.0.1:{secure.port}"]


def test_curl_keeps_its_connection(secure, authority):
    url = f"https://localhost:{secure.port}{HELLO}"
    words = [
        "curl",
        "--http1.1",
        "--silent",
        "--show-error",
        "--fail",
        "--cacert",
        str(authority.certificate),
    ]
    done = subprocess.run(
        [*words, "--write-out", "%{http_version} %{num_connects}\n", url, url],
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.stdout.count("1.1 1\n") == 1 and done.stdout.count("1.1 0\n") == 1, done.stdout


def test_many_requests_on_one_connection_and_in_one_record(secure, context):
    with connect(secure, context) as wire:
        for _ in range(20):
            assert wire.request(HELLO).status == 200
        wire.send(get(HELLO) * 5)
        assert [wire.answer().status for _ in range(5)] == [200] * 5


def test_bytes_arrive_one_by_one(secure, context):
    with connect(secure, context) as wire:
        wire.send(get(HELLO), step=1)
        assert wire.answer().status == 200


@pytest.mark.parametrize("kind", ["whole", "pieces", "generator", "file", "writes"])
def test_a_large_response_reaches_a_client_that_pauses(secure, context, kind):
    with connect(secure, context, receive_buffer=4096) as wire:
        wire.send(get(f"/large/{kind}?lines=1000000"))
        first = wire.stream.read(1000)
        # Other clients are served while this one reads nothing.
        assert ask(secure, context).status == 200
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        wire.stream = Joined(first, wire.stream)
        answer = wire.answer()
        assert answer.complete and len(answer.body) == 8_000_000
        assert answer.body.endswith(b"0999999\n")
        if answer.header("connection") != "close":
            assert wire.request(HELLO).status == 200


class Joined:
    """A stream of which the first bytes were read already."""

    def __init__(self, first, stream):
        self._first, self._stream = first, stream

    def readline(self, limit=-1):
        if b"\n" in self._first:
            line, newline, self._first = self._first.partition(b"\n")
            return line + newline
        line, self._first = self._first, b""
        return line + self._stream.readline(limit)

    def read(self, count=-1):
        part, self._first = (self._first, b"") if count < 0 else (self._first[:count], self._first[count:])
        return part + (self._stream.read(count - len(part)) if count != len(part) else b"")

    def read1(self, count=-1):
        if self._first:
            part, self._first = self._first[:count], self._first[count:]
            return part
        return self._stream.read1(count)

    def close(self):
        self._stream.close()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [1, 16 * 1024, 3 * MEGABYTES, 20 * MEGABYTES])
def test_uploads_of_any_size_arrive_whole(secure, context, framing, size):
    body = os.urandom(size)
    with connect(secure, context) as wire:
        if framing == "length":
            answer = wire.request("/inputs/size", "POST", body)
        else:
            head = "POST /inputs/size HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
            wire.send(head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (size, body))
            answer = wire.answer()
        assert answer.status == 200
        assert hashlib.sha256(body).hexdigest() in answer.text and str(size) in answer.text
        assert wire.request(HELLO).status == 200


def test_a_body_that_waits_for_100_continue(secure, context):
    with connect(secure, context) as wire:
        head = "POST /inputs/echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        wire.send(head.encode())
        assert wire.answer().status == 100
        wire.send(b"hello")
        answer = wire.answer()
        assert answer.status == 200 and b"hello" in answer.body


def test_the_server_ends_a_connection_with_close_notify(secure, context):
    with connect(secure, context) as wire:
        assert wire.request(HELLO, headers="Connection: close\r\n").status == 200
        assert wire.rest() == b""  # an end without close_notify would raise


def test_a_client_may_end_without_close_notify(secure, context):
    for _ in range(3):
        wire = connect(secure, context)
        assert wire.request(HELLO).status == 200
        wire.close()
    assert ask(secure, context).status == 200


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_truncated_response_has_no_proper_end(secure, context, version):
    with connect(secure, context) as wire:
        wire.send(get("/large/raises?lines=100000").replace(b"HTTP/1.1", b"HTTP/" + version.encode()))
        assert not ends_properly(wire)


def ends_properly(wire):
    """Returns whether the response is complete. One that is delimited by the close requires close_notify."""
    try:
        return wire.answer().complete
    except (ssl.SSLEOFError, ConnectionResetError):
        return False


def test_plain_http_on_an_https_port_gets_the_url(secure):
    with secure.wire() as wire:
        wire.send(f"GET /shop/cart?item=1 HTTP/1.1\r\nHost: localhost:{secure.port}\r\n\r\n".encode())
        answer = wire.answer()
        assert answer.status == 400
        assert f"https://localhost:{secure.port}/shop/cart" in answer.text
        assert wire.closed()


def test_tls_on_a_plain_port_gets_an_alert_and_a_warning(shared, concurrency, context):
    server = shared("raw", *CONCURRENCY[concurrency])
    with pytest.raises(ssl.SSLError, match=r"(?i)version"):
        connect(server, context)
    server.log.wait_for("sent a TLS handshake to a port without TLS")
    assert server.get(HELLO).status == 200


def test_silent_clients_do_not_block_others(secure, context, many):
    with contextlib.ExitStack() as stack:
        for _ in range(many(10) * 10):
            silent = stack.enter_context(socket.create_connection((secure.host, secure.port)))
            silent.sendall(b"\x16\x03\x01")
        assert all(answer.status == 200 for answer in together(*[lambda: ask(secure, context)] * 8))


@pytest.mark.parametrize("kind", ["whole", "generator", "file"])
def test_handshakes_and_large_responses_beside_an_application_that_computes(
    start, options, context, tmp_path, kind
):
    """Their threads let others have the GIL meanwhile, and get it back."""
    server = start("raw", "--threads", "4", *options)
    with connect(server, context) as busy:
        busy.send(get(f"/gates/compute?gate={tmp_path}"))
        eventually((tmp_path / "arrivals").exists)
        answers = together(*[lambda: ask(server, context, f"/large/{kind}?lines=200000")] * 8)
        assert all(answer.complete and len(answer.body) == 1_600_000 for answer in answers)
        (tmp_path / "open").touch()
        assert busy.answer().status == 200


def test_garbage_in_a_handshake_ends_that_connection_only(secure, context):
    for garbage in (
        b"\x16\x03\x01\x00\x05hello",
        b"\x16\xff\xff\xff\xff" + bytes(100),
        b"\x16\x03\x01\x00\x00" * 50,
    ):
        with secure.wire() as wire:
            wire.send(garbage)
            wire.finish()
            wire.rest()
    assert ask(secure, context).status == 200


def test_a_request_that_takes_too_long_gets_504(start, options, context):
    server = start("raw", "--threads", "2", "--timeout", "1", "--workers", "2", *options)
    with connect(server, context) as wire:
        wire.send(get("/hangs/blocks"))
        assert wire.answer().status == 504
    server.log.wait_for("request timeout: GET /hangs/blocks")


def test_a_child_that_dies_midway_leaves_no_proper_end(start, options, context):
    server = start("raw", "--fork", *options)
    with connect(server, context) as wire:
        wire.send(get("/large/dies?lines=200000"))
        assert not ends_properly(wire)
    assert ask(server, context).status == 200


PROXY_HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n"


def test_a_proxy_header_precedes_the_handshake(start, options, context):
    server = start("raw", "--proxy-protocol", *options)
    found = environ(server, context, before=PROXY_HEADER)
    assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"]) == ("192.0.2.7", "https")


@pytest.mark.parametrize("cut", [1, len(PROXY_HEADER) - 1, len(PROXY_HEADER), len(PROXY_HEADER) + 3, None])
def test_a_proxy_header_and_a_handshake_may_share_a_packet(start, options, context, cut):
    server = start("raw", "--proxy-protocol", *options)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    data = PROXY_HEADER + outgoing.read()
    with server.wire() as wire:
        wire.send(data[:cut])
        if cut:
            eventually(lambda: not waiting_bytes(server), "the first part to be read")
            wire.send(data[cut:])
        assert wire.stream.read(1) == b"\x16"  # the ServerHello


def waiting_bytes(server):
    """The bytes in the receive queues of the server's connections."""
    port = f":{server.port:04X} "
    lines = [line for line in Path("/proc/net/tcp").read_text().splitlines() if port in line]
    local = [line.split() for line in lines if line.split()[1].endswith(port.strip())]
    return sum(int(fields[4].partition(":")[2], 16) for fields in local if fields[3] == "01")


def test_an_insecure_address_serves_plain_http(start, options, context):
    server = start("raw", "--insecure-bind", "127.0.0.2:0", *options)
    secure, plain = server.urls
    assert secure.startswith("https://") and plain.startswith("http://")
    assert environ(server, context)["HTTPS"] == "on"
    server.host, server.port = "127.0.0.2", int(plain.rpartition(":")[2])
    found = shown(server.get("/environs/show"))
    assert found["wsgi.url_scheme"] == "http" and "HTTPS" not in found


def test_the_lowest_version_can_be_raised(start, options, authority):
    server = start("raw", "--tls-min", "1.3", *options)
    with pytest.raises(ssl.SSLError):
        ask(server, trusting(authority, version=ssl.TLSVersion.TLSv1_2))
    assert ask(server, trusting(authority)).status == 200


def test_ciphers_are_those_of_openssls_string(start, options, authority):
    server = start("raw", "--ciphers", "ECDHE+AESGCM:!AES128:nonsense", *options)
    server.log.wait_for("unknown cipher 'nonsense' is ignored")
    context = trusting(authority, version=ssl.TLSVersion.TLSv1_2)
    with connect(server, context) as wire:
        assert wire.socket.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        ask(server, context)


@pytest.mark.parametrize(
    ("kind", "form"), [("ec", "pkcs8"), ("ec", "traditional"), ("rsa", "pkcs8"), ("rsa", "traditional")]
)
def test_every_form_of_key_is_accepted_in_one_file_too(start, authority, tmp_path, kind, form):
    issued = authority.issue("localhost", file=f"{kind}-{form}", key=kind, form=form)
    both = tmp_path / "both.pem"
    both.write_bytes(issued.certificate.read_bytes() + issued.key.read_bytes())
    assert ask(start("raw", "--certfile", both), trusting(authority)).status == 200


def test_a_certificate_is_chosen_by_name_exact_before_wildcard(start, options, authority, issued):
    exact = authority.issue("shop.example.com", file="exact")
    wildcard = authority.issue("*.example.com", file="wildcard")
    both = authority.directory / "exact-both.pem"
    both.write_bytes(exact.certificate.read_bytes() + exact.key.read_bytes())
    more = ("--extra-certfile", f"{wildcard.certificate}:{wildcard.key}", "--extra-certfile", str(both))
    server = start("raw", *options, *more)
    unverified = ssl.create_default_context(cafile=authority.certificate)
    unverified.check_hostname = False

    def served(name):
        return certificate_of(server, unverified, name)

    from certificates import serialization

    def der(issued):
        return issued.parsed.public_bytes(serialization.Encoding.DER)

    assert served("shop.example.com") == served("SHOP.example.com") == der(exact)
    assert served("other.example.com") == der(wildcard)
    for name in ("a.other.example.com", "example.com", "localhost"):
        assert served(name) == der(issued), name


@pytest.fixture
def mutual(authority, options):
    return ("--ca-certs", str(authority.certificate), *options)


def test_a_required_client_certificate(start, authority, mutual, tmp_path, concurrency):
    good = authority.issue("alice.example.com", file="alice", client=True)
    revoked = authority.issue("bob", file="bob", client=True)
    expired = authority.issue("carol", file="carol", client=True, starts=-3 * DAY, ends=-DAY)
    other = Authority(tmp_path, "Other CA").issue("mallory", file="mallory", client=True)
    crl = authority.revocation_list(revoked)
    server = start("raw", "--cert-reqs", "2", "--crl", crl, *mutual, *CONCURRENCY[concurrency])
    found = environ(server, trusting(authority, good))
    assert found["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert found["SSL_CLIENT_S_DN"] == "CN=alice.example.com,O=Shop"
    assert found["SSL_CLIENT_I_DN"] == "CN=Test CA"
    assert found["SSL_CLIENT_S_DN_CN"] == found["SSL_CLIENT_SAN_DNS_0"] == "alice.example.com"
    assert int(found["SSL_CLIENT_M_SERIAL"], 16) == good.parsed.serial_number
    assert found["SSL_CLIENT_CERT"].replace("\r", "") == good.certificate.read_text()
    assert found["SSL_CLIENT_V_START"] and found["SSL_CLIENT_V_END"]
    for client in (None, revoked, expired, other):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            ask(server, trusting(authority, client))
    assert ask(server, trusting(authority, good)).status == 200
    server.log.wait_for("TLS connection from 127.0.0.1 failed: .*certificate")
    assert "Traceback" not in server.log.text


def test_an_optional_client_certificate(start, authority, mutual, tmp_path):
    good = authority.issue("alice", file="alice-optional", client=True)
    other = Authority(tmp_path, "Other CA").issue("mallory", file="mallory", client=True)
    server = start("raw", "--cert-reqs", "1", *mutual)
    assert environ(server, trusting(authority))["SSL_CLIENT_VERIFY"] == "NONE"
    assert environ(server, trusting(authority, good))["SSL_CLIENT_VERIFY"] == "SUCCESS"
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        ask(server, trusting(authority, other))


def session_of(server, context):
    """A session that can be resumed, and whether its own connection was resumed."""
    with connect(server, context) as wire:
        wire.request(HELLO)  # the ticket of TLS 1.3 comes with the first bytes
        return wire.socket.session


def is_resumed(server, context, session):
    with connect(server, context, session=session) as wire:
        found = shown(wire.request("/environs/show"))
        assert wire.socket.session_reused == (found["SSL_SESSION_RESUMED"] == "Resumed")
        return wire.socket.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_by_every_worker_and_after_a_reload(start, authority, tmp_path, version):
    files = tmp_path / "server.pem", tmp_path / "server.key"
    first = authority.issue("localhost", file="first")
    install(first, files)
    server = start("raw", "--workers", "4", "--certfile", files[0], "--keyfile", files[1])
    context = trusting(authority, version=version)
    session = session_of(server, context)
    assert all(is_resumed(server, context, session) for _ in range(16))
    reload(server)
    assert is_resumed(server, context, session)
    # Another certificate: nothing is resumed.
    install(authority.issue("localhost", file="second"), files)
    reload(server)
    assert not is_resumed(server, context, session)


def test_no_session_is_resumed_with_client_certificates(start, authority, mutual):
    good = authority.issue("alice", file="alice-resumed", client=True)
    context = trusting(authority, good)
    server = start("raw", "--cert-reqs", "2", *mutual)
    session = session_of(server, context)
    assert session is None or not is_resumed(server, context, session)


def install(issued, files):
    """Replaces the files as renewal tools do."""
    for source, target in zip((issued.certificate, issued.key), files, strict=True):
        temporary = target.with_suffix(".new")
        shutil.copyfile(source, temporary)
        temporary.replace(target)


def reload(server):
    """A reload, until all workers are new."""
    before = set(server.workers())
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: server.workers() and not before & set(server.workers()), "new workers")


def test_a_reload_serves_the_new_certificate_or_keeps_the_old_one(start, authority, tmp_path):
    files = tmp_path / "server.pem", tmp_path / "server.key"
    install(authority.issue("localhost", file="old"), files)
    server = start("raw", "--certfile", files[0], "--keyfile", files[1])
    context = trusting(authority)
    old = certificate_of(server, context)
    files[1].write_text("not a key")
    server.process.send_signal(signal.SIGHUP)
    server.log.wait_for("keyfile .*: no private key found")
    assert certificate_of(server, context) == old
    install(authority.issue("localhost", file="new"), files)
    reload(server)
    eventually(lambda: certificate_of(server, context) != old, "the new certificate")


@pytest.mark.parametrize("mode", [(), ("--fork",), ("--preload",)], ids=" ".join)
def test_a_renewed_certificate_is_served_without_a_reload(start, authority, tmp_path, mode):
    files = tmp_path / "server.pem", tmp_path / "server.key"
    install(authority.issue("localhost", file="current"), files)
    server = start(
        "raw", "--workers", "2", "--keep-alive", "60", "--certfile", files[0], "--keyfile", files[1], *mode
    )
    context = trusting(authority)
    old, family = certificate_of(server, context), server.family_pids()
    with connect(server, context) as wire:
        assert wire.request(HELLO).status == 200
        install(authority.issue("localhost", file="renewed"), files)
        server.log.wait_for("Certificates renewed")
        eventually(lambda: old not in [certificate_of(server, context) for _ in range(8)], "both workers")
        assert wire.request(HELLO).status == 200
    assert server.family_pids() == family


def test_a_certificate_that_has_expired_is_not_a_renewal(start, authority, tmp_path):
    files = tmp_path / "server.pem", tmp_path / "server.key"
    install(authority.issue("localhost", file="valid"), files)
    server = start("raw", "--certfile", files[0], "--keyfile", files[1])
    context = trusting(authority)
    old = certificate_of(server, context)
    install(authority.issue("localhost", file="late", starts=-3 * DAY, ends=-DAY), files)
    server.log.wait_for("Certificates not renewed, .*expired")
    assert certificate_of(server, context) == old


def test_requests_during_reloads_succeed(start, options, context, many):
    server = start("raw", "--workers", "2", "--threads", "2", *options)
    finished = []

    def client():
        count = 0
        while not finished:
            with connect(server, context) as wire:
                for _ in range(20):
                    answer = wire.request(HELLO)
                    assert answer.status == 200
                    count += 1
                    if answer.header("connection") == "close":
                        break
        return count

    def reloads():
        try:
            for _ in range(many(3)):
                reload(server)
        finally:
            finished.append(True)

    assert min(together(client, client, lambda: reloads() or 1)) > 0


def test_a_certificate_that_ends_soon_is_reported(start, authority, tmp_path):
    for days, text in ((-1, "expired at"), (5, "expires in 4 days")):
        issued = authority.issue("localhost", file=f"ends{days}", starts=-9 * DAY, ends=days * DAY)
        server = start("raw", "--certfile", issued.certificate, "--keyfile", issued.key)
        server.log.wait_for(f"certificate '.*' {text}")


def wrong_files(authority, issued, directory):
    """Invalid options, each with its error message."""
    directory = directory / "wrong"
    directory.mkdir()
    empty, text = directory / "empty.pem", directory / "text.pem"
    empty.touch()
    text.write_text("hello")
    encrypted = authority.issue("localhost", file="encrypted", password="secret")
    other = authority.issue("localhost", file="other-key")
    certificate, key = str(issued.certificate), str(issued.key)
    return {
        "missing": (("--certfile", "missing.pem"), "certfile 'missing.pem': No such file"),
        "directory": (("--certfile", str(directory)), "Is a directory"),
        "empty": (("--certfile", str(empty)), "no certificate found, it is not a PEM file.*openssl x509"),
        "text": (("--certfile", str(text)), "no certificate found, it is not a PEM file"),
        "swapped": (("--certfile", key, "--keyfile", certificate), "it contains only: PRIVATE KEY"),
        "no key": (
            ("--certfile", certificate),
            "no private key found, it contains only: CERTIFICATE.*openssl pkey",
        ),
        "encrypted": (
            ("--certfile", str(encrypted.certificate), "--keyfile", str(encrypted.key)),
            "the private key is encrypted; decrypt it with: openssl pkey -in",
        ),
        "mismatch": (("--certfile", certificate, "--keyfile", str(other.key)), "does not match"),
        "bad CA": (
            ("--certfile", certificate, "--keyfile", key, "--ca-certs", str(text)),
            "ca_certs '.*no certificate",
        ),
        "no CA": (
            ("--certfile", certificate, "--keyfile", key, "--cert-reqs", "2"),
            "cert_reqs requires ca_certs",
        ),
        "no cipher": (
            ("--certfile", certificate, "--keyfile", key, "--ciphers", "RC4"),
            "no cipher suite is left",
        ),
        "key alone": (("--keyfile", key), "--keyfile requires --certfile"),
    }


def test_files_that_cannot_be_used_are_explained_at_start_and_by_check_config(authority, issued, tmp_path):
    for name, (options, expected) in wrong_files(authority, issued, tmp_path).items():
        for more in ((), ("--check-config",)):
            with Command(MLWS, "raw", "--bind", "127.0.0.1:0", *more, *options) as command:
                assert command.wait() in (1, 2), name
                command.log.wait_for(expected)
                assert "Traceback" not in command.log.text and command.log.wait_for_end().count("\n") < 4


def test_the_environ_cannot_be_forged(secure, context):
    with connect(secure, context) as wire:
        answer = wire.request("/environs/show", headers="SSL-Client-Verify: SUCCESS\r\nHTTPS: off\r\n")
        found = shown(answer)
    assert (found["SSL_CLIENT_VERIFY"], found["HTTPS"]) == ("NONE", "on")


def test_keys_may_be_updated_within_a_body(secure, authority):
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{secure.port}",
        "-tls1_3",
        "-quiet",
        "-no_ign_eof",
    ]
    client = subprocess.Popen(
        [*command, "-CAfile", authority.certificate],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        client.stdin.write(
            b"POST /inputs/echo HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\nConnection: close\r\n\r\nabc\n"
        )
        client.stdin.flush()
        client.stdin.write(b"K\n")
        client.stdin.flush()
        client.stdin.write(b"efgh")
        client.stdin.flush()
        answered = client.stdout.read()
    finally:
        client.kill()
        client.wait()
        client.stdin.close()
        client.stdout.close()
    assert answered.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("server", ["gunicorn", "mlws"])
def test_gunicorns_tls_settings_have_the_same_meaning(start, authority, issued, tmp_path, server):
    good = authority.issue("alice", file="alice-config", client=True)
    (tmp_path / "gunicorn.conf.py").write_text(
        f"import ssl\ncertfile = {str(issued.certificate)!r}\nkeyfile = {str(issued.key)!r}\n"
        f"ca_certs = {str(authority.certificate)!r}\ncert_reqs = ssl.CERT_REQUIRED\nciphers = 'ECDHE+AESGCM'\n"
        f"do_handshake_on_connect = False\nsuppress_ragged_eofs = True\n"
    )
    command = MLWS if server == "mlws" else MLWS.removesuffix("mlws") + "gunicorn"
    started = start("raw", "--config", tmp_path / "gunicorn.conf.py", command=(command,))
    assert started.urls[0].startswith("https://")
    context = trusting(authority, good, version=ssl.TLSVersion.TLSv1_2)
    with connect(started, context) as wire:
        assert "AES" in wire.socket.cipher()[0] and "GCM" in wire.socket.cipher()[0]
        found = shown(wire.request("/environs/show"))
    assert found["wsgi.url_scheme"] == "https"
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        ask(started, trusting(authority))


SSL_CONTEXT = """
import ssl

def ssl_context(conf, default_ssl_context_factory):
    context = default_ssl_context_factory()
    {lines}
    return context
"""


@pytest.mark.parametrize("server", ["gunicorn", "mlws"])
def test_the_hook_ssl_context_changes_what_is_served(start, authority, options, tmp_path, server):
    good = authority.issue("alice", file="alice-hook", client=True)
    lines = (
        f"context.load_verify_locations({str(authority.certificate)!r})",
        "context.verify_mode = ssl.CERT_REQUIRED",
        "context.minimum_version = ssl.TLSVersion.TLSv1_3",
    )
    (tmp_path / "gunicorn.conf.py").write_text(SSL_CONTEXT.format(lines="\n    ".join(lines)))
    command = MLWS if server == "mlws" else MLWS.removesuffix("mlws") + "gunicorn"
    started = start("raw", "--config", tmp_path / "gunicorn.conf.py", *options, command=(command,))
    assert environ(started, trusting(authority, good))["wsgi.url_scheme"] == "https"
    for client, version in ((None, None), (good, ssl.TLSVersion.TLSv1_2)):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            ask(started, trusting(authority, client, version))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("context.set_alpn_protocols(['h2', 'h3'])", r"set_alpn_protocols\(\['h3'\]\) is not supported"),
        ("context.keylog_filename = 'keys'", "keylog_filename is not supported"),
        ("context.maximum_version = ssl.TLSVersion.TLSv1_2", "maximum_version is not supported"),
        (
            "context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)",
            "expected the context of default_ssl_context_factory",
        ),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_unsupported_uses_of_the_hook_are_named(options, tmp_path, lines, expected):
    (tmp_path / "gunicorn.conf.py").write_text(SSL_CONTEXT.format(lines=lines))
    with Command(MLWS, "raw", "--config", tmp_path / "gunicorn.conf.py", *options) as command:
        assert command.wait() == 2
        command.log.wait_for(expected)
