"""Sources of settings: Python and TOML files, the environment, the command line, and their precedence."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from harness import DEADLINE, MLWS, Server, eventually

APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{environ['wsgi.multithread']} {os.getcwd()}".encode()]
"""


@pytest.fixture
def directory(tmp_path):
    """A project with an app."""
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def write(directory, name, text):
    (directory / name).write_text(textwrap.dedent(text))
    return name


def ask(directory, *arguments, **environment):
    """Runs a command that exits by itself."""
    return subprocess.run(
        [MLWS, *map(str, arguments)],
        cwd=directory,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def shown(directory, *arguments, **environment):
    """The settings in the output of --print-config: name to value and source."""
    asked = ask(directory, "shop:app", "--print-config", *arguments, **environment)
    assert asked.returncode == 0, asked.stderr
    lines = re.findall(r"^(\w+) = (.*?) +# (.+)$", asked.stdout, re.M)
    return {name: (value, origin) for name, value, origin in lines}


def test_a_config_file_in_python_is_found_by_its_name(directory):
    write(directory, "gunicorn.conf.py", "import os\nworkers = 1 + 2\nkeepalive = 7\nloglevel = 'warning'\n")
    settings = shown(directory)
    assert settings["workers"] == ("3", "gunicorn.conf.py")
    assert settings["keep_alive"] == ("7", "gunicorn.conf.py")
    assert settings["log_level"] == ('"warning"', "gunicorn.conf.py")
    assert settings["threads"] == ("1", "default")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mlws.toml", 'workers = 3\nbind = ["127.0.0.1:0", "[::1]:0"]\npreload = true\nkeep-alive = 7\n'),
        (
            "pyproject.toml",
            '[project]\nname = "shop"\n[tool.mylittlewebserver]\nworkers = 3\nbind = "127.0.0.1:0,[::1]:0"\n'
            "preload = true\nkeep_alive = 7\n",
        ),
        (
            "gunicorn.conf.py",
            "workers = 3\nbind = ['127.0.0.1:0', '[::1]:0']\npreload_app = True\nkeepalive = 7\n",
        ),
    ],
)
def test_each_file_format_gives_the_same_settings(directory, name, text):
    write(directory, name, text)
    settings = shown(directory)
    assert settings["bind"] == ('["127.0.0.1:0", "[::1]:0"]', name)
    assert [settings[key][0] for key in ("workers", "preload", "keep_alive")] == ["3", "true", "7"]


def test_mlws_files_take_precedence_over_files_of_gunicorn(directory):
    write(directory, "gunicorn.conf.py", "workers = 3\nthreads = 2\n")
    write(directory, "pyproject.toml", "[tool.mylittlewebserver]\nworkers = 5\n")
    write(directory, "mlws.toml", "workers = 4\n")
    settings = shown(directory)
    assert settings["workers"] == ("4", "mlws.toml")
    assert settings["threads"] == ("1", "default")


def test_a_pyproject_without_our_table_is_left_alone(directory):
    write(directory, "pyproject.toml", "[tool.other]\nworkers = 'x'\n")
    assert shown(directory)["workers"] == ("1", "default")


def test_the_command_line_overrides_the_environment_which_overrides_the_file(directory):
    write(directory, "gunicorn.conf.py", "workers = 3\nthreads = 2\nbind = ['127.0.0.1:1', '127.0.0.1:2']\n")
    words = "--threads 5 --backlog 9 --pid 'a b'"
    settings = shown(directory, "--backlog", 10, "-b", "127.0.0.1:3", GUNICORN_CMD_ARGS=words)
    assert settings["workers"] == ("3", "gunicorn.conf.py")
    assert settings["threads"] == ("5", "GUNICORN_CMD_ARGS")
    assert settings["backlog"] == ("10", "the command line")
    assert settings["pid"] == ('"a b"', "GUNICORN_CMD_ARGS")
    assert settings["bind"] == ('["127.0.0.1:3"]', "the command line"), "a list is replaced, not made longer"


@pytest.mark.parametrize(
    ("name", "text", "words", "environment", "origin"),
    [
        ("mlws.toml", "workers = 'auto'\n", (), {}, "mlws.toml"),
        ("gunicorn.conf.py", "workers = 'auto'\n", (), {}, "gunicorn.conf.py"),
        ("mlws.toml", "workers = 7\n", ("--workers", "auto"), {}, "the command line"),
        ("mlws.toml", "", (), {"WEB_CONCURRENCY": " auto\n"}, "WEB_CONCURRENCY"),
        ("mlws.toml", "", (), {"GUNICORN_CMD_ARGS": "-w auto"}, "GUNICORN_CMD_ARGS"),
    ],
)
def test_each_source_can_set_auto_workers(directory, name, text, words, environment, origin):
    write(directory, name, text)
    assert shown(directory, *words, **environment)["workers"] == ('"auto"', origin)


