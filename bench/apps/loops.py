"""Baselines: the cost of an application without a server. Each runs in its own interpreter.

    python loops.py call MODULE:ATTRIBUTE SECONDS    calls/s in a plain loop
    python loops.py fork MODULE:ATTRIBUTE SECONDS    fork, call in the child, _exit, wait: rounds/s
    python loops.py fork-warm ...                    the same, after the application has been called once
    python loops.py hold MODULE:ATTRIBUTE SECONDS    calls it for SECONDS, prints "ready", and waits to be stopped

The first three print {"rate": per second, "cpu": microseconds of CPU per call}.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

# The environ of the request that the load generator sends.
ENVIRON: Environ = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "HTTP_HOST": "127.0.0.1:8000",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input": io.BytesIO(),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


def main(how: str, name: str, seconds: float) -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module("mylittlewebserver")  # so that forks copy the same memory as in the server
    module, _, attribute = name.partition(":")
    app: App = getattr(importlib.import_module(module), attribute)
    if how == "hold":
        rounds_per_second(lambda: call(app), seconds)
        print("ready", flush=True)
        signal.pause()
    if how == "fork-warm":
        call(app)
    step = (lambda: call(app)) if how == "call" else (lambda: call_in_fork(app))
    rounds_per_second(step, seconds / 5)
    before = cpu_seconds()
    rate, rounds = rounds_per_second(step, seconds)
    print(json.dumps({"rate": rate, "cpu": (cpu_seconds() - before) / rounds * 1e6}))


def call(app: App) -> None:
    """One request according to PEP 3333: collects start_response, consumes the iterable and closes it."""
    started: list[tuple[Any, ...]] = []

    def start_response(*arguments: Any) -> Callable[[bytes], None]:
        started.append(arguments)
        return lambda piece: None

    pieces = app(ENVIRON.copy(), start_response)
    try:
        for _ in pieces:
            pass
    finally:
        if hasattr(pieces, "close"):
            pieces.close()


def call_in_fork(app: App) -> None:
    child = os.fork()
    if child == 0:
        call(app)
        os._exit(0)
    os.waitpid(child, 0)


def rounds_per_second(step: Callable[[], None], seconds: float) -> tuple[float, int]:
    rounds = 0
    start = now = time.perf_counter()
    while now < start + seconds:
        step()
        rounds += 1
        now = time.perf_counter()
    return rounds / (now - start), rounds


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
