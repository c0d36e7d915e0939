"""Metrics that several processes write to files: the directory is emptied at the start, and a dead worker's files are marked."""

import os
import shutil

METRICS = os.environ.get("METRICS_DIR", "metrics")

bind = "127.0.0.1:0"
workers = int(os.environ.get("SHOP_WORKERS", "2"))
worker_class = "sync"


def mark_process_dead(pid):
    with open(os.path.join(METRICS, "dead"), "a") as dead:
        dead.write(f"{pid}\n")


def on_starting(server):
    shutil.rmtree(METRICS, ignore_errors=True)
    os.makedirs(METRICS, exist_ok=True)


def when_ready(server):
    server.log.info("shop: metrics are in %s, for %d workers", METRICS, server.num_workers)


def child_exit(server, worker):
    if worker and worker.pid:
        mark_process_dead(worker.pid)
        server.log.info("shop: worker %s is dead", worker.age)
