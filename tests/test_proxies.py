"""Behind a proxy: headers of a trusted one are used, and nothing that a client can forge is (docs/proxies.md)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys

import pytest
from conftest import CONCURRENCY
from harness import DEADLINE, MLWS, ROOT, Command, Wire, eventually, free_port

DOC = (ROOT / "docs/proxies.md").read_text()
INLINE = ("--threads", "1")
LOGS_ALL = ("--log-level", "debug")
"""At the default level, only the first rejections of each second are logged."""
STRANGER = "127.0.0.2"
"""Another address of this machine, which is not trusted."""
ALL = "x-forwarded-for,x-forwarded-proto,x-forwarded-host,x-forwarded-port,x-forwarded-prefix,forwarded"
FORWARDED = ("--forwarded-fields", ALL)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def request(*lines, target="/environs/show", host="test"):
    head = (f"GET {target} HTTP/1.1", f"Host: {host}", *lines)
    return "".join(f"{line}\r\n" for line in head).encode("latin-1") + b"\r\n"


def answer_to(server, *lines, source=None, target="/environs/show"):
    with Wire((server.host, server.port), source=source) as wire:
        wire.send(request(*lines, target=target))
        answer = wire.answer()
        assert answer.status == 200 or wire.closed()
        return answer


def environ_of(server, *lines, **settings):
    answer = answer_to(server, *lines, **settings)
    assert answer.status == 200, answer.text
    return json.loads(answer.text)["environ"]


def seen(environ, *keys):
    return tuple(environ.get(key) for key in keys)


# Fields, as in gunicorn


@pytest.mark.parametrize(
    ("lines", "scheme"),
    [
        ((), "http"),
        (("X-Forwarded-Proto: https",), "https"),
        (("x-FORWARDED-proto: \t https ",), "https"),
        (("X-Forwarded-Ssl: on",), "https"),
        (("X-Forwarded-Protocol: ssl", "X-Forwarded-Ssl: on"), "https"),
        (("X-Forwarded-Proto: https", "X-Forwarded-Proto: https"), "https"),
        (("X-Forwarded-Proto: HTTPS",), "http"),
        (("X-Forwarded-Proto: https, https",), "http"),
        (("X-Forwarded-Proto: http",), "http"),
        (("X_Forwarded_Proto: https",), "http"),
        (("X-Forwarded-Proto2: https",), "http"),
    ],
)
def test_the_scheme_is_that_of_a_trusted_proxy(shared, lines, scheme):
    server = shared("raw", *INLINE)
    assert environ_of(server, *lines)["wsgi.url_scheme"] == scheme
    assert environ_of(server, *lines, source=STRANGER)["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize(
    "lines",
    [
        ("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"),
        ("X-Forwarded-Proto: https", "X-Forwarded-Proto: http"),
        ("X-Forwarded-Protocol: tls", "X-Forwarded-Proto: https"),
    ],
)
def test_contradictory_fields_are_rejected_from_proxies_and_ignored_from_others(server, lines):
    assert answer_to(server, *lines).status == 400
    assert answer_to(server, *lines, source=STRANGER).status == 200


def test_the_fields_with_the_scheme_are_configurable(shared):
    server = shared("raw", *INLINE, "--secure-scheme-header", "X-Scheme=tls")
    assert environ_of(server, "X-Scheme: tls")["wsgi.url_scheme"] == "https"
    assert environ_of(server, "X-Forwarded-Proto: https")["wsgi.url_scheme"] == "http"
    server = shared("raw", *INLINE, "--secure-scheme-header", "")
    assert environ_of(server, "X-Forwarded-Proto: https")["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize(
    ("networks", "home", "stranger"),
    [
        ("", "http", "http"),
        ("127.0.0.0/8", "https", "https"),
        ("127.0.0.2, 10.0.0.0/8,::1", "http", "https"),
        ("*", "https", "https"),
        ("::/0", "http", "http"),
    ],
)
def test_trusted_proxies_are_a_list_of_networks(shared, networks, home, stranger):
    server = shared("raw", *INLINE, "--forwarded-allow-ips", networks)
    line = "X-Forwarded-Proto: https"
    assert environ_of(server, line)["wsgi.url_scheme"] == home
    assert environ_of(server, line, source=STRANGER)["wsgi.url_scheme"] == stranger


def test_trusted_proxies_can_be_set_in_the_environment(start):
    server = start("raw", *INLINE, env={"FORWARDED_ALLOW_IPS": STRANGER})
    line = "X-Forwarded-Proto: https"
    assert environ_of(server, line)["wsgi.url_scheme"] == "http"
    assert environ_of(server, line, source=STRANGER)["wsgi.url_scheme"] == "https"


def scheme_on(path, scheme="https"):
    """The scheme of a request to a Unix socket that sends `X-Forwarded-Proto`."""
    with Wire(str(path), family=socket.AF_UNIX) as wire:
        answer = wire.request("/environs/show", headers=f"X-Forwarded-Proto: {scheme}\r\n")
    return json.loads(answer.text)["environ"]["wsgi.url_scheme"]


UNTRUSTED = "untrusted peers: unix:{} has mode {} and is open to every user, so X-Forwarded-Proto"


@pytest.mark.parametrize(
    ("options", "mode", "scheme"),
    [
        ((), "0777", "http"),
        (("--umask", "022"), "0755", "https"),
        (("--umask", "007"), "0770", "https"),
        (("--umask", "050"), "0727", "http"),
        (("--forwarded-allow-ips", "10.0.0.0/8"), "0777", "http"),
        (("--forwarded-allow-ips", "10.0.0.0/8", "--umask", "007"), "0770", "https"),
        (("--forwarded-allow-ips", "127.0.0.1,unix:"), "0777", "https"),
        (("--forwarded-allow-ips", "*"), "0777", "https"),
    ],
    ids=str,
)
def test_peers_on_a_unix_socket_are_trusted_if_its_mode_excludes_others(
    start, tmp_path, options, mode, scheme
):
    path = tmp_path / "socket"
    server = start("raw", *INLINE, "--bind", f"unix:{path}", *options)
    assert f"{stat.S_IMODE(path.stat().st_mode):04o}" == mode
    assert scheme_on(path) == scheme
    warning = UNTRUSTED.format(path, mode)
    assert server.log.text.count("untrusted peers") == server.log.text.count(warning) == (scheme == "http")


@pytest.mark.parametrize("options", [(), ("--umask", "007")])
def test_an_empty_list_trusts_nobody(start, tmp_path, options):
    path = tmp_path / "socket"
    server = start("raw", *INLINE, "--bind", f"unix:{path}", "--forwarded-allow-ips", "", *options)
    assert scheme_on(path) == "http"
    assert "untrusted" not in server.log.text


def test_the_mode_of_a_unix_socket_may_be_changed_by_a_hook_or_before_a_reload(start, tmp_path):
    path, config = tmp_path / "socket", tmp_path / "gunicorn.conf.py"
    config.write_text(f"import os\ndef when_ready(server):\n    os.chmod({str(path)!r}, 0o660)\n")
    server = start("raw", *INLINE, "--bind", f"unix:{path}", "--config", config)
    assert scheme_on(path) == "https"
    assert "untrusted" not in server.log.text
    path.chmod(0o666)
    server.process.send_signal(signal.SIGHUP)
    server.log.wait_for("Reload complete")
    assert UNTRUSTED.format(path, "0666") in server.log.text
    eventually(lambda: scheme_on(path) == "http", "the previous worker to accept no more")


def on_stdin(listening, *options):
    """A server on an inherited socket."""
    adopt = "import os, sys; os.dup2(0, 7); os.execv(sys.argv[1], sys.argv[1:])"
    command = (sys.executable, "-c", adopt, MLWS)
    return Command(*command, "raw", "--bind", "fd://7", *INLINE, *options, stdin=listening)


@pytest.mark.parametrize(("mode", "scheme"), [(0o666, "http"), (0o660, "https")])
def test_an_inherited_unix_socket_is_trusted_by_the_mode_of_its_file(tmp_path, mode, scheme):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(mode)
        with on_stdin(listening) as server:
            server.log.wait_for("Listening at")
            assert scheme_on(path) == scheme
            assert ("untrusted peers" in server.log.text) == (scheme == "http")


@pytest.mark.parametrize("kind", ["abstract", "removed"])
@pytest.mark.parametrize(("networks", "scheme"), [("127.0.0.1", "http"), ("unix:", "https")])
def test_an_inherited_unix_socket_of_an_unknown_mode_is_not_trusted(tmp_path, kind, networks, scheme):
    path, name = tmp_path / "socket", f"\0mlws-{os.getpid()}-{scheme}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name if kind == "abstract" else str(path))
        listening.listen()
        if kind == "removed":
            path.rename(tmp_path / "renamed")
            name = str(tmp_path / "renamed")
        with on_stdin(listening, "--forwarded-allow-ips", networks) as server:
            server.log.wait_for("Listening at")
            assert scheme_on(name) == scheme
            warning = "has no file of a known mode and may be open to every user"
            assert (warning in server.log.text) == (scheme == "http")


SHOP = "/shop/environs/show"


@pytest.mark.parametrize(
    ("script", "target", "name", "path"),
    [
        ("/shop", SHOP, "/shop", "/environs/show"),
        ("/shop/", SHOP, "/shop", "/environs/show"),
        ("/", "/environs/show", "", "/environs/show"),
        ("", "/environs/show", "", "/environs/show"),
        ("/shop", "/shop/environs/show/a%20b?q=/shop", "/shop", "/environs/show/a b"),
        ("/a/b", "http://test/a/b/environs/show", "/a/b", "/environs/show"),
    ],
)
def test_script_name_of_a_trusted_proxy_is_removed_from_the_path(server, script, target, name, path):
    environ = environ_of(server, f"SCRIPT_NAME: {script}", target=target)
    assert seen(environ, "SCRIPT_NAME", "PATH_INFO", "HTTP_SCRIPT_NAME") == (name, path, script)
    assert environ["REQUEST_URI"] == target


@pytest.mark.parametrize("target", ["/", "/sho", "/shopping/environs/show", "/Shop/environs/show", "*"])
def test_a_path_outside_of_script_name_is_a_configuration_error(server, target):
    before = len(server.log.text)
    with server.wire() as wire:
        wire.send(f"OPTIONS {target} HTTP/1.1\r\nHost: a\r\nScript_Name: /shop\r\n\r\n".encode())
        assert wire.answer().status == 500
        assert wire.closed()
    server.log.wait_for("does not begin with SCRIPT_NAME", since=before)


def test_only_a_trusted_proxy_can_send_fields_with_underscores(server):
    lines = ("SCRIPT_NAME: /environs", "PATH_INFO: /x", "REMOTE_USER: admin", "X_Other: y")
    keys = (
        "SCRIPT_NAME",
        "PATH_INFO",
        "HTTP_SCRIPT_NAME",
        "HTTP_PATH_INFO",
        "HTTP_REMOTE_USER",
        "HTTP_X_OTHER",
    )
    assert seen(environ_of(server, *lines, source=STRANGER), *keys) == (
        "",
        "/environs/show",
        None,
        None,
        None,
        None,
    )
    assert seen(environ_of(server, *lines[1:]), *keys) == ("", "/environs/show", None, "/x", None, None)


@pytest.mark.parametrize(
    ("options", "trusted", "stranger"),
    [
        (("--forwarder-headers", "REMOTE_USER"), "me", None),
        (("--forwarder-headers", "*"), "me", None),
        (("--forwarder-headers", ""), None, None),
        (("--forwarder-headers", "SCRIPT_NAME, remote_user", "--header-map", "refuse"), "me", 400),
        (("--header-map", "refuse"), 400, 400),
        (("--header-map", "dangerous"), "me", "me"),
    ],
    ids=str,
)
def test_the_header_map_applies_to_other_fields_with_underscores(shared, options, trusted, stranger):
    server = shared("raw", *INLINE, *options)
    for source, expected in ((None, trusted), (STRANGER, stranger)):
        answer = answer_to(server, "Remote_User: me", source=source)
        status = expected if expected == 400 else 200
        assert answer.status == status
        if status == 200:
            assert json.loads(answer.text)["environ"].get("HTTP_REMOTE_USER") == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["REMOTE_USER: bob"], "bob"),
        (["Remote-User: admin"], None),
        (["REMOTE_USER: bob", "Remote-User: admin"], "bob"),
        (["Remote-User: admin", "REMOTE_USER: bob"], "bob"),
    ],
)
def test_the_key_of_a_forwarder_header_is_set_only_by_the_listed_spelling(shared, lines, expected):
    server = shared("raw", *INLINE, "--forwarder-headers", "SCRIPT_NAME,PATH_INFO,REMOTE_USER")
    assert seen(environ_of(server, *lines), "HTTP_REMOTE_USER") == (expected,)


@pytest.mark.parametrize("value", ["192.0.2.1, ", ", 192.0.2.1", "192.0.2.1, , 127.0.0.1"])
def test_empty_elements_of_x_forwarded_for_are_ignored(shared, value):
    server = shared("raw", *INLINE, "--forwarded-fields", "x-forwarded-for")
    assert seen(environ_of(server, f"X-Forwarded-For: {value}"), "REMOTE_ADDR") == ("192.0.2.1",)


def test_untrusted_fields_never_set_keys_of_the_server(shared):
    server = shared("raw", *INLINE, "--header-map", "dangerous")
    lines = (
        "SCRIPT_NAME: /environs",
        "Content_Length: 5",
        "REMOTE_ADDR: 6.6.6.6",
        "X-A: 1",
        "X_A: 2",
        "Proxy: evil",
    )
    environ = environ_of(server, *lines, source=STRANGER)
    assert seen(environ, "SCRIPT_NAME", "REMOTE_ADDR", "HTTP_X_A", "HTTP_PROXY") == (
        "",
        STRANGER,
        "1,2",
        None,
    )
    assert environ.get("CONTENT_LENGTH", "") == ""


def test_root_path_is_where_the_app_is_mounted(start):
    server = start("raw", *INLINE, "--root-path", "/shop/")
    assert seen(environ_of(server, target=SHOP), "SCRIPT_NAME", "PATH_INFO") == ("/shop", "/environs/show")
    assert answer_to(server, target="/environs/show").status == 500
    reported = environ_of(server, "SCRIPT_NAME: /other", target="/other/environs/show")
    assert seen(reported, "SCRIPT_NAME", "PATH_INFO") == ("/other", "/environs/show")
    server = start("raw", *INLINE, env={"SCRIPT_NAME": "/shop"})
    assert environ_of(server, target=SHOP)["SCRIPT_NAME"] == "/shop"


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("--forwarded-allow-ips", "localhost"), "localhost"),
        (("--forwarded-allow-ips", "10.0.0.1/8"), "10.0.0.1/8"),
        (("--proxy-allow-from", "1.2.3"), "1.2.3"),
        (("--secure-scheme-header", "X-Proto"), "X-FORWARDED-PROTO=https"),
        (("--header-map", "ignore"), "dangerous"),
        (("--proxy-protocol", "v3"), "auto"),
        (("--forwarded-fields", "x-real-ip"), "x-forwarded-for"),
    ],
)
def test_an_invalid_value_is_an_error_that_names_valid_ones(words, reported):
    result = subprocess.run(
        [MLWS, "raw", *words], check=False, capture_output=True, text=True, timeout=DEADLINE
    )
    assert result.returncode == 2
    assert reported in result.stderr


# The PROXY protocol


def line(source="192.0.2.1", port=4711, family="TCP4", destination="192.0.2.80"):
    return f"PROXY {family} {source} {destination} {port} 443\r\n".encode()


def block(source="192.0.2.1", port=4711, command=0x21, family=0x11, destination="192.0.2.80", extensions=b""):
    of = socket.AF_INET6 if ":" in source else socket.AF_INET
    addresses = socket.inet_pton(of, source) + socket.inet_pton(of, destination)
    body = addresses + struct.pack(">HH", port, 443) + extensions
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


def bare(command, family, body=b""):
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


@pytest.fixture(params=["v1", "v2"])
def header(request):
    """Functions that create the header of each version."""
    return line if request.param == "v1" else block


@pytest.fixture
def proxied(shared, concurrency):
    return shared("raw", *CONCURRENCY[concurrency], *LOGS_ALL, "--proxy-protocol")


def environs(server, data, count=1, step=None, **settings):
    with Wire((server.host, server.port), **settings) as wire:
        wire.send(data, step)
        answers = [wire.answer() for _ in range(count)]
    assert [answer.status for answer in answers] == [200] * count, answers[-1].text
    return [json.loads(answer.text)["environ"] for answer in answers]


def test_a_proxy_header_applies_to_all_requests_of_its_connection(proxied, header):
    reported = environs(proxied, header() + request() + request("X: y"), count=2)
    for environ in reported:
        assert seen(environ, "REMOTE_ADDR", "REMOTE_PORT", "PROXY_PROTOCOL", "PROXY_ADDR", "PROXY_PORT") == (
            "192.0.2.1",
            "4711",
            "TCP4",
            "192.0.2.80",
            "443",
        )
        assert seen(environ, "SERVER_PORT", "wsgi.url_scheme") == (str(proxied.port), "http")


def test_a_proxy_header_may_come_byte_by_byte(proxied, header):
    [environ] = environs(proxied, header() + request(), step=1)
    assert environ["REMOTE_ADDR"] == "192.0.2.1"


@pytest.mark.parametrize(
    ("data", "client"),
    [
        (line("2001:db8::1", family="TCP6", destination="::1"), ("2001:db8::1", "4711", "TCP6")),
        (line("::ffff:192.0.2.9", family="TCP6", destination="::1"), ("192.0.2.9", "4711", "TCP6")),
        (block("2001:db8::1", family=0x21, destination="::1"), ("2001:db8::1", "4711", "TCP6")),
        (block(extensions=b"\x04\0\x01x" + b"\x20\0\x05" + b"\0" * 5), ("192.0.2.1", "4711", "TCP4")),
        (block(extensions=b"\0" * 4068), ("192.0.2.1", "4711", "TCP4")),
        (line(port=0), ("192.0.2.1", "", "TCP4")),
    ],
)
def test_both_address_families_are_accepted_and_extensions_skipped(shared, data, client):
    [environ] = environs(shared("raw", *INLINE, "--proxy-protocol", "auto"), data + request())
    assert seen(environ, "REMOTE_ADDR", "REMOTE_PORT", "PROXY_PROTOCOL") == client


@pytest.mark.parametrize(
    ("data", "scheme"),
    [
        (bare(0x20, 0x00), "https"),
        (bare(0x20, 0x11, b"\x06" * 12), "https"),
        (b"PROXY UNKNOWN\r\n", "http"),
        (b"PROXY UNKNOWN ffff::1 6.6.6.6 1 2\r\n", "http"),
        (bare(0x21, 0x00), "http"),
        (bare(0x21, 0x31, b"/" * 216), "http"),
    ],
)
def test_a_header_without_an_address_keeps_the_address_of_the_peer(shared, data, scheme):
    server = shared("raw", *INLINE, *LOGS_ALL, "--proxy-protocol")
    [environ] = environs(server, data + request("X-Forwarded-Proto: https"))
    assert seen(environ, "REMOTE_ADDR", "PROXY_PROTOCOL", "wsgi.url_scheme") == ("127.0.0.1", None, scheme)
    assert environ["REMOTE_PORT"].isdigit()


def test_a_client_behind_a_tcp_proxy_is_not_trusted(shared, header):
    server = shared("raw", *INLINE, "--proxy-protocol", *FORWARDED)
    forged = request("X-Forwarded-Proto: https", "X-Forwarded-For: 6.6.6.6", "SCRIPT_NAME: /environs")
    [environ] = environs(server, header() + forged)
    keys = ("REMOTE_ADDR", "wsgi.url_scheme", "SCRIPT_NAME", "HTTP_X_FORWARDED_FOR")
    assert seen(environ, *keys) == ("192.0.2.1", "http", "", None)
    [environ] = environs(server, header("127.0.0.1") + request("X-Forwarded-For: 192.0.2.7"))
    assert environ["REMOTE_ADDR"] == "192.0.2.7"


def assert_rejected(server, data, status, source=None, step=None):
    """Checks that the data is rejected with a line in the log, and that no response follows."""
    before = len(server.log.text)
    with Wire((server.host, server.port), source=source) as wire:
        wire.send(data, step)
        assert wire.answer().status == status
        assert wire.closed()
    server.log.wait_for(r"rejected a connection from 127\.0\.0\.\d: .*PROXY", since=before)


MALFORMED = [
    request(),
    b"PROXY",
    b"PROXY \r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
    b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n",
    b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b" " + line(),
    b"\r\n" + line(),
    b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
    bare(0x11, 0x11, b"\0" * 12),
    bare(0x22, 0x11, b"\0" * 12),
    bare(0x21, 0x11, b"\0" * 11),
    bare(0x21, 0x21, b"\0" * 12),
    bare(0x21, 0x44, b"\0" * 12),
    block(extensions=b"\0" * 4069),
    SIGNATURE[:11] + b"\r" + block()[12:],
]


@pytest.mark.parametrize("data", MALFORMED, ids=[repr(data[:40]) for data in MALFORMED])
def test_a_malformed_header_closes_the_connection_and_is_logged(shared, data):
    server = shared("raw", *INLINE, *LOGS_ALL, "--proxy-protocol")
    assert_rejected(server, data + request(), 400)
    assert_rejected(server, data + request(), 400, step=1)


def test_only_the_configured_version_is_accepted(shared):
    for mode, good, bad in (("v1", line(), block()), ("v2", block(), line())):
        server = shared("raw", *INLINE, *LOGS_ALL, "--proxy-protocol", mode)
        assert environs(server, good + request())[0]["REMOTE_ADDR"] == "192.0.2.1"
        assert_rejected(server, bad + request(), 400)


def test_an_untrusted_peer_is_rejected_with_a_header_and_served_without(proxied, header):
    assert_rejected(proxied, header() + request(), 403, source=STRANGER)
    assert_rejected(proxied, header() + request(), 403, source=STRANGER, step=1)
    assert_rejected(proxied, b"PROXY rubbish\r\n" + request(), 403, source=STRANGER)
    [environ] = environs(proxied, b"\r\n" + request("X-Forwarded-Proto: https"), source=STRANGER)
    assert seen(environ, "REMOTE_ADDR", "wsgi.url_scheme") == (STRANGER, "http")


def test_peers_that_may_send_a_header_are_a_list_of_networks(shared, header):
    server = shared(
        "raw", *INLINE, *LOGS_ALL, "--proxy-protocol", "--proxy-allow-from", "10.0.0.0/8,127.0.0.2/31"
    )
    assert environs(server, header() + request(), source=STRANGER)[0]["REMOTE_ADDR"] == "192.0.2.1"
    assert_rejected(server, header() + request(), 403)
    server = shared("raw", *INLINE, "--proxy-protocol", "--proxy-allow-from", "*")
    assert environs(server, header() + request(), source=STRANGER)[0]["REMOTE_ADDR"] == "192.0.2.1"


@pytest.mark.parametrize("second", [line("6.6.6.6"), block("6.6.6.6")], ids=["v1", "v2"])
def test_a_second_header_is_a_bad_request(proxied, header, second):
    for before in (header(), header() + request()):
        with Wire((proxied.host, proxied.port)) as wire:
            wire.send(before + second + request())
            statuses = [wire.answer().status for _ in range(1 + before.count(b"GET"))]
            assert statuses[-1] == 400
            assert wire.closed()


def test_a_header_inside_a_body_is_data(proxied, header):
    inside = line("6.6.6.6") + block("6.6.6.6")
    post = b"POST /environs/show HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(inside)
    reported = environs(proxied, header() + post + inside + request(), count=2)
    assert [environ["REMOTE_ADDR"] for environ in reported] == ["192.0.2.1"] * 2


def test_without_the_option_a_header_is_a_bad_request(server, header):
    with server.wire() as wire:
        wire.send(header() + request())
        assert wire.answer().status == 400
        assert wire.closed()


def test_a_header_that_does_not_arrive_in_time_closes_the_connection(start):
    server = start("raw", *INLINE, "--proxy-protocol", "--head-timeout", "0.3")
    for begun, status in ((b"", None), (b"PROX", 408), (block()[:20], 408), (line(), None)):
        with server.wire() as wire:
            wire.send(begun)
            assert status is None or wire.answer().status == status
            assert wire.closed()


def test_a_health_check_without_data_is_not_logged(start):
    server = start("raw", *INLINE, "--proxy-protocol", "--access-logfile", "-")
    for data in (b"", bare(0x20, 0), b"PROXY UNKNOWN\r\n"):
        with server.wire() as wire:
            wire.send(data)
            wire.finish()
            assert wire.closed()
    assert environs(server, line() + request())
    server.out.wait_for("192.0.2.1 - - ")
    assert server.out.text.count("\n") == 1
    assert "rejected" not in server.log.text


@pytest.mark.parametrize("options", [("--umask", "007"), ("--proxy-allow-from", "unix:")], ids=str)
def test_a_header_over_a_unix_socket_sets_the_client(start, tmp_path, header, options):
    path = str(tmp_path / "socket")
    start("raw", *INLINE, "--bind", f"unix:{path}", "--proxy-protocol", *options)
    with Wire(path, family=socket.AF_UNIX) as wire:
        wire.send(header() + request("X-Forwarded-Proto: https"))
        environ = json.loads(wire.answer().text)["environ"]
    assert seen(environ, "REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme") == ("192.0.2.1", "4711", "http")


def test_a_header_over_a_world_writable_unix_socket_is_rejected(start, tmp_path, header):
    path = str(tmp_path / "socket")
    server = start("raw", *INLINE, "--bind", f"unix:{path}", "--proxy-protocol")
    with Wire(path, family=socket.AF_UNIX) as wire:
        wire.send(header() + request())
        assert wire.answer().status == 403
    with Wire(path, family=socket.AF_UNIX) as wire:
        assert wire.request("/environs/show").status == 200
    assert "so PROXY headers are rejected; if only the proxy can reach it, add unix:" in server.log.text


def test_fork_warmup_needs_no_proxy_header(start):
    server = start("raw", "--fork", "--fork-warmup", "/environs/show", "--proxy-protocol")
    server.log.wait_for("Warm-up finished: /environs/show, status 200")


# Forwarded fields


@pytest.fixture
def forwarded(shared, concurrency):
    return shared("raw", *CONCURRENCY[concurrency], *FORWARDED)


def test_forwarded_fields_of_a_trusted_proxy_become_what_the_app_sees(forwarded):
    environ = environ_of(
        forwarded,
        "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 127.0.0.1",
        "X-Forwarded-Proto: HTTPS",
        "X-Forwarded-Host: shop.example",
        "X-Forwarded-Port: 8443",
        "X-Forwarded-Prefix: /shop/",
    )
    keys = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT")
    expected = ("192.0.2.1", "", "https", "shop.example:8443", "shop.example", "8443")
    assert seen(environ, *keys) == expected
    assert seen(environ, "SCRIPT_NAME", "PATH_INFO") == ("/shop", "/environs/show")
    environ = environ_of(forwarded, "X-Forwarded-Prefix: /a", "SCRIPT_NAME: /shop", target=SHOP)
    assert seen(environ, "SCRIPT_NAME", "PATH_INFO") == ("/a/shop", "/environs/show")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("X-Forwarded-Host: a.example:81",), {"HTTP_HOST": "a.example:81", "SERVER_NAME": "a.example", "SERVER_PORT": "81"}),
        (("X-Forwarded-Host: [::1]:81",), {"HTTP_HOST": "[::1]:81", "SERVER_NAME": "[::1]", "SERVER_PORT": "81"}),
        (("X-Forwarded-Host: a.example", "X-Forwarded-Proto: https"), {"HTTP_HOST": "a.example", "SERVER_PORT": "443"}),
        (("X-Forwarded-Host: a:1", "X-Forwarded-Port: 80"), {"HTTP_HOST": "a", "SERVER_PORT": "80"}),
        (("X-Forwarded-Port: 81",), {"HTTP_HOST": "test:81", "SERVER_PORT": "81"}),
        (("X-Forwarded-Host: evil, a.example",), {"HTTP_HOST": "a.example", "SERVER_PORT": "80"}),
        (("X-Forwarded-Host: evil", "X-Forwarded-Host: a.example"), {"HTTP_HOST": "a.example"}),
        (("X-Forwarded-For: 192.0.2.1:80",), {"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "80"}),
        (("X-Forwarded-For: 2001:db8::1",), {"REMOTE_ADDR": "2001:db8::1", "REMOTE_PORT": ""}),
        (("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.1"), {"REMOTE_ADDR": "192.0.2.1"}),
        (("X-Forwarded-For: ::1, 127.0.0.1",), {"REMOTE_ADDR": "::1"}),
        (("X-Forwarded-For: rubbish'\"; , 192.0.2.1",), {"REMOTE_ADDR": "192.0.2.1"}),
        (("X-Forwarded-For: 6.6.6.6, unknown",), {"REMOTE_ADDR": "", "REMOTE_PORT": ""}),
        (("Forwarded: for=6.6.6.6;proto=https;host=evil, for=192.0.2.1",), {"REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "http", "HTTP_HOST": "test"}),
        (('forwarded: For="[2001:db8::1]:81";Proto=https;Host="a:82", for=127.0.0.1;proto=http',), {"REMOTE_ADDR": "2001:db8::1", "REMOTE_PORT": "81", "wsgi.url_scheme": "https", "HTTP_HOST": "a:82"}),
        (("Forwarded: for=_hidden;proto=https",), {"REMOTE_ADDR": "", "wsgi.url_scheme": "https"}),
        (("Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1"), {"REMOTE_ADDR": "192.0.2.1"}),
        ((), {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "test", "SCRIPT_NAME": ""}),
    ],
    ids=lambda value: " | ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_only_the_rightmost_untrusted_element_of_each_field_is_used(shared, lines, expected):
    environ = environ_of(shared("raw", *INLINE, *FORWARDED), *lines)
    assert {key: environ.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    "lines",
    [
        ("X-Forwarded-For: localhost",),
        ("X-Forwarded-For: 192.0.2.1, rubbish",),
        ("X-Forwarded-For: 192.0.2.256",),
        ("X-Forwarded-Proto: ftp",),
        ("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"),
        ("X-Forwarded-Host: a/b",),
        ("X-Forwarded-Host: user@a",),
        ("X-Forwarded-Host: a b",),
        ("X-Forwarded-Port: 65536",),
        ("X-Forwarded-Port: https",),
        ("X-Forwarded-Prefix: //evil.example",),
        ("X-Forwarded-Prefix: shop",),
        ("X-Forwarded-Prefix: /\xe9",),
        ("Forwarded: 192.0.2.1",),
        ("Forwarded: for=192.0.2.1:80",),
        ("Forwarded: for=192.0.2.1;for=6.6.6.6",),
        ('Forwarded: for="192.0.2.1',),
        ('Forwarded: for="6.6.6.6, for=192.0.2.1',),
        ("Forwarded: for=6.6.6.6", "X-Forwarded-For: 192.0.2.1"),
        ("Forwarded: proto=https", "X-Forwarded-Proto: http"),
    ],
)
def test_malformed_values_are_rejected_from_proxies_and_removed_from_others(shared, lines):
    server = shared("raw", *INLINE, *FORWARDED)
    assert answer_to(server, *lines).status == 400
    environ = environ_of(server, *lines, source=STRANGER)
    assert environ["REMOTE_ADDR"] == STRANGER
    assert not {key for key in environ if "FORWARDED" in key} - {"HTTP_X_FORWARDED_SSL"}


FORGED = (
    "X-Forwarded-For: 6.6.6.6",
    "x-forwarded-FOR: 127.0.0.1",
    "X_Forwarded_For: 6.6.6.6",
    "X-Forwarded_For: 6.6.6.6",
    "X-Forwarded-Proto: https",
    "X_FORWARDED_PROTO: https",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 666",
    "X-Forwarded-Prefix: /evil",
    "Forwarded: for=6.6.6.6;proto=https;host=evil.example",
)


@pytest.mark.parametrize(
    "options", [(), ("--forwarder-headers", "*"), ("--header-map", "dangerous")], ids=str
)
def test_untrusted_clients_cannot_forge_anything(shared, options):
    environ = environ_of(shared("raw", *INLINE, *FORWARDED, *options), *FORGED, source=STRANGER)
    keys = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME")
    assert seen(environ, *keys) == (STRANGER, "http", "test", "")
    assert not [key for key in environ if "FORWARDED" in key]
    assert "6.6.6.6" not in str(environ)
    assert "evil" not in str(environ)


@pytest.mark.parametrize(
    "options", [(), ("--forwarder-headers", "*"), ("--header-map", "dangerous")], ids=str
)
def test_only_the_listed_fields_of_a_trusted_proxy_are_passed_on(shared, options):
    server = shared("raw", *INLINE, "--forwarded-fields", "X-Forwarded-For", *options)
    environ = environ_of(server, *FORGED, "X-Forwarded-For: 192.0.2.1")
    keys = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME")
    assert seen(environ, *keys) == ("192.0.2.1", "http", "test", "")
    assert {key for key in environ if "FORWARDED" in key} == {"HTTP_X_FORWARDED_FOR"}
    assert environ["HTTP_X_FORWARDED_FOR"] == "6.6.6.6,127.0.0.1,192.0.2.1"


def test_if_everyone_is_trusted_the_client_is_the_last_address(shared):
    server = shared("raw", *INLINE, *FORWARDED, "--forwarded-allow-ips", "*,10.0.0.0/8")
    environ = environ_of(server, "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.1", source=STRANGER)
    assert environ["REMOTE_ADDR"] == "192.0.2.1"


def test_forwarded_values_do_not_affect_the_next_request(forwarded):
    with forwarded.wire() as wire:
        port = wire.socket.getsockname()[1]
        lines = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /a\r\n"
        reported = wire.request("/environs/show", headers=lines)
        silent = wire.request("/environs/show")
    keys = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "SCRIPT_NAME")
    reported, silent = (json.loads(answer.text)["environ"] for answer in (reported, silent))
    assert seen(reported, *keys) == ("192.0.2.1", "", "https", "/a")
    assert seen(silent, *keys) == ("127.0.0.1", str(port), "http", "")


def test_the_access_log_shows_the_client_named_by_the_proxy(start, concurrency):
    server = start("raw", *CONCURRENCY[concurrency], *FORWARDED, "--access-logfile", "-")
    for lines, shown in (
        (("X-Forwarded-For: 192.0.2.1",), "192.0.2.1"),
        (("Forwarded: for=unknown",), "-"),
        ((), "127.0.0.1"),
    ):
        before = len(server.out.text)
        assert answer_to(server, *lines).status == 200
        server.out.wait_for(rf'(?m)^{re.escape(shown)} - - \[.*"GET /environs/show', since=before)  # fmt: skip


# Real proxies, with the configurations in docs/proxies.md


def program(name):
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def needs(name, package):
    reason = f"{name} is missing; Debian: sudo apt install {package}, or bin/test.sh as root"
    return pytest.mark.skipif(program(name) is None, reason=reason)


STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"
needs_nginx = needs("nginx", "nginx-light")
needs_haproxy = needs("haproxy", "haproxy")
needs_stream = pytest.mark.skipif(
    not os.path.exists(STREAM),
    reason="nginx has no stream module; Debian: sudo apt install libnginx-mod-stream",
)


def configuration(name, port, backend):
    """A configuration of docs/proxies.md with the addresses of the test."""
    [text] = re.findall(rf"(?s)<!-- {name} -->\n```\w+\n(.+?)```", DOC)
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace(
        "bind :80", f"bind 127.0.0.1:{port}"
    )
    of = {"http://unix:/run/shop.sock": "http://", " unix:/run/shop.sock": " ", "unix@/run/shop.sock": ""}
    if backend.startswith("unix:"):
        return text.replace("/run/shop.sock", backend.removeprefix("unix:"))
    for written, before in of.items():
        text = text.replace(written, before + backend)
    return text


@pytest.fixture
def behind(tmp_path):
    """Starts a proxy of docs/proxies.md in front of a backend, and returns its port. It is stopped after the test."""
    started = []

    def behind(name, backend, change=lambda text: text):
        port = free_port()
        kind, _, way = name.partition(" ")
        text = change(configuration(name, port, backend))
        path = tmp_path / f"{kind}.conf"
        if kind == "nginx":
            load = f"load_module {STREAM};\n" if way == "stream" else ""
            user = "user root;\n" if os.getuid() == 0 else ""
            kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi") if way == "http" else ()
            paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
            log = "access_log off;\n" if way == "http" else ""
            path.write_text(
                f"{load}{user}pid {tmp_path}/pid;\nevents {{ }}\n{way} {{\n{paths}{log}{text}}}\n"
            )
            words = ("-e", "stderr", "-p", tmp_path, "-c", path, "-g", "daemon off;")
        else:
            waits = "".join(f"    timeout {what} 30s\n" for what in ("connect", "client", "server"))
            path.write_text(f"defaults\n{waits}{text}")
            words = ("-db", "-f", path)
        proxy = Command(program(kind), *words, cwd=tmp_path)
        started.append(proxy)

        def listens():
            assert proxy.running(), proxy.log.text
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually(listens, f"{kind} to listen")
        return port

    yield behind
    try:
        for proxy in started:
            proxy.stop(statuses=(0, 143, -15))
    finally:
        for proxy in started:
            proxy.end()


@pytest.fixture(params=["tcp", "unix"])
def backend(request, start, tmp_path):
    """Starts a server on a socket of each kind that trusts its peers, and returns its address in the syntax of the proxy."""

    def backend(*options):
        if request.param == "unix":
            path = tmp_path / "shop.sock"
            return start("raw", *options, "--bind", f"unix:{path}", "--umask", "007"), f"unix:{path}"
        server = start("raw", *options)
        return server, f"127.0.0.1:{server.port}"

    return backend


def through(port, *lines, target="/environs/show"):
    """The environ of a request that an untrusted client sends through a proxy, and the client's port."""
    with Wire(("127.0.0.1", port), source=STRANGER) as wire:
        wire.send(request(*lines, target=target, host="shop.example:81"))
        answer = wire.answer()
        assert answer.status == 200, answer.text
        return json.loads(answer.text)["environ"], str(wire.socket.getsockname()[1])


