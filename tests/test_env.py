"""`--env`, `--env-file` and `--factory`: the environment of the application, and application factories."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap

import pytest
from harness import MLWS, Server, eventually, run
from test_command import body_from, script

SEEN = """
import ctypes
import json
import os

at_import = dict(os.environ)
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    in_the_process = {name: (getenv(name.encode()) or b"").decode() for name in at_import}
    assert in_the_process == at_import
    return [json.dumps(at_import).encode()]
"""
FACTORIES = """
class Holder:
    @staticmethod
    def make():
        return create_app()

def create_app():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"made"]
    return app

def wants(something):
    return create_app()

def number():
    return 5
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "seen.py").write_text(SEEN)
    (tmp_path / "factories.py").write_text(FACTORIES)
    return tmp_path


def seen(directory, *options, **settings):
    """The environment that an application has when it is imported."""
    return json.loads(body_from("/", "seen", *options, cwd=directory, **settings))


def test_env_is_set_before_the_application_is_imported(directory):
    environment = seen(directory, "-e", "A=1", "--env", "B=two words=", "--env", "A=caf\xe9", "--env=C=")
    assert [environment[name] for name in "ABC"] == ["caf\xe9", "two words=", ""]


def test_env_is_set_in_a_preloaded_application_and_in_every_fork(directory):
    for mode in ("--preload", "--fork"):
        assert seen(directory, "--env", "A=1", mode)["A"] == "1"


@pytest.mark.parametrize("wrong", ["A", "=1", ""])
def test_an_invalid_env_pair_is_one_clear_error(directory, wrong):
    result = run("seen", "--env", wrong, cwd=directory)
    assert result.returncode == 2
    assert "expected KEY=VALUE" in result.stderr


def test_an_env_file_is_read_with_quotes_comments_exports_and_variables(directory):
    text = """\
    # the shop
    PLAIN=1
    export EXPORTED = "two words"  # not this
    SINGLE='as $it # is\\n'
    DOUBLE="one\\ntwo"
    HASH=a#b
    EMPTY=
    EXPANDED="${PLAIN} ${FOUND_ALREADY}"
    """
    (directory / ".env").write_text(textwrap.dedent(text))
    environment = seen(directory, "--env-file", ".env", env={"FOUND_ALREADY": "2"})
    names = ("PLAIN", "EXPORTED", "SINGLE", "DOUBLE", "HASH", "EMPTY", "EXPANDED")
    assert [environment[name] for name in names] == [
        "1", "two words", "as $it # is\\n", "one\ntwo", "a#b", "", "1 2",
    ]  # fmt: skip


def test_the_environment_overrides_the_env_file_and_env_overrides_both(directory):
    (directory / ".env").write_text("FOUND=file\nTOLD=file\nLISTED=file\nBOTH=file\n")
    options = ("--env-file", ".env", "--env", "TOLD=env", "--env", "BOTH=env")
    environment = seen(directory, *options, env={"FOUND": "found", "BOTH": "found"})
    got = [environment[name] for name in ("FOUND", "TOLD", "LISTED", "BOTH")]
    assert got == ["found", "env", "file", "env"]


def test_an_env_file_is_relative_to_chdir(directory):
    (directory / "deploy").mkdir()
    (directory / "deploy" / "env").write_text("A=there")
    options = ("--chdir", "deploy", "--pythonpath", directory)
    assert seen(directory, "--env-file", "env", *options)["A"] == "there"


def test_a_missing_env_file_is_one_clear_error(directory):
    result = run("seen", "--env-file", "no/such.env", cwd=directory)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: --env-file no/such.env: No such file or directory (os error 2)"
    ]


def test_an_error_in_an_env_file_names_the_line_but_not_its_value(directory):
    (directory / ".env").write_text("A=1\nKEY='hunter2\n")
    result = run("seen", "--env-file", ".env", cwd=directory)
    assert result.returncode == 2
    assert "line 2" in result.stderr
    assert "hunter2" not in result.stderr


def test_a_new_master_reads_the_env_file_again(directory):
    (directory / ".env").write_text("A=old")
    with Server("seen", "--env-file", ".env", "--env", "HOME=/told", cwd=directory) as server:
        assert json.loads(server.get("/").text)["A"] == "old"
        (directory / ".env").write_text("A=new")
        first = len(server.log.text)
        server.process.send_signal(signal.SIGUSR2)
        server.log.wait_for("Listening at: ", since=first)
        got = eventually(lambda: (got := json.loads(server.get("/").text))["A"] == "new" and got)
        assert got["HOME"] == "/told"
        second = int(server.log.wait_for(r"\[(\d+)\] \[INFO\] Listening at: ", since=first).group(1))
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        os.kill(second, signal.SIGTERM)
        eventually(lambda: not server.family(), "the second master to end")


def test_serve_accepts_env_and_env_file(directory):
    path = script(
        directory,
        """
        import mylittlewebserver

        mylittlewebserver.serve("seen", bind="127.0.0.1:0", env=["A=1", "B=2"], env_file=".env")
        """,
    )
    (directory / ".env").write_text("B=3\nC=4\n")
    with Server(path, "--bind", command=(sys.executable,), cwd=directory) as server:
        environment = json.loads(server.get("/").text)
    assert [environment[name] for name in "ABC"] == ["1", "2", "4"]


# Factories


@pytest.mark.parametrize("app", ["factories:create_app", "factories:Holder.make"])
def test_a_factory_returns_the_application(directory, app):
    assert body_from("/", app, "--factory", cwd=directory) == "made"


@pytest.mark.parametrize(
    ("app", "status", "error"),
    [
        ("factories:wants", 3, "missing 1 required positional argument"),
        ("factories:number", 2, "'int' object is not callable"),
        ("factories:gone", 2, "no attribute 'gone'"),
        ("factories", 2, "as in module:create_app"),
        ("factories:wants(1)", 2, "as in module:create_app"),
    ],
)
def test_an_invalid_factory_is_reported(directory, app, status, error):
    result = run(app, "--factory", "--bind", "127.0.0.1:0", cwd=directory)
    assert result.returncode == status
    assert error in result.stderr


@pytest.mark.parametrize("app", ["factories.create_app", "'factories:create_app'"])
def test_serve_calls_a_factory_in_the_worker(directory, app):
    path = script(
        directory,
        f"""
        import factories
        import mylittlewebserver

        mylittlewebserver.serve({app}, bind="127.0.0.1:0", factory=True)
        """,
    )
    with Server(path, "--bind", command=(sys.executable,), cwd=directory) as server:
        assert server.get("/").text == "made"


def test_help_describes_env_and_factory():
    result = run("--help", command=(MLWS,))
    assert {"--factory", "--env", "-e,", "--env-file", "--paste"} <= set(result.stdout.split())
