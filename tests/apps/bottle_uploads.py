"""A Bottle app that accepts uploads."""

import hashlib

import bottle

app = bottle.Bottle()


@app.post("/upload")
def upload():
    body = bottle.request.body.read()
    return {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
