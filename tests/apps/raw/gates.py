"""Apps that wait for the test, identify their process, start other processes, or kill their own."""

import ctypes
import os
import resource
import signal
import subprocess
import sys

from .tools import TEXT, add_line, answer_json, query


def wait(environ, start_response):
    """Reports its arrival and continues when the test opens the gate (see `harness.Gate`)."""
    pass_gate(query(environ)["gate"])
    start_response("200 OK", [TEXT])
    return [b"passed\n"]


def compute(environ, start_response):
    """Notes that it is here and keeps the interpreter busy until the test creates the file `open`."""
    gate = query(environ)["gate"]
    add_line(f"{gate}/arrivals", f"enter {os.getpid()}")
    while not os.path.exists(f"{gate}/open"):
        sum(range(200_000))  # the switch interval passes without a pause
    start_response("200 OK", [TEXT])
    return [b"computed\n"]


def stream(environ, start_response):
    """One chunk, or as many as requested, then the gate, then another chunk."""
    start_response("200 OK", [TEXT])
    for _ in range(int(query(environ).get("quick", "1"))):
        yield b"first\n"
    pass_gate(query(environ)["gate"])
    yield b"second\n"


def after(environ, start_response):
    """A complete response; the gate is in `close()`."""

    class Slow(list):
        def close(self):
            pass_gate(query(environ)["gate"])

    start_response("200 OK", [TEXT, ("Content-Length", "6")])
    return Slow([b"early\n"])


def pass_gate(gate):
    add_line(f"{gate}/arrivals", f"enter {os.getpid()}")
    os.close(os.open(f"{gate}/fifo", os.O_RDONLY))
    add_line(f"{gate}/arrivals", f"leave {os.getpid()}")


def pid(environ, start_response):
    return answer_json(start_response, os.getpid())


def run(environ, start_response):
    """Returns the exit statuses of processes that the app starts. The server must not reap them."""
    shells = [subprocess.run(["sh", "-c", f"exit {status}"], check=False).returncode for status in (0, 7)]
    python = subprocess.run([sys.executable, "-c", "print('hi')"], check=False, capture_output=True)
    return answer_json(start_response, [*shells, python.returncode, python.stdout.decode()])


def die(environ, start_response):
    """Ends its own process, in the way given by the query, before or after sending something."""
    how, sent = query(environ)["how"], query(environ).get("sent")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sent:
        start_response("200 OK", [TEXT])
        yield b"x" * int(sent)
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    elif how == "clean exit":
        os._exit(0)
    else:
        os.kill(os.getpid(), getattr(signal, how))
    yield b"still alive"


def leave_child(environ, start_response):
    """Responds, and leaves a process behind that would keep the connection open if it had inherited it."""
    gate = query(environ)["gate"]
    command = f"echo enter $$ >> '{gate}/arrivals'; exec cat '{gate}/fifo'"
    subprocess.Popen(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    return [b"left\n"]


calls = 0


def count(environ, start_response):
    """Returns how many requests this process has counted."""
    global calls
    calls += 1
    return answer_json(start_response, calls)
