"""Apps whose threads continue after the response."""

import concurrent.futures
import sys
import threading

from .gates import pass_gate
from .tools import TEXT, note, query


def job(environ):
    pass_gate(query(environ)["gate"])
    note(environ, "done")


def respond(start_response):
    start_response("200 OK", [TEXT, ("Content-Length", "8")])
    return [b"started\n"]


def thread(environ, start_response):
    """A thread that waits at the gate."""
    threading.Thread(target=job, args=(environ,), name="mailer").start()
    return respond(start_response)


def timer(environ, start_response):
    threading.Timer(0.01, job, [environ]).start()
    return respond(start_response)


def executor(environ, start_response):
    concurrent.futures.ThreadPoolExecutor(1).submit(job, environ)
    return respond(start_response)


def daemon(environ, start_response):
    threading.Thread(target=job, args=(environ,), daemon=True).start()
    return respond(start_response)


def prints(environ, start_response):
    """A thread whose output is still in a buffer when it ends."""

    def work():
        job(environ)
        sys.stdout.write("printed in the background\n")

    threading.Thread(target=work).start()
    return respond(start_response)


def asks_for_client(environ, start_response):
    def work():
        job(environ)
        note(environ, f"gone {environ['mylittlewebserver.client_gone']()}")

    threading.Thread(target=work).start()
    return respond(start_response)
