"""Logs the stack of each thread when a worker is interrupted or times out."""

import sys
import threading
import traceback

bind = "127.0.0.1:0"
workers = 1
loglevel = "debug"


def stacks():
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():
        lines.append(f"thread {names.get(ident, '')} ({ident})")
        lines.extend(line.rstrip() for line in traceback.format_stack(frame))
    return "\n".join(lines)


def worker_int(worker):
    worker.log.info("shop: worker %s got INT or QUIT", worker.age)
    worker.log.debug(stacks())


def worker_abort(worker):
    worker.log.critical("shop: worker %s takes too long", worker.age)
    worker.log.debug(stacks())
