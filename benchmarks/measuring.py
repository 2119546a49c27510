"""What the benchmarks of transfer and map share: medians, peak memory of a family of processes, tables."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil


class PeakMemory:
    """Watches this process, its children and /dev/shm; `.mb` is the peak above what there was before, in MB.

    Counted are the pages that a process has for itself, and files in shared memory once.
    """

    def __enter__(self) -> PeakMemory:
        me = psutil.Process()
        self._pids = [me.pid, *(child.pid for child in me.children(recursive=True))]
        self._before = self._peak = self._now()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self._peak = max(self._peak, self._now())

    def _now(self) -> int:
        shared = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None
        used = 0 if shared is None else (shared.f_blocks - shared.f_bfree) * shared.f_frsize
        return used + sum(map(private_bytes, self._pids))

    @property
    def mb(self) -> float:
        """Peak above the beginning."""
        return (self._peak - self._before) / 1e6


def private_bytes(pid: int) -> int:
    """Return the bytes that belong to one process alone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    return 0


def median_s(call: Callable[[], Any], times: int) -> float:
    """Return the median of the seconds that a call takes."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def memcpy_s(array: np.ndarray[Any, Any]) -> float:
    """Return the seconds of a plain copy of an array into memory that is there already: the unit of the tables."""
    other = np.empty_like(array)
    other[:] = 0
    return median_s(lambda: np.copyto(other, array), 7)


@contextlib.contextmanager
def private_profile() -> Iterator[None]:
    """Keep clusters and settings of the user out."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["IPYTHONDIR"] = folder
        os.environ.pop("PXTOOLS_CLUSTER_FILE", None)
        yield


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
