"""PEP 3333: `wsgi.file_wrapper`."""

from __future__ import annotations

import random

import pytest
from harness import Server


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(b"the first line\n" + random.Random(5).randbytes(5_000_000))
    return path


def answer_to(server, path, method="GET"):
    with server.wire() as wire:
        answer = wire.request(path, method)
        assert wire.request("/answers/hello").text == "hello\n"
    assert answer.complete
    return answer


def test_a_file_is_sent_completely(server, file):
    assert answer_to(server, f"/files/whole?path={file}").body == file.read_bytes()


@pytest.mark.parametrize("offset", [1, 100, 4_999_999, 5_000_015, 6_000_000])
def test_a_file_is_sent_from_its_current_position(server, file, offset):
    assert answer_to(server, f"/files/whole?path={file}&offset={offset}").body == file.read_bytes()[offset:]


def test_the_block_size_has_two_keyword_names(server):
    assert answer_to(server, "/files/block_size_by_name").text == "xxxx|xxxx|xx|yyyy|y"


def test_a_buffered_file_is_sent_from_where_the_app_stopped_reading(server, file):
    """The buffer of a Python file is ahead of the position that the app has read to."""
    assert answer_to(server, f"/files/part_read?path={file}").body == file.read_bytes()[15:]


@pytest.mark.parametrize("offset", [0, 1000])
def test_a_file_is_truncated_to_its_content_length(server, file, offset):
    answer = answer_to(server, f"/files/whole?path={file}&offset={offset}&length=100000")
    assert answer.header("content-length") == "100000"
    assert answer.body == file.read_bytes()[offset : offset + 100_000]


def test_a_file_shorter_than_its_content_length_closes_the_connection(server, file):
    with server.wire() as wire:
        answer = wire.request(f"/files/whole?path={file}&length=9000000")
    assert (answer.body, answer.complete) == (file.read_bytes(), False)


def test_an_empty_file_is_an_empty_body(server, tmp_path):
    (tmp_path / "empty").touch()
    assert answer_to(server, f"/files/whole?path={tmp_path}/empty").body == b""


def test_a_file_in_memory_is_sent(server):
    assert answer_to(server, "/files/memory").body == b"from memory\n" * 10_000


def test_a_pipe_is_sent(server):
    assert answer_to(server, "/files/pipe").text == "through a pipe\n"


def test_head_sends_no_file(server, file):
    answer_to(server, f"/files/whole?path={file}", "HEAD")


def test_a_file_is_not_chunked_for_http_1_0(server, file):
    with server.wire() as wire:
        answer = wire.request(f"/files/whole?path={file}", version="1.0")
    assert answer.framing in ("length", "close")
    assert answer.body == file.read_bytes()


def test_middleware_can_read_a_wrapper(server, file):
    assert answer_to(server, f"/files/read_by_middleware?path={file}").body == file.read_bytes().upper()


def test_a_file_that_fails_midway_closes_the_connection(server):
    before = len(server.log.text)
    with server.wire() as wire:
        answer = wire.request("/files/broken")
    assert answer.status == 500 or (answer.body, answer.complete) == (b"good\n", False)
    server.log.wait_for("OSError: the disk is gone", since=before)


@pytest.mark.parametrize(
    ("options", "environment"),
    [(("--no-sendfile",), {}), ((), {"SENDFILE": "no"})],
    ids=["option", "variable"],
)
def test_without_sendfile_a_file_is_read_with_its_read_method(file, options, environment):
    """The length, which is only known from the descriptor, is not sent then."""
    with Server("raw", *options, env=environment) as server:
        answer = answer_to(server, f"/files/whole?path={file}")
        assert answer.body == file.read_bytes()
        assert answer.header("Transfer-Encoding") == "chunked"
