"""gunicorn and mlws, started with the same arguments in directories with the same files, and sent the same requests.

What differs is either a fault or listed with its reason: `compare` fails for both a difference that is not listed, and one that
is listed and is none.
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
    "extras": "The environ has `REQUEST_URI` and `mylittlewebserver.client_gone`, but not `gunicorn.socket` and `wsgi.early_hints`.",
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
}
"""Why something differs. The guide has each sentence."""

SOMETIMES = {"main thread"}
"""Reasons whose difference may not show in a given run: any thread of a pool may serve the request."""

PATIENCE = 20
"""Seconds that either make may take for what it may never do: then that is the difference."""


class Either(Command):
    """A server of either make in its own directory, with the app `facts` in it."""

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
        """Waits until it says where it listens; the port of the first address is known from then on."""
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
        return re.findall(r"(?:http://|unix:)[^\s,]+", output[-1]) if output else []

    def output(self):
        """All that it wrote: on its streams, and in files that are named as logs."""
        if self.master == self.pid and not self.running():
            self.log.read_rest()  # what it wrote last may still be on its way
        files = "".join(path.read_text() for path in sorted(self.directory.glob("*.log")))
        return self.log.text + files

    def workers(self):
        """The pids of the processes that serve: all below the master that have no processes below them."""
        return [process.pid for process in self.below() if not self.below(process.pid)]

    def below(self, pid=None):
        alive = [process for process in processes() if process.state not in "ZX"]
        found = [process for process in alive if process.parent == (pid or self.master)]
        return found + [grandchild for child in found for grandchild in self.below(child.pid)]

    def number(self, expected):
        """How many workers there are: the expected number as soon as it is reached, else the number at the end."""
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
        """Whether the answer comes to be this one."""

        def same():
            with contextlib.suppress(OSError, AssertionError):
                return self.get(path, **how).text == text
            return False

        with contextlib.suppress(AssertionError):
            return eventually(same, deadline=deadline, pause=0.05)
        return False

    def ended_by_itself(self):
        """The exit status if it ends, or None if it is still there when it would have ended."""
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
        """The files that it has made, and what they are."""
        made = sorted(set(self.directory.rglob("*")) - self.given)
        made = [path for path in made if "__pycache__" not in path.parts]
        return {str(path.relative_to(self.directory)): stat.filemode(path.lstat().st_mode) for path in made}

    def end(self):
        if self.master not in (None, self.pid) and not gone(self.master):
            os.kill(self.master, signal.SIGKILL)  # a daemon is of no group of ours
        super().end()


class Case:
    """What is said to both, what is looked at, and the names of the reasons for what differs, by the patterns of what that is."""

    def __init__(self, words, look, differs=None, **how):
        self.words, self.look, self.differs, self.how = list(words), look, differs or {}, how

    def seen(self):
        """By the names of the makes."""
        # Names of Unix sockets are short; and everybody may look in.
        with tempfile.TemporaryDirectory(prefix="mlws") as directory:
            os.chmod(directory, 0o755)
            return both(Path(directory), self.words, self.look, **self.how)


def both(directory, words, look, **how):
    """What `look` sees of a server of either make, by the names of the makes. Both run at once."""

    def seen(make):
        with contextlib.ExitStack() as ends:
            server = Either(make, words, directory / make / "here", **how)
            ends.callback(server.end)
            return look(server)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(MAKES, pool.map(seen, MAKES), strict=False))


def compare(seen, listed):
    """`listed` has patterns of what differs, each with the name of its reason."""
    assert set(listed.values()) <= set(REASONS)
    theirs, ours = seen["gunicorn"], seen["mlws"]
    differ = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
    unlisted = [key for key in differ if not any(fnmatch.fnmatchcase(key, pattern) for pattern in listed)]
    text = "\n".join(f"{key}\n  gunicorn: {theirs.get(key)}\n  mlws:     {ours.get(key)}" for key in unlisted)
    assert not unlisted, f"differences that are not listed:\n{text}"
    expected = [pattern for pattern, reason in listed.items() if reason not in SOMETIMES]
    idle = [pattern for pattern in expected if not fnmatch.filter(differ, pattern)]
    assert not idle, f"listed, but no difference any more: {idle}"
