"""PasteDeploy: `pserve` with `use = egg:mylittlewebserver`, and `mlws --paste FILE`."""

from __future__ import annotations

import re
import signal
import sys
import textwrap
from pathlib import Path

import pytest
from harness import Command, Server, eventually, run

PSERVE = str(Path(sys.executable).with_name("pserve"))
SHOP = """
import logging

from pyramid.config import Configurator
from pyramid.response import Response


def main(global_config, **settings):
    def hello(request):
        logging.getLogger("shop").info("greeted")
        return Response(f"Hello from {settings['place']} with {global_config.get('colour')}!")

    config = Configurator(settings=settings)
    config.add_route("hello", "/")
    config.add_view(hello, route_name="hello")
    return config.make_wsgi_app()
"""
INI = """
[app:main]
use = call:shop:main
place = %(here)s

[app:admin]
use = call:shop:main
place = the admin's office

[server:main]
use = {use}
{settings}
"""
LOGGING = """
[loggers]
keys = root, shop

[handlers]
keys = console

[formatters]
keys = plain

[logger_root]
level = WARNING
handlers = console

[logger_shop]
level = INFO
handlers =
qualname = shop

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain

[formatter_plain]
format = THE SHOP: %(message)s
"""
FREE = "bind = 127.0.0.1:0"


@pytest.fixture
def write(tmp_path):
    """Writes the shop and its file with these server settings."""

    def write(settings=FREE, use="egg:mylittlewebserver", more=""):
        (tmp_path / "shop.py").write_text(SHOP)
        (tmp_path / "production.ini").write_text(
            INI.format(use=use, settings=textwrap.dedent(settings)) + more
        )
        return tmp_path

    return write


def pserve(directory, *arguments):
    """A server started by pserve."""
    command = (PSERVE, "production.ini", *arguments)
    return Server(
        command[0], *command[1:], command=(), bind=None, cwd=directory, env={"PYTHONPATH": str(directory)}
    )


def paste(directory, *options, name="production.ini", **settings):
    """A server started with `mlws --paste`."""
    return Server("--paste", name, *options, bind=None, cwd=directory, **settings)


def test_pserve_serves_with_the_settings_of_the_section(write):
    directory = write(
        """\
        bind = 127.0.0.1:0 127.0.0.1:0
        workers = 2
        threads = 3
        preload = true
        daemon = false
        access_logfile = %(here)s/access.log
        """
    )
    with pserve(directory) as server:
        assert server.get("/").text == f"Hello from {directory} with None!"
        assert len(server.urls) == 2
        assert "2 workers, 3 threads each" in server.log.text
        server.stop()
    assert '"GET / HTTP/1.1" 200' in (directory / "access.log").read_text()


def test_pserve_serves_the_named_app_with_its_variables(write):
    directory = write("port = 0\nhost = 127.0.0.1", use="egg:mylittlewebserver#main")
    with pserve(directory, "colour=red", "--app-name", "admin") as server:
        assert server.host == "127.0.0.1"
        assert server.get("/").text == "Hello from the admin's office with red!"


@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        ("host = ::1\nport = 0", ["[::1]"]),
        ("host = 127.0.0.1, [::1]\nport = 0", ["127.0.0.1", "[::1]"]),
        ("port = 0", ["127.0.0.1"]),
    ],
)
def test_host_and_port_are_accepted_in_every_common_form(write, settings, hosts):
    with pserve(write(settings)) as server:
        assert [re.sub(r"http://(.+):\d+/?", r"\1", url) for url in server.urls] == hosts


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ("wrokers = 2", "'wrokers'"),
        ("fork = maybe", "invalid value 'maybe' for fork: expected true or false"),
        ("workers = many", "'--workers <N>'"),
        ("bind = 127.0.0.1:0\nport = 80", "`bind` excludes `host` and `port`"),
        ("reload = true", "or `pserve --reload`, use `mlws --paste "),
    ],
)
def test_pserve_reports_invalid_settings(write, settings, error):
    directory = write(settings)
    result = run(
        "-c", "import sys, pyramid.scripts.pserve as p; sys.exit(p.main())", "production.ini",
        cwd=directory, command=(sys.executable,),
    )  # fmt: skip
    assert result.returncode != 0
    assert error in result.stderr.splitlines()[-1]


