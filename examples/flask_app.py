"""A small Flask application. Serve it with `mlws flask_app`."""

from flask import Flask, Response

app = Flask(__name__)


@app.get("/")
def hi():
    return Response("Hi from Flask!\n", mimetype="text/plain")
