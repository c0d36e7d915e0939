"""`--max-requests` and `--max-rss`: a worker that reaches a limit is replaced, invisibly to clients."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import CONCURRENCY
from harness import eventually, gone


def served_by_another(server, worker):
    eventually(lambda: gone(worker), f"worker {worker} to be gone")
    assert server.get("/answers/hello").text == "hello\n"
    eventually(lambda: server.workers() not in ([], [worker]), "another worker")


def test_a_worker_is_replaced_after_max_requests(start, concurrency):
    server = start("raw", *CONCURRENCY[concurrency], "--max-requests", "10")
    (worker,) = server.workers()
    for _ in range(10):
        assert server.get("/answers/hello").text == "hello\n"
    server.log.wait_for(rf"\[{worker}\] \[INFO\] recycling this worker: served 10 requests")
    served_by_another(server, worker)


def test_requests_on_one_connection_count_too(start, concurrency):
    server = start("raw", *CONCURRENCY[concurrency], "--max-requests", "3")
    (worker,) = server.workers()
    with server.wire() as wire:
        assert [wire.request("/answers/hello").status for _ in range(3)] == [200] * 3
    served_by_another(server, worker)


def test_a_worker_that_has_grown_too_large_is_replaced(start):
    server = start("raw", "--threads", "4", "--max-rss", "200M")
    (worker,) = server.workers()
    with server.wire() as wire:
        for _ in range(64):
            assert wire.request("/answers/hello").status == 200
        assert "this worker" not in server.log.text
        assert wire.request(f"/hangs/grows?bytes={200 << 20}").text == "grown\n"
        for _ in range(63):
            assert wire.request("/answers/hello").status == 200
    server.log.wait_for(r"recycling this worker: uses [2-9]\d\d MiB")
    served_by_another(server, worker)


def test_recycling_is_invisible_to_clients(start, concurrency):
    """Each request uses its own connection, while workers are replaced."""
    options = ("--workers", "2", "--max-requests", "50", "--max-requests-jitter", "5")
    server = start("raw", *CONCURRENCY[concurrency], *options)

    def ask_on(_):
        return [server.get("/answers/hello").status for _ in range(40)]

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(ask_on, range(8)))
    assert answers == [[200] * 40] * 8
    assert server.log.text.count("recycling this worker") > 1


@pytest.mark.parametrize(
    "options", [(), ("--max-requests", "1000", "--max-rss", "100G")], ids=["off", "high"]
)
def test_a_worker_below_its_limits_stays(start, options):
    server = start("raw", *options)
    workers = server.workers()
    with server.wire() as wire:
        assert {wire.request("/answers/hello").status for _ in range(200)} == {200}
    assert server.workers() == workers
    assert "this worker" not in server.log.text
