"""sqlite3: a cursor that is read in a generator, by a connection of the call's thread."""

import sqlite3
import threading
from urllib.parse import parse_qs

from . import DATABASE, note_end

local = threading.local()


def application(environ, start_response):
    local.user = name = parse_qs(environ["QUERY_STRING"]).get("user", ["nobody"])[0]
    connection = sqlite3.connect(DATABASE)
    start_response("200 OK", [("Content-Type", "text/csv")])
    if environ["PATH_INFO"] == "/export":
        return rows(connection, name)
    try:
        (count,) = connection.execute("SELECT count(*) FROM row").fetchone()
        return [f"{local.user},{count}".encode()]
    finally:
        connection.close()


def rows(connection, name):
    try:
        for number, text in connection.execute("SELECT id, text FROM row ORDER BY id"):
            yield f"{number},{name},{local.user},{text}\n".encode()
    finally:
        connection.close()
        note_end("sqlite", name)
