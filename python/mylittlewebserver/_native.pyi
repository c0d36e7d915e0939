"""The Rust side: see ``crates/wsgi``."""

import os
from collections.abc import Sequence
from typing import Literal

from _typeshed.wsgi import WSGIApplication

__all__ = ["__version__", "main", "serve"]

__version__: str

def main(args: Sequence[str], /) -> int: ...
def serve(
    app: WSGIApplication | str,
    *,
    bind: str | list[str] | tuple[str, ...] | None = None,
    backlog: int = 2048,
    keep_alive: float = 5,
    workers: int | None = None,
    threads: int = 4,
    fork: bool = False,
    max_children: int = 64,
    fork_warmup: str | None = None,
    timeout: float = 30,
    graceful_timeout: float = 30,
    head_timeout: float = 30,
    limit_request_line: int = 8190,
    limit_request_fields: int = 100,
    limit_request_field_size: int = 8190,
    limit_request_body: int = 0,
    http_compat: Literal["strict", "gunicorn"] = "strict",
    chdir: str | os.PathLike[str] | None = None,
    pythonpath: str | list[str] | tuple[str, ...] | None = None,
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info",
    access_logfile: str | os.PathLike[str] | None = None,
) -> None: ...
