"""Flask: `stream_with_context`, a session in a cookie, `g`, and a teardown function."""

from flask import Flask, Response, g, request, session, stream_with_context

from . import ROWS, TEXT, note_end

app = application = Flask(__name__)
app.secret_key = "for tests only"


@app.before_request
def keep_user():
    if "user" in request.args:
        session["user"] = request.args["user"]


@app.teardown_request
def note_teardown(_):
    if request.path.startswith("/export"):
        note_end("flask", session.get("user", "nobody"))


def user():
    """Keeps resources of a request in `g`, as Flask's documentation recommends."""
    if "user" not in g:
        g.user = session.get("user", "nobody")
    return g.user


@app.get("/me")
def me():
    return f"{user()},{session.get('user', 'nobody')}"


@app.get("/export")
def export():
    @stream_with_context
    def rows():
        for number in range(ROWS):
            yield f"{number},{user()},{session['user']},{request.args['user']},{TEXT}\n"

    return Response(rows(), mimetype="text/csv")
