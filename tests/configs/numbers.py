"""Gives each worker a free number, which its replacement takes over."""

import os

bind = "127.0.0.1:0"
workers = 2


def on_starting(server):
    server._numbers_of_reload = set()


def nworkers_changed(server, new_value, old_value):
    server._most = new_value


def on_reload(server):
    server._numbers_of_reload = set(range(1, server.cfg.workers + 1))


def pre_fork(server, worker):
    if server._numbers_of_reload:
        worker._number = min(server._numbers_of_reload)
        server._numbers_of_reload.discard(worker._number)
        return
    used = {other._number for other in server.WORKERS.values() if other.alive}
    worker._number = min(set(range(1, server._most + 1)) - used)


def post_fork(server, worker):
    os.environ["SHOP_NUMBER"] = str(worker._number)
    worker.log.info("shop: a worker has number %s", worker._number)
