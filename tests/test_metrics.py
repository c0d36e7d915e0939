"""The examples in docs/metrics.md: no count is lost or goes backwards, no file is left, and every span arrives at the collector."""

from __future__ import annotations

import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from harness import DEADLINE, ROOT, eventually, gone
from mylittlewebserver.prometheus import mark_process_dead
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from test_docs import BLOCK

PAGE = (ROOT / "docs/metrics.md").read_text()
FILES = {block["file"]: block["text"] for block in BLOCK.finditer(PAGE) if block["file"]}
MODES = {
    "workers": ("--workers", "2"),
    "threads": ("--workers", "2", "--threads", "4"),
    "fork": ("--workers", "2", "--fork"),
    "preload": ("--workers", "2", "--preload"),
    "fork, preload": ("--workers", "2", "--fork", "--preload"),
}
REQUESTS = 40
modes = pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
forking = pytest.mark.parametrize(
    "options", [MODES["fork"], MODES["fork, preload"]], ids=["plain", "preload"]
)


@pytest.fixture
def directory(tmp_path):
    """The files of the page, and an empty directory for metrics."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "metrics").mkdir()
    return tmp_path


def test_the_page_has_the_files_that_its_commands_use():
    assert set(FILES) == {"shop.py", "gunicorn.conf.py", "traced.py", "tracing.conf.py"}
    commands = re.findall(r"^mlws (\w+):app(?: -c (\S+))?$", PAGE, re.M)
    assert commands == [("shop", ""), ("traced", "tracing.conf.py")]


# Prometheus


@pytest.fixture
def shop(start, directory):
    """Starts the page's shop."""
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(directory / "metrics")}
    return lambda *options: start("shop:app", *options, cwd=directory, env=environment)


def scrape(server):
    """The value of each sample by its name; of those that have a pid, by name and pid."""
    answer = server.get("/metrics")
    assert answer.status == 200, server.log.text
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            pid = sample.labels.get("pid")
            found[(sample.name, int(pid)) if pid else sample.name] = sample.value
    return found


def counts(metrics):
    return metrics.get("shop_requests_total", 0), metrics.get("shop_seconds_count", 0)


def request_many(server, count=REQUESTS):
    with ThreadPoolExecutor(4) as pool:
        assert {answer.status for answer in pool.map(lambda _: server.get("/"), range(count))} == {200}


def pids_of_files(directory):
    return {int(path.stem.rpartition("_")[2]) for path in (directory / "metrics").glob("*.db")} - {0}


def workers_of(server, options):
    """The workers, which with `--preload` are the grandchildren of the master."""
    masters = server.workers() if "--preload" in options else [server.pid]
    return [process.pid for process in server.family() if process.parent in masters]


def wait_for_files_of_running_processes_only(server, directory, options):
    """The files of ended processes are removed. Only workers, and the processes that fork them, keep running."""

    def running():
        return {*workers_of(server, options), *server.workers(), server.pid}

    eventually(lambda: pids_of_files(directory) <= running(), "the files of ended processes to be merged")


@modes
def test_every_request_is_counted_once_and_ended_processes_have_no_files(shop, directory, options):
    server = shop(*options)
    request_many(server)
    assert counts(scrape(server)) == (REQUESTS, REQUESTS)
    wait_for_files_of_running_processes_only(server, directory, options)
    assert counts(scrape(server)) == (REQUESTS, REQUESTS)
    # One more request adds one, instead of counting all of them again.
    server.get("/")
    assert counts(scrape(server)) == (REQUESTS + 1, REQUESTS + 1)


@modes
def test_counters_do_not_go_backwards_while_generations_change(shop, directory, options):
    server = shop(*options)
    seen, done = [], threading.Event()

    def watch():
        while not done.is_set():
            seen.append(counts(scrape(server)))

    with ThreadPoolExecutor(2) as pool:
        watching = pool.submit(watch)
        total = 0
        try:
            for _ in range(2):
                old = server.family_pids()
                server.process.send_signal(signal.SIGHUP)
                while not all(gone(pid) for pid in old if pid != server.pid):
                    server.get("/")
                    total += 1
        finally:
            done.set()
        watching.result(DEADLINE)
    assert seen == sorted(seen)
    assert counts(scrape(server)) == (total, total)
    wait_for_files_of_running_processes_only(server, directory, options)
    assert counts(scrape(server)) == (total, total)


