"""A task that only one worker may run: the one that gets the lock."""

import fcntl
import threading

bind = "127.0.0.1:0"
workers = 2
kept = []


def post_worker_init(worker):
    lock = open("background.lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return
    kept.append(lock)
    threading.Thread(
        target=lambda: worker.log.info("shop: one worker works in the background"), daemon=True
    ).start()
