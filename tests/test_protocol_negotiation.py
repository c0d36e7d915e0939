"""Which protocol HTTPS clients get (ALPN), with each certificate, after a renewal and after a reload (docs/http2.md)."""

from __future__ import annotations

import socket
import ssl

import pytest
from harness import eventually
from test_https import certificate_of, install, reload
from wire import DEADLINE

BOTH = ("http/1.1", "h2")


@pytest.fixture(scope="module")
def options(authority):
    issued = authority.issue("localhost", "127.0.0.1")
    return ("--certfile", str(issued.certificate), "--keyfile", str(issued.key))


def trusting(authority, *offers, version=None):
    context = ssl.create_default_context(cafile=authority.certificate)
    if offers:
        context.set_alpn_protocols(list(offers))
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def negotiated(server, context, name="localhost"):
    """The protocol that the server has chosen."""
    with (
        socket.create_connection((server.host, server.port), DEADLINE) as raw,
        context.wrap_socket(raw, server_hostname=name) as client,
    ):
        return client.selected_alpn_protocol()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_http2_is_preferred_and_http1_is_for_the_others(shared, authority, options, version):
    server = shared("raw", *options)
    for offers, protocol in (
        (BOTH, "h2"),
        (("http/1.1",), "http/1.1"),
        (("http/1.0",), "http/1.0"),
        ((), None),
    ):
        assert negotiated(server, trusting(authority, *offers, version=version)) == protocol, offers


def test_a_client_without_a_common_protocol_gets_an_alert(shared, authority, options):
    server = shared("raw", *options)
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        negotiated(server, trusting(authority, "h3"))


@pytest.mark.parametrize(
    ("protocols", "expected"), [("h1", "http/1.1"), ("h1,h2", "http/1.1"), ("h2", "h2"), ("h2,h1", "h2")]
)
def test_the_setting_orders_the_protocols(start, authority, options, protocols, expected):
    server = start("raw", "--http-protocols", protocols, *options)
    assert negotiated(server, trusting(authority, *BOTH)) == expected
    # A client without HTTP/2 is always served.
    assert negotiated(server, trusting(authority, "http/1.1")) == "http/1.1"


def test_every_certificate_offers_the_same_protocols(start, authority, options):
    other = authority.issue("shop.test", file="shop")
    server = start("raw", "--extra-certfile", f"{other.certificate}:{other.key}", *options)
    context = trusting(authority, *BOTH)
    assert certificate_of(server, context, "shop.test") != certificate_of(server, context)
    assert [negotiated(server, context, name) for name in ("localhost", "shop.test")] == ["h2", "h2"]


def test_a_renewed_certificate_changes_no_protocol_and_a_reload_does(start, authority, tmp_path):
    files = tmp_path / "server.pem", tmp_path / "server.key"
    install(authority.issue("localhost", file="current"), files)
    (tmp_path / "mlws.toml").write_text("http_protocols = 'h2'")
    server = start("raw", "--config", tmp_path / "mlws.toml", "--certfile", files[0], "--keyfile", files[1])
    context = trusting(authority, *BOTH)
    old = certificate_of(server, context)
    install(authority.issue("localhost", file="renewed"), files)
    server.log.wait_for("Certificates renewed")
    eventually(lambda: certificate_of(server, context) != old, "the new certificate")
    assert negotiated(server, context) == "h2"
    (tmp_path / "mlws.toml").write_text("http_protocols = ['h1']")
    reload(server)
    eventually(lambda: negotiated(server, context) == "http/1.1", "the new setting")


@pytest.mark.parametrize(
    ("line", "expected"), [("pass", "h2"), ("context.set_alpn_protocols(['http/1.1'])", "http/1.1")]
)
def test_the_hook_ssl_context_may_choose_the_protocols(start, authority, options, tmp_path, line, expected):
    lines = (
        "def ssl_context(conf, default_ssl_context_factory):",
        "    context = default_ssl_context_factory()",
        f"    {line}",
        "    return context",
    )
    (tmp_path / "gunicorn.conf.py").write_text("\n".join(lines))
    server = start("raw", "--config", tmp_path / "gunicorn.conf.py", *options)
    assert negotiated(server, trusting(authority, *BOTH)) == expected
