"""Place and time of a run: what is needed to reproduce it, without the name of the machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from place import ROOT

FRAMEWORKS = ["flask", "django", "pyramid"]


def facts(command: list[str], rounds: int, seconds: float, packages: list[str]) -> dict[str, str]:
    versions = {name: version_of(name) for name in [*packages, *FRAMEWORKS]}
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "command": " ".join(command),
        "rounds": f"{rounds} of {seconds:g} s",
        "machine": f"{processor()}, {os.cpu_count()} cores, {memory()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": first_line(["wrk", "-v"], r"wrk (\S+)", "wrk {}"),
        "h2load": first_line(["h2load", "--version"], r"nghttp2/(\S+)", "nghttp2 {}"),
        "openssl": first_line(["openssl", "version"], r"OpenSSL (\S+)", "{}"),
        "nginx": first_line([nginx(), "-v"], r"nginx/(\S+)", "{}"),
        "packages": ", ".join(f"{name} {found}" for name, found in versions.items() if found),
        "load average before": f"{os.getloadavg()[0]:.2f}",
    }


def directory_name() -> str:
    """The directory of a full run, DATE-MACHINE."""
    words = re.sub(r"\([^)]*\)|\bprocessor\b|\bcpu\b|@.*", " ", processor().lower())
    slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    return f"{datetime.now(timezone.utc):%Y-%m-%d}-{slug}-{os.cpu_count()}-cores"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return re.sub(r"\((R|TM)\)", "", line.partition(":")[2]).strip()
    return platform.machine()


def memory() -> str:
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"


def commit() -> str:
    git = ["git", "-C", str(ROOT)]
    head = output([*git, "rev-parse", "--short", "HEAD"]).strip()
    if not re.fullmatch("[0-9a-f]+", head):
        return "unknown"
    changed = output([*git, "status", "--porcelain", "--", ".", ":!bench/results"]).strip()
    return head + (" with uncommitted changes" if changed else "")


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def nginx() -> str:
    return shutil.which("nginx", path=f"/usr/sbin:{os.environ['PATH']}") or "nginx"


def first_line(command: list[str], pattern: str, shape: str) -> str:
    found = re.search(pattern, output(command))
    return shape.format(found[1]) if found else "none"


def output(command: list[str]) -> str:
    """The output of the command on both streams. Empty if the program is missing."""
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        ).stdout
    except OSError:
        return ""
