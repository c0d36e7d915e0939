"""Which modules a Python config file and its hooks can import: those of the application's directories, and as root only those
that nobody else can change.

Loaded only where root reads a Python config file.
"""

from __future__ import annotations

import os
import stat
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # as in `typing`, which would cost each worker a megabyte
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def extend_path(directories: list[str]) -> list[str]:
    """Put the directories that nobody but root can change on ``sys.path``, the last of them first. Why others are not, in sentences."""
    guard = next((finder for finder in sys.meta_path if isinstance(finder, Guard)), None)
    if guard is None:
        guard = Guard()
        sys.meta_path.insert(0, guard)
    refused = []
    for directory in directories:
        # What a symbolic link on the way leads to may be another directory by the time of an import.
        directory = os.path.realpath(directory)
        if other := who_can_change(directory):
            refused.append(f"root imports nothing from {directory}, for {other} can change it")
            continue
        guard.directories.add(directory)
        if directory not in sys.path:
            sys.path.insert(0, directory)
    return refused


def remove_guard() -> None:
    """Let everything be imported: this process runs the application."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Guard)]


class Guard:
    """Refuses to import files below `directories` that somebody else can change."""

    def __init__(self) -> None:
        self.directories: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not spec.has_location:
            return None
        for file in (spec.origin, spec.cached):
            if file and self._is_ours(file) and (other := who_can_change(file)):
                raise ImportError(f"root does not import {file}, for {other} can change it", name=name)
        return spec

    def _is_ours(self, file: str) -> bool:
        return any(file.startswith(os.path.join(directory, "")) for directory in self.directories)


def who_can_change(path: str) -> str | None:
    """Who, besides root and the user who has become root by sudo, can change or exchange a file, or make it if there is none."""
    path = os.path.realpath(path)
    trusted = {"0", os.environ.get("SUDO_UID", "0")}
    is_above = False  # of a directory such as /tmp, which everybody can write to, it is enough that nothing in it can be moved
    while True:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            pass
        else:
            if str(found.st_uid) not in trusted:
                return f"user {found.st_uid}"
            if not (is_above and found.st_mode & stat.S_ISVTX):
                if found.st_mode & stat.S_IWOTH:
                    return "everybody"
                if found.st_mode & stat.S_IWGRP and found.st_gid != 0:
                    return f"group {found.st_gid}"
            is_above = True
        if path == os.path.dirname(path):
            return None
        path = os.path.dirname(path)
