"""The command line: options, APP, errors, help and logs; and the same from Python."""

from __future__ import annotations

import re
import socket
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest
from conftest import CONCURRENCY
from harness import APPS, MLWS, ROOT, Command, Server, Wire, eventually, run

APP = """
def {name}(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{body}"]
"""


OPTIONS = [
    "--access-logfile",
    "--access-logformat",
    "--bind",
    "--bodies-in-memory",
    "--body-buffer",
    "--body-in-memory",
    "--body-rate",
    "--body-timeout",
    "--capture-output",
    "--chdir",
    "--disable-redirect-access-to-syslog",
    "--dogstatsd-tags",
    "--enable-stdio-inheritance",
    "--error-logformat",
    "--fork",
    "--graceful-timeout",
    "--head-timeout",
    "--help",
    "--keep-alive",
    "--limit-request-body",
    "--limit-request-field_size",
    "--limit-request-fields",
    "--limit-request-head",
    "--limit-request-line",
    "--log-config",
    "--log-config-json",
    "--log-level",
    "--log-syslog",
    "--log-syslog-facility",
    "--log-syslog-prefix",
    "--log-syslog-to",
    "--max-children",
    "--max-queue",
    "--max-requests",
    "--max-requests-jitter",
    "--max-rss",
    "--pythonpath",
    "--response-memory",
    "--response-spool",
    "--statsd-host",
    "--statsd-prefix",
    "--threads",
    "--timeout",
    "--tmp-dir",
    "--version",
    "--worker-connections",
    "--workers",
    "--write-timeout",
]


def write_app(path, body, name="application"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(APP.format(name=name, body=body))


def body_from(path, *arguments, **settings):
    """The body of the response to a GET of the path."""
    with Server(*arguments, **settings) as server:
        return server.get(path).text


# What is served


@pytest.mark.parametrize(
    ("app", "body"),
    [
        ("forms", "application"),
        ("forms:application", "application"),
        ("forms:other", "other"),
        ("forms:holder.held", "held"),
        ("forms:make()", "made of nothing"),
        ("forms:make('bricks')", "made of bricks"),
        ('forms:make("a, b", count=2)', "made of a, b a, b"),
        ("forms:make(material='x' 'y', count=3)", "made of xy xy xy"),
        ("forms:make(['wood', 'clay'])", "made of ['wood', 'clay']"),
        ("forms:Made", "made by a class"),
        ("only_app", "app"),
        ("package.inner.deep:app", "deep"),
        ("package", "package"),
    ],
)
def test_every_form_of_app_spec_is_accepted(app, body):
    assert body_from("/", app, cwd=APPS / "shapes") == body


def test_a_module_in_the_current_directory_is_found(tmp_path):
    write_app(tmp_path / "here.py", "here")
    assert body_from("/", "here", cwd=tmp_path) == "here"


def test_chdir_changes_the_directory_before_the_import(tmp_path):
    write_app(tmp_path / "there" / "place.py", "there")
    assert body_from("/", "place", "--chdir", tmp_path / "there", cwd=tmp_path) == "there"


def test_chdir_is_relative_to_the_current_directory(tmp_path):
    write_app(tmp_path / "there" / "place.py", "there")
    assert body_from("/", "place", "--chdir", "there", cwd=tmp_path) == "there"


def test_pythonpath_adds_directories(tmp_path):
    write_app(tmp_path / "two" / "second.py", "from the second directory")
    assert (
        body_from("/", "second", "--pythonpath", f"{tmp_path}/one,{tmp_path}/two", cwd=tmp_path)
        == "from the second directory"
    )


def test_python_m_is_equivalent_to_the_command(tmp_path):
    write_app(tmp_path / "here.py", "here")
    assert body_from("/", "here", cwd=tmp_path, command=(sys.executable, "-m", "mylittlewebserver")) == "here"


# Errors


def test_an_app_that_raises_during_import_shows_its_own_traceback(tmp_path):
    (tmp_path / "broken.py").write_text("def fail():\n    raise RuntimeError('no database')\n\nfail()\n")
    result = run("broken:app", "--bind", "127.0.0.1:0", cwd=tmp_path)
    assert result.returncode == 3
    assert result.stderr.count("Traceback") == 1
    assert "broken.py" in result.stderr
    assert "RuntimeError: no database" in result.stderr
    assert "mylittlewebserver/" not in result.stderr
    assert "broken" in result.stderr.splitlines()[-1] or "cannot be imported" in result.stderr
    assert "serving" not in result.stderr


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("def broken(:", "SyntaxError"),
        ("import sys; sys.exit('no settings')", "no settings"),
    ],
)
def test_an_app_that_cannot_be_imported_exits_with_status_3(tmp_path, source, error):
    (tmp_path / "broken.py").write_text(source)
    result = run("broken:app", "--bind", "127.0.0.1:0", "--workers", "2", cwd=tmp_path)
    assert result.returncode == 3
    assert error in result.stderr
    assert "mylittlewebserver/" not in result.stderr


