"""HTTP/2: real clients: curl, httpx, nghttp, h2load and a browser (docs/http2.md)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess

import httpx
import pytest
from clients import together
from conftest import CONCURRENCY
from harness import Lines, eventually
from http2_client import CLEARTEXT, HELLO, trusting
from wire import DEADLINE


def needs(name, package):
    """Skips a test whose program is missing, but not in continuous integration: bin/test.sh installs the packages."""
    if shutil.which(name) is None:
        reason = f"{name} is missing; Debian: sudo apt install {package}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture
def plain(shared, concurrency):
    return shared("raw", *CONCURRENCY[concurrency], *CLEARTEXT)


@pytest.fixture
def secure(shared, concurrency, certificate):
    return shared("raw", *CONCURRENCY[concurrency], *certificate)


@pytest.fixture(params=["cleartext", "tls"])
def server(request, shared, concurrency, certificate):
    return shared(
        "raw", *CONCURRENCY[concurrency], *(CLEARTEXT if request.param == "cleartext" else certificate)
    )


def url(server, path=""):
    scheme = server.urls[0].partition(":")[0]
    return f"{scheme}://localhost:{server.port}{path}"


def run(*words, status=0):
    """What a program prints."""
    words = [str(word) for word in words]
    done = subprocess.run(words, check=False, capture_output=True, timeout=2 * DEADLINE)
    assert done.returncode == status, (words, done.returncode, done.stderr.decode()[-2000:])
    return done.stdout


# curl


def curl(server, authority, *words, **how):
    needs("curl", "curl")
    protocol = (
        ("--http2", "--cacert", authority.certificate)
        if "https" in url(server)
        else ("--http2-prior-knowledge",)
    )
    return run("curl", "--silent", "--show-error", "--ipv4", *protocol, *words, **how)


def test_curl(server, authority):
    output = curl(
        server, authority, "--write-out", " %{http_version}", url(server, "/environs/show?x=1")
    ).decode()
    environ, _, version = output.rpartition(" ")
    assert (json.loads(environ)["environ"]["SERVER_PROTOCOL"], version) == ("HTTP/2.0", "2")


def test_curl_keeps_its_connection(secure, authority):
    """Over TLS only: curl 7.88 fails to reuse connections without it, with any server."""
    words = ("--write-out", "%{http_version} %{num_connects}\n")
    output = curl(secure, authority, *words, url(secure, HELLO), url(secure, HELLO))
    assert output == b"hello\n2 1\nhello\n2 0\n"


def test_curl_uploads_and_downloads(server, authority, tmp_path):
    body = bytes(range(256)) * 20_000
    (tmp_path / "body").write_bytes(body)
    for how in (("--data-binary", f"@{tmp_path}/body"), ("--upload-file", tmp_path / "body")):
        told = json.loads(curl(server, authority, *how, url(server, "/inputs/size")))
        assert told == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert len(curl(server, authority, url(server, "/large/generator?lines=500000"))) == 4_000_000


def test_curl_waits_for_100_continue(server, authority):
    told = curl(
        server, authority, "-H", "Expect: 100-continue", "--data", "x" * 5, "-i", url(server, "/inputs/echo")
    )
    assert re.match(rb"HTTP/2 100 \r\n\r\nHTTP/2 200 ", told), told


def test_curl_sends_parallel_requests(secure, authority):
    targets = [url(secure, f"/answers/many?pieces=10&size={size}") for size in range(1, 31)]
    told = curl(secure, authority, "--parallel", "--parallel-max", "30", *targets)
    assert len(told) == 10 * sum(range(1, 31))


def test_curl_offers_an_upgrade_that_is_ignored(plain):
    needs("curl", "curl")
    told = run("curl", "--silent", "--http2", "--write-out", " %{http_version}", url(plain, HELLO))
    assert told == b"hello\n 1.1"


# httpx


def httpx_client(server, authority):
    if "https" in url(server):
        return httpx.Client(http2=True, verify=trusting(authority, "h2", "http/1.1"), timeout=DEADLINE)
    return httpx.Client(http1=False, http2=True, timeout=DEADLINE)


def test_httpx(server, authority):
    with httpx_client(server, authority) as client:
        answer = client.get(url(server, "/environs/show"), cookies={"a": "1", "b": "2"})
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        environ = answer.json()["environ"]
        assert (environ["SERVER_PROTOCOL"], environ["HTTP_COOKIE"]) == ("HTTP/2.0", "a=1; b=2")
        body = b"0123456789" * 200_000
        assert client.post(url(server, "/inputs/size"), content=body).json()["size"] == len(body)
        generated = client.post(url(server, "/inputs/size"), content=(b"x" * 1000 for _ in range(1000)))
        assert generated.json()["size"] == 1_000_000
        assert client.head(url(server, HELLO)).content == b""
        with client.stream("GET", url(server, "/large/generator?lines=200000")) as stream:
            assert next(stream.iter_bytes(16)) == b"0000000\n0000001\n"
        assert client.get(url(server, HELLO)).text == "hello\n"


def test_httpx_on_many_threads(plain, authority):
    """Not over TLS: Python's ssl module before 3.13 fails if one thread reads while another writes, with any server."""
    with httpx_client(plain, authority) as client:

        def work():
            for _ in range(20):
                assert client.get(url(plain, HELLO)).text == "hello\n"
                assert len(client.get(url(plain, "/large/pieces?lines=20000")).content) == 160_000

        together(*[work] * 8)


