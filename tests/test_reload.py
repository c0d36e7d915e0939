"""`--reload`: changed files are served after a reload, and import errors are shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CONCURRENCY
from harness import MLWS, Command, Server, descriptors, eventually, processes, rests

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [{}]
"""
LAZY = APP.format("__import__('lazy.words').words.text().encode()")
BROKEN = "def app(environ, start_response:\n"
FORK = CONCURRENCY["fork"]
ENGINES = [
    ("--reload-engine", "inotify"),
    ("--reload-engine", "poll"),
    FORK,
    (*FORK, "--reload-engine", "poll"),
]


def app_returning(text):
    return APP.format(repr(text.encode()))


@pytest.fixture
def directory(tmp_path):
    """A project with one module, `shop.py`, that returns `first`."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "shop.py").write_text(app_returning("first"))
    return directory


@pytest.fixture
def reloading(start, directory):
    """Starts a server of the project that reloads."""
    return lambda *options: start("shop:app", "--reload", *options, cwd=directory)


def answer(server, *request):
    """The body of a response. While a worker is replaced, one connection may fail, but not the next one."""

    def ask():
        try:
            return server.get(*(request or ["/"]))
        except OSError:
            return None

    return eventually(ask, "an answer")


def serves(server, text, *request):
    """Waits for a response with this text, and returns it."""
    return eventually(
        lambda: text in (got := answer(server, *request)).text and got, f"{text!r} to be served", deadline=30
    )


def inotify(pid):
    """The descriptors that notify a process of changes."""
    found = subprocess.run(
        ["find", f"/proc/{pid}/fd", "-lname", "*inotify"], capture_output=True, check=False
    )
    return found.stdout.split()


def reloads(server):
    """The changed files according to the log, in order."""
    return re.findall(r"\] (\S+) has changed: reloading", server.log.text)


@pytest.mark.parametrize("options", [(), *ENGINES], ids=" ".join)
def test_a_change_is_served(reloading, directory, options):
    server = reloading(*options)
    assert answer(server).text == "first"
    for text in ["second", "third"]:
        (directory / "shop.py").write_text(app_returning(text))
        serves(server, text)
    assert set(reloads(server)) == {"shop.py"}


def test_the_log_says_at_startup_that_reload_is_for_development(reloading):
    assert reloading("--workers", "2").log.text.count("is for development") == 1


def test_without_the_option_nothing_is_watched(start, directory):
    server = start("shop:app", cwd=directory)
    assert not inotify(server.workers()[0])
    (directory / "shop.py").write_text(BROKEN)
    assert answer(server).text == "first"


def test_only_one_of_several_workers_watches(reloading, directory):
    server = reloading("--workers", "3")
    eventually(lambda: any(inotify(pid) for pid in server.workers()))
    assert len([pid for pid in server.workers() if inotify(pid)]) == 1


@pytest.mark.parametrize("engine", ["inotify", "poll"])
def test_a_module_that_is_imported_later_is_watched_too(reloading, directory, tmp_path, engine):
    """The file is outside of the directory in which the server was started."""
    package = tmp_path / "elsewhere/lazy"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "words.py").write_text("def text(): return 'lazy'")
    (directory / "shop.py").write_text(LAZY)
    server = reloading("--reload-engine", engine, "--pythonpath", package.parent)
    assert answer(server).text == "lazy"
    (package / "words.py").write_text("def text(): return 'lazier'")
    serves(server, "lazier")
    assert [Path(path).name for path in reloads(server)] == ["words.py"]


@pytest.mark.parametrize("options", ENGINES, ids=" ".join)
def test_an_import_error_is_shown_until_it_is_fixed(reloading, directory, options):
    server = reloading(*options)
    assert answer(server).text == "first"
    (directory / "shop.py").write_text(BROKEN)
    response = serves(server, "SyntaxError", "/any/path", "POST", b"body")
    assert response.status == 500
    assert response.header("content-type") == "text/plain; charset=utf-8"
    assert str(directory / "shop.py") in response.text
    assert "after the next change" in response.text
    server.log.wait_for("SyntaxError")
    (directory / "shop.py").write_text(app_returning("mended"))
    serves(server, "mended")


@pytest.mark.parametrize(
    ("options", "failure"),
    [
        ((), BROKEN),
        (FORK, BROKEN),
        ((), "raise RuntimeError('no shop today')"),
        ((), "import sys; sys.exit(7)"),
        ((), "import nowhere"),
        ((), "application = app = None"),
        ((), None),
    ],
)
def test_the_first_start_may_fail(reloading, directory, options, failure):
    if failure is None:
        (directory / "shop.py").unlink()
    else:
        (directory / "shop.py").write_text(failure)
    server = reloading(*options)
    assert "after the next change" in answer(server).text
    (directory / "shop.py").write_text(app_returning("mended"))
    serves(server, "mended")


def test_the_faulty_file_may_be_in_another_directory(reloading, directory, tmp_path):
    package = tmp_path / "elsewhere"
    package.mkdir()
    (package / "helper.py").write_text("text = b'helped'\nx = = 1\n")
    (directory / "shop.py").write_text(APP.format("__import__('helper').text") + "import helper\n")
    server = reloading("--pythonpath", package)
    assert "helper.py" in answer(server).text
    (package / "helper.py").write_text("text = b'helped'\n")
    serves(server, "helped")


def test_a_missing_package_may_be_created(reloading, directory):
    (directory / "shop.py").write_text("from package.inner import app\n")
    server = reloading()
    assert "ModuleNotFoundError" in answer(server).text
    (directory / "package").mkdir()
    (directory / "package/__init__.py").touch()
    (directory / "package/inner.py").write_text(app_returning("made"))
    serves(server, "made")


@pytest.mark.parametrize("engine", ["inotify", "poll"])
def test_replacing_or_deleting_a_file_is_a_change(reloading, directory, engine):
    (directory / "prices.py").write_text("text = b'dear'")
    (directory / "shop.py").write_text("import prices\n" + APP.format("prices.text"))
    server = reloading("--reload-engine", engine)
    assert answer(server).text == "dear"
    (directory / "new").write_text("text = b'cheap'")
    os.utime(directory / "new", (1, 1))  # older than what it replaces
    (directory / "new").rename(directory / "prices.py")
    serves(server, "cheap")
    (directory / "prices.py").unlink()
    serves(server, "ModuleNotFoundError")


@pytest.mark.parametrize("options", ENGINES, ids=" ".join)
def test_extra_files_are_watched(reloading, directory, options):
    pages = directory / "pages/deep"
    pages.mkdir(parents=True)
    (directory / "shop.py").write_text(
        "from pathlib import Path\n"
        "files = [Path('.env'), *sorted(Path().glob('pages/**/*.html'))]\n"
        "text = b' '.join(path.read_bytes() for path in files)\n" + APP.format("text")
    )
    (directory / ".env").write_text("env1")
    (pages / "page.html").write_text("page1")
    server = reloading("--reload-extra-file", ".env", "--reload-extra-file", "pages/**/*.html", *options)
    assert answer(server).text == "env1 page1"
    (directory / ".env").write_text("env2")
    serves(server, "env2 page1")
    (pages / "page.html").write_text("page2")
    serves(server, "env2 page2")
    (directory / "pages/late").mkdir()
    (directory / "pages/late/page.html").write_text("late")
    serves(server, "late")


def test_many_changes_cause_few_reloads(reloading, directory):
    server = reloading()
    for number in range(50):
        (directory / f"module{number}.py").write_text(f"number = {number}")
    (directory / "shop.py").write_text(app_returning("all changed"))
    serves(server, "all changed")
    assert 1 <= len(reloads(server)) <= 3


@pytest.mark.parametrize("engine", ["inotify", "poll"])
def test_changes_during_the_import_are_loaded_too(reloading, directory, engine):
    """The module has been read, but the server does not watch yet: a gate inside the import holds it there."""
    gate, arrived = directory / "gate", directory / "arrived"
    os.mkfifo(gate)
    waits = f"open(r'{arrived}', 'w').close()\nopen(r'{gate}').read()\n"
    server = reloading("--reload-engine", engine)
    (directory / "shop.py").write_text(app_returning("half-way") + waits)
    eventually(arrived.exists)
    (directory / "shop.py").write_text(app_returning("whole"))
    gate.write_text("")
    serves(server, "whole")


def test_changes_of_other_files_are_ignored(reloading, directory):
    cache = directory / "__pycache__"
    cache.mkdir()
    pages = directory / "pages"
    pages.mkdir()
    server = reloading("--reload-extra-file", "pages/*")
    # Twice, so that the server watches when the first of them changes.
    for text in ["second", "third"]:
        for path in [
            cache / "shop.cpython-311.pyc",
            cache / "junk.py",
            directory / ".#shop.py",
            directory / ".shop.py.swp",
            directory / "notes.txt",
            pages / "page.html~",
            pages / ".page.html.swp",
        ]:
            path.write_text("junk")
        (directory / "shop.py").write_text(app_returning(text))
        serves(server, text)
    assert set(reloads(server)) == {"shop.py"}


@pytest.mark.parametrize("options", [(), FORK], ids=" ".join)
def test_reloads_leak_no_descriptors(reloading, directory, options):
    """No process is left at the end (`stop` checks that), and many reloads add no descriptor."""
    server = reloading(*options)
    before = None
    for text in ["second", "third", "fourth"]:
        (directory / "shop.py").write_text(app_returning(text))
        serves(server, text)
        worker = eventually(lambda: len(pids := server.workers()) == 1 and pids[0])
        eventually(lambda pid=worker: sum(len(inotify(p)) for p in (pid, *server.children(pid))) == 1)
        if before is None:
            rests(worker)
            before = descriptors(worker), descriptors(server.pid)
        eventually(lambda pid=worker, same=before: (descriptors(pid), descriptors(server.pid)) == same)
    server.stop()


def test_the_watcher_ends_with_a_worker_that_is_killed(reloading, directory):
    server = reloading(*FORK)
    worker = server.workers()[0]
    watcher = eventually(lambda: server.children(worker))[0]
    os.kill(worker, 9)
    eventually(lambda: all(process.pid != watcher for process in processes()), "the watcher to end")
    (directory / "shop.py").write_text(app_returning("second"))
    serves(server, "second")


@pytest.mark.parametrize("limit", ["watches", "instances"])
def test_polling_is_used_if_inotify_is_exhausted(directory, limit):
    """A new user namespace has its own limits."""
    file = f"/proc/sys/user/max_inotify_{limit}"
    script = f'echo 0 >{file} && test "$(cat {file})" = 0'
    inside = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*inside, script], capture_output=True, check=False).returncode
    ):
        pytest.skip("no user namespaces here")
    command = f'{script} && exec {MLWS} "$@"'
    with Server("shop:app", "--reload", command=(*inside, command, "sh"), cwd=directory) as server:
        server.log.wait_for(rf"sysctl fs.inotify.max_user_{limit}.* polling files")
        (directory / "shop.py").write_text(app_returning("second"))
        serves(server, "second")


def test_an_object_cannot_be_reloaded():
    script = "import mylittlewebserver; mylittlewebserver.serve(lambda e, s: [], reload=True)"
    with Command(sys.executable, "-c", script) as command:
        assert command.wait() == 2
        assert "--reload requires the name of the application" in command.log.wait_for_end()
