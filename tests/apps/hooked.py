"""Answers with a field that a function of a config file has added to the request."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["HTTP_X_ADDED"].encode()]