DOC_FIELDS = ("--forwarded-fields", "x-forwarded-for,x-forwarded-proto,x-forwarded-host")


@pytest.mark.parametrize(
    "name", [pytest.param("nginx http", marks=needs_nginx), pytest.param("haproxy http", marks=needs_haproxy)]
)
def test_an_http_proxy_sets_the_client_and_prevents_forgery(behind, backend, name):
    assert f"mlws shop.wsgi --bind unix:/run/shop.sock --umask 007 {' '.join(DOC_FIELDS)}\n" in DOC
    _, address = backend(*DOC_FIELDS)
    port = behind(name, address)
    # nginx sends the host by which it selected the server, without a port.
    host = (
        ("shop.example", "shop.example", "80")
        if "nginx" in name
        else ("shop.example:81", "shop.example", "81")
    )
    for lines in ((), FORGED, ("SCRIPT_NAME: /environs", "X-Forwarded-Ssl: on", "X-Forwarded-Protocol: ssl")):
        environ, _ = through(port, *lines)
        keys = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME")
        assert seen(environ, *keys) == (STRANGER, "http", *host, "")


@needs_haproxy
def test_haproxy_may_use_http2(behind, backend):
    _, address = backend(*DOC_FIELDS, "--http2-cleartext", "prior-knowledge")
    port = behind("haproxy http", address, lambda text: text.rstrip() + " proto h2\n")
    environ, _ = through(port)
    keys = ("SERVER_PROTOCOL", "REMOTE_ADDR", "HTTP_HOST", "wsgi.url_scheme")
    assert seen(environ, *keys) == ("HTTP/2.0", STRANGER, "shop.example:81", "http")


