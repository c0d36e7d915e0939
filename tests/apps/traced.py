"""Returns the type of its thread, and whether the hooks of `threading` saw it."""

import json
import threading
from urllib.parse import parse_qs

profiled, traced = set(), set()
barriers = {}
lock = threading.Lock()


def profile(frame, event, argument):
    if frame.f_code is view.__code__:
        profiled.add(threading.get_ident())


def trace(frame, event, argument):
    if frame.f_code is view.__code__:
        traced.add(threading.get_ident())


threading.setprofile(profile)
threading.settrace(trace)


def view(parties):
    """Returns once that number of requests has arrived, each on its own thread."""
    with lock:
        barrier = barriers.setdefault(parties, threading.Barrier(parties))
    barrier.wait(30)


def application(environ, start_response):
    view(int(parse_qs(environ["QUERY_STRING"])["parties"][0]))
    thread = threading.current_thread()
    facts = {
        "thread": thread.ident,
        "name": thread.name,
        "class": type(thread).__name__,
        "main": thread is threading.main_thread(),
        "listed": thread in threading.enumerate(),
        "profiled": thread.ident in profiled,
        "traced": thread.ident in traced,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(facts).encode()]
