"""The examples in docs/frameworks.md: their files are written, and each of their commands is run, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import DEADLINE, ROOT, Server

BLOCK = re.compile(r"(?:`(?P<file>[\w./]+)`:\n\n)?```(?P<language>\w+)\n(?P<text>.*?)```\n", re.DOTALL)
BIN = Path(sys.executable).parent


def sections():
    """Code blocks by the name of their section."""
    page = (ROOT / "docs/frameworks.md").read_text()
    for section in page.split("\n## ")[1:]:
        name, text = section.split("\n", 1)
        yield name, list(BLOCK.finditer(text))


FILES = {name: [block for block in blocks if block["file"]] for name, blocks in sections()}
COMMANDS = [
    (name, block["text"].strip())
    for name, blocks in sections()
    for block in blocks
    if not block["file"] and block["language"] == "sh"
]


def test_every_block_is_a_file_or_a_command():
    blocks = sum(len(blocks) for _, blocks in sections())
    assert blocks == sum(map(len, FILES.values())) + len(COMMANDS)
    assert {name for name, _ in COMMANDS} == set(FILES)


@pytest.mark.parametrize(("section", "command"), COMMANDS, ids=[command for _, command in COMMANDS])
def test_each_example_works_as_documented(section, command, tmp_path):
    if section == "Django":
        start = [sys.executable, "-m", "django", "startproject", "mysite", "."]
        subprocess.run(start, cwd=tmp_path, check=True, timeout=DEADLINE)
    for block in FILES[section]:
        with (tmp_path / block["file"]).open("a") as file:
            file.write(block["text"].replace("8000", "0"))
    free = {"mlws": " --bind 127.0.0.1:0", "python manage.py": " 0"}
    command += next((words for start, words in free.items() if command.startswith(start)), "")
    environment = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with Server(
        "sh", "-c", f"exec env {command}", command=(), bind=None, cwd=tmp_path, env=environment
    ) as server:
        expected = {"Django": "The install worked successfully!", "Others": "Hello from Python!"}
        assert expected.get(section, f"Hello from {section}!") in server.get("/").text