def listening_workers(server):
    return int(re.findall(r"Listening at: .+ (\d+) workers?, ", server.log.text)[-1])


def test_auto_workers_follow_the_cpu_affinity_also_at_a_reload(directory):
    cpus = os.sched_getaffinity(0)
    words = ("shop:app", "--workers", "auto")
    with Server(*words, cwd=directory) as server:
        available = listening_workers(server)  # a CPU quota of this machine may be below the affinity
        assert 1 <= available <= len(cpus)
        assert len(server.workers()) == available
    hook = (
        "def nworkers_changed(server, new, old):\n    server.log.info('%d of %d', new, server.cfg.workers)\n"
    )
    write(directory, "gunicorn.conf.py", f"workers = 'auto'\n{hook}")
    with Server("shop:app", command=("taskset", "-c", str(min(cpus)), MLWS), cwd=directory) as server:
        assert listening_workers(server) == 1
        os.sched_setaffinity(server.pid, cpus)
        server.process.send_signal(signal.SIGHUP)
        server.log.wait_for("Reload complete")
        server.log.wait_for(f"{available} of {available}")
        eventually(lambda: len(server.workers()) == available, "a worker for each CPU")


@pytest.fixture
def cgroup():
    """A new cgroup with a quota of one and a half CPUs, and no processes."""
    period = 100_000
    quota = period * 3 // 2
    kinds = {
        "/sys/fs/cgroup": {"cpu.max": f"{quota} {period}"},
        "/sys/fs/cgroup/cpu": {"cpu.cfs_period_us": f"{period}", "cpu.cfs_quota_us": f"{quota}"},
    }
    for parent, files in kinds.items():
        path = Path(parent) / f"mlws-test-{os.getpid()}"
        if not (path.parent / "cgroup.procs").exists():
            continue
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            if all((path / name).exists() for name in files):
                for name, text in files.items():
                    (path / name).write_text(text)
                yield path
                return
        finally:
            eventually(lambda path=path: not (path / "cgroup.procs").read_text(), "the cgroup to be empty")
            path.rmdir()
    pytest.skip("this user may not create cgroups with a CPU quota")


def test_auto_workers_respect_the_cpu_quota_of_the_cgroup(directory, cgroup):
    if len(os.sched_getaffinity(0)) == 1:
        pytest.skip("one CPU is below the quota")
    join = ("sh", "-c", f'echo $$ >{cgroup}/cgroup.procs; exec "$@"', "sh", MLWS)
    with Server("shop:app", "--workers", "auto", command=join, cwd=directory) as server:
        assert listening_workers(server) == 1


def test_each_source_of_the_environment_has_its_precedence(directory):
    write(
        directory, "mlws.toml", "backlog = 1\nthreads = 1\nmax_queue = 1\nmax_requests = 1\npreload = true\n"
    )
    settings = shown(
        directory,
        *("--threads", 5),
        GUNICORN_CMD_ARGS="--backlog 2 --max-requests 2 --max-queue 2 --threads 2",
        MLWS_MAX_REQUESTS="3",
        MLWS_MAX_QUEUE="3",
        MLWS_THREADS="3",
        MLWS_PRELOAD="no",
        MLWS_WORKERS="3",
        MLWS_CMD_ARGS="--max-queue 4 --threads 4",
        WEB_CONCURRENCY="2",
    )
    assert settings["backlog"] == ("2", "GUNICORN_CMD_ARGS")
    assert settings["max_requests"] == ("3", "MLWS_MAX_REQUESTS")
    assert settings["workers"] == ("3", "MLWS_WORKERS")
    assert settings["preload"] == ("false", "MLWS_PRELOAD")
    assert settings["max_queue"] == ("4", "MLWS_CMD_ARGS")
    assert settings["threads"] == ("5", "the command line")