@needs_nginx
@pytest.mark.parametrize("path", ["/environs/show", "/shop/environs/show"])
def test_the_host_of_an_absolute_target_is_the_one_that_nginx_matched(behind, backend, path):
    _, address = backend(*DOC_FIELDS)
    environ, _ = through(behind("nginx http", address), target=f"http://public.example{path}")
    assert seen(environ, "HTTP_HOST", "SERVER_NAME", "PATH_INFO") == (
        "public.example",
        "public.example",
        "/environs/show",
    )


@needs_nginx
def test_nginx_mounts_an_app_below_its_root(behind, backend):
    _, address = backend(*DOC_FIELDS)
    environ, _ = through(
        behind("nginx http", address), "SCRIPT_NAME: /evil", *FORGED, target="/shop/environs/show?a=b"
    )
    assert seen(environ, "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING") == ("/shop", "/environs/show", "a=b")
    assert environ["REMOTE_ADDR"] == STRANGER


def changed(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("name", "mode", "change"),
    [
        pytest.param("nginx stream", "v1", str, marks=[needs_nginx, needs_stream], id="nginx"),
        pytest.param("haproxy tcp", "v2", str, marks=needs_haproxy, id="haproxy v2"),
        pytest.param(
            "haproxy tcp", "v1", changed("send-proxy-v2", "send-proxy"), marks=needs_haproxy, id="haproxy v1"
        ),
        pytest.param(
            "haproxy tcp",
            "auto",
            changed("send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"),
            marks=needs_haproxy,
            id="haproxy v2 with extensions",
        ),
    ],
)
def test_a_tcp_proxy_sends_its_client_in_a_proxy_header(behind, backend, name, mode, change):
    server, address = backend("--proxy-protocol", mode, *FORWARDED)
    port = behind(name, address, change)
    for lines in ((), FORGED):
        environ, client_port = through(port, *lines)
        keys = ("REMOTE_ADDR", "REMOTE_PORT", "PROXY_ADDR", "PROXY_PORT", "wsgi.url_scheme", "HTTP_HOST")
        expected = (STRANGER, client_port, "127.0.0.1", str(port), "http", "shop.example:81")
        assert seen(environ, *keys) == expected
        assert not [key for key in environ if "FORWARDED" in key]
    assert "rejected" not in server.log.text


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nginx stream", marks=[needs_nginx, needs_stream]),
        pytest.param("haproxy tcp", marks=needs_haproxy),
    ],
)
def test_a_client_cannot_append_its_own_proxy_header(behind, backend, name):
    _, address = backend("--proxy-protocol")
    port = behind(name, address)
    for forged in (line("6.6.6.6"), block("6.6.6.6")):
        with Wire(("127.0.0.1", port), source=STRANGER) as wire:
            wire.send(forged + request())
            assert wire.answer().status == 400
            assert wire.closed()


# The documentation


def test_the_page_documents_the_options_and_their_defaults():
    help_text = subprocess.run([MLWS, "--help"], check=True, capture_output=True, text=True).stdout
    section = " ".join(re.search(r"(?s)\nProxies:\n(.+?)\n\n\w", help_text).group(1).split())
    rows = re.findall(r"(?m)^\| `(--[a-z-]+)` \| (`.+?`|none) \| .+ \|$", DOC)
    assert {option for option, _ in rows} | {"--forwarded-fields"} == set(
        re.findall(r"(--[a-z-]+) [<[]", section)
    )
    for option, default in rows:
        reported = re.search(rf"{option} .+?(?=--[a-z-]+ [<[]|$)", section).group()
        reported = re.search(r"\[default: (.+?)\]", reported)
        assert (reported.group(1) if reported else "none") == default.replace("`, `", " ").strip("`")
    assert ",".join(re.findall(r"(?m)^\| `((?:x-)?forwarded[a-z-]*)` \|", DOC)) == ALL