def test_a_module_that_does_not_exist_exits_with_status_3():
    result = run("no_such_module:app", "--bind", "127.0.0.1:0")
    assert result.returncode == 3
    assert "no_such_module" in result.stderr


def test_a_factory_that_raises_shows_its_own_traceback():
    result = run("forms:fail()", "--bind", "127.0.0.1:0", cwd=APPS / "shapes")
    assert result.returncode == 3
    assert "RuntimeError: the factory is shut" in result.stderr
    assert "mylittlewebserver/" not in result.stderr


@pytest.mark.parametrize("app", ["forms:number()", "forms:make(unknown=1)"])
def test_a_factory_called_with_wrong_arguments_is_named(app):
    result = run(app, "--bind", "127.0.0.1:0", cwd=APPS / "shapes")
    assert result.returncode in (2, 3)
    assert app in result.stderr
    assert "mylittlewebserver/" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (("forms:nothing",), "nothing"),
        (("forms:nothing()",), "nothing"),
        (("forms:number",), "number"),
        (("forms:give_number()",), "give_number"),
        (("neither",), "neither"),
        (("forms:make(",), "forms:make("),
        (("forms:make(other)",), "forms:make(other)"),
        (("forms:make(1 + print())",), "forms:make(1 + print())"),
        (("forms:",), "forms:"),
        ((":app",), ":app"),
        (("",), ""),
        (("forms:other", "surplus"), "surplus"),
        ((), ""),
        (("forms", "--bogus"), "--bogus"),
        (("forms", "--threads", "0"), "threads"),
        (("forms", "--threads", "some"), "some"),
        (("forms", "--workers", "0"), "workers"),
        (("forms", "--workers", "-1"), "-1"),
        (("forms", "--timeout", "soon"), "soon"),
        (("forms", "--log-level", "loud"), "loud"),
        (("forms", "--bind", "127.0.0.1:http"), "127.0.0.1:http"),
        (("forms", "--bind", "127.0.0.1:65536"), "65536"),
        (("forms", "--bind", "unix:"), "unix:"),
        (("forms", "--bind", "[::1:80"), "[::1:80"),
        (("forms", "--chdir", "no/such/directory"), "no/such/directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_usage_error_is_one_clear_sentence(arguments, culprit):
    bind = () if "--bind" in arguments else ("--bind", "127.0.0.1:0")
    result = run(*arguments, *bind, cwd=APPS / "shapes")
    assert result.returncode == 2
    assert culprit in result.stderr
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_port_in_use_is_one_clear_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("raw", "--bind", f"127.0.0.1:{port}")
    assert result.returncode == 1
    assert f"127.0.0.1:{port}" in result.stderr
    assert result.stderr.count("Address in use: ") == 4
    assert "in use" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_address_that_becomes_free_is_bound(tmp_path, kind):
    path = tmp_path / "socket"
    taken = socket.create_server(("127.0.0.1", 0)) if kind == "tcp" else socket.socket(socket.AF_UNIX)
    with taken:
        if kind == "unix":
            taken.bind(str(path))
            taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}" if kind == "tcp" else f"unix:{path}"
        server = Command(MLWS, "raw", "--bind", address)
        with server:
            server.log.wait_for(f"Address in use: {re.escape(address)}, trying again in 1 s")
            taken.close()
            server.log.wait_for("Listening at")


