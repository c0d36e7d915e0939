"""Logs slow requests."""

import time

bind = "127.0.0.1:0"
workers = 1
worker_class = "sync"
QUIET = ("/nothing",)


def pre_request(worker, req):
    req.began = time.monotonic()
    req.is_loud = not req.path.startswith(QUIET)
    if req.is_loud:
        worker.log.info(
            "shop: %s %s?%s from %s %s",
            req.method,
            req.path,
            req.query,
            req.remote_addr[0],
            dict(req.headers)["HOST"],
        )


def post_request(worker, req, environ, resp):
    if getattr(req, "is_loud", True):
        took = time.monotonic() - req.began
        worker.log.info(
            f"shop: {environ['REQUEST_METHOD']} {req.uri}: {resp.status}, {resp.status_code}, soon: {took < 9}"
        )
