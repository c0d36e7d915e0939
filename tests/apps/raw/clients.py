"""Asks after the client."""

from .gates import pass_gate
from .tools import TEXT, Body, answer_json, note, query

GONE = "mylittlewebserver.client_gone"


def gone(environ, start_response):
    """Whether the client has gone by now, and then behind the gate, if there is one."""
    results = [environ[GONE]()]
    if "gate" in query(environ):
        pass_gate(query(environ)["gate"])
        results.append(environ[GONE]())
    note(environ, f"gone {results}")
    return answer_json(start_response, results)


def stream(environ, start_response):
    """Goes on until the client has gone, and sends nothing after the first piece that could tell it so otherwise."""
    start_response("200 OK", [TEXT])

    def pieces():
        yield b"first\n"
        pass_gate(query(environ)["gate"])
        note(environ, f"gone {environ[GONE]()}")

    return Body(environ, pieces())


kept = []


def earlier(environ, start_response):
    """What the callables of earlier requests say now."""
    results = [gone() for gone in kept]
    kept.append(environ[GONE])
    return answer_json(start_response, results)


def called(environ, start_response):
    """Notes that it was called, and with how much of a body."""
    note(environ, f"called with {len(environ['wsgi.input'].read())}")
    return Body(environ, answer_json(start_response, None))
