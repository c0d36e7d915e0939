"""Apps that describe their process, and that leave processes behind."""

import contextlib
import os
import subprocess

from .tools import answer_json, query


def variables(environ, start_response):
    """Returns the environment of this process, as seen by Python and by a child program."""
    with os.popen("env") as env:
        return answer_json(start_response, [sorted(os.environ), env.read()])


def streams(environ, start_response):
    """Returns the targets of the standard streams."""
    return answer_json(start_response, [os.readlink(f"/proc/self/fd/{number}") for number in range(3)])


def inheritable(environ, start_response):
    """Returns the descriptors that a child program inherits, apart from the standard streams."""
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            found += [number] if number > 2 and os.get_inheritable(number) else []
    return answer_json(start_response, found)


def orphan(environ, start_response):
    """Leaves an orphan behind, which ends when the pipe in the query is opened."""
    subprocess.run(["sh", "-c", f"cat '{query(environ)['fifo']}' >/dev/null 2>&1 &"], check=True)
    return answer_json(start_response, "left")