# nghttp and h2load


def test_nghttp(server):
    needs("nghttp", "nghttp2-client")
    told = run("nghttp", "--verbose", "--null-out", "--multiply=20", url(server, HELLO)).decode()
    assert len(re.findall(r":status: 200", told)) == 20
    told = run("nghttp", url(server, "/large/whole?lines=200000"))
    assert len(told) == 1_600_000


def test_nghttp_sends_trailers_and_continuations(server, tmp_path):
    needs("nghttp", "nghttp2-client")
    (tmp_path / "body").write_bytes(b"b" * 300_000)
    words = ("--trailer", "x-trailer: 1", "--data", tmp_path / "body", "--continuation")
    assert json.loads(run("nghttp", *words, url(server, "/inputs/size")))["size"] == 300_000


@pytest.mark.parametrize("window", ["16", "12"])
def test_h2load(server, window, at_length):
    needs("h2load", "nghttp2-client")
    count = at_length(500, 200_000)
    words = ("--requests", count, "--clients", 8, "--max-concurrent-streams", 32, "--window-bits", window)
    told = run("h2load", *words, url(server, HELLO), url(server, "/answers/big?size=20000")).decode()
    assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in told
    assert f"status codes: {count} 2xx" in told


def test_h2load_on_connections_that_overshoot_the_limit(shared):
    needs("h2load", "nghttp2-client")
    server = shared("raw", "--threads", "2", *CLEARTEXT, "--http2-max-concurrent-streams", "10")
    told = run("h2load", "-n", 500, "-c", 4, "-m", 100, url(server, HELLO)).decode()
    assert "status codes: " in told
    assert run("curl", "--silent", "--http2-prior-knowledge", url(server, HELLO)) == b"hello\n"


# A browser.


def test_a_browser(start, concurrency, authority, certificate, tmp_path):
    """Chromium trusts the authority of the test, which is in the database of its empty home directory."""
    needs("chromium", "chromium")
    needs("certutil", "libnss3-tools")
    report = tmp_path / "report"
    database = tmp_path / ".pki/nssdb"
    database.mkdir(parents=True)
    run("certutil", "-d", f"sql:{database}", "-N", "--empty-password")
    run("certutil", "-d", f"sql:{database}", "-A", "-t", "C,,", "-n", "test", "-i", authority.certificate)
    server = start("browsed", *CONCURRENCY[concurrency], *certificate, env={"REPORT": str(report)})
    output = visit(url(server, "/"), tmp_path, report)
    assert report.exists(), output
    assert json.loads(report.read_text()) == {
        "protocol": "HTTP/2.0",
        "echoed": True,
        "successful": 100,
        "large": 1_600_000,
        "protocols": ["h2"],
    }


def visit(target, home, report):
    """Opens a page until its report has arrived, and returns what the browser wrote."""
    words = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]
    words += [
        "--disable-background-networking",
        "--remote-debugging-port=0",
        f"--user-data-dir={home}/profile",
        target,
    ]
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    browser = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output = Lines(browser.stdout)
    try:
        eventually(lambda: report.exists() or browser.poll() is not None, "the report", 2 * DEADLINE)
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
    return output.wait_for_end()[-3000:]
