"""Returns the request and facts about the process, by which two servers can be compared."""

import json
import os
import sys
import threading
import time

BORN_IN = os.getpid()


def application(environ, start_response):
    page = PAGES.get(environ["PATH_INFO"])
    if page is None:
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        return []
    return page(environ, start_response)


def create_app(greeting="hi", *, loud=False):
    """A factory: `/` returns the arguments that it was called with."""

    def app(environ, start_response):
        start_response("200 OK", [("X-Greeting", greeting.upper() if loud else greeting)])
        return [b"made"]

    return app


not_an_app = 42


def json_response(start_response, facts):
    body = json.dumps(facts, sort_keys=True).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def of_request(environ, start_response):
    """All strings, numbers and booleans of the environ, and the types of its other values."""
    plain = (str, int, bool, tuple, list, type(None))
    facts = {key: value if isinstance(value, plain) else "an object" for key, value in environ.items()}
    facts["body"] = environ["wsgi.input"].read().decode("latin-1")
    return json_response(start_response, facts)


def of_process(_, start_response):
    umask = os.umask(0)
    os.umask(umask)
    facts = {
        "directory": os.path.basename(os.getcwd()),
        "umask": umask,
        "loaded by another": os.getpid() != BORN_IN,
        "variables": {key: value for key, value in os.environ.items() if key.startswith("SHOP_")},
        "module path": [
            directory
            for directory in sys.path
            if directory and "/lib" not in directory and "/bin" not in directory
        ],
        "user": os.geteuid(),
        "main thread": threading.current_thread() is threading.main_thread(),
    }
    return json_response(start_response, facts)


def pid(_, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


def pieces(_, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one, "
    yield b""
    yield b"two"


def hints(environ, start_response):
    """Hints at both moments, the second one too late."""
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload"), (b"X-Raw", b" \xe9 ")])
    start_response("200 OK", [("Content-Type", "text/plain")])(b"one, ")
    environ["wsgi.early_hints"]([("Link", "</late.css>; rel=preload")])
    return [b"two"]


def writes(_, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "8")])
    write(b"one ")
    return [b"and ", b"more"]  # behind its length


def two_cookies(_, start_response):
    start_response("201 Made Up", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("x-lower", " padded ")])
    return [b"made"]


def padded_length(_, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", " 6\t")])
    return [b"padded"]


def unusual_status(environ, start_response):
    """Returns the status in the query."""
    start_response(f"{environ['QUERY_STRING']} Unusual", [("Content-Length", "4")])
    return [b"body"]


def nothing(_, start_response):
    start_response("204 No Content", [])
    return []


def unchanged(_, start_response):
    start_response("304 Not Modified", [("ETag", '"1"')])
    return []


def this_file(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/x-python")])
    return environ["wsgi.file_wrapper"](open(__file__, "rb"))


def fails(_, start_response):
    raise ValueError("no such luck")


def fails_late(_, start_response):
    start_response("200 OK", [("Content-Length", "100")])
    yield b"something"
    raise ValueError("too late")


def leaves(_, start_response):
    sys.exit(5)


def splits(_, start_response):
    start_response("200 OK", [("X-Split", "one\r\ntwo: three")])
    return [b""]


def takes_long(_, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    open("inside", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    return [str(os.getpid()).encode()]


def hangs(_, start_response):
    time.sleep(60)


PAGES = {
    "/hints": hints,
    "/request": of_request,
    "/process": of_process,
    "/pid": pid,
    "/pieces": pieces,
    "/writes": writes,
    "/cookies": two_cookies,
    "/padded": padded_length,
    "/status": unusual_status,
    "/nothing": nothing,
    "/unchanged": unchanged,
    "/file": this_file,
    "/fails": fails,
    "/late": fails_late,
    "/leaves": leaves,
    "/splits": splits,
    "/long": takes_long,
    "/hangs": hangs,
}