def test_if_one_of_two_ports_is_in_use_the_server_does_not_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("raw", "--bind", "127.0.0.1:0", "--bind", f"127.0.0.1:{port}")
    assert result.returncode == 1
    assert "serving" not in result.stderr


@pytest.mark.parametrize(
    "address", ["192.0.2.1:0", "no.such.host.invalid:80", "unix:/no/such/directory/socket"]
)
def test_an_address_that_cannot_be_bound_is_one_clear_sentence(address):
    result = run("raw", "--bind", address)
    assert result.returncode in (1, 2)
    assert address in result.stderr
    assert "Traceback" not in result.stderr


# Help and logs


def test_help_names_every_option():
    result = run("--help")
    assert result.returncode == 0
    assert result.stderr == ""
    assert set(OPTIONS) <= set(re.findall(r"--[a-z_-]+", result.stdout))


@pytest.mark.parametrize("option", ["--version", "-v", "-V"])
def test_version_is_printed(option):
    result = run(option)
    assert result.returncode == 0
    assert re.fullmatch(r"\S+ \d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.parametrize("option", ["-v", "--vers"])
def test_version_has_the_short_form_of_gunicorn(option):
    for command in (Path(MLWS).with_name("gunicorn"), MLWS):
        result = run(option, command=(command,))
        assert (result.returncode, result.stderr) == (0, "")
        assert re.search(r"\d+\.\d+\.\d+", result.stdout)


def test_an_ambiguous_prefix_of_an_option_is_an_error():
    result = run("raw", "--wor", "2")
    assert result.returncode == 2
    assert "unexpected argument '--wor' found" in result.stderr


def test_the_first_lines_of_the_log_have_versions_address_and_concurrency():
    with Server("raw", "--workers", "2", "--threads", "3") as server:
        text = server.log.text
    python = ".".join(map(str, sys.version_info[:3]))
    version = metadata.version("mylittlewebserver")
    first, second, *_ = re.findall(r"\[INFO\] (.*)", text)
    assert first == f"Starting mlws {version} with Python {python}"
    assert second == "Access log is off: add --access-logfile - to log requests to stdout"
    assert re.search(r"Listening at: http://127\.0\.0\.1:\d+ \(raw, 2 workers, 3 threads each\)", text)


@pytest.mark.parametrize("option", ["--access-logfile=-", "--log-syslog"])
def test_the_hint_about_the_access_log_is_omitted_if_it_is_enabled(option):
    with Server("raw", option) as server:
        assert "Starting mlws" in server.log.text
        assert "Access log is off" not in server.log.text


def test_every_log_line_has_date_pid_and_level():
    with Server("raw") as server:
        server.get("/answers/hello")
        server.stop()
        lines = server.log.text.splitlines()
        assert server.out.wait_for_end() == ""
    assert lines
    assert all(re.fullmatch(r"\[\d{4}-\d\d-\d\d .+\] \[\d+\] \[[A-Z]+\] .+", line) for line in lines)


def test_a_higher_log_level_logs_less(tmp_path):
    path = tmp_path / "socket"
    command = Command(MLWS, "raw", "--bind", f"unix:{path}", "--log-level", "warning")
    with command:
        eventually(lambda: path.exists() or not command.running(), "the socket")
        with Wire(str(path), socket.AF_UNIX) as wire:
            assert wire.request("/answers/hello").text == "hello\n"
            assert wire.request("/failures/raises").status == 500
        command.log.wait_for("ValueError: the app is on fire")
        command.stop()
        assert "INFO" not in command.log.text


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_the_access_log_has_a_line_for_each_request(tmp_path, concurrency):
    log = tmp_path / "access.log"
    with Server("raw", "--access-logfile", log, *CONCURRENCY[concurrency]) as server:
        server.get("/answers/hello?q=1", headers={"User-Agent": "a tester"})
        server.get("/inputs/echo", "POST", b"12345")
        server.get("/answers/status?status=404%20Not%20Found")
        server.get("/failures/raises")
        server.talk(b"GET / HTTP/1.1\r\n\r\n")
        server.stop()
    lines = log.read_text().splitlines()
    assert len(lines) >= 4
    # Children write their lines after the response, when the next child may already run, so any order is valid.
    for pattern in (
        r'^127\.0\.0\.1 .*"GET /answers/hello\?q=1 HTTP/1\.1" 200 6\b.*"a tester"',
        r'"POST /inputs/echo HTTP/1.1" 200 5',
        r" 404 8",
        r'"GET /failures/raises HTTP/1.1" 500 ',
    ):
        assert len([line for line in lines if re.search(pattern, line)]) == 1, pattern


def test_the_access_log_can_go_to_stdout():
    with Server("raw", "--access-logfile", "-") as server:
        server.get("/answers/hello")
        server.stop()
        assert '"GET /answers/hello HTTP/1.1" 200 6' in server.out.wait_for_end()


def test_no_request_can_forge_a_line_in_the_access_log():
    evil = b'GET /%0d%0aforged"%22 HTTP/1.1\r\nHost: test\r\nUser-Agent: a" 200 1 "\xe9\r\nConnection: close\r\n\r\n'
    with Server("raw", "--access-logfile", "-") as server:
        server.talk(evil)
        server.stop()
        lines = server.out.wait_for_end().splitlines()
    assert len(lines) == 1
    assert "/%0d%0aforged" in lines[0]
    assert 'a" 200 1 "' not in lines[0]


# From Python


def script(tmp_path, source):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(source))
    return path