def test_variables_can_name_the_application_the_config_file_and_lists(directory):
    write(directory, "own.toml", "threads = 2\n")
    variables = {
        "MLWS_APP": "shop:app",
        "MLWS_CONFIG": "own.toml",
        "MLWS_BIND": "127.0.0.1:0 unix:own.sock",
        "MLWS_ENV": "A=1 'B=two words'",
    }
    asked = ask(directory, "--print-config", **variables)
    assert asked.returncode == 0, asked.stderr
    for line in (
        r'app = "shop:app" +# MLWS_APP',
        r"threads = 2 +# own\.toml",
        r'bind = \["127\.0\.0\.1:0", "unix:own\.sock"\] +# MLWS_BIND',
        r'env = \["A=1", "B=two words"\] +# MLWS_ENV',
    ):
        assert re.search(f"^{line}$", asked.stdout, re.M), line


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        (
            "MLWS_WORKERS",
            "0",
            "MLWS_WORKERS: invalid value '0' for '--workers <N>': expected a number from 1",
        ),
        ("MLWS_PRELOAD", "maybe", "MLWS_PRELOAD: invalid value 'maybe': expected 1, true, yes, on, 0, false"),
        ("MLWS_ENV", "'A=1", "MLWS_ENV: invalid value ''A=1': expected a closing quote"),
        ("MLWS_CMD_ARGS", "--wokers 3", "MLWS_CMD_ARGS: unexpected argument '--wokers' found"),
    ],
)
def test_an_invalid_variable_of_a_setting_is_an_error(directory, variable, text, complaint):
    asked = ask(directory, "shop:app", "--check-config", **{variable: text})
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith(f"error: {complaint}")
    assert ask(directory, "--help", **{variable: text}).returncode == 0


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(directory):
    asked = ask(directory, "shop:app", "--check-config", MLWS_WOKERS="3", MLWS_THREADS="")
    assert asked.returncode == 0
    [line] = [line for line in asked.stderr.splitlines() if "MLWS_WOKERS" in line]
    assert "MLWS_THREADS" not in asked.stderr
    assert "[WARNING] unknown environment variable MLWS_WOKERS is ignored; did you mean MLWS_WORKERS?" in line


def test_variables_for_the_application_set_no_options_even_after_a_reload_or_upgrade(directory):
    write(directory, ".env", "MLWS_THREADS=3\nMLWS_NONSENSE=1\n")
    words = ("shop:app", "--env-file", ".env", "--env", "MLWS_WORKERS=2")
    with Server(*words, cwd=directory, env={"MLWS_MAX_QUEUE": "9"}) as server:
        for signal_number in (signal.SIGHUP, signal.SIGUSR2):
            since = len(server.log.text)
            server.process.send_signal(signal_number)
            server.log.wait_for(r"Listening at: .+ \(shop:app, 1 worker, 1 thread each\)", since)
        for name in ("NONSENSE", "SOCKETS", "FIRST_MASTER"):
            assert f"unknown environment variable MLWS_{name}" not in server.log.text
        new_master = int(re.findall(r"\[(\d+)\] \[INFO\] Listening at: ", server.log.text)[-1])
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        os.kill(new_master, signal.SIGTERM)
        eventually(lambda: not server.family(), "the second master to end")


def test_serve_reads_no_variables_of_settings(directory):
    write(directory, "main.py", "import mylittlewebserver as m; m.serve('shop:app', bind='127.0.0.1:0')")
    environment = {"MLWS_WORKERS": "2", "MLWS_CMD_ARGS": "-w 3"}
    with Server("main.py", command=(sys.executable,), cwd=directory, env=environment) as server:
        assert len(server.workers()) == 1


def test_the_file_overrides_variables_that_only_change_a_default(directory):
    environment = {"WEB_CONCURRENCY": "6", "PORT": "1234"}
    settings = shown(directory, **environment)
    assert settings["workers"] == ("6", "WEB_CONCURRENCY")
    assert settings["bind"] == ('["0.0.0.0:1234"]', "PORT")
    write(directory, "gunicorn.conf.py", "workers = 3\nbind = 'localhost'\n")
    settings = shown(directory, **environment)
    assert settings["workers"][0] == "3"
    assert settings["bind"][0] == '["localhost"]'


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        (
            "WEB_CONCURRENCY",
            "abc",
            "--workers, set by WEB_CONCURRENCY: expected a number from 1 to 65535, or auto",
        ),
        (
            "WEB_CONCURRENCY",
            "0",
            "--workers, set by WEB_CONCURRENCY: expected a number from 1 to 65535, or auto",
        ),
        ("PORT", "http", "--bind, set by PORT: expected a port number from 0 to 65535"),
        ("PORT", "65536", "--bind, set by PORT: expected a port number from 0 to 65535"),
        (
            "FORWARDED_ALLOW_IPS",
            "nginx",
            "--forwarded-allow-ips, set by FORWARDED_ALLOW_IPS: invalid network",
        ),
    ],
)
def test_an_invalid_variable_is_reported_with_its_name(directory, variable, text, complaint):
    asked = ask(directory, "shop:app", "--check-config", **{variable: text})
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith(f"error: invalid value '{text}' for {complaint}")


