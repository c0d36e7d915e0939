"""Changes of config files and applications to the loggers `gunicorn.access` and `gunicorn.error` have the same effect as with gunicorn."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import textwrap

import pytest
from conftest import CONCURRENCY
from harness import DEADLINE, ROOT, eventually
from pairs import both

APP = """
import json
import logging

access, error = logging.getLogger("gunicorn.access"), logging.getLogger("gunicorn.error")


class NoHealthChecks(logging.Filter):
    def filter(self, record):
        return "/healthz" not in record.getMessage()


no_health_checks = NoHealthChecks()


def atoms_handler(path):
    "A handler that writes some atoms."
    handler = logging.FileHandler(path)
    keys = ("s", "m", "{x-kind}o", "{path_info}e")
    handler.format = lambda record: json.dumps({key: record.args[key] for key in keys})
    return handler


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/do/"):
        exec(environ["HTTP_CODE"], globals())
    if path == "/fails":
        raise ValueError("on purpose")
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Kind", "test")])
    return [b"ok"]
"""
# The same filter from different sources.
FILTER = """
import logging


class NoHealthChecks(logging.Filter):
    def filter(self, record):
        return "/healthz" not in record.getMessage()


"""
CONFIGS = {
    "on_starting": """
        def on_starting(server):
            server.log.access_log.addFilter(NoHealthChecks())
        """,
    "the file": """
        logging.getLogger("gunicorn.access").addFilter(NoHealthChecks())
        """,
    "post_fork": """
        def post_fork(server, worker):
            worker.log.access_log.filters.append(NoHealthChecks())
        """,
    "post_worker_init": """
        def post_worker_init(worker):
            logging.getLogger("gunicorn.access").filters = [NoHealthChecks()]
        """,
    "the handler": """
        def when_ready(server):
            for handler in server.log.access_log.handlers:
                handler.addFilter(NoHealthChecks())
        """,
    "a formatter": """
        def when_ready(server):
            server.log.access_log.handlers[0].setFormatter(logging.Formatter("%(name)s: %(message)s"))
        """,
    "another handler": """
        def when_ready(server):
            handler = logging.FileHandler("second.log")
            handler.addFilter(NoHealthChecks())
            handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
            server.log.access_log.addHandler(handler)
        """,
    "only another handler": """
        def when_ready(server):
            server.log.access_log.handlers = [logging.FileHandler("second.log")]
        """,
    "the root logger": """
        def when_ready(server):
            logging.basicConfig(filename="second.log", format="root %(name)s %(message)s", level="INFO")
            server.log.access_log.propagate = True
        """,
    "a level": """
        def when_ready(server):
            server.log.access_log.setLevel("WARNING")
        """,
    "a filter that changes records": """
        class Mask(logging.Filter):
            def filter(self, record):
                record.msg = record.msg.replace("%(r)s", "%(m)s ... %({x-kind}o)s %({path_info}e)s")
                return True

        def when_ready(server):
            server.log.access_log.addFilter(Mask())
        """,
    "a dictConfig": """
        import logging.config

        def post_worker_init(worker):
            logging.config.dictConfig({
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {"file": {"class": "logging.FileHandler", "filename": "second.log"}},
                "loggers": {"gunicorn.access": {"handlers": ["file"], "level": "INFO"}},
            })
        """,
}


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def lines(directory, name="access.log"):
    path = directory / name
    return path.read_text().splitlines() if path.exists() else []


def requests_in(found):
    return [match.group(1) for line in found if (match := re.search(r'"\w+ (\S+) ', line))]


@pytest.fixture
def serve(start, directory):
    def serve(*options, config=""):
        (directory / "gunicorn.conf.py").write_text(FILTER + textwrap.dedent(config))
        return start("shop:app", "--access-logfile", "access.log", *options, cwd=directory)

    return serve


def do(server, code):
    assert server.get("/do/it", headers={"Code": code}).status == 200


@pytest.mark.parametrize("config", CONFIGS)
def test_the_access_log_is_that_of_gunicorn(config, tmp_path):
    """The file of the access log, and the one that some handlers write to."""

    def look(server):
        server.ready()
        for path in ("/healthz", "/page", "/healthz", "/last"):
            assert server.get(path).status == 200

        def seen():
            text = "\n".join(lines(server.directory) + lines(server.directory, "second.log"))
            return config == "a level" or "/last" in text

        eventually(seen)
        server.ends()
        found = {}
        for name in ("access.log", "second.log"):
            found[name] = [re.sub(r"\[\d\d/.+?\]", "", line) for line in lines(server.directory, name)]
        return found

    files = {"shop.py": APP, "gunicorn.conf.py": FILTER + textwrap.dedent(CONFIGS[config])}
    words = (
        "--bind",
        "127.0.0.1:0",
        "--access-logfile",
        "access.log",
        "--error-logfile",
        "error.log",
        "shop:app",
    )
    seen = both(tmp_path, words, look, files=files)
    assert seen["mlws"] == seen["gunicorn"]


def test_the_example_of_the_documentation_works(start, directory):
    text = (ROOT / "docs" / "logs.md").read_text().partition("### Filters and handlers")[2]
    (directory / "gunicorn.conf.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    server = start("shop:app", cwd=directory)
    for path in ("/healthz", "/page"):
        server.get(path)
    server.out.wait_for("GET /page")
    assert "healthz" not in server.out.text


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_a_filter_of_a_config_file_works_in_each_way_of_running_an_app(serve, directory, concurrency):
    server = serve(*CONCURRENCY[concurrency], config=CONFIGS["on_starting"])
    for path in ("/healthz", "/page", "/healthz", "/last"):
        server.get(path)
    eventually(lambda: "/last" in requests_in(lines(directory)))
    assert requests_in(lines(directory)) == ["/page", "/last"]


@pytest.mark.parametrize("options", [("--threads", "1"), ("--threads", "4")], ids=" ".join)
def test_an_app_may_add_and_remove_a_filter_at_any_time(serve, directory, options):
    server = serve(*options)
    server.get("/healthz?1")
    do(server, "access.addFilter(no_health_checks)")
    server.get("/healthz?2")
    do(server, "access.removeFilter(no_health_checks)")
    server.get("/healthz?3")
    eventually(lambda: "/healthz?3" in requests_in(lines(directory)))
    assert requests_in(lines(directory)) == ["/healthz?1", "/do/it", "/do/it", "/healthz?3"]


def test_a_handler_gets_all_atoms_even_if_it_is_added_late(serve, directory):
    server = serve("--access-logformat", "%(r)s")
    server.get("/first")
    do(server, "access.addHandler(atoms_handler('second.log'))")
    server.get("/second")
    eventually(lambda: len(lines(directory, "second.log")) == 2)
    last = json.loads(lines(directory, "second.log")[-1])
    assert last == {"s": "200", "m": "GET", "{x-kind}o": "test", "{path_info}e": "/second"}
    assert lines(directory) == ["GET /first HTTP/1.1", "GET /do/it HTTP/1.1", "GET /second HTTP/1.1"]


def test_without_an_access_log_handlers_get_nothing(start, directory):
    server = start("shop:app", cwd=directory)
    do(server, "access.addHandler(logging.FileHandler('second.log'))")
    server.get("/page")
    server.stop()
    assert lines(directory, "second.log") == []


def test_the_app_may_write_to_the_access_log_itself(serve, directory):
    server = serve()
    do(server, "access.info('a job of %s', 'ours')")
    eventually(lambda: len(lines(directory)) == 2)
    assert lines(directory)[0] == "a job of ours"


def test_records_of_the_server_pass_the_filters_of_its_logger(serve):
    server = serve(
        config="""
        class Rewrite(logging.Filter):
            def filter(self, record):
                record.msg = f"rewritten: {record.msg}"
                return "Booting" not in record.msg

        def on_starting(server):
            server.log.error_log.addFilter(Rewrite())
        """
    )
    server.log.wait_for(r"\[INFO\] rewritten: Listening at: ")
    assert server.get("/fails").status == 500
    server.log.wait_for(r"\[ERROR\] rewritten: GET /fails: the application failed\n.*Traceback")
    assert "Booting" not in server.log.text


def test_handlers_and_formatters_of_the_error_log_work(serve, directory):
    server = serve(
        config="""
        def on_starting(server):
            second = logging.FileHandler("second.log")
            second.setFormatter(logging.Formatter("%(name)s|%(levelname)s|%(message)s"))
            server.log.error_log.addHandler(second)
            server.log.error_log.handlers[0].setFormatter(logging.Formatter("%(levelname)s only: %(message)s"))
        """
    )
    assert server.get("/fails").status == 500
    server.log.wait_for(r"(?m)^ERROR only: GET /fails: the application failed$")
    do(server, "error.warning('of the %s', 'app')")
    server.log.wait_for(r"(?m)^WARNING only: of the app$")
    eventually(lambda: "gunicorn.error|WARNING|of the app" in lines(directory, "second.log"))
    assert "gunicorn.error|ERROR|GET /fails: the application failed" in lines(directory, "second.log")


def test_the_level_of_the_error_log_can_be_changed(serve):
    server = serve()
    do(server, "error.setLevel('DEBUG'); error.debug('a detail')")
    server.log.wait_for(r"\[DEBUG\] a detail")
    do(server, "error.setLevel('CRITICAL')")
    assert server.get("/fails?1").status == 500
    do(server, "error.setLevel('ERROR')")
    assert server.get("/fails?2").status == 500
    server.log.wait_for(r"\[ERROR\] GET /fails\?2")
    assert "GET /fails?1" not in server.log.text


def test_records_of_a_changed_logger_are_escaped_once(serve):
    server = serve()
    forged = "error.warning('one' + chr(10) + '[2000] two' + chr(27))"
    do(server, forged)
    server.log.wait_for(r"\[WARNING\] one\n  \[2000\] two\\x1b\n")
    server.get("/fails")
    server.log.wait_for("ValueError")
    (plain,) = re.findall(r"\[ERROR\] (.*\n(?: .*\n)+)", server.log.text)
    do(server, "error.addFilter(lambda record: True)")
    before = len(server.log.text)
    do(server, forged)
    server.log.wait_for(r"\[WARNING\] one\n  \[2000\] two\\x1b\n", since=before)
    server.get("/fails")
    server.log.wait_for(r"ValueError.*\n", since=before)
    assert f"[ERROR] {plain}" in server.log.text[before:]


def test_a_dict_config_that_does_not_name_the_loggers_does_not_disable_them(serve, directory):
    server = serve()
    do(server, "import logging.config; logging.config.dictConfig({'version': 1})")
    do(server, "error.warning('still %s', 'here')")
    server.log.wait_for(r"\[WARNING\] still here")
    assert server.get("/fails").status == 500
    server.log.wait_for(r"\[ERROR\] GET /fails")
    eventually(lambda: requests_in(lines(directory)) == ["/do/it", "/do/it", "/fails"])


def test_a_reload_keeps_filters_and_reads_the_new_ones(serve, directory):
    server = serve(config=CONFIGS["on_starting"])
    server.get("/healthz?1")
    text = (
        FILTER
        + "logging.getLogger('gunicorn.access').addFilter(lambda record: '/quiet' not in record.getMessage())"
    )
    (directory / "gunicorn.conf.py").write_text(text)
    before = len(server.log.text)
    os.kill(server.pid, signal.SIGHUP)
    server.log.wait_for("Worker exited", since=before)
    for path in ("/healthz?2", "/quiet", "/last"):
        server.get(path)
    eventually(lambda: "/last" in requests_in(lines(directory)))
    assert requests_in(lines(directory)) == ["/last"]


def test_statsd_counts_each_record_once(serve):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(DEADLINE)
        server = serve("--statsd-host", f"127.0.0.1:{collector.getsockname()[1]}")
        do(server, "error.addFilter(lambda record: True)")
        do(server, "error.error('of the app')")
        assert server.get("/fails").status == 500
        found = []
        while "status.500" not in "".join(found):
            found.append(collector.recv(1 << 16).decode())
        assert [text.partition(":")[0] for text in found if "gunicorn.log" in text] == [
            "gunicorn.log.error",
            "gunicorn.log.exception",
        ]
