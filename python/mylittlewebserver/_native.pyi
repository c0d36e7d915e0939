"""The Rust side: see ``crates/mlws``."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Literal

from _typeshed.wsgi import WSGIApplication

__all__ = [
    "__version__",
    "flush_errors",
    "log",
    "main",
    "restore_descriptor_limit",
    "serve",
    "set_logger",
    "write_access",
    "write_errors",
    "write_record",
]

__version__: str

def flush_errors() -> None: ...
def log(level: int, text: str, /) -> None: ...
def main(args: Sequence[str], /) -> int: ...
def restore_descriptor_limit(pid: int, /) -> None: ...
def set_logger(name: str, logger: logging.Logger | None, level: int, /) -> None: ...
def write_access(text: str, /) -> None: ...
def write_errors(text: str, /) -> None: ...
def write_record(level: int, text: str, is_formatted: bool, /) -> None: ...
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
    threads: int = 1,
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
    body_buffer: int | str = "8M",
    body_in_memory: int = 524288,
    bodies_in_memory: int = 67108864,
    response_memory: int | str = "64M",
    response_spool: int | str = "1G",
    tmp_dir: str | os.PathLike[str] | None = None,
    http_compat: Literal["strict", "gunicorn"] = "strict",
    server_header: str = "mylittlewebserver",
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
    error_logformat: Literal["text", "json"] = "text",
    access_logfile: str | os.PathLike[str] | None = None,
    access_logformat: str = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
    capture_output: bool = False,
    enable_stdio_inheritance: bool = False,
    log_config: str | os.PathLike[str] | None = None,
    log_config_json: str | os.PathLike[str] | None = None,
    logger_class: str | None = None,
    log_syslog: bool = False,
    log_syslog_to: str = "udp://localhost:514",
    log_syslog_prefix: str | None = None,
    log_syslog_facility: str = "user",
    disable_redirect_access_to_syslog: bool = False,
    statsd_host: str | None = None,
    statsd_prefix: str = "",
    dogstatsd_tags: str = "",
    reload: bool = False,
    reload_engine: Literal["auto", "poll", "inotify"] = "auto",
    reload_extra_file: str | list[str] | tuple[str, ...] | None = None,
) -> None: ...
