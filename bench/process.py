"""A measured process and its descendants: CPU time, memory, and termination.

They are identified by the session that the first of them creates. It includes all workers and children,
whatever their process group.
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
    """The process exited or did not become ready. The message is its last output."""


@dataclass(frozen=True)
class Memory:
    """Memory of all processes together in bytes. Shared pages count once in `pss`, and for each process in `rss`."""

    pss: int
    rss: int


class Session:
    """A command that runs on one core, in its own session, with its output in a file."""

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
        """The last line of the log that contains a letter."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if re.search("[a-z]", line)), "no output")

    def processes(self) -> list[int]:
        return [
            pid for pid, fields in all_processes() if int(fields[3]) == self.process.pid and fields[0] != "Z"
        ]

    def cpu_seconds(self) -> float:
        """CPU time used so far by running and by reaped processes, rounded to a tick (10 ms)."""
        spent = [fields[11:15] for _, fields in all_processes() if int(fields[3]) == self.process.pid]
        return sum(int(ticks) for four in spent for ticks in four) / TICKS_PER_SECOND

    def memory(self) -> Memory:
        pss = rss = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):  # it has just exited
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                pss += kilobytes(rollup, "Pss")
                rss += kilobytes(rollup, "Rss")
        return Memory(pss * 1024, rss * 1024)

    def end(self) -> None:
        """Stop the first process gracefully, and kill the remaining ones after a timeout."""
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
    """Each process with its fields of /proc/PID/stat, starting with the third, the state."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry), Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()


def kilobytes(rollup: str, name: str) -> int:
    found = re.search(rf"^{name}: +(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) if found else 0


def own_cpu_seconds() -> float:
    """CPU time of this process and its reaped children, such as wrk."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def busy_seconds(cores: set[int]) -> float:
    """Time since boot that these cores were busy or stolen by the hypervisor."""
    names = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + steal
    return ticks / TICKS_PER_SECOND
