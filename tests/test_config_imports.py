"""What a Python config file and its hooks can import, as under gunicorn; and as root, only what nobody else can change."""

from __future__ import annotations

import os
import subprocess

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
    """What --print-config says, or why it does not."""
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


def test_a_config_module_can_import_the_modules_of_its_project_late(project):
    (project / "conf.py").write_text("import shop.limits\ndef when_ready(server):\n    import shop.tasks\n")
    with Server("shop.web:app", "-c", "python:conf", cwd=project) as server:
        server.out.wait_for("imported late")


# As root


@as_root
def test_root_imports_nothing_from_a_directory_of_somebody_else(project):
    (project / "gunicorn.conf.py").write_text("import shop.limits\n")
    os.chown(project, NOBODY, NOBODY)
    ended = shown(project, "shop.web:app")
    assert ended.returncode == 2
    assert "No module named 'shop'" in ended.stderr
    assert f"root does not import from {project}: user {NOBODY} can change it" in ended.stderr


@as_root
@pytest.mark.parametrize("what", ["shop", "shop/limits.py", "shop/__pycache__"])
def test_root_imports_no_module_that_somebody_else_can_change(what, project):
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
