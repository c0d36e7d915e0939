"""Imports of Python config files and hooks that run as root: only modules that no other user can change.

Imported only when root reads a Python config file.
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
    """Add the directories that only root can change to ``sys.path``, the last one first. Return an error message for each other one."""
    guard = next((finder for finder in sys.meta_path if isinstance(finder, Guard)), None)
    if guard is None:
        guard = Guard()
        sys.meta_path.insert(0, guard)
    rejected = []
    for directory in directories:
        # A symbolic link could point to another directory by the time of an import.
        directory = os.path.realpath(directory)
        if other := who_can_change(directory):
            rejected.append(f"root does not import from {directory}: {other} can change it")
            continue
        guard.directories.add(directory)
        if directory not in sys.path:
            sys.path.insert(0, directory)
    return rejected


def remove_guard() -> None:
    """Remove the restriction in a process that runs the application."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Guard)]


class Guard:
    """Rejects imports of files below `directories` that another user can change."""

    def __init__(self) -> None:
        self.directories: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not spec.has_location:
            return None
        for file in (spec.origin, spec.cached):
            if file and self._is_guarded(file) and (other := who_can_change(file)):
                raise ImportError(f"root does not import {file}: {other} can change it", name=name)
        return spec

    def _is_guarded(self, file: str) -> bool:
        return any(file.startswith(os.path.join(directory, "")) for directory in self.directories)


def who_can_change(path: str) -> str | None:
    """Return who can change, replace or create the file, except root and the user of sudo. None if nobody else can."""
    path = os.path.realpath(path)
    trusted = {"0", os.environ.get("SUDO_UID", "0")}
    is_above = False  # for a parent such as /tmp, the sticky bit suffices
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
                    return "every user"
                if found.st_mode & stat.S_IWGRP and found.st_gid != 0:
                    return f"group {found.st_gid}"
            is_above = True
        if path == os.path.dirname(path):
            return None
        path = os.path.dirname(path)
