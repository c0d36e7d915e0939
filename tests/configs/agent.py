"""A monitoring agent that starts before the application and wraps it."""

import os

bind = "127.0.0.1:0"
proc_name = "shop"
timeout = int(os.getenv("SHOP_TIMEOUT", 120))
keepalive = 5
reload = os.getenv("SHOP_DEBUG", "false").lower() == "true"


def post_fork(server, worker):
    os.environ["SHOP_AGENT"] = f"agent of {server.cfg.proc_name} {worker.cfg.timeout}"


def post_worker_init(worker):
    app = getattr(worker, "wsgi", None) or worker.app.callable
    worker.log.info("shop: the app is %s, of %s", app.__name__, worker.app.app_uri)
    worker.log.info("shop: the same: %s", worker.app.wsgi() is worker.app.callable)
