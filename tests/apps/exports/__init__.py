"""Exports, each in the way its framework documents: `/flask/export?user=ann`, and so on.

Each one streams rows with the name of the requesting user. The name is read while the row is produced, from
where the framework keeps the current request. `/FRAMEWORK/me` is a short page that reads the user from the
same place. The code that frees a request's resources adds a line to the file `ends`.
"""

import os
from importlib import import_module
from pathlib import Path

DIRECTORY = Path(os.environ["EXPORTS_DIRECTORY"])
DATABASE = DIRECTORY / "rows.db"
ROWS = 1500
TEXT = "x" * 500


def note_end(framework, user):
    file = os.open(DIRECTORY / "ends", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{framework} {user}\n".encode())
    os.close(file)


def load(framework):
    return import_module(f"{__name__}.with_{framework}").application


def application(environ, start_response):
    _, framework, rest = environ["PATH_INFO"].split("/", 2)
    environ["SCRIPT_NAME"], environ["PATH_INFO"] = f"/{framework}", f"/{rest}"
    return APPS[framework](environ, start_response)


APPS = {name: load(name) for name in ("bottle", "django", "flask", "sqlalchemy", "sqlite")}
