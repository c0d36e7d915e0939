"""Imports the application early, to start a part of it in the master."""

bind = "127.0.0.1:0"
workers = 1


def on_starting(server):
    app = server.app.wsgi()
    server.log.info("shop: the master has %s", app.__name__)


def on_exit(server):
    server.log.info("shop: it still has %s", server.app.wsgi().__name__)
