"""Logs a line in each hook, like the example config of gunicorn's documentation."""

import sys

bind = "127.0.0.1:0"
workers = 1
errorlog = "-"


def on_starting(server):
    server.log.info("shop: starting, %s", server.cfg.workers)


def on_reload(server):
    server.log.info("shop: reloading")


def when_ready(server):
    server.log.info("shop: ready on %s", server.address[0][0])


def pre_fork(server, worker):
    server.log.info("shop: about to fork %s", worker.pid)


def post_fork(server, worker):
    server.log.info("shop: spawned %s", worker.age)


def post_worker_init(worker):
    worker.log.info("shop: initialized %s", worker)


def worker_int(worker):
    worker.log.warning("shop: interrupted")


def child_exit(server, worker):
    server.log.info("shop: exited %s", worker.age)


def worker_exit(server, worker):
    worker.log.info("shop: leaving after %s requests", worker.nr)


def nworkers_changed(server, new_value, old_value):
    server.log.info("shop: workers %s -> %s", old_value, new_value)


def on_exit(server):
    try:
        raise ValueError("nothing")
    except ValueError:
        server.log.exception("shop: exiting, with a traceback")
        server.log.error("shop: and %s", "again", exc_info=sys.exc_info())
