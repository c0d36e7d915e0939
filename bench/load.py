"""Load by wrk on a core of its own, and what it says of it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from place import BENCH
from scenarios import Scenario

LONGEST_WAIT = 5  # seconds until an answer counts as a timeout


@dataclass(frozen=True)
class Load:
    """Latencies in microseconds; `errors` has what went wrong by its kind, with how often."""

    requests: int
    seconds: float
    p50: int
    p99: int
    errors: dict[str, int]

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def faults(self) -> list[str]:
        names = {"status": "answers of 400 or more", "timeout": f"answers after {LONGEST_WAIT} s"}
        faults = [
            f"{count} {names.get(kind, kind + ' errors')}" for kind, count in self.errors.items() if count
        ]
        return faults if self.requests else ["no request was answered", *faults]


def load(scenario: Scenario, port: int, seconds: float) -> Load:
    """Keep the scenario's connections busy, each with one request at a time, for whole seconds."""
    words = [
        *[
            "wrk",
            "--threads",
            "1",
            "--connections",
            str(scenario.connections),
            "--timeout",
            f"{LONGEST_WAIT}s",
        ],
        *["--duration", f"{max(1, round(seconds))}s", "--script", str(BENCH / "load.lua")],
        *[f"http://127.0.0.1:{port}/", "--", "POST" if scenario.posted else "GET", str(len(scenario.posted))],
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=seconds + 60)
    told = json.loads(done.stdout.splitlines()[-1])
    kinds = ("connect", "read", "write", "timeout", "status")
    return Load(
        told["requests"],
        told["duration"] / 1e6,
        told["p50"],
        told["p99"],
        {kind: told[kind] for kind in kinds},
    )
