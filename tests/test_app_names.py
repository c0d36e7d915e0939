"""APP on the command line: common mistakes get an error that names the correction."""

from __future__ import annotations

import subprocess

import pytest
from harness import MLWS
from wire import DEADLINE

SHOP = """
def app(environ, start_response): ...

async def asgi(scope, receive, send): ...

class Asgi:
    async def __call__(self, scope, receive, send): ...

def create_app():
    return app

instance, number = Asgi(), 5
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "__init__.py").write_text("")
    (tmp_path / "mysite" / "wsgi.py").write_text("def application(environ, start_response): ...")
    return tmp_path


def check(directory, app):
    command = [MLWS, "--check-config", app]
    return subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=2 * DEADLINE, check=False
    )


@pytest.mark.parametrize("app", ["shop", "shop:app", "mysite.wsgi", "mysite.wsgi:application"])
def test_an_application_passes_the_check(directory, app):
    assert check(directory, app).returncode == 0


@pytest.mark.parametrize(
    ("app", "error"),
    [
        ("./shop.py:app", "did you mean shop:app?"),
        ("shop.py:app", "did you mean shop:app?"),
        ("mysite/wsgi.py", "did you mean mysite.wsgi?"),
        ("./mysite/wsgi:application", "did you mean mysite.wsgi:application?"),
        ("shop.app", "did you mean shop:app?"),
        ("mysite", "did you mean mysite.wsgi?"),
        ("shop:ap", "did you mean 'app'?"),
        ("..shop", "no module '..shop'"),
        ("shop:asgi", "shop:asgi is an ASGI application"),
        ("shop:instance", "shop:instance is an ASGI application"),
        ("shop:create_app", "add --factory"),
        ("shop:number", "'int' object is not callable"),
    ],
)
def test_a_mistake_gets_an_error_that_names_the_correction(directory, app, error):
    ended = check(directory, app)
    assert ended.returncode in (2, 3)
    assert error in ended.stderr
    assert "Traceback" not in ended.stderr
