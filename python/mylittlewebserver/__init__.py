"""Serves Python WSGI applications over HTTP.

>>> from mylittlewebserver import serve
>>> serve("flask_app:app", bind="127.0.0.1:8080", workers=2)  # doctest: +SKIP

The command ``mlws`` and ``python -m mylittlewebserver`` do the same from a shell.
"""

from mylittlewebserver._native import __version__, serve

__all__ = ["__version__", "serve"]
