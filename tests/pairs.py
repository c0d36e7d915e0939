"""gunicorn and mlws, started with the same arguments in directories with the same files, and sent the same requests.

Each difference is either a fault or listed with its reason. `compare` fails for unlisted differences, and for
listed ones that do not occur.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import signal
import socket
import stat
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from harness import APPS, Command, eventually, free_port, gone, processes
from wire import Wire

MAKES = ("gunicorn", "mlws")
REASONS = {
    "names itself": "`SERVER_SOFTWARE` and the header `Server` name mylittlewebserver; `--server-header` changes the header.",
    "extras": "The environ has `REQUEST_URI` and `mylittlewebserver.client_gone`, but not `gunicorn.socket`.",
    "cookies": "Several `Cookie` lines are joined by `; `, as cookie parsers expect, and not by a comma.",
    "absolute": "The authority of an absolute target replaces `Host` (RFC 9112, section 3.2.2).",
    "chunked length": "A chunked body is received and decoded before the app is called. The environ has its `CONTENT_LENGTH` and no `HTTP_TRANSFER_ENCODING` (RFC 9112, section 7.1.3).",
    "known length": "A response with a known length has a `Content-Length`; gunicorn sends some of these in chunks.",
    "connections": "Connections stay open for the next request, also with `sync`. `Connection: keep-alive` is not sent, because it is the default of HTTP/1.1.",
    "error pages": "Error responses are plain text, not HTML.",
    "strict": "Ambiguous requests are rejected; `--http-compat gunicorn` accepts requests without `Host` and CONNECT.",
    "methods": "Any token is a method: `get` differs from `GET`, and the app decides whether to reject it.",
    "versions": "HTTP/2.0 in a request line results in 505, not 400.",
    "main thread": "With several threads, a request may run on the main thread of its worker. With one, the default, every request does, as in gunicorn.",
    "umask": "`--umask` applies to all files, including those of the app; in gunicorn, only to its own.",
    "commas": "Config files may also contain addresses as a list with commas.",
    "statuses": "Exit status 2 means a usage or configuration error (gunicorn: 1, or 4 for an invalid APP). Status 3 means that the app fails to load, also with `--check-config` (gunicorn: 1).",
    "fast end": "INT and QUIT abort running requests; gunicorn interrupts them, which results in 500 unless the app catches the exception.",
    "socket files": "A reload with other addresses removes the file of a Unix socket that is no longer used.",
    "safe reload": "If a reload fails (the app, the config file or a setting is invalid), the current workers keep serving; gunicorn exits.",
    "config module": "A reload reads the module of `-c python:MODULE` and its submodules again; gunicorn keeps them as they were.",
    "preload reload": "A reload loads a preloaded app again.",
    "winch": "WINCH drains the workers unless it comes from a terminal; in gunicorn, only in daemon mode.",
    "timeouts": "A call that exceeds the timeout results in 504, and the log shows its stacks; gunicorn interrupts it, which results in 500 unless the app catches the exception.",
    "generation": "With `--preload` a process of each generation loads the app and forks the workers: `pre_fork` and `child_exit` are called in it, it is `server.pid`, `worker.ppid` is its pid, and `worker.age` begins with 1 again after a reload.",
    "log mode": "Logs are created with mode 0640, because they contain addresses, request targets and tracebacks.",
    "unix peers": "Peers on a Unix socket are trusted proxies only if its mode excludes other users, or with `unix:` in `--forwarded-allow-ips`; gunicorn trusts them on every Unix socket.",
    "youngest": "TTOU stops the youngest worker; gunicorn stops the oldest.",
    "stuck": "`worker_exit` is not called in a worker that exits because a call never returned; `child_exit` is.",
    "own length": "`response.headers` in `post_request` are without `Content-Length`, which the server sends itself.",
    "https variables": "Over HTTPS, the environ has `HTTPS=on` and variables that begin with `SSL_`.",
    "http2 variables": "Over HTTP/2, the environ has neither `HTTP_VERSION` nor `gunicorn.http2.send_trailers`, `gunicorn.http2.priority_weight` and `gunicorn.http2.priority_depends_on`.",
    "http2 lengths": "Over HTTP/2, a body without `Content-Length` is received before the app is called. The environ has its `CONTENT_LENGTH`.",
    "http2 errors": "Over HTTP/2, a malformed request resets its stream and the connection stays open. A request over a limit results in 414 or 431.",
}
"""The reason for a difference, as it is written in the guide."""

SOMETIMES = {"main thread"}
"""Reasons for differences that do not occur in every run, because any thread of a pool may serve the request."""

PATIENCE = 20
"""Seconds to wait for an event. That it does not occur may be the difference."""


class Either(Command):
    """gunicorn or mlws in its own directory, with the app `facts` in it."""

    def __init__(self, make, words, directory, files=None, env=None, launcher=()):
        self.make, self.directory, self.master = make, directory, None
        self.addresses, self.port = [], None
        port = free_port()

        def filled(text):
            return text.replace("PORT!", str(port)).replace("HOST!", f"127.0.0.{2 + MAKES.index(make)}")

        (directory.parent / "runtime").mkdir(parents=True)  # for gunicorn's control socket
        for place, content in {"facts.py": (APPS / "facts.py").read_text(), **(files or {})}.items():
            (directory / place).parent.mkdir(parents=True, exist_ok=True)
            (directory / place).write_text(filled(content))
        self.given = set(directory.rglob("*"))
        own = {
            "XDG_RUNTIME_DIR": str(directory.parent / "runtime"),
            "PWD": str(directory),
            "LC_ALL": "C.UTF-8",
        }
        super().__init__(
            *(launcher or ()),
            Path(sys.executable).with_name(make),
            *map(filled, words),
            cwd=directory,
            env={**own, **{key: filled(value) for key, value in (env or {}).items()}},
        )
        self.master = self.pid

    def ready(self, since=0):
        """Waits for the log line with the addresses, which sets the port of the first one."""
        self.addresses = eventually(
            lambda: self._addresses(since) or (not self.running() and ["gone"]),
            "an address",
            deadline=PATIENCE,
        )
        if self.addresses[0].startswith("http"):
            self.port = urlsplit(self.addresses[0]).port
        return self

    def _addresses(self, since):
        pattern = (
            r"Listening at: (.+?)(?: \(\d+\))?\n" if self.make == "gunicorn" else r"Listening at: (.+) \("
        )
        output = re.findall(pattern, self.output()[since:])
        return re.findall(r"(?:https?://|unix:)[^\s,]+", output[-1]) if output else []

    def output(self):
        """The output on its streams and in its log files."""
        if self.master == self.pid and not self.running():
            self.log.read_rest()  # its last output may still be in the pipe
        files = "".join(path.read_text() for path in sorted(self.directory.glob("*.log")))
        return self.log.text + files

    def workers(self):
        """The pids of the serving processes: descendants of the master without children."""
        return [process.pid for process in self.below() if not self.below(process.pid)]

    def below(self, pid=None):
        alive = [process for process in processes() if process.state not in "ZX"]
        found = [process for process in alive if process.parent == (pid or self.master)]
        return found + [grandchild for child in found for grandchild in self.below(child.pid)]

    def number(self, expected):
        """The number of workers: the expected number as soon as it is reached, else the number at the deadline."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: len(self.workers()) == expected, deadline=PATIENCE)
            return expected
        return len(self.workers())

    def wire(self, address=None):
        address = address or self.addresses[0]
        if address.startswith("unix:"):
            return Wire(str(self.directory / address.removeprefix("unix:")), family=socket.AF_UNIX)
        host = urlsplit(address).hostname.replace("0.0.0.0", "127.0.0.1")
        return Wire((host, urlsplit(address).port))

    def get(self, path, **how):
        with self.wire(how.pop("address", None)) as wire:
            return wire.request(path, **how)

    def facts(self, path="/process"):
        return json.loads(self.get(path).body)

    def eventually_answers(self, path, text, deadline=PATIENCE, **how):
        """Returns whether the response becomes this one before the deadline."""

        def same():
            with contextlib.suppress(OSError, AssertionError):
                return self.get(path, **how).text == text
            return False

        with contextlib.suppress(AssertionError):
            return eventually(same, deadline=deadline, pause=0.05)
        return False

    def ended_by_itself(self):
        """The exit status, or None if it still runs at the deadline."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.running(), deadline=2)
        return self.process.poll()

    def kill(self, signum, pid=None):
        os.kill(pid or self.master or self.pid, signum)

    def ends(self, signum=signal.SIGTERM):
        """The exit status after this signal."""
        if self.running():
            self.process.send_signal(signum)
        return self.wait()

    def files(self):
        """The files that it has created, with their modes."""
        made = sorted(set(self.directory.rglob("*")) - self.given)
        made = [path for path in made if "__pycache__" not in path.parts]
        return {str(path.relative_to(self.directory)): stat.filemode(path.lstat().st_mode) for path in made}

    def end(self):
        if self.master not in (None, self.pid) and not gone(self.master):
            os.kill(self.master, signal.SIGKILL)  # a daemon has its own process group
        super().end()


class Case:
    """The arguments of both servers, the function that inspects them, and the reasons for differences by the pattern of what differs."""

    def __init__(self, words, look, differs=None, **how):
        self.words, self.look, self.differs, self.how = list(words), look, differs or {}, how

    def seen(self):
        """By the name of the server."""
        # Paths of Unix sockets have to be short, and all users need access.
        with tempfile.TemporaryDirectory(prefix="mlws") as directory:
            os.chmod(directory, 0o755)
            return both(Path(directory), self.words, self.look, **self.how)


def both(directory, words, look, **how):
    """The results of `look` for gunicorn and mlws, which run concurrently, by the name of the server."""

    def seen(make):
        with contextlib.ExitStack() as ends:
            server = Either(make, words, directory / make / "here", **how)
            ends.callback(server.end)
            return look(server)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(MAKES, pool.map(seen, MAKES), strict=False))


def compare(seen, listed):
    """`listed` maps patterns of what differs to their reasons."""
    assert set(listed.values()) <= set(REASONS)
    theirs, ours = seen["gunicorn"], seen["mlws"]
    differ = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
    unlisted = [key for key in differ if not any(fnmatch.fnmatchcase(key, pattern) for pattern in listed)]
    text = "\n".join(f"{key}\n  gunicorn: {theirs.get(key)}\n  mlws:     {ours.get(key)}" for key in unlisted)
    assert not unlisted, f"differences that are not listed:\n{text}"
    expected = [pattern for pattern, reason in listed.items() if reason not in SOMETIMES]
    idle = [pattern for pattern in expected if not fnmatch.filter(differ, pattern)]
    assert not idle, f"listed, but no difference any more: {idle}"
