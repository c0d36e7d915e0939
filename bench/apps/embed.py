"""Runs a server that is a library without a command, or whose command lacks settings that a fair comparison needs.

python embed.py SERVER MODULE:ATTRIBUTE PORT THREADS
"""

import importlib
import sys
from typing import Any


def bjoern(app: Any, port: int, threads: int) -> None:
    importlib.import_module("bjoern").run(app, "127.0.0.1", port, listen_backlog=2048)


def fastwsgi(app: Any, port: int, threads: int) -> None:
    """Also fastpysgi, a fork of fastwsgi with the same API."""
    module = importlib.import_module(sys.argv[1])
    module.server.backlog = 2048
    module.server.tcp_nodelay = 1  # without it, streams wait for delayed acknowledgements of the client
    module.server.max_content_length = 64 << 20  # fastpysgi's default is under 10 MB
    module.run(app, "127.0.0.1", port)


def cheroot(app: Any, port: int, threads: int) -> None:
    from cheroot.wsgi import Server

    server = Server(("127.0.0.1", port), app, threads, max=threads, request_queue_size=2048, timeout=300)
    server.keep_alive_conn_limit = 20_000  # by default it keeps 10 connections and closes the others
    server.start()


if __name__ == "__main__":
    name, _, attribute = sys.argv[2].partition(":")
    application = getattr(importlib.import_module(name), attribute)
    run = {"bjoern": bjoern, "fastwsgi": fastwsgi, "fastpysgi": fastwsgi, "cheroot": cheroot}[sys.argv[1]]
    run(application, int(sys.argv[3]), int(sys.argv[4]))