def test_pserve_reload_names_the_supported_option(write):
    with Command(PSERVE, "production.ini", "--reload", cwd=write(), env={"PYTHONPATH": "."}) as command:
        command.log.wait_for(r"ValueError: .*use `mlws --paste \S+production\.ini --reload`")
        command.stop(signal.SIGINT, statuses=(0, 1, -signal.SIGINT))


def test_pserve_logs_as_the_file_says(write):
    with pserve(write(more=LOGGING)) as server:
        server.get("/")
        server.log.wait_for("THE SHOP: greeted")


# mlws --paste


def test_paste_loads_the_app_and_the_command_line_overrides_its_settings(write):
    directory = write("bind = 127.0.0.1:0\nworkers = 2\nthreads = 3")
    with paste(directory, "--threads", "5") as server:
        assert server.get("/").text == f"Hello from {directory} with None!"
        assert "(production.ini, " in server.log.text
        assert "2 workers, 5 threads each" in server.log.text


def test_paste_accepts_a_section_and_variables(write):
    directory = write()
    words = ("--paster", "production.ini#admin", "--paste-global", "colour=blue")
    with Server(*words, bind=None, cwd=directory) as server:
        assert server.get("/").text == "Hello from the admin's office with blue!"


def test_paste_ignores_settings_for_another_server(write):
    with paste(write("listen = *:80", use="egg:waitress"), "--bind", "127.0.0.1:0") as server:
        assert server.get("/").status == 200


def test_paste_logs_as_the_file_says(write):
    with paste(write(more=LOGGING)) as server:
        server.get("/")
        server.log.wait_for("THE SHOP: greeted")


def test_paste_files_are_relative_to_the_current_directory_and_modules_to_chdir(write):
    directory = write()
    (directory / "deploy").mkdir()
    (directory / "production.ini").rename(directory / "deploy" / "our own.ini")
    with paste(directory / "deploy", "--chdir", "..", name="our own.ini") as server:
        assert server.get("/").text == f"Hello from {directory / 'deploy'} with None!"


def test_paste_reloads_when_the_file_changes(write):
    directory = write()
    with paste(directory, "--reload") as server:
        file = directory / "production.ini"
        file.write_text(file.read_text().replace("%(here)s", "elsewhere"))
        server.log.wait_for(r"production\.ini has changed: reloading")
        eventually(lambda: "elsewhere" in answer(server), "the new file to be served")


def answer(server):
    try:
        return server.get("/").text
    except OSError:  # its worker is just replaced
        return ""


@pytest.mark.parametrize(
    ("name", "settings", "status", "error"),
    [
        ("no.ini", FREE, 2, "error: --paste: no such file: 'no.ini'"),
        (
            "production.ini",
            "wrokers = 2",
            2,
            "production.ini: unknown setting 'wrokers'; did you mean workers?",
        ),
        ("production.ini", "workers = many", 2, "production.ini: invalid value 'many'"),
        ("production.ini#gone", FREE, 3, "production.ini#gone cannot be loaded"),
    ],
)
def test_paste_reports_invalid_settings(write, name, settings, status, error):
    result = run("--paste", name, cwd=write(settings))
    assert result.returncode == status
    assert error in result.stderr


def test_paste_names_the_package_to_install(write):
    directory = write()
    (directory / "shop.py").write_text("import sys\nsys.modules['paste.deploy'] = None\n")
    without = (
        "import shop, sys, mylittlewebserver.__main__ as m; sys.exit(m.main(['--paste', 'production.ini']))"
    )
    result = run("-c", without, cwd=directory, command=(sys.executable,))
    assert result.returncode == 3
    assert "--paste needs PasteDeploy: pip install PasteDeploy" in result.stderr


def test_serve_accepts_a_paste_file(write):
    directory = write()
    (directory / "script.py").write_text("import mylittlewebserver as m\nm.serve(paste='production.ini')\n")
    with Server(sys.executable, "script.py", command=(), bind=None, cwd=directory) as server:
        assert server.get("/").status == 200