def test_serve_serves_a_callable(tmp_path):
    path = script(
        tmp_path,
        """
        import mylittlewebserver

        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"from a script"]

        if __name__ == "__main__":
            mylittlewebserver.serve(app, bind="127.0.0.1:0", workers=2, threads=2)
            print("served")
        """,
    )
    with Server(path, "--bind", command=(sys.executable,), cwd=tmp_path) as server:
        assert server.get("/").text == "from a script"
        assert len(server.workers()) == 2
        server.stop()
        assert server.out.wait_for_end() == "served\n"


def test_serve_accepts_an_app_spec_and_forks(tmp_path):
    path = script(
        tmp_path,
        f"""
        import mylittlewebserver

        mylittlewebserver.serve("raw", bind=["127.0.0.1:0", "127.0.0.1:0"], fork=True, chdir={str(APPS)!r})
        """,
    )
    with Server(path, "--bind", command=(sys.executable,), cwd=tmp_path) as server:
        assert len(server.urls) == 2
        with server.wire() as wire:
            assert wire.request("/gates/count").text == wire.request("/gates/count").text == "1"


@pytest.mark.parametrize(
    "call", ["serve(5)", "serve('raw', threads=0)", "serve('raw', bogus=1)", "serve('raw', bind='x:y')"]
)
def test_serve_raises_for_invalid_settings(call):
    result = run("-c", f"import mylittlewebserver as m; m.{call}", command=(sys.executable,))
    assert result.returncode == 1
    assert re.search(r"^(TypeError|ValueError): ", result.stderr, re.MULTILINE)


def test_the_examples_respond_as_documented():
    for app, body in (
        ("wsgi_example", "Hello, World from the WSGI App!\n"),
        ("flask_app", "Hi from Flask!\n"),
    ):
        assert body_from("/", app, cwd=ROOT / "examples") == body