def test_an_invalid_variable_is_ignored_if_another_source_overrides_it(directory):
    write(directory, "gunicorn.conf.py", "workers = 3\n")
    settings = shown(directory, "-b", "127.0.0.1:0", WEB_CONCURRENCY="abc", PORT="http")
    assert settings["workers"] == ("3", "gunicorn.conf.py")


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_variable_counts_as_unset(directory, text):
    settings = shown(directory, WEB_CONCURRENCY=text, PORT=text)
    assert settings["workers"] == ("1", "default")
    assert settings["bind"] == ('["127.0.0.1:8000"]', "default")


def test_white_space_around_a_variable_is_ignored(directory):
    settings = shown(directory, WEB_CONCURRENCY=" 2", PORT="80 ")
    assert settings["workers"][0] == "2"
    assert settings["bind"][0] == '["0.0.0.0:80"]'


def test_a_switch_in_a_file_can_be_turned_off_on_the_command_line(directory):
    write(directory, "mlws.toml", "preload = true\n")
    assert shown(directory)["preload"][0] == "true"
    write(directory, "mlws.toml", "preload = false\n")
    assert shown(directory)["preload"][0] == "false"


@pytest.mark.parametrize("how", ["{path}", "file:{path}", "python:settings.web"])
def test_a_config_file_can_be_named(directory, how):
    (directory / "settings").mkdir()
    (directory / "settings" / "__init__.py").touch()
    path = write(directory, "settings/web.py", "workers = 3\nwsgi_app = 'shop:app'\n")
    asked = ask(directory, "--print-config", "-c", how.format(path=path))
    assert asked.returncode == 0, asked.stderr
    assert re.search(r"^workers = 3 +# ", asked.stdout, re.M)
    assert re.search(r'^app = "shop:app" +# ', asked.stdout, re.M)


def test_the_output_of_print_config_is_a_valid_config_file(directory):
    before = ask(
        directory, "shop:app", "--print-config", "--workers", 3, "--timeout", 0.5, "--umask", "022"
    ).stdout
    write(directory, "mlws.toml", before)
    after = ask(directory, "--print-config")
    assert after.returncode == 0, after.stderr
    assert [line.split("#")[0] for line in before.splitlines()] == [
        line.split("#")[0] for line in after.stdout.splitlines()
    ]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("mlws.toml", "wokers = 3", "mlws.toml: unknown setting 'wokers'; did you mean workers?"),
        ("mlws.toml", "zzz = 3", "mlws.toml: unknown setting 'zzz'; mlws --help lists all settings"),
        ("mlws.toml", "workers = 'many'", "mlws.toml: invalid value 'many' for '--workers <N>'"),
        ("mlws.toml", "workers = [", "mlws.toml: TOML parse error at line 1"),
        ("mlws.toml", "workers = 1979-05-27", "mlws.toml: workers must be a string, a number"),
        (
            "mlws.toml",
            "preload = 'maybe'",
            "mlws.toml: invalid value 'maybe' for preload: expected true or false",
        ),
        (
            "pyproject.toml",
            "[tool.mylittlewebserver]\nwokers = 1",
            "pyproject.toml: unknown setting 'wokers'",
        ),
        ("gunicorn.conf.py", "workers = 'many'", "gunicorn.conf.py: invalid value 'many'"),
        (
            "gunicorn.conf.py",
            "1 / 0",
            "gunicorn.conf.py cannot be read: it raised the ZeroDivisionError above",
        ),
        ("gunicorn.conf.py", "def (", "it raised the SyntaxError above"),
        ("gunicorn.conf.py", "worker_class = 'gevent'", "green threads are not supported; use --threads"),
        (
            "gunicorn.conf.py",
            "worker_class = 'uvicorn.workers.UvicornWorker'",
            "only WSGI applications are supported",
        ),
        ("gunicorn.conf.py", "http_protocols = 'h3'", "expected h1, h2, or both, separated by a comma"),
        ("gunicorn.conf.py", "http2_max_frame_size = 1", "1 is not in 16384..=16777215"),
        (
            "gunicorn.conf.py",
            "post_fork = 'after_fork'",
            "gunicorn.conf.py: invalid value 'after_fork' for post_fork: expected a function, or its name as module.function",
        ),
        (
            "gunicorn.conf.py",
            "post_fork = 'shop.missing'",
            "gunicorn.conf.py: invalid value 'shop.missing' for post_fork: module shop has no function 'missing'",
        ),
        (
            "gunicorn.conf.py",
            "post_fork = 'no.such'",
            "gunicorn.conf.py: invalid value 'no.such' for post_fork: No module named 'no'",
        ),
        (
            "gunicorn.conf.py",
            "post_fork = 5",
            "gunicorn.conf.py: invalid value 5 for post_fork: expected a function",
        ),
    ],
)
def test_an_error_in_a_file_is_reported_with_its_name(directory, name, text, complaint):
    write(directory, name, text)
    asked = ask(directory, "shop:app")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert complaint in asked.stderr
    assert "panicked" not in asked.stderr