LIVE = """
import os
from prometheus_client import Gauge
Gauge("shop_loaded", "Set while the application is loaded.", multiprocess_mode="liveall").set(1)
HIGHEST = Gauge("shop_highest", "Of all requests.", multiprocess_mode="max")
LOWEST = Gauge("shop_lowest", "Of all requests.", multiprocess_mode="min")
LATEST = Gauge("shop_latest", "Of the latest request.", multiprocess_mode="mostrecent")

def set_gauges(environ):
    if environ["QUERY_STRING"]:
        value = float(environ["QUERY_STRING"])
        HIGHEST.set(value)
        LOWEST.set(value)
        LATEST.set(value)
    if environ["PATH_INFO"] == "/crash":
        os.abort()
"""


def with_gauges(directory):
    text = FILES["shop.py"].replace("def app(", LIVE + "\n\ndef app(")
    line = "        REQUESTS.labels"
    assert line in text
    (directory / "shop.py").write_text(text.replace(line, "        set_gauges(environ)\n" + line))


@modes
def test_live_gauges_of_an_old_generation_vanish(shop, directory, options):
    with_gauges(directory)
    server = shop(*options)

    def loaded():
        return {name[1] for name, value in scrape(server).items() if name[0] == "shop_loaded" and value == 1}

    old = loaded()
    assert old
    family = server.family_pids()
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: all(gone(pid) for pid in family if pid != server.pid), "the old generation to end")
    eventually(lambda: loaded() and not loaded() & old, "live gauges of the new generation only")


@modes
def test_live_gauges_of_a_killed_worker_vanish(shop, directory, options):
    with_gauges(directory)
    server = shop(*options)
    request_many(server)
    wait_for_files_of_running_processes_only(server, directory, options)
    worker = workers_of(server, options)[0]
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: gone(worker), "the worker to be gone")
    wait_for_files_of_running_processes_only(server, directory, options)
    assert counts(scrape(server)) == (REQUESTS, REQUESTS)


@forking
def test_the_metrics_of_a_process_that_dies_are_kept(shop, directory, options):
    with_gauges(directory)
    server = shop(*options)
    for _ in range(3):
        assert server.get("/crash").status == 500
    wait_for_files_of_running_processes_only(server, directory, options)
    metrics = scrape(server)
    assert metrics["shop_running"] == 0
    assert server.get("/").status == 200
    assert counts(scrape(server)) == (1, 1)


@forking
def test_gauges_that_combine_processes_include_ended_ones(shop, directory, options):
    with_gauges(directory)
    server = shop(*options)
    for value in (5, -9, 7):
        server.get(f"/?{value}")
        wait_for_files_of_running_processes_only(server, directory, options)
    metrics = scrape(server)
    found = [metrics[name] for name in ("shop_highest", "shop_lowest", "shop_latest")]
    assert found == [7, -9, 7]


@forking
def test_a_stop_that_kills_requests_leaves_no_files(shop, directory, options):
    text = FILES["shop.py"].replace(
        "        start_response", "        block(environ)\n        start_response"
    )
    block = f"""
def block(environ):
    if environ["PATH_INFO"] == "/block":
        open({str(directory / "blocked")!r}, "w").close()
        import signal
        signal.pause()
"""
    (directory / "shop.py").write_text(text + block)
    server = shop(*options)
    with server.wire() as wire:
        wire.send(b"GET /block HTTP/1.1\r\nHost: test\r\n\r\n")
        eventually((directory / "blocked").exists, "the request to run")
        server.stop(signal.SIGINT)
    assert pids_of_files(directory) == set()


