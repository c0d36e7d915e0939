"""The environ of a request."""

from wsgiref.validate import validator

from .tools import TEXT, answer_json


def show(environ, start_response):
    """The complete environ: strings as they are, otherwise the name of the type."""
    simple = (str, bool, int)
    shown = {
        key: value if isinstance(value, simple) or key == "wsgi.version" else type(value).__name__
        for key, value in environ.items()
    }
    return answer_json(start_response, {"types": types(environ), "environ": shown})


def types(environ):
    return {key: type(value).__name__ for key, value in environ.items()}


def exact(environ, start_response):
    """Returns whether environ is a plain dictionary and whether the required callables are callable."""
    errors, body = environ["wsgi.errors"], environ["wsgi.input"]
    return answer_json(
        start_response,
        {
            "environ": type(environ).__name__,
            "errors": all(callable(getattr(errors, name)) for name in ("write", "writelines", "flush")),
            "input": all(
                callable(getattr(body, name)) for name in ("read", "readline", "readlines", "__iter__")
            ),
            "file_wrapper": callable(environ["wsgi.file_wrapper"]),
        },
    )


def spoil(environ, start_response):
    """Changes its environ, as apps may. The next request must not be affected."""
    spoiled = "SPOILED" in environ
    environ.clear()
    environ["SPOILED"] = "1"
    return answer_json(start_response, spoiled)


def complain(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("a complaint\n")
    errors.writelines(["and ", "another \u20ac\n"])
    errors.flush()
    return answer_json(start_response, None)


@validator
def strict(environ, start_response):
    """Checked from both sides by the standard library."""
    body = environ["wsgi.input"].read(-1) if environ["REQUEST_METHOD"] == "POST" else b"nothing"
    start_response("200 OK", [TEXT, ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


@validator
def strict_input(environ, start_response):
    """The same for each way of reading."""
    body = environ["wsgi.input"]
    pieces = [body.read(3), body.readline(), body.readline(4), *body.readlines(8), *body.readlines(), *body]
    start_response("200 OK", [TEXT])
    return iter([b"".join(pieces)])
