"""Bottle: a generator that uses the thread-local `request`."""

from bottle import Bottle, request

from . import ROWS, TEXT, note_end

application = Bottle()


@application.get("/me")
def me():
    return request.query.get("user", "nobody")


@application.get("/export")
def export():
    name = request.query.user
    request.environ["exports.user"] = name
    try:
        for number in range(ROWS):
            yield f"{number},{request.query.user},{request.environ.get('exports.user')},{TEXT}\n"
    finally:
        note_end("bottle", name)
