"""Apps of every form that the command line accepts."""


def app_returning(body):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body.encode()]

    return app


application = app_returning("application")
app = app_returning("not this one")
other = app_returning("other")
number = 5


class holder:  # noqa: N801 - named as an object
    held = staticmethod(app_returning("held"))


def make(material="nothing", count=1):
    return app_returning(" ".join(["made of", *[str(material)] * count]))


def give_number():
    return 5


def fail():
    raise RuntimeError("the factory is shut")


class Made:
    """A class is an app, too: its instance is the body."""

    def __init__(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])

    def __iter__(self):
        yield b"made by a class"
