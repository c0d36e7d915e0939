"""Counts its calls within this process; `/fails` fails."""

calls = []


def app(environ, start_response):
    path = environ["PATH_INFO"]
    calls.append(path)
    if path == "/fails":
        raise LookupError("on purpose")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(calls).encode()]
