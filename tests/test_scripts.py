"""The scripts in `bin/`, as a new contributor would run them."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from harness import DEADLINE, ROOT, Command, eventually, free_port

BIN = ROOT / "bin"
BODIES = {
    "http": "Hello, World!\n",
    "wsgi_example": "Hello, World from the WSGI App!\n",
    "flask": "Hi from Flask!\n",
    "pyramid": "Hi from Pyramid!\n",
    "django": "Hi from Django!\n",
}
COLD_BUILD = 1800


def run(script, *arguments, deadline=DEADLINE, **settings):
    """Runs a script that exits by itself."""
    words = [str(BIN / script), *map(str, arguments)]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=deadline, **settings)


class Mode(Command):
    """`bin/run.sh MODE`, once its port accepts connections."""

    def __init__(self, *arguments, cwd):
        self.port = free_port()
        super().__init__(BIN / "run.sh", *arguments, cwd=cwd, env={"PORT": str(self.port)})
        self.url = f"http://127.0.0.1:{self.port}/"
        try:
            self.log.wait_for(rf"Listening at: http://127\.0\.0\.1:{self.port}\b")
        except BaseException:
            self.end()
            raise

    def curl(self, *arguments):
        command = ["curl", "--silent", "--show-error", "--max-time", str(DEADLINE), *arguments, self.url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", autouse=True)
def built():
    """Builds everything before deadlines apply."""
    result = run("build.sh", deadline=COLD_BUILD)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("options", [(), ("--fork",)], ids=["plain", "fork"])
@pytest.mark.parametrize("mode", BODIES)
def test_each_mode_answers_500_requests(mode, options, tmp_path):
    with Mode(mode, *options, cwd=tmp_path) as server:
        assert server.curl() == BODIES[mode]
        assert "\ncontent-type: text/plain" in server.curl("--head").lower()
        result = run("request.sh", 500, server.url)
        assert "500 of 500" in result.stdout
        assert result.returncode == 0
        eventually(lambda: not server.zombies(), "every child to be reaped")
        # The HTTP layer alone has no master, so the signal kills the process.
        server.stop(statuses=(0, -signal.SIGTERM) if mode == "http" else (0,))


def test_the_example_sets_its_header_and_is_the_default_mode(tmp_path):
    with Mode(cwd=tmp_path) as server:
        assert "X-IMPORTANT-INFO: hello world" in server.curl("--include")


def test_options_go_to_the_server(tmp_path):
    with Mode("flask", "--workers", "2", "--access-logfile", "-", cwd=tmp_path) as server:
        assert server.curl() == BODIES["flask"]
        server.out.wait_for('"GET / HTTP/1.1" 200')


def test_an_unknown_mode_lists_the_modes():
    result = run("run.sh", "nonsense")
    assert result.returncode == 2
    for mode in (*BODIES, "shell", "nonsense"):
        assert mode in result.stderr


def test_the_shell_has_the_environment_active(tmp_path):
    result = run("run.sh", "shell", input="command -v mlws; command -v python; exit 7\n", cwd=tmp_path)
    assert result.returncode == 7
    assert result.stdout.splitlines() == [str(ROOT / ".venv/bin/mlws"), str(ROOT / ".venv/bin/python")]


@pytest.mark.parametrize("script", sorted(path.name for path in BIN.glob("*.sh") if os.access(path, os.X_OK)))
def test_each_script_prints_its_help_from_any_directory(script, tmp_path):
    result = run(script, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert f"bin/{script}" in result.stdout


def test_request_counts_failures_and_fails():
    result = run("request.sh", 5, f"http://127.0.0.1:{free_port()}/")
    assert result.returncode == 1
    assert "0 of 5" in result.stdout


def test_request_counts_by_status(tmp_path):
    with Mode("flask", cwd=tmp_path) as server:
        result = run("request.sh", 5, f"{server.url}missing")
    assert result.returncode == 1
    assert "0 of 5" in result.stdout
    assert "404" in result.stdout
