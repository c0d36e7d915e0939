"""A process under measurement and all that it starts: their CPU time, their memory, their end.

They are known by their session, which the first of them opens: its workers, the children it forks and their
children belong to it too, whatever process groups they make.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
TIME_TO_END = 3.0


class CannotStart(Exception):
    """The process ended, or never got ready; the message is the last that it said."""


@dataclass(frozen=True)
class Memory:
    """Of all processes together, in bytes: shared pages are counted once in `pss`, and in each process in `rss`."""

    pss: int
    rss: int


class Session:
    """A command that runs on one core, in a session of its own, with its output in a file."""

    def __init__(self, command: list[str], environment: dict[str, str], core: int, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ended(self) -> bool:
        return self.process.poll() is not None

    def last_words(self) -> str:
        """The last line of the log that has a letter in it."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if re.search("[a-z]", line)), "it said nothing")

    def processes(self) -> list[int]:
        return [
            pid for pid, fields in all_processes() if int(fields[3]) == self.process.pid and fields[0] != "Z"
        ]

    def cpu_seconds(self) -> float:
        """Used so far, by those that live and by those that have been waited for, rounded to a tick (10 ms)."""
        spent = [fields[11:15] for _, fields in all_processes() if int(fields[3]) == self.process.pid]
        return sum(int(ticks) for four in spent for ticks in four) / TICKS_PER_SECOND

    def memory(self) -> Memory:
        pss = rss = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):  # it has just ended
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                pss += kilobytes(rollup, "Pss")
                rss += kilobytes(rollup, "Rss")
        return Memory(pss * 1024, rss * 1024)

    def end(self) -> None:
        """Ask the first process to end, and end by force what is still there after a while."""
        if not self.ended():
            self.process.terminate()
        deadline = time.monotonic() + TIME_TO_END
        while self.processes() and time.monotonic() < deadline:
            self.process.poll()
            time.sleep(0.01)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def all_processes() -> Iterator[tuple[int, list[str]]]:
    """Each process and its fields in /proc/PID/stat from the third, the state, on."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry), Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()


def kilobytes(rollup: str, name: str) -> int:
    found = re.search(rf"^{name}: +(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) if found else 0


def own_cpu_seconds() -> float:
    """Of this process and its children that have been waited for, such as wrk."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def busy_seconds(cores: set[int]) -> float:
    """How long these cores have been at work for anyone, or not there when wanted (steal), since the machine began."""
    names = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + steal
    return ticks / TICKS_PER_SECOND
