"""Flask, Pyramid and Django, each served inline, on threads and forked."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
from conftest import CONCURRENCY
from harness import APPS

SHOPS = {
    "flask": ("flask_shop:app", "Flask", "flask_shop.py"),
    "pyramid": ("pyramid_shop:app", "Pyramid", "pyramid_shop.py"),
    "django": ("django_shop.wsgi", "Django", "django_shop/views.py"),
}


@pytest.fixture(params=SHOPS, scope="module")
def framework(request):
    return request.param


@pytest.fixture
def shop(shared, framework, concurrency):
    return shared(SHOPS[framework][0], *CONCURRENCY[concurrency])


@pytest.fixture(scope="module")
def large_file(tmp_path_factory):
    """50 MB without repetition."""
    path = tmp_path_factory.mktemp("upload") / "large.bin"
    path.write_bytes(random.Random(50).randbytes(50_000_000))
    return path


def test_serves_a_page(shop, framework):
    answer = shop.get("/hello")
    assert (answer.status, answer.text) == (200, f"Hello from {SHOPS[framework][1]}!\n")
    assert answer.header("content-type").startswith("text/plain")


def test_passes_the_query(shop):
    answer = shop.get("/query?name=caf%C3%A9&tag=a+b&tag=%26")
    assert json.loads(answer.text) == {"name": ["café"], "tag": ["a b", "&"]}


def test_passes_the_decoded_path(shop):
    assert json.loads(shop.get("/path/caf%C3%A9/100%2525/%20end").text) == "café/100%25/ end"


def test_accepts_a_form(shop):
    body = "name=caf%C3%A9&tag=a+b&tag=%26"
    answer = shop.get("/form", "POST", body, {"Content-Type": "application/x-www-form-urlencoded"})
    assert json.loads(answer.text) == {"name": ["café"], "tag": ["a b", "&"]}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_accepts_a_body_with_any_method(shop, method):
    answer = shop.get("/echo", method, b"\0\1\2\xff" * 1000, {"Content-Type": "application/octet-stream"})
    assert (answer.header("x-method"), answer.body) == (method, b"\0\1\2\xff" * 1000)


def test_accepts_a_chunked_form(shop):
    pieces = [b"first=1", b"&sec", b"ond=2"]
    answer = shop.get("/form", "POST", iter(pieces), {"Content-Type": "application/x-www-form-urlencoded"})
    assert json.loads(answer.text) == {"first": ["1"], "second": ["2"]}


def test_sets_and_receives_cookies(shop, tmp_path):
    jar = tmp_path / "jar"
    shop.curl("--cookie-jar", jar, "URL/cookies/set")
    shown = json.loads(shop.curl("--cookie", jar, "URL/cookies/show"))
    assert shown == {"flavour": "chocolate chip", "size": "large"}


def test_accepts_an_upload_of_50_megabytes(shop, large_file):
    """curl waits for `100 Continue` before it sends a large body."""
    file = f"file=@{large_file};filename=large.bin"
    result = json.loads(shop.curl("--form", "note=fragile", "--form", file, "URL/upload"))
    digest = hashlib.sha256(large_file.read_bytes()).hexdigest()
    assert result == {"name": "large.bin", "size": 50_000_000, "sha256": digest, "note": "fragile"}


@pytest.fixture(scope="module")
def chunked_file(tmp_path_factory):
    """20 MB, more than the default of --body-buffer."""
    path = tmp_path_factory.mktemp("upload") / "chunked.bin"
    path.write_bytes(random.Random(20).randbytes(20_000_000))
    return path


@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"], ids=["sent at once", "Expect"])
def test_accepts_a_chunked_upload_of_20_megabytes(shop, chunked_file, expect):
    chunked = ("--header", "Transfer-Encoding: chunked", "--header", expect)
    file = f"file=@{chunked_file};filename=chunked.bin"
    result = json.loads(shop.curl(*chunked, "--form", "note=heavy", "--form", file, "URL/upload"))
    digest = hashlib.sha256(chunked_file.read_bytes()).hexdigest()
    assert result == {"name": "chunked.bin", "size": 20_000_000, "sha256": digest, "note": "heavy"}


@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"], ids=["sent at once", "Expect"])
def test_bottle_accepts_a_chunked_upload_of_20_megabytes(shared, concurrency, chunked_file, expect):
    """Bottle decodes the body a second time if the environ still names the coding."""
    server = shared("bottle_uploads:app", *CONCURRENCY[concurrency])
    chunked = ("--header", "Transfer-Encoding: chunked", "--header", expect)
    result = json.loads(server.curl(*chunked, "--data-binary", f"@{chunked_file}", "URL/upload"))
    assert result == {"size": 20_000_000, "sha256": hashlib.sha256(chunked_file.read_bytes()).hexdigest()}


def test_streams_a_generator(shop):
    with shop.wire() as wire:
        answer = wire.request("/stream")
    assert answer.framing == "chunked"
    assert answer.complete
    assert answer.text == "".join(f"line {number}\n" for number in range(5000))


def test_sends_a_file(shop, framework):
    assert shop.get("/download").body == (APPS / SHOPS[framework][2]).read_bytes()


def test_redirects(shop, framework):
    answer = shop.get("/redirect")
    assert answer.status == 302
    assert answer.header("location").endswith("/hello")
    followed = shop.curl("--location", "URL/redirect")
    assert followed.decode() == f"Hello from {SHOPS[framework][1]}!\n"


def test_answers_404_for_an_unknown_path(shop):
    assert shop.get("/missing").status == 404


def test_head_has_the_headers_of_get_and_no_body(shop):
    with shop.wire() as wire:
        plain = wire.request("/hello")
        head = wire.request("/hello", "HEAD")
        again = wire.request("/hello")
    assert head.status == 200
    assert head.header("content-length") == plain.header("content-length")
    assert again.body == plain.body


def test_a_view_that_raises_is_a_500_with_its_traceback_in_the_log(shop, framework):
    before = len(shop.log.text)
    answer = shop.get("/raise")
    assert answer.status == 500
    assert "on fire" not in answer.text
    shop.log.wait_for(
        rf"(?s)Traceback.*RuntimeError: the {SHOPS[framework][1]} shop is on fire", since=before
    )
    assert shop.get("/hello").status == 200
