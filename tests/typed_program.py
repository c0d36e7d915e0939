"""A program that uses the complete typed API of the package. mypy checks it; it is never run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mylittlewebserver import __version__, serve

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [__version__.encode()]


def make() -> WSGIApplication:
    return app


serve(app, bind=["127.0.0.1:0"], threads=8, timeout=0.5, access_logfile="-")
serve(make, factory=True, env=["A=1"], env_file=".env")
serve("shop:app", workers=2, fork=True)
serve(paste="production.ini", paste_global="a=b")