@forking
def test_the_functions_of_prometheus_client_work_too(shop, directory, options):
    for name in ("shop.py", "gunicorn.conf.py"):
        text = (
            (directory / name)
            .read_text()
            .replace("mylittlewebserver.prometheus", "prometheus_client.multiprocess")
        )
        (directory / name).write_text(text)
    server = shop(*options)
    request_many(server)
    metrics = directory / "metrics"
    running = {*workers_of(server, options), *server.workers()}
    eventually(
        lambda: {int(file.stem.rpartition("_")[2]) for file in metrics.glob("gauge_live*")} <= running,
        "the live gauges of ended processes to be removed",
    )
    assert counts(scrape(server)) == (REQUESTS, REQUESTS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_root_does_not_follow_links_in_the_directory_of_another_user(tmp_path):
    directory, target = tmp_path / "metrics", tmp_path / "target"
    directory.mkdir()
    (directory / "counter_0.db").symlink_to(target)
    for name in ("counter_7.db", "gauge_liveall_7.db", "gauge_liveall_8.db"):
        (directory / name).write_bytes(b"\0" * 4096)
    os.chown(directory, 12345, -1)
    mark_process_dead(7, str(directory))
    assert {path.name for path in directory.iterdir()} == {
        "counter_0.db",
        "counter_7.db",
        "gauge_liveall_8.db",
    }
    assert not target.exists()


def test_a_process_that_died_before_it_counted_leaves_nothing(tmp_path):
    (tmp_path / "counter_7.db").touch()
    mark_process_dead(7, str(tmp_path))
    assert not list(tmp_path.iterdir())


# OpenTelemetry


class Collector:
    """Receives spans as an OpenTelemetry collector does, by OTLP over HTTP."""

    def __init__(self):
        self.spans = []
        self.is_open = threading.Event()
        self.is_open.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.receive(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever).start()

    def receive(self, request):
        self.is_open.wait(DEADLINE)
        spans = [
            span.name
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        self.spans += spans

    def end(self):
        self.is_open.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.end()


@pytest.fixture
def traced(collector, start, directory):
    """Starts the page's traced application. Its batches are never due, so spans arrive only if they are flushed.

    The collector ends after the servers.
    """
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
    }
    return lambda *options: start(
        "traced:app", "-c", "tracing.conf.py", *options, cwd=directory, env=environment
    )


def spans_of(count):
    return sorted(f"GET /{number}" for number in range(count))


@modes
def test_the_spans_of_the_last_requests_arrive_when_the_server_stops(traced, collector, options):
    server = traced(*options)
    for number in range(5):
        assert server.get(f"/{number}").status == 200
    if "--fork" not in options:
        assert collector.spans == []
    server.stop()
    assert sorted(collector.spans) == spans_of(5)


@pytest.mark.parametrize("options", [MODES["workers"], MODES["threads"]], ids=["workers", "threads"])
def test_the_spans_of_finished_requests_arrive_when_the_server_stops_at_once(traced, collector, options):
    server = traced(*options)
    for number in range(5):
        assert server.get(f"/{number}").status == 200
    server.stop(signal.SIGINT)
    assert sorted(collector.spans) == spans_of(5)


@modes
def test_the_spans_of_the_last_requests_arrive_after_a_reload(traced, collector, options):
    server = traced(*options)
    for number in range(5):
        assert server.get(f"/{number}").status == 200
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: sorted(collector.spans) == spans_of(5), "all spans")


@pytest.mark.parametrize("options", [MODES["workers"], MODES["threads"]], ids=["workers", "threads"])
def test_the_spans_of_a_recycled_worker_arrive(traced, collector, options):
    server = traced(*options, "--workers", "1", "--max-requests", "5")
    for number in range(5):
        assert server.get(f"/{number}").status == 200
    eventually(lambda: sorted(collector.spans) == spans_of(5), "all spans")


@forking
def test_the_span_of_a_request_arrives_when_its_process_ends(traced, collector, options):
    server = traced(*options)
    assert server.get("/0").status == 200
    eventually(lambda: collector.spans == ["GET /0"], "the span")
    assert "threads run in this worker: OtelBatchSpanRecordProcessor." in server.log.text


@forking
def test_no_client_waits_for_the_collector(traced, collector, options):
    server = traced(*options)
    collector.is_open.clear()
    with server.wire() as wire:
        for number in range(3):
            wire.send(f"GET /{number} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert wire.answer().status == 200
    assert collector.spans == []
    collector.is_open.set()
    eventually(lambda: sorted(collector.spans) == spans_of(3), "all spans")


@pytest.mark.parametrize("options", [MODES["workers"], MODES["threads"]], ids=["workers", "threads"])
def test_the_spans_of_a_worker_that_is_stuck_arrive(traced, collector, directory, options):
    text = (directory / "traced.py").read_text()
    stuck = '        if environ["PATH_INFO"] == "/stuck":\n            threading.Event().wait()\n'
    text = "import threading\n" + text.replace("        start_response", stuck + "        start_response")
    (directory / "traced.py").write_text(text)
    server = traced(*options, "--workers", "1", "--timeout", "0.5")
    assert server.get("/0").status == 200
    assert server.get("/stuck").status == 504
    eventually(lambda: collector.spans == ["GET /0"], "the span")


def test_a_provider_of_a_preloaded_application_exports_in_each_worker(traced, collector, directory):
    """As in an application that creates the provider when it is imported."""
    config = (directory / "tracing.conf.py").read_text()
    (directory / "traced.py").write_text(config + "\npost_fork(None, None)\n" + FILES["traced.py"])
    (directory / "tracing.conf.py").write_text("preload_app = True\n")
    server = traced("--workers", "2")
    assert "the application has started 1 threads while it was preloaded" in server.log.text
    for number in range(5):
        assert server.get(f"/{number}").status == 200
    server.stop()
    assert sorted(collector.spans) == spans_of(5)
