"""The wheel: its files, its requirements, and that it works in an empty environment."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from email.parser import BytesParser

import pytest
from harness import DEADLINE, ROOT, Server

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"from a wheel"]
"""


@pytest.fixture(scope="module")
def wheel():
    """The wheel built by bin/build.sh."""
    (wheel,) = (ROOT / ".venv/wheel").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A new environment with nothing but pip."""
    directory = tmp_path_factory.mktemp("empty")
    venv.create(directory, with_pip=True)
    return directory / "bin"


def test_the_wheel_contains_exactly_the_expected_files(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name.split("/", 1)[1] for name in names if name.startswith("mylittlewebserver/")}
    sources = ROOT / "python/mylittlewebserver"
    ours = {
        str(path.relative_to(sources))
        for path in sources.rglob("*")
        if path.suffix in (".py", ".pyi") or path.name == "py.typed"
    }
    (library,) = package - ours
    assert library.startswith("_native.")
    assert library.endswith(".so")
    assert ours <= package
    assert {"_native.pyi", "py.typed", "management/commands/runmlws.py"} <= package


def test_the_library_has_no_symbol_table(wheel):
    archive = zipfile.ZipFile(wheel)
    (library,) = [name for name in archive.namelist() if name.endswith(".so")]
    assert b"\0.symtab\0" not in archive.read(library)


def test_no_text_in_it_refers_to_a_file_of_the_repository(wheel):
    """Messages and --help must stand alone: the pages below docs/ are not installed."""
    archive = zipfile.ZipFile(wheel)
    names = [name for name in archive.namelist() if name.startswith("mylittlewebserver/")]
    found = {name: re.findall(rb"[\w/-]*docs/[a-z]+|[\w/-]+\.md\b", archive.read(name)) for name in names}
    assert {name: texts for name, texts in found.items() if texts} == {}


def test_the_wheel_contains_its_license_and_has_no_dependency(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    fields = BytesParser().parsebytes(archive.read(metadata))
    assert fields["Name"] == "mylittlewebserver"
    assert fields.get_all("Requires-Dist") is None
    assert (fields["License-Expression"], fields["License-File"]) == ("MIT", "LICENSE")
    license_file = metadata.replace("METADATA", "licenses/LICENSE")
    assert archive.read(license_file) == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_serves_in_an_empty_environment(wheel, empty, tmp_path):
    install = [empty / "python", "-m", "pip", "install", "--quiet", "--no-index", wheel]
    subprocess.run(install, check=True, timeout=10 * DEADLINE)
    listed = subprocess.run(
        [empty / "python", "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    )
    names = {line.split("==")[0] for line in listed.stdout.splitlines()}
    assert names - {"pip", "setuptools"} == {"mylittlewebserver"}
    (tmp_path / "app.py").write_text(APP)
    with Server("app", command=(empty / "mlws",), cwd=tmp_path) as server:
        assert server.get("/").text == "from a wheel"


def test_wheels_reports_the_interpreters_used_and_skipped(tmp_path):
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\necho cpython-38 3.8.18 /none\n")
    other = tmp_path / "pypy3"
    other.write_text("#!/bin/sh\necho pypy311 3.11.0 /none\n")
    bare = tmp_path / "python3.99"
    bare.write_text("#!/bin/sh\necho cpython-399 3.99.0 /none\n")
    for script in (old, other, bare):
        script.chmod(0o755)
    words = [
        ROOT / "bin/wheels.sh",
        "--list",
        old,
        other,
        bare,
        tmp_path / "gone",
        sys.executable,
        sys.executable,
    ]
    result = subprocess.run(words, check=True, capture_output=True, text=True, timeout=DEADLINE)
    lines = [line.partition(": ")[2] or line for line in result.stderr.splitlines()]
    assert lines[:4] == [
        "Python 3.8.18 is too old",
        "not CPython: pypy311",
        "it has no headers (/none)",
        "it does not run",
    ]
    assert "(cpython-" in lines[4]
    assert lines[5:] == ["another needs the same wheel"]
