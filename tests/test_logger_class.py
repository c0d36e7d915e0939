"""`logger_class`: overridden methods have the same effect as with gunicorn's `Logger`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import textwrap

import pytest
from conftest import CONCURRENCY
from harness import DEADLINE, MLWS, eventually
from pairs import both

APP = """
def app(environ, start_response):
    environ["wsgi.errors"].flush()
    if environ["PATH_INFO"] == "/fails":
        raise ValueError("on purpose")
    if environ["PATH_INFO"] == "/spoils":
        environ.clear()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Kind", "test")])
    return [b"hello"]
"""
CLASSES = {
    "setup": """
        def setup(self, cfg):
            super().setup(cfg)
            self.access_log.addFilter(lambda record: record.args["U"] != "/healthz")
            self._set_handler(self.error_log, cfg.errorlog, logging.Formatter("E|%(levelname)s|%(message)s"))
        """,
    "access": """
        def access(self, resp, req, environ, request_time):
            if req.path != "/healthz":
                super().access(resp, req, environ, request_time)
                text = f"{req.method} {req.uri} {resp.status} {resp.sent} {dict(req.headers).get('X-ID')}"
                self.access_log.info(f"{text} {environ['PATH_INFO']} {type(request_time).__name__}")
        """,
    "atoms": """
        def atoms(self, resp, req, environ, request_time):
            atoms = super().atoms(resp, req, environ, request_time)
            return {**atoms, "U": "hidden", "r": f"{atoms['{x-kind}o']} {atoms['{x-id}i']} {atoms['s']}"}
        """,
    "now": """
        def now(self):
            return "[now]"
        """,
    "formats": """
        error_fmt = "E|%(levelname)s|%(message)s"
        access_fmt = "A|%(message)s"
        """,
    "info": """
        def info(self, msg, *args, **kwargs):
            super().info("info: " + msg, *args, **kwargs)

        def error(self, msg, *args, **kwargs):
            super().error("error: " + msg, *args, **kwargs)
        """,
}


def source(body):
    return f"import logging\nfrom gunicorn.glogging import Logger\n\n\nclass Shop(Logger):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"


@pytest.fixture
def serve(start, tmp_path):
    """Starts a server with this class, and waits until it listens."""
    (tmp_path / "shop.py").write_text(APP)

    def serve(body, *options, given="logger_class = 'loggers.Shop'"):
        (tmp_path / "loggers.py").write_text(source(body))
        (tmp_path / "gunicorn.conf.py").write_text(given)
        return start("shop:app", "--access-logfile", "access.log", *options, cwd=tmp_path)

    return serve


@pytest.mark.parametrize("name", CLASSES)
def test_both_logs_have_the_format_of_gunicorn(name, tmp_path):
    def look(server):
        server.ready()
        for path in ("/healthz", "/page?a=1", "/last"):
            assert server.get(path, headers="X-Id: 7\r\n").status == 200
        log = server.directory / "access.log"
        eventually(lambda: log.read_text().count("\n") >= (2 if name in ("setup", "access") else 3))
        server.ends()
        access = [re.sub(r"\[\d\d/.+?\]", "[date]", line) for line in log.read_text().splitlines()]
        # What servers say differs, but not its form.
        error = (server.directory / "error.log").read_text()
        (listening,) = re.findall(r"^(.*)Listening at: ", error, re.M)
        return {"access": access, "error": re.sub(r"^\[.+?\] \[\d+\]", "[date] [pid]", listening)}

    files = {"shop.py": APP, "loggers.py": source(CLASSES[name])}
    files["gunicorn.conf.py"] = "from loggers import Shop\nlogger_class = Shop\nerrorlog = 'error.log'\n"
    words = ("--bind", "127.0.0.1:0", "--access-logfile", "access.log", "shop:app")
    seen = both(tmp_path, words, look, files=files)
    assert seen["mlws"] == seen["gunicorn"]


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_a_class_logs_requests_and_records_in_each_way_of_running_an_app(serve, tmp_path, concurrency):
    server = serve(CLASSES["access"] + CLASSES["formats"], *CONCURRENCY[concurrency])
    for path in ("/healthz", "/spoils", "/fails"):
        server.get(path)
    server.log.wait_for(r"(?m)^E\|ERROR\|GET /fails: the application failed$")
    log = tmp_path / "access.log"
    eventually(lambda: "A|GET /fails 500" in log.read_text())
    assert re.findall(r"(?m)^A\|(GET \S+ \d+)", log.read_text()) == ["GET /spoils 200", "GET /fails 500"]


@pytest.mark.parametrize(
    "given",
    [
        "from loggers import Shop as logger_class",
        "logger_class = 'loggers.Shop'",
        source(CLASSES["now"]) + "logger_class = Shop",
    ],
    ids=["a class", "a name", "a class of the config file"],
)
def test_a_config_file_sets_the_class_or_its_name(serve, tmp_path, given):
    server = serve(CLASSES["now"], given=given)
    server.get("/page")
    eventually(lambda: '- - [now] "GET /page' in (tmp_path / "access.log").read_text())


def test_a_class_need_not_be_a_subclass_of_gunicorns(start, tmp_path):
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "loggers.py").write_text(
        "import sys\n"
        "class Plain:\n"
        "    def __init__(self, cfg): self.cfg = cfg\n"
        "    def __getattr__(self, level): return lambda text: print(f'{level}: {text}', file=sys.stderr, flush=True)\n"
        "    def access(self, resp, req, environ, took): print(req.path, resp.status_code, flush=True)\n"
    )
    server = start("shop:app", "--logger-class", "loggers.Plain", cwd=tmp_path)
    server.get("/page")
    server.out.wait_for("/page 200")
    server.log.wait_for("info: Listening at: ")


def test_usr1_and_a_reload_reach_the_class(serve, tmp_path):
    server = serve("pass", given=source(CLASSES["now"]) + "logger_class = Shop")
    log = tmp_path / "access.log"
    server.get("/first")
    eventually(lambda: "/first" in log.read_text())
    log.rename(tmp_path / "access.1")
    os.kill(server.pid, signal.SIGUSR1)
    eventually(
        lambda: server.get("/second").status == 200 and log.exists() and "/second" in log.read_text(),
        pause=0.1,
    )
    (tmp_path / "gunicorn.conf.py").write_text(source(CLASSES["atoms"]) + "logger_class = Shop")
    before = len(server.log.text)
    os.kill(server.pid, signal.SIGHUP)
    server.log.wait_for("Worker exited", since=before)
    server.get("/third", headers={"X-Id": "7"})
    eventually(lambda: '"test ' in log.read_text())


def test_gunicorns_own_classes_change_nothing(start, tmp_path):
    (tmp_path / "shop.py").write_text(APP)
    for name in ("gunicorn.glogging.Logger", "simple", "gunicorn.instrument.statsd.Statsd"):
        server = start("shop:app", "--logger-class", name, cwd=tmp_path)
        assert "logger-class" not in server.log.text


def test_statsd_gets_each_request_once(start, tmp_path):
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "loggers.py").write_text(
        "from gunicorn.instrument.statsd import Statsd\nclass Shop(Statsd): pass\n"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(DEADLINE)
        address = f"127.0.0.1:{collector.getsockname()[1]}"
        server = start("shop:app", "--logger-class", "loggers.Shop", "--statsd-host", address, cwd=tmp_path)
        for path in ("/first", "/fails"):
            server.get(path)
        found = []
        while "status.500" not in "".join(found):
            found.append(collector.recv(1 << 16).decode())
        assert "".join(found).count("gunicorn.requests") == 2


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere.Shop", "No module named 'nowhere'"),
        ("loggers.Missing", "Missing"),
        ("Shop", "expected MODULE.CLASS"),
        ("loggers.Shop", "on purpose"),
    ],
)
def test_an_unusable_class_is_a_startup_error(tmp_path, name, why):
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "loggers.py").write_text(source("def setup(self, cfg): raise ValueError('on purpose')"))
    words = [MLWS, "shop:app", "--bind", "127.0.0.1:0", "--logger-class", name]
    ended = subprocess.run(words, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=DEADLINE)
    assert ended.returncode == 2
    assert re.search(rf"--logger-class {name}: .*{why}", ended.stderr)
