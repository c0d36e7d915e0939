"""Apps that fork a process which ends like a script, not by `os._exit()`."""

import os
import sys
import threading

from .tools import TEXT, note, query


def fork(environ):
    """Records the exit status of a forked process.

    In that process, nothing that this function returns is for the server.
    """
    pid = os.fork()
    how = query(environ)["how"]
    if pid:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        note(environ, f"status {status}")
    elif how == "thread":
        threading.Timer(0.05, note, [environ, "thread done"]).start()
    elif how == "raise":
        raise LookupError("on purpose")
    elif how == "message":
        sys.exit("a message on purpose")
    elif how != "return":
        sys.exit(int(how))


def in_call(environ, start_response):
    fork(environ)
    start_response("200 OK", [TEXT])
    return [b"called\n"]


def in_iterator(environ, start_response):
    start_response("200 OK", [TEXT])
    yield b"first\n"
    fork(environ)
    yield b"second\n"


def in_close(environ, start_response):
    class Response(list):
        def close(self):
            fork(environ)

    start_response("200 OK", [TEXT, ("Content-Length", "6")])
    return Response([b"whole\n"])
