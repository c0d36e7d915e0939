"""A complete WSGI application: one callable, as PEP 3333 defines it. Serve it with `mlws wsgi_example`."""


def application(environ, start_response):
    """Answer every request with the same greeting.

    `environ` is a dict that describes the request; `start_response` receives the status and the header
    fields. The return value is the body, as chunks of bytes.
    """
    body = b"Hello, World from the WSGI App!\n"
    fields = [
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(body))),
        ("X-IMPORTANT-INFO", "hello world"),
    ]
    start_response("200 OK", fields)
    return [body]


app = application  # the other name that servers look for
