"""Returns the request as JSON."""

import json


def application(environ, start_response):
    seen = {
        "method": environ["REQUEST_METHOD"],
        "target": environ["REQUEST_URI"],
        "version": environ["SERVER_PROTOCOL"],
        "path": environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "host": environ.get("HTTP_HOST"),
        "body": environ["wsgi.input"].read().decode("latin-1"),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]
