"""An exporter of traces has a thread and a connection, which do not survive a fork.

Each worker creates its own, and flushes it at exit.
"""

import os
import queue
import threading

bind = ["127.0.0.1:0"]
workers = 2
preload_app = True


class Exporter:
    def __init__(self, place):
        self.place, self.queue = place, queue.Queue()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while (line := self.queue.get()) is not None:
            with open(self.place, "a") as place:
                place.write(line + "\n")

    def shutdown(self):
        self.queue.put(None)
        self.thread.join(5)


def post_fork(server, worker):
    server.log.info("shop: worker %s has an exporter", worker.age)
    worker.exporter = Exporter(f"spans-{worker.age}.txt")
    worker.exporter.queue.put(f"started, by {os.path.basename(os.getcwd())}")


def worker_exit(server, worker):
    worker.exporter.queue.put("ended")
    worker.exporter.shutdown()
