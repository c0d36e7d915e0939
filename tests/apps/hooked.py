"""Returns a header that a hook of the config file has added to the request."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["HTTP_X_ADDED"].encode()]