@pytest.mark.parametrize("words", [(), ("-c", "python:broken")])
def test_the_traceback_of_a_config_file_begins_in_the_file(directory, words):
    for name in ("gunicorn.conf.py", "broken.py"):
        write(directory, name, "def limit():\n    raise SystemExit(5)\n\nworkers = limit()\n")
    asked = ask(directory, "shop:app", *words)
    assert asked.returncode == 2
    file = directory / ("broken.py" if words else "gunicorn.conf.py")
    frames = re.findall(r'File "(.+)", line (\d+)', asked.stderr)
    assert frames == [(str(file), "4"), (str(file), "2")]
    assert "cannot be read: it raised the SystemExit above" in asked.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--wokers 3", "GUNICORN_CMD_ARGS: unexpected argument '--wokers' found"),
        ("--workers 'x", "GUNICORN_CMD_ARGS: unclosed quote"),
        ("--help", "GUNICORN_CMD_ARGS: --help and --version are allowed only on"),
    ],
)
def test_an_error_in_the_environment_is_reported_as_such(directory, words, complaint):
    asked = ask(directory, "shop:app", GUNICORN_CMD_ARGS=words)
    assert asked.returncode == 2
    assert complaint in asked.stderr


def test_a_missing_file_is_an_error(directory):
    asked = ask(directory, "shop:app", "-c", "nowhere.py")
    assert asked.returncode == 2
    assert "--config: no such file: nowhere.py" in asked.stderr


def test_conflicts_are_checked_after_all_sources_are_read(directory):
    write(directory, "mlws.toml", "fork_warmup = '/'\n")
    assert shown(directory, "--fork")["fork_warmup"] == ('"/"', "mlws.toml")
    assert "--fork" in ask(directory, "shop:app").stderr
    write(directory, "mlws.toml", "threads = 8\n")
    assert "cannot be used with" in ask(directory, "shop:app", "--fork").stderr


def test_other_names_in_a_python_file_are_ignored(directory):
    write(
        directory, "gunicorn.conf.py", "import os\nnumber = 2\nworkers = number\n\ndef helper():\n    pass\n"
    )
    asked = ask(directory, "shop:app", "--check-config")
    assert (asked.returncode, asked.stdout) == (0, "")
    assert "number" not in asked.stderr
    write(directory, "gunicorn.conf.py", "wokers = 2\n")
    assert (
        "wokers is not a setting; did you mean workers?"
        in ask(directory, "shop:app", "--check-config").stderr
    )


def test_unsupported_gunicorn_settings_are_reported_once(directory):
    write(directory, "gunicorn.conf.py", "worker_tmp_dir = '/dev/shm'\nworker_class = 'gthread'\n")
    asked = ask(directory, "shop:app", "--check-config", "--no-control-socket")
    assert asked.returncode == 0
    assert asked.stderr.count("--worker-tmp-dir is ignored: workers do not use heartbeat files") == 1
    assert asked.stderr.count("--no-control-socket is ignored") == 1


