"""Restores the original limit on open files for programs that the application starts.

The server raises its soft limit for connections. ``subprocess`` and ``multiprocessing`` start programs by one function, which is
wrapped here. Imported only if the limit was raised.
"""

from __future__ import annotations

import _posixsubprocess
import sys
from typing import Any

from mylittlewebserver._native import restore_descriptor_limit


def install() -> None:
    """Wrap the function, once."""
    original: Any = _posixsubprocess.fork_exec
    if original.__module__ == __name__:
        return

    def fork_exec(*arguments: Any) -> int:
        pid: int = original(*arguments)
        restore_descriptor_limit(pid)
        return pid

    _posixsubprocess.fork_exec = fork_exec
    subprocess: Any = sys.modules.get("subprocess")
    if getattr(subprocess, "_fork_exec", None) is original:  # since Python 3.11
        subprocess._fork_exec = fork_exec
