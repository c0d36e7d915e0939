"""Apps of every form that the command line can name."""


def saying(body):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body.encode()]

    return app


application = saying("application")
app = saying("not this one")
other = saying("other")
number = 5


class holder:  # noqa: N801 - named as an object
    held = staticmethod(saying("held"))


def make(material="nothing", count=1):
    return saying(" ".join(["made of", *[str(material)] * count]))


def give_number():
    return 5


def fail():
    raise RuntimeError("the factory is shut")


class Made:
    """A class is an app too: called with environ and start_response, its object is the body."""

    def __init__(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])

    def __iter__(self):
        yield b"made by a class"
