"""A Flask app that accepts at most a megabyte."""

from flask import Flask, request

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 1_000_000


@app.post("/upload")
def upload():
    return f"{len(request.get_data())}\n"


@app.post("/file")
def file():
    return f"{len(request.files['file'].read())}\n"
