"""`manage.py runmlws`: a Django project served as `runserver` would, by mlws."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from harness import DEADLINE, Server, eventually

MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_of_ours.settings")
execute_from_command_line(sys.argv)
"""
SETTINGS = """
import os
from pathlib import Path

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "for tests only"
DEBUG = "NO_DEBUG" not in os.environ
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.staticfiles", "mylittlewebserver", "pages"]
ROOT_URLCONF = "site_of_ours.urls"
WSGI_APPLICATION = "site_of_ours.wsgi.application"
STATIC_URL = "static/"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
"""
URLS = """
from django.urls import path

from pages import views

urlpatterns = [path("", views.hello), path("broken", views.broken)]
"""
WSGI = """
from django.core.wsgi import get_wsgi_application

django = get_wsgi_application()

def application(environ, start_response):
    environ["site.wsgi"] = "by its own wsgi.py"
    return django(environ, start_response)
"""
VIEWS = """
from django.http import HttpResponse

def hello(request):
    return HttpResponse(f"first, {request.META['site.wsgi']}")

def broken(request):
    raise ValueError("a broken view")
"""
MODEL = """
from django.db import models

class Page(models.Model):
    text = models.TextField(default="")
"""


@pytest.fixture
def project(tmp_path):
    files = {
        "manage.py": MANAGE,
        "site_of_ours/__init__.py": "",
        "site_of_ours/settings.py": SETTINGS,
        "site_of_ours/urls.py": URLS,
        "site_of_ours/wsgi.py": WSGI,
        "pages/__init__.py": "",
        "pages/views.py": VIEWS,
        "pages/static/style.css": "body { color: teal }",
    }
    directory = tmp_path / "project"
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def manage(project, *words, cwd=None, **environment):
    """A server started with `manage.py runmlws`."""
    command = (sys.executable, project / "manage.py", "runmlws")
    return Server(
        command[0], *command[1:], *words, command=(), bind=None, cwd=cwd or project, env=environment
    )


def run(project, *words, **environment):
    """A command that exits by itself."""
    command = [sys.executable, "manage.py", *words]
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, cwd=project, env=environment, check=False, capture_output=True, text=True, timeout=DEADLINE
    )


def test_pages_are_served_by_the_wsgi_application_of_the_project(project):
    with manage(project, "127.0.0.1:0", "--workers", "2", "--threads=3") as server:
        assert server.get("/").text == "first, by its own wsgi.py"
        assert "2 workers, 3 threads each" in server.log.text


def test_static_files_are_served_while_debug_is_on(project):
    with manage(project, "127.0.0.1:0") as server:
        answer = server.get("/static/style.css")
        assert (answer.status, answer.text) == (200, "body { color: teal }")
        assert server.get("/static/none.css").status == 404


@pytest.mark.parametrize(
    ("words", "environment", "status"),
    [
        ((), {"NO_DEBUG": "1"}, 404),
        (("--insecure",), {"NO_DEBUG": "1"}, 200),
        (("--nostatic",), {}, 404),
        (("--nostatic", "--insecure"), {"NO_DEBUG": "1"}, 404),
    ],
)
def test_static_files_are_served_under_the_same_conditions_as_by_runserver(
    project, words, environment, status
):
    with manage(project, "127.0.0.1:0", *words, **environment) as server:
        assert server.get("/static/style.css").status == status


def test_a_changed_file_is_served_after_an_automatic_reload(project):
    with manage(project, "127.0.0.1:0") as server:
        assert server.get("/").text.startswith("first")
        views = project / "pages/views.py"
        views.write_text(VIEWS.replace("first", "second"))
        server.log.wait_for(r"pages/views\.py has changed: reloading")
        eventually(lambda: answer(server).startswith("second"), "the change to be served")
        settings = project / "site_of_ours/settings.py"
        settings.write_text(SETTINGS.replace('"static/"', '"other/"'))
        eventually(lambda: answer(server, "/other/style.css").startswith("body"), "new settings to be used")


def test_requests_and_tracebacks_of_views_are_printed_while_debug_is_on(project):
    with manage(project, "127.0.0.1:0") as server:
        server.get("/")
        assert server.get("/broken?x=1").status == 500
        time = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
        server.out.wait_for(rf'{time} "GET / HTTP/1\.1" 200 25\n')
        server.out.wait_for(rf'{time} "GET /broken\?x=1 HTTP/1\.1" 500 \d+\n')
        server.log.wait_for(r"Internal Server Error: /broken\nTraceback")
        server.log.wait_for(r"views\.py\", line \d+, in broken\n.*\n(?:.*\n)?ValueError: a broken view")
        assert "Access log is off" not in server.log.text


