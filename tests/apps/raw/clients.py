"""Apps that check whether their client has disconnected."""

from .gates import pass_gate
from .tools import TEXT, Body, answer_json, note, query

GONE = "mylittlewebserver.client_gone"


def gone(environ, start_response):
    """Returns whether the client has disconnected, before and after the gate, if there is one."""
    results = [environ[GONE]()]
    if "gate" in query(environ):
        pass_gate(query(environ)["gate"])
        results.append(environ[GONE]())
    note(environ, f"gone {results}")
    return answer_json(start_response, results)


def stream(environ, start_response):
    """Continues until the client has disconnected.

    After the first chunk it sends nothing, so no failed write can reveal that.
    """
    start_response("200 OK", [TEXT])

    def pieces():
        yield b"first\n"
        pass_gate(query(environ)["gate"])
        note(environ, f"gone {environ[GONE]()}")

    return Body(environ, pieces())


kept = []


def earlier(environ, start_response):
    """Calls the callables of earlier requests."""
    results = [gone() for gone in kept]
    kept.append(environ[GONE])
    return answer_json(start_response, results)


def called(environ, start_response):
    """Records that it was called, and the size of the body."""
    note(environ, f"called with {len(environ['wsgi.input'].read())}")
    return Body(environ, answer_json(start_response, None))