def test_a_config_is_checked_with_the_application(directory):
    assert "shop:app can be served with these settings" in ask(directory, "shop:app", "--check-config").stderr
    broken = ask(directory, "shop:nothing", "--check-config")
    assert broken.returncode == 2
    assert "shop has no attribute 'nothing'" in broken.stderr.replace("module ", "")
    (directory / "shop.py").write_text("1 / 0")
    assert ask(directory, "shop:app", "--check-config").returncode == 3


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_a_shell_can_complete_the_options(directory, shell):
    asked = ask(directory, "--completions", shell)
    assert asked.returncode == 0
    assert "worker-connections" in asked.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=asked.stdout, text=True, check=True)


def test_a_missing_application_is_an_error_that_says_how_to_set_one(directory):
    asked = ask(directory)
    assert asked.returncode == 2
    assert "module:attribute" in asked.stderr
    assert "wsgi_app" in asked.stderr


def test_a_reload_rereads_the_file(directory):
    write(directory, "gunicorn.conf.py", "bind = '127.0.0.1:0'\nworkers = 1\nthreads = 1\n")
    with Server("shop:app", "--bind", "127.0.0.1:0", cwd=directory) as server:
        assert server.get("/").text.startswith("False")
        write(directory, "gunicorn.conf.py", "workers = 3\nthreads = 2\n")
        server.process.send_signal(signal.SIGHUP)
        server.log.wait_for("Reload complete")
        eventually(lambda: len(server.workers()) == 3, "three workers")
        assert server.get("/").text.startswith("True")


def test_a_reload_with_a_broken_file_changes_nothing(directory):
    write(directory, "gunicorn.conf.py", "workers = 2\n")
    with Server("shop:app", cwd=directory) as server:
        before = server.workers()
        write(directory, "gunicorn.conf.py", "workers = 'many'\n")
        server.process.send_signal(signal.SIGHUP)
        server.log.wait_for(
            "Reload failed, keeping the previous configuration: gunicorn.conf.py: invalid value 'many'"
        )
        assert server.workers() == before
        write(directory, "gunicorn.conf.py", "workers = 1\n")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(server.workers()) == 1, "one worker")
        assert server.get("/").status == 200


def test_a_reload_moves_to_the_addresses_of_the_file(directory):
    old, new = directory / "old.sock", directory / "new.sock"
    write(directory, "gunicorn.conf.py", f"bind = ['127.0.0.1:0', 'unix:{old}']\n")
    with Server("shop:app", bind=None, cwd=directory) as server:
        assert old.exists()
        write(directory, "gunicorn.conf.py", f"bind = ['unix:{new}', '127.0.0.1:0']\n")
        server.process.send_signal(signal.SIGHUP)
        changed = server.log.wait_for("Addresses changed: (.+)").group(1)
        assert set(changed.split(", ")) == {server.urls[0], f"unix:{new}"}, "what stays keeps its port"
        server.log.wait_for("Reload complete")
        assert server.get("/").status == 200
        assert new.exists() and not old.exists()
    assert not new.exists()


def test_serve_reads_only_the_given_file(directory):
    write(directory, "gunicorn.conf.py", "workers = 3\n")
    write(directory, "own.toml", "workers = 2\nthreads = 1\n")
    program = "from mylittlewebserver import serve; serve('shop:app', bind='127.0.0.1:0'{})"
    for more, workers in [("", 1), (", config='own.toml'", 2), (", config='own.toml', workers=1", 1)]:
        write(directory, "main.py", program.format(more))
        with Server("main.py", command=(sys.executable,), cwd=directory) as server:
            assert len(server.workers()) == workers


def test_a_reload_to_an_address_in_use_changes_nothing(directory):
    write(directory, "other.py", APP.replace("os.getcwd()", "os.environ['COLOUR']"))
    text = "bind = ['127.0.0.1:0']\nraw_env = ['COLOUR=blue']\nwsgi_app = 'other:app'\nworkers = 1\n"
    write(directory, "gunicorn.conf.py", text)
    with (
        Server("--pid", "pid", bind=None, cwd=directory) as server,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        assert server.get("/").text.endswith("blue")
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        changed = (
            text.replace("blue", "red").replace("['127.0.0.1:0']", f"['{address}']").replace("other", "shop")
        )
        write(directory, "gunicorn.conf.py", changed)
        server.process.send_signal(signal.SIGHUP)
        server.log.wait_for(f"Reload failed, keeping the previous configuration: cannot listen on {address}")
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: server.workers() not in ([], [worker]), "another worker")
        assert server.get("/").text.endswith("blue"), "the next worker is as the one before"
        assert (directory / "pid").read_text().strip() == str(server.pid)