def test_the_options_of_the_user_apply_to_the_log_of_requests(project):
    log = project / "access.log"
    with manage(project, "127.0.0.1:0", "--access-logfile", log, "--access-logformat", "%(U)s") as server:
        server.get("/")
        eventually(lambda: log.exists() and log.read_text() == "/\n", "the line of the request")
        assert '"GET ' not in server.out.text


def test_requests_are_not_printed_by_default_without_debug(project):
    with manage(project, "127.0.0.1:0", NO_DEBUG="1") as server:
        server.get("/")
        assert "Access log is off" in server.log.text
        server.stop()
        assert server.out.wait_for_end() == ""


def answer(server, path="/"):
    try:
        return server.get(path).text
    except OSError:  # its worker is just replaced
        return ""


@pytest.mark.parametrize(("words", "environment"), [(("--noreload",), {}), ((), {"NO_DEBUG": "1"})])
def test_reload_is_on_by_default_only_in_debug(project, words, environment):
    with manage(project, "127.0.0.1:0", *words, **environment) as server:
        assert "--reload is for development" not in server.log.text


def test_hup_reloads_the_project(project):
    with manage(project, "127.0.0.1:0", NO_DEBUG="1") as server:
        (project / "pages/views.py").write_text(VIEWS.replace("first", "second"))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: answer(server).startswith("second"), "the change to be served")


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("0", r"http://127\.0\.0\.1:\d+"),
        ("127.0.0.1:0", r"http://127\.0\.0\.1:\d+"),
        ("0:0", r"http://0\.0\.0\.0:\d+"),
        ("[::1]:0", r"http://\[::1\]:\d+"),
        ("localhost:0", r"http://127\.0\.0\.1:\d+|http://\[::1\]:\d+"),
    ],
)
def test_an_address_is_written_as_for_runserver(project, address, url):
    with manage(project, address) as server:
        server.log.wait_for(f"Listening at: ({url})")


def test_the_default_address_is_that_of_runserver(project):
    code = textwrap.dedent("""
        import os, sys
        sys.argv = ["manage.py", "runmlws"]
        os.execv = lambda program, words: print(*words)
        exec(open("manage.py").read())
    """)
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert "--bind" not in result.stdout  # so that mlws's own default holds, 127.0.0.1:8000


@pytest.mark.parametrize("address", ["x", "1.2.3.4", "localhost:http"])
def test_an_invalid_address_is_reported(project, address):
    result = run(project, "runmlws", address)
    assert result.returncode == 1
    assert result.stderr == f'CommandError: "{address}" is not a valid port number or address:port pair.\n'


def test_unknown_options_are_reported_by_mlws(project):
    result = run(project, "runmlws", "--wrokers", "2")
    assert result.returncode == 2
    assert "unexpected argument '--wrokers'" in result.stderr


def test_it_runs_from_any_directory_and_with_settings_of_another_name(project, tmp_path):
    (project / "site_of_ours" / "other.py").write_text("from .settings import *\nSTATIC_URL = 'files/'\n")
    with manage(project, "0", "--settings", "site_of_ours.other", cwd=tmp_path) as server:
        assert server.get("/files/style.css").status == 200


def test_the_system_checks_run_first(project):
    settings = project / "site_of_ours/settings.py"
    settings.write_text(SETTINGS + "STATICFILES_DIRS = 'no list'\n")
    result = run(project, "runmlws", "0")
    assert result.returncode == 1
    assert "staticfiles.E001" in result.stderr
    assert "serving" not in result.stderr


def test_unapplied_migrations_are_reported(project):
    (project / "pages/models.py").write_text(MODEL)
    assert run(project, "makemigrations", "pages").returncode == 0
    with manage(project, "0") as server:
        server.out.wait_for(r"1 unapplied migration")


def test_help_shows_the_options_of_both(project):
    for words in (("runmlws", "--help"), ("help", "runmlws")):
        result = run(project, *words)
        assert result.returncode == 0
        for option in ("ADDRESS", "--nostatic", "--settings", "--workers", "--max-requests"):
            assert option in result.stdout


def test_another_command_can_call_runmlws(project):
    words = "from django.core.management import call_command as c; c('runmlws', '0', '--threads', '2')"
    with Server(
        sys.executable, "manage.py", "shell", "-c", words, command=(), bind=None, cwd=project
    ) as server:
        assert server.get("/").status == 200
        assert "2 threads each" in server.log.text
