"""The shop in Flask. The shops of all frameworks serve the same routes with the same content."""

import hashlib

from flask import Flask, Response, jsonify, redirect, request, send_file

app = Flask(__name__)


@app.get("/hello")
def hello():
    return Response("Hello from Flask!\n", mimetype="text/plain")


@app.get("/query")
def query():
    return jsonify(request.args.to_dict(flat=False))


@app.get("/path/<path:rest>")
def path(rest):
    return jsonify(rest)


@app.post("/form")
def form():
    return jsonify(request.form.to_dict(flat=False))


@app.route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def echo():
    return Response(request.get_data(), headers={"X-Method": request.method})


@app.get("/cookies/set")
def set_cookies():
    response = Response("set\n")
    response.set_cookie("flavour", "chocolate chip")
    response.set_cookie("size", "large", httponly=True)
    return response


@app.get("/cookies/show")
def show_cookies():
    return jsonify(dict(request.cookies))


@app.post("/upload")
def upload():
    file, seen, size = request.files["file"], hashlib.sha256(), 0
    while piece := file.stream.read(1 << 16):
        seen.update(piece)
        size += len(piece)
    return jsonify(name=file.filename, size=size, sha256=seen.hexdigest(), note=request.form["note"])


@app.get("/stream")
def stream():
    return Response((f"line {number}\n" for number in range(5000)), mimetype="text/plain")


@app.get("/download")
def download():
    return send_file(__file__, mimetype="text/x-python")


@app.get("/redirect")
def to_hello():
    return redirect("/hello")


@app.get("/raise")
def fail():
    raise RuntimeError("the Flask shop is on fire")
