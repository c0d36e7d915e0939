"""What a Python config file and its hooks can import: the same as under gunicorn, but as root only files that no other user can change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from harness import MLWS, Server
from wire import DEADLINE

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has such limits")
NOBODY = 65534

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hi"]
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "web.py").write_text(APP)
    (tmp_path / "shop" / "limits.py").write_text("THREADS = 7\n")
    (tmp_path / "shop" / "tasks.py").write_text("print('imported late', flush=True)\n")
    return tmp_path


def shown(project, *arguments, **environment):
    """The output or error of --print-config."""
    return subprocess.run(
        [MLWS, *arguments, "--print-config"],
        cwd=project,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def test_a_config_file_can_import_the_modules_of_its_project(project):
    (project / "gunicorn.conf.py").write_text(
        "from shop.limits import THREADS\nthreads = THREADS\n"
        "def on_starting(server):\n    import shop.tasks\n"
    )
    with Server("shop.web:app", cwd=project) as server:
        server.out.wait_for("imported late")
        assert "7 threads each" in server.log.text
        assert server.get("/").text == "hi"


@pytest.mark.parametrize(
    "words",
    [("--pythonpath", "nowhere,lib"), ("--chdir", "lib"), ("--chdir", "shop", "--pythonpath", "../lib")],
)
@pytest.mark.parametrize("where", ["command line", "environment"])
def test_a_config_file_can_import_from_chdir_and_pythonpath(words, where, project):
    (project / "lib").mkdir()
    (project / "lib" / "limits_of_lib.py").write_text("THREADS = 7\n")
    (project / "gunicorn.conf.py").write_text(
        "from limits_of_lib import THREADS\nimport shop.limits\nthreads = THREADS\n"
    )
    if where == "environment":
        ended = shown(project, "shop.web:app", GUNICORN_CMD_ARGS=" ".join(words))
    else:
        ended = shown(project, "shop.web:app", *words)
    assert ended.returncode == 0, ended.stderr
    assert "threads = 7 " in ended.stdout


def test_hooks_can_import_from_the_directories_that_their_file_names(project):
    (project / "lib").mkdir()
    (project / "lib" / "late.py").write_text("print('imported late', flush=True)\n")
    (project / "gunicorn.conf.py").write_text(
        "pythonpath = 'lib'\ndef when_ready(server):\n    import late\n"
    )
    with Server("shop.web:app", cwd=project) as server:
        server.out.wait_for("imported late")


def test_a_config_module_can_import_modules_of_its_project_later(project):
    (project / "conf.py").write_text("import shop.limits\ndef when_ready(server):\n    import shop.tasks\n")
    with Server("shop.web:app", "-c", "python:conf", cwd=project) as server:
        server.out.wait_for("imported late")


def test_a_config_module_that_fails_at_a_reload_does_not_change_sys_modules(project):
    (project / "conf").mkdir()
    main, part = project / "conf" / "__init__.py", project / "conf" / "part.py"
    good = (
        "from conf.part import THREADS as threads\n"
        "def when_ready(server):\n    print(f'ready with {threads}', flush=True)\n"
        "def nworkers_changed(server, new, old):\n"
        "    import conf.part\n    print(f'{new} workers with {conf.part.THREADS}', flush=True)\n"
    )
    main.write_text(good)
    part.write_text("THREADS = 2\n")
    with Server("shop.web:app", "-c", "python:conf", cwd=project) as server:
        server.out.wait_for("ready with 2")
        part.write_text("THREADS = 1 / 0\n")
        server.process.send_signal(signal.SIGHUP)
        server.log.wait_for("ZeroDivisionError")
        server.log.wait_for("Reload failed, keeping the previous configuration")
        server.process.send_signal(signal.SIGTTIN)
        server.out.wait_for("2 workers with 2")
        part.write_text("THREADS = 3\n")
        server.process.send_signal(signal.SIGHUP)
        server.out.wait_for("1 workers with 3")
        server.log.wait_for("Reload complete")


def test_a_reload_does_not_import_a_module_of_the_program_again(project):
    conf, main = project / "conf.py", project / "main.py"
    conf.write_text("print('imported', flush=True)\nthreads = 2\n")
    main.write_text(
        "import conf\nfrom mylittlewebserver import serve\n"
        "serve('shop.web:app', config='python:conf', bind='127.0.0.1:0')\n"
    )
    with Server("main.py", command=(sys.executable,), cwd=project) as server:
        conf.write_text("print('imported', flush=True)\nthreads = 33\n")
        server.process.send_signal(signal.SIGHUP)
        server.log.wait_for("Reload complete")
        assert server.out.text.count("imported") == 1
        assert "33 threads" not in server.log.text


# As root


@as_root
def test_root_imports_nothing_from_a_directory_of_another_user(project):
    (project / "gunicorn.conf.py").write_text("import shop.limits\n")
    os.chown(project, NOBODY, NOBODY)
    ended = shown(project, "shop.web:app")
    assert ended.returncode == 2
    assert "No module named 'shop'" in ended.stderr
    assert f"root does not import from {project}: user {NOBODY} can change it" in ended.stderr


@as_root
@pytest.mark.parametrize("what", ["shop", "shop/limits.py", "shop/__pycache__"])
def test_root_imports_no_module_that_another_user_can_change(what, project):
    (project / "gunicorn.conf.py").write_text("import shop.limits\n")
    (project / "shop" / "__pycache__").mkdir()
    os.chown(project / what, NOBODY, NOBODY)
    ended = shown(project, "shop.web:app")
    assert ended.returncode == 2
    assert f": user {NOBODY} can change it" in ended.stderr


@as_root
def test_the_application_is_loaded_even_if_others_can_change_it(project):
    (project / "gunicorn.conf.py").write_text("import shop.limits\n")
    os.chown(project / "shop" / "web.py", NOBODY, NOBODY)
    with Server("shop.web:app", cwd=project) as server:
        assert server.get("/").text == "hi"
    ended = shown(project, "shop.web:app")
    assert ended.returncode == 0, ended.stderr
