"""Closes connections of a preloaded application before a fork, so that processes do not share them."""

bind = "127.0.0.1:0"
workers = 2
preload_app = True


def pre_fork(server, worker):
    server.app.wsgi().is_open = False


def post_fork(server, worker):
    app = worker.app.callable
    server.log.info("shop: worker %s: open: %s", worker.age, getattr(app, "is_open", None))
