"""The multiprocess mode of prometheus_client without a file for every process that has ended.

In this mode, each process writes its metrics to files named by its pid, and a scrape adds them up. prometheus_client keeps the files of
ended processes, because counters must not go backwards. With ``--fork`` that would be a file per request. The functions of this module
have the names and arguments of ``prometheus_client.multiprocess``, but add the values of ended processes to a common file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import multiprocess
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import CollectorRegistry

ENDED = "0"
"""Stands for the pid in the names of the common files. No process has it."""


class MultiProcessCollector(multiprocess.MultiProcessCollector):
    """Collects the metrics of all processes, while no process is marked as dead."""

    def __init__(self, registry: CollectorRegistry | None, path: str | None = None) -> None:
        super().__init__(registry, path)
        self._directory = _directory(path)

    def collect(self) -> list[Metric]:
        with _locked(self._directory, fcntl.LOCK_SH):
            # A file that was created this moment is empty and cannot be read.
            files = [file for file in _files(self._directory, ".db") if os.path.getsize(file)]
            return list(self.merge(files))


def mark_process_dead(pid: int, path: str | None = None) -> None:
    """Remove the files of a process that has ended, and keep what it has counted.

    Counters, histograms, summaries and the gauges ``min``, ``max``, ``sum`` and ``mostrecent`` are merged into the common files. The gauges
    ``all`` and ``live*`` are dropped.
    """
    directory = _directory(path)
    with _locked(directory, fcntl.LOCK_EX):
        if os.geteuid() == 0 and os.stat(directory).st_uid != 0:
            # Another user could replace the common files by symbolic links, which root must not follow.
            multiprocess.mark_process_dead(pid, directory)
            return
        for file in _files(directory, f"_{pid}.db"):
            kind = os.path.basename(file).removesuffix(f"_{pid}.db")
            is_dropped = kind == "gauge_all" or kind.startswith("gauge_live")
            if not is_dropped and os.path.getsize(file):
                _merge(file, os.path.join(directory, f"{kind}_{ENDED}.db"), kind)
            os.remove(file)


def _files(directory: str, suffix: str) -> list[str]:
    return [os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(suffix)]


def _merge(file: str, into: str, kind: str) -> None:
    common = MmapedDict(into)
    try:
        known = {key for key, _, _ in common.read_all_values()} if kind in ("gauge_min", "gauge_max") else ()
        for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(file):
            old, old_timestamp = common.read_value(key)  # adds the key with the value 0
            if kind == "gauge_mostrecent":
                if timestamp > old_timestamp:
                    common.write_value(key, value, timestamp)
            elif kind == "gauge_min":
                common.write_value(key, min(old, value) if key in known else value, 0.0)
            elif kind == "gauge_max":
                common.write_value(key, max(old, value) if key in known else value, 0.0)
            elif value:
                common.write_value(key, old + value, 0.0)
    finally:
        common.close()


@contextmanager
def _locked(directory: str, how: int) -> Iterator[None]:
    """Hold a lock on the directory, shared by scrapes and exclusive for changes."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _directory(path: str | None) -> str:
    return path or os.environ["PROMETHEUS_MULTIPROC_DIR"]
