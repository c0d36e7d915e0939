"""A thread in the master, with a queue of log lines and of periodic tasks."""

import logging
import queue
import threading

bind = "127.0.0.1:0"
workers = 1


def work(server):
    while (job := server._jobs.get()) is not None:
        server.log.info("shop: %s", job)


def on_starting(server):
    server._jobs = queue.Queue()
    server._thread = threading.Thread(target=work, args=(server,), daemon=True)
    server._thread.start()
    server._jobs.put("the thread of the master works")
    for handler in server.log.error_log.handlers:
        handler.setLevel(logging.DEBUG)
    server.log.access_log.addFilter(logging.Filter())


def on_exit(server):
    server._jobs.put("and to the end")
    server._jobs.put(None)
    server._thread.join(5)
