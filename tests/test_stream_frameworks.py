"""Streamed exports of real frameworks with slow readers and concurrent requests: each row has its own user."""

from __future__ import annotations

import itertools
import sqlite3

import pytest
from clients import SlowWire, ask, target, together
from conftest import CONCURRENCY
from harness import Server, eventually

ROWS = 1500
TEXT = "x" * 500
MONDAY = {"de": "Montag", "fr": "lundi", "en": "Monday"}
numbers = itertools.count()


class Framework:
    """The requests to a framework, and their expected responses."""

    def __init__(self, row, page, stranger, query=None, ends=1):
        self.row, self.page, self.stranger, self.query, self.ends = row, page, stranger, query or {}, ends


FRAMEWORKS = {
    "flask": Framework("{number},{user},{user},{user},{text}\n", "{user},{user}", "nobody,nobody", ends=2),
    "django": Framework(
        "{number},{user},{language},{monday},{text}\n",
        "{user},{language},{monday},{rows},none",
        "nobody,en,Monday,{rows},none",
    ),
    "django in a transaction": Framework(
        "{number},{user},{language},{monday},{text}\n",
        "{user},{language},{monday},{rows},none",
        "nobody,en,Monday,{rows},none",
        {"atomic": 1},
    ),
    "bottle": Framework("{number},{user},{user},{text}\n", "{user}", "nobody"),
    "sqlalchemy": Framework("{number},{user},{user},{text}\n", "{user},5", "nobody,5"),
    "sqlite": Framework("{number},{user},{user},{text}\n", "{user},{rows}", "nobody,{rows}"),
}


class Exports:
    def __init__(self, server, directory, name):
        self.server, self.ends, self.name = server, directory / "ends", name
        self.place, self.framework = name.split()[0], FRAMEWORKS[name]

    def fill(self, template, user, language, number=""):
        return template.format(
            number=number, user=user, language=language, monday=MONDAY[language], rows=ROWS, text=TEXT
        )

    def ask(self, page, user, language, wire):
        query = {"user": user} if user else {}
        query |= self.framework.query
        return ask(
            self.server, target(f"/{self.place}/{page}", **query), f"Accept-Language: {language}\r\n", wire
        )

    def rows(self, user, language):
        return "".join(self.fill(self.framework.row, user, language, number) for number in range(ROWS))

    def visits(self, user, language):
        """Requests the short page continuously."""
        with self.server.wire() as wire:
            for _ in range(5):
                path = target(f"/{self.place}/me", user=user)
                answer = wire.request(path, headers=f"Accept-Language: {language}\r\n")
                assert answer.text == self.fill(self.framework.page, user, language)

    def ended(self, user):
        """Waits until the resources of the user's export are freed: once, but Flask itself tears a stream's context down twice."""
        line, count = f"{self.place} {user}\n", self.framework.ends
        eventually(lambda: self.ends.read_text().count(line) >= count, f"the end of the export of {user}")
        assert self.ends.read_text().count(line) == count


@pytest.fixture(scope="module", params=CONCURRENCY)
def serving(request, tmp_path_factory):
    """One server for all frameworks, and its directory."""
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "ends").touch()
    with sqlite3.connect(directory / "rows.db") as connection:
        connection.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO row VALUES (?, ?)", ((number, TEXT) for number in range(ROWS)))
    connection.close()
    server = Server("exports", *CONCURRENCY[request.param], env={"EXPORTS_DIRECTORY": str(directory)})
    try:
        yield server, directory
        server.stop_if_running()
    finally:
        server.end()


@pytest.fixture(params=FRAMEWORKS)
def exports(serving, request):
    return Exports(*serving, request.param)


def fresh(word):
    return f"{word}{next(numbers)}"


def test_each_slow_export_has_all_rows_and_only_those_of_its_user(exports, at_length):
    for _ in range(at_length(1, 20)):
        export_slowly(exports)


def export_slowly(exports):
    """No export is read before other requests have been served."""
    users = {fresh("reader"): language for language in ("de", "fr", "en")}
    wires = {user: exports.ask("export", user, language, SlowWire) for user, language in users.items()}
    together(
        lambda: exports.visits(fresh("visitor"), "fr"),
        lambda: exports.visits(fresh("visitor"), "de"),
    )

    def read(user):
        with wires[user] as wire:
            wire.hurry()
            answer = wire.answer()
        assert answer.status == 200
        assert answer.text == exports.rows(user, users[user])
        assert answer.complete

    together(
        *(lambda user=user: read(user) for user in users), lambda: exports.visits(fresh("visitor"), "en")
    )
    for user in users:
        exports.ended(user)


def test_an_abandoned_export_frees_the_resources_of_its_user(exports):
    """The clients disconnect after their exports have started and other requests have been served."""
    users = [fresh("leaver") for _ in range(4)]
    wires = [exports.ask("export", user, "de", SlowWire) for user in users]
    for wire in wires:
        assert wire.head()[1] == 200
    exports.visits(fresh("visitor"), "fr")
    for wire in wires:
        wire.reset()
    for user in users:
        exports.ended(user)
    stranger = exports.fill(exports.framework.stranger, "", "en")
    assert [exports.server.get(f"/{exports.place}/me").text for _ in range(8)] == [stranger] * 8
