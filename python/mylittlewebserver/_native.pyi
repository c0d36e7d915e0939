"""The Rust side: see ``crates/wsgi``."""

import os
from collections.abc import Callable, Sequence
from typing import Literal

from _typeshed.wsgi import WSGIApplication

__all__ = ["__version__", "log", "main", "serve"]

__version__: str

def log(level: int, text: str, /) -> None: ...
def main(args: Sequence[str], /) -> int: ...
def serve(
    app: WSGIApplication | Callable[[], WSGIApplication] | str | None = None,
    *,
    factory: bool = False,
    paste: str | None = None,
    paste_global: str | list[str] | tuple[str, ...] | None = None,
    env: str | list[str] | tuple[str, ...] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    bind: str | list[str] | tuple[str, ...] | None = None,
    backlog: int = 2048,
    reuse_port: bool = False,
    worker_connections: int = 60000,
    workers: int | None = None,
    threads: int = 4,
    worker_class: Literal["sync", "gthread"] | None = None,
    fork: bool = False,
    max_children: int = 64,
    max_queue: int = 8192,
    preload: bool = False,
    fork_warmup: str | None = None,
    timeout: float = 30,
    boot_timeout: float | None = None,
    max_requests: int = 0,
    max_requests_jitter: int = 0,
    max_rss: int | str = 0,
    graceful_timeout: float = 30,
    no_sendfile: bool = False,
    limit_request_line: int = 8190,
    limit_request_fields: int = 100,
    limit_request_field_size: int = 8190,
    limit_request_head: int | None = None,
    limit_request_body: int = 0,
    body_in_memory: int = 524288,
    bodies_in_memory: int = 67108864,
    tmp_dir: str | os.PathLike[str] | None = None,
    http_compat: Literal["strict", "gunicorn"] = "strict",
    keep_alive: float = 5,
    head_timeout: float = 30,
    body_timeout: float = 30,
    body_rate: int = 512,
    write_timeout: float = 60,
    forwarded_allow_ips: str = "127.0.0.1,::1",
    secure_scheme_header: str | list[str] | tuple[str, ...] | None = None,
    forwarder_headers: str | list[str] | tuple[str, ...] | None = None,
    header_map: Literal["drop", "refuse", "dangerous"] = "drop",
    root_path: str | None = None,
    proxy_protocol: bool | Literal["off", "v1", "v2", "auto"] = "off",
    proxy_allow_from: str = "127.0.0.1,::1",
    forwarded_fields: str | list[str] | tuple[str, ...] | None = None,
    chdir: str | os.PathLike[str] | None = None,
    pythonpath: str | list[str] | tuple[str, ...] | None = None,
    pid: str | os.PathLike[str] | None = None,
    daemon: bool = False,
    user: str | int | None = None,
    group: str | int | None = None,
    umask: str | int | None = None,
    initgroups: bool = False,
    name: str | None = None,
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info",
    error_logfile: str | os.PathLike[str] = "-",
    access_logfile: str | os.PathLike[str] | None = None,
    reload: bool = False,
    reload_engine: Literal["auto", "poll", "inotify"] = "auto",
    reload_extra_file: str | list[str] | tuple[str, ...] | None = None,
) -> None: ...
