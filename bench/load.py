"""Load on a core of its own: by wrk, by h2load for HTTP/2, by openssl for handshakes. And what they report."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass, field

from place import BENCH
from scenarios import Handshakes, Scenario

LONGEST_WAIT = 5  # seconds until an answer counts as a timeout
LONGEST_LOAD = 60.0  # seconds for one run of h2load


@dataclass(frozen=True)
class Load:
    """Latencies in microseconds, where the load generator knows them; `errors` has what went wrong by its kind,
    with how often.
    """

    requests: int
    seconds: float
    latencies: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def faults(self) -> list[str]:
        names = {
            "status": "answers of 400 or more",
            "timeout": f"answers after {LONGEST_WAIT} s",
            "handshake": "handshakes of the other kind, full or resumed",
        }
        faults = [
            f"{count} {names.get(kind, kind + ' errors')}" for kind, count in self.errors.items() if count
        ]
        return faults if self.requests else ["no request was answered", *faults]


def url(scenario: Scenario, port: int) -> str:
    return f"{'https' if scenario.tls else 'http'}://127.0.0.1:{port}/"


def load(scenario: Scenario, port: int, seconds: float) -> Load:
    """Keep the scenario's connections busy for whole seconds."""
    duration = max(1, round(seconds))
    if scenario.handshakes:
        return openssl(scenario.handshakes, scenario.connections, port, duration)
    return h2load(scenario, port, duration) if scenario.http2 else wrk(scenario, port, duration)


def wrk(scenario: Scenario, port: int, seconds: int) -> Load:
    """Each connection has one request at a time."""
    words = ["wrk", "--threads", "1", "--connections", str(scenario.connections)]
    words += [
        "--timeout",
        f"{LONGEST_WAIT}s",
        "--duration",
        f"{seconds}s",
        "--script",
        str(BENCH / "load.lua"),
    ]
    words += [url(scenario, port), "--", "POST" if scenario.posted else "GET", str(len(scenario.posted))]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=seconds + 60)
    told = json.loads(done.stdout.splitlines()[-1])
    latencies = {name: float(told[name]) for name in ("p50", "p99")}
    kinds = ("connect", "read", "write", "timeout", "status")
    return Load(told["requests"], told["duration"] / 1e6, latencies, {kind: told[kind] for kind in kinds})


def h2load(scenario: Scenario, port: int, seconds: int) -> Load:
    """Each connection has as many requests at a time as the scenario has streams. With a duration h2load may wait for
    ever for its connections to end, so it gets numbers of requests, by the rate so far, until the time is over.
    """
    done = run_h2load(scenario, port, scenario.connections * scenario.streams)
    while done.requests and not any(done.errors.values()) and done.seconds < 0.9 * seconds:
        at_least = scenario.connections * scenario.streams
        more = run_h2load(scenario, port, max(at_least, round(done.rate * (seconds - done.seconds))))
        errors = {kind: count + more.errors[kind] for kind, count in done.errors.items()}
        done = Load(done.requests + more.requests, done.seconds + more.seconds, errors=errors)
    return done


def burst(scenario: Scenario, port: int) -> Load:
    """As many requests as there are streams, all at once."""
    return run_h2load(scenario, port, scenario.streams)


def run_h2load(scenario: Scenario, port: int, requests: int) -> Load:
    words = ["h2load", "--threads", "1", "--clients", str(scenario.connections), "--requests", str(requests)]
    words += ["--max-concurrent-streams", str(scenario.streams), url(scenario, port)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=LONGEST_LOAD)
    except subprocess.TimeoutExpired:
        return Load(0, LONGEST_LOAD, errors={"timeout": 1})
    return read_h2load(done.stdout, scenario.tls)


def read_h2load(output: str, tls: bool) -> Load:
    duration = re.search(r"^finished in ([\d.]+)(us|ms|s),", output, re.MULTILINE)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    if not duration or not counts:
        return Load(0, 1.0, errors={"connect": 1})
    seconds = float(duration[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[duration[2]]
    succeeded, failed, errored, late = map(int, counts.groups())
    negotiation = int(tls and "Application protocol: h2\n" not in output)
    errors = {"status": failed - errored, "stream": errored, "timeout": late, "negotiation": negotiation}
    return Load(succeeded, seconds, errors=errors)


def openssl(handshakes: Handshakes, processes: int, port: int, seconds: int) -> Load:
    """Processes that make one connection after another, with one request each. Each of them stops at a full second,
    so the time is measured here.
    """
    words = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-www", "/", "-time", str(seconds)]
    words += ["-reuse" if handshakes is Handshakes.RESUMED else "-new"]
    start = time.monotonic()
    running = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    done = [process.communicate(timeout=seconds + 60) for process in running]
    elapsed = time.monotonic() - start
    outputs = [output for output, _ in done]
    failed = sum(process.returncode != 0 for process in running)
    return Load(
        sum(count_handshakes(output) for output in outputs),
        elapsed,
        errors={"openssl": failed, "handshake": sum(count_others(output, handshakes) for output in outputs)},
    )


def marks(output: str) -> str:
    """A line with a character for each connection: `r` if it was resumed, `*` or `t` if not."""
    return next((line for line in output.splitlines() if re.fullmatch(r"[rt*]+", line)), "")


def count_handshakes(output: str) -> int:
    return len(marks(output))


def count_others(output: str, wanted: Handshakes) -> int:
    """Connections with a handshake of the other kind."""
    resumed = marks(output).count("r")
    return resumed if wanted is Handshakes.FULL else len(marks(output)) - resumed
