"""Values computed from the environment and the machine, among names that are not settings."""

import multiprocessing
import os
from pathlib import Path

env = os.environ.get("SHOP_ENV", "production")
app = None
name = f"shop-{env}"
BASE = Path(__file__).resolve().parent
DEBUG = False


def workers_of(machine):
    return max(2, min(machine, 3))


_port = os.getenv("SHOP_PORT") or 0
bind = f"127.0.0.1:{_port}"
workers = workers_of(multiprocessing.cpu_count())
threads = os.getenv("SHOP_THREADS") or 2
worker_class = "gthread"
worker_connections = 1000
worker_tmp_dir = "/dev/shm"
max_requests = int(os.getenv("SHOP_MAX_REQUESTS", "1000"))
max_requests_jitter = max_requests // 10
graceful_timeout = 30
keepalive = 65
backlog = 2048
chdir = str(BASE)
pidfile = str(BASE / "shop.pid")
umask = 0
user = None
group = None
tmp_upload_dir = None
daemon = False
spew = False
check_config = False
preload_app = not DEBUG
sendfile = True
errorlog = "-"
accesslog = None
loglevel = os.getenv("SHOP_LOG_LEVEL", "INFO").lower()
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
keyfile = certfile = ca_certs = None
