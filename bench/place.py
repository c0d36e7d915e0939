"""The resources of one run of the benchmark: directories, cores, and the environment of every server."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scenarios import FILE_10_MB

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent


@dataclass(frozen=True)
class Place:
    """`scratch` is a directory that is removed after the run."""

    scratch: Path
    server_core: int
    load_core: int

    @property
    def programs(self) -> Path:
        """The benchmark's virtual environment: one interpreter, and the same frameworks, for all servers."""
        return Path(sys.prefix) / "bin"

    @property
    def python(self) -> str:
        return str(self.programs / "python")

    @property
    def file(self) -> Path:
        return self.scratch / "file"

    @property
    def certificate(self) -> str:
        return str(self.scratch / "certificate.pem")

    @property
    def key(self) -> str:
        return str(self.scratch / "key.pem")

    def environment(self) -> dict[str, str]:
        """Variables for the servers: none of the caller's, which could change figures, and the applications on the module path."""
        applications = [BENCH / "apps", ROOT / "examples", ROOT / "examples/django_app"]
        return {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.scratch),
            "LANG": "C.UTF-8",
            "PYTHONPATH": ":".join(map(str, applications)),
            "BENCH_FILE": str(self.file),
        }

    def public(self, words: list[str]) -> str:
        """The command without local directories."""
        named = {str(self.scratch): "TMP", str(self.programs) + "/": "", str(ROOT) + "/": ""}
        line = shlex.join(words)
        for directory, name in named.items():
            line = line.replace(directory, name)
        return line


def set_up(scratch: Path) -> Place:
    """Create the file to be served and a certificate, and select two cores. This process uses that of the load."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("bench: it takes two cores, one for the server and one for the load")
    os.sched_setaffinity(0, {cores[1]})
    place = Place(scratch, cores[0], cores[1])
    place.file.write_bytes(FILE_10_MB)
    make_certificate(place)
    return place


def make_certificate(place: Place) -> None:
    """A self-signed certificate with a P-256 key, as most sites have."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", place.key, "-out", place.certificate, "-days", "30", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
