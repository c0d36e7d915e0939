"""Fixtures: servers that are always cleaned up, and the three ways of running an app."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from certificates import Authority
from harness import Command, Gate, Server
from wire import DEADLINE

CONCURRENCY = {"inline": ("--threads", "1"), "threads": ("--threads", "4"), "fork": ("--fork",)}
MODES = {**CONCURRENCY, "preload": ("--preload", "--workers", "2", "--threads", "4")}


def pytest_addoption(parser):
    parser.addoption(
        "--soak",
        action="store_true",
        help="do at length what an ordinary run does briefly: thousands of clients, a million requests",
    )


@pytest.fixture(params=CONCURRENCY, scope="module")
def concurrency(request):
    """The name of each way in which the server can run an app."""
    return request.param


@pytest.fixture(params=MODES, scope="module")
def mode(request):
    """The same, and several workers that are forked after the app is loaded."""
    return request.param


@pytest.fixture(params=["cleartext", "tls"], scope="module")
def transport(request):
    """Whether clients use TLS."""
    return request.param


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate authority."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority):
    """The options for HTTPS on localhost."""
    issued = authority.issue("localhost", "127.0.0.1")
    return ("--certfile", str(issued.certificate), "--keyfile", str(issued.key))


@pytest.fixture
def start():
    """Starts a server for one test. It must still be able to stop gracefully after the test."""
    started = []

    def start(*arguments, **settings):
        started.append(Server(*arguments, **settings))
        return started[-1]

    yield start
    try:
        for server in started:
            server.stop_if_running()
    finally:
        for server in started:
            server.end()


@pytest.fixture(scope="module")
def shared():
    """One server for all tests of the module that use the same app and options. A dead one is replaced."""
    servers = {}

    def shared(*arguments):
        server = servers.get(arguments)
        if server is None or not server.running():
            server = servers[arguments] = Server(*arguments)
        return server

    yield shared
    try:
        for server in servers.values():
            server.stop_if_running()
    finally:
        for server in servers.values():
            server.end()


@pytest.fixture
def server(shared, concurrency):
    """The collection of small apps (`apps/raw`), run in each way."""
    return shared("raw", *CONCURRENCY[concurrency])


@pytest.fixture
def many(pytestconfig):
    """The number of repetitions in tests for leaks: a hundred times as many with `--soak`."""
    return lambda count: count * (100 if pytestconfig.getoption("--soak") else 1)


@pytest.fixture
def at_length(pytestconfig):
    """The first number in an ordinary run, the second with `--soak`."""
    return lambda short, soak: soak if pytestconfig.getoption("--soak") else short


@pytest.fixture
def manager(tmp_path):
    """A socket in place of systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE)
        yield manager


@pytest.fixture
def gate(tmp_path):
    """A gate inside the app at which requests wait for the test."""
    gate = Gate(tmp_path)
    yield gate
    gate.end()


@pytest.fixture
def record(tmp_path):
    """A file in which an app records events."""
    path = tmp_path / "record"
    path.touch()
    return path


@pytest.fixture(scope="module")
def seen(request):
    """The results of the module's `CASES`. Several cases run ahead of their tests, because they mostly wait."""
    items = [item for item in request.session.items if item.path == request.path]
    names = [item.callspec.params["name"] for item in items if "seen" in item.fixturenames]
    with ThreadPoolExecutor(3) as pool:
        futures = {name: pool.submit(request.module.CASES[name].seen) for name in names}
        yield lambda name: futures[name].result()
        for future in futures.values():
            future.cancel()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for command in Command.alive:
            report.sections.append((f"log of {command.process.args}", command.log.text[-5000:]))
    return report
