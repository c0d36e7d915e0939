"""Connections that a preloaded application has opened are closed before a fork, and not shared behind it."""

bind = "127.0.0.1:0"
workers = 2
preload_app = True


def pre_fork(server, worker):
    server.app.wsgi().is_open = False


def post_fork(server, worker):
    app = worker.app.callable
    server.log.info("shop: worker %s: open: %s", worker.age, getattr(app, "is_open", None))
