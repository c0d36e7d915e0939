"""`--fork`: connections and threads that children would share are named in a warning, and random state is not shared."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from harness import Server

HEAD = "import os, socket, sys, threading\nservice = ('127.0.0.1', int(os.environ['SERVICE']))\n"
APP = """
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [answer(environ).encode()]
"""


@pytest.fixture
def service():
    """A service for applications that sends each connection its own number."""
    numbers = iter(range(1, 1000))
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection, next(numbers)), daemon=True).start()

        def serve(connection, number):
            with connection:
                while connection.recv(1):
                    connection.sendall(b"%04d" % number)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def serve(start, tmp_path, service):
    """Starts a server with an application of this text, which can connect to the service."""

    def serve(text, *options) -> Server:
        (tmp_path / "module.py").write_text(HEAD + text + APP)
        environment = {"SERVICE": str(service.getsockname()[1])}
        return start("module:app", *options, cwd=tmp_path, env=environment)

    return serve


def name(service):
    return "{}:{}".format(*service.getsockname())


@pytest.mark.parametrize("option", ["--fork", "--preload"])
def test_a_connection_opened_while_the_application_is_loaded_is_named_in_a_warning(serve, service, option):
    server = serve("kept = socket.create_connection(service)\ndef answer(environ): return ''\n", option)
    assert f"connections are open after loading the application: {name(service)}." in server.log.text


def test_without_fork_there_is_no_warning_about_connections(serve):
    server = serve("kept = socket.create_connection(service)\ndef answer(environ): return ''\n")
    assert "connections are open" not in server.log.text


def test_socket_pairs_listeners_and_datagrams_cause_no_warning(serve):
    server = serve(
        "pair = socket.socketpair()\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "datagrams = socket.socket(type=socket.SOCK_DGRAM)\n"
        "datagrams.connect(service)\n"
        "def answer(environ): return ''\n",
        "--fork",
        "--fork-warmup",
        "/",
    )
    assert "WARN" not in server.log.text


LAZY = """
kept = None
calls = 0
def answer(environ):
    global kept, calls
    calls += 1
    if kept is None:
        kept = socket.create_connection(service)
    kept.sendall(b'?')
    return f'{kept.recv(4).decode()} {calls}'
"""


def test_a_connection_opened_by_the_warm_up_is_not_shared(serve, service):
    server = serve(LAZY, "--fork", "--fork-warmup", "/warm")
    assert f"--fork-warmup /warm leaves connections open: {name(service)}." in server.log.text
    answers = [server.get("/").text.split() for _ in range(5)]
    assert len({number for number, _ in answers}) == 5, "each request has a connection of its own"
    assert {calls for _, calls in answers} == {"1"}, (
        "the warm-up itself is not part of what children start with"
    )


def test_modules_imported_by_a_warm_up_with_an_open_connection_are_shared(serve):
    text = (
        "kept = []\n"
        "def answer(environ):\n"
        "    before = 'colorsys' in sys.modules\n"
        "    import colorsys\n"
        "    kept.append(socket.create_connection(service))\n"
        "    return str(before)\n"
    )
    assert serve(text, "--fork").get("/").text == "False"
    assert serve(text, "--fork", "--fork-warmup", "/").get("/").text == "True"


def test_state_of_a_warm_up_that_closes_its_connection_is_shared(serve):
    text = (
        "calls = 0\n"
        "def answer(environ):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    socket.create_connection(service).close()\n"
        "    return str(calls)\n"
    )
    server = serve(text, "--fork", "--fork-warmup", "/")
    assert "WARN" not in server.log.text
    assert server.get("/").text == "2"


def test_threads_that_run_at_the_first_fork_are_named_in_a_warning(serve):
    server = serve(
        "threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()\n"
        "def answer(environ): return ''\n",
        "--fork",
    )
    assert [server.get("/").status for _ in range(3)] == [200] * 3
    server.log.wait_for("--fork is used while other threads run in this worker: poller\\.")
    assert server.log.text.count("other threads run") == 1


def test_without_threads_there_is_no_warning_about_threads(serve):
    server = serve("def answer(environ): return ''\n", "--fork")
    assert server.get("/").status == 200
    assert "WARN" not in server.log.text


def test_random_numbers_differ_from_request_to_request(serve):
    server = serve(
        "import json, random, secrets, uuid\n"
        "random.seed(1)\n"
        "def answer(environ):\n"
        "    return json.dumps([random.random(), secrets.token_hex(), str(uuid.uuid4()), str(uuid.uuid1())])\n",
        "--fork",
    )
    answers = [json.loads(server.get("/").text) for _ in range(5)]
    for values in zip(*answers, strict=False):
        assert len(set(values)) == 5, values
