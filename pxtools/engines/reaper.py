"""End the processes of a local cluster when the client dies without a word (SIGKILL, a crashed kernel).

The reaper is a small process that reads a pipe of which only the client holds the other end. When the pipe closes
before `done` was read, the client is gone, and what it had started goes too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

import psutil

_GRACE_S = 2.0


class Reaper:
    """The client's end of the pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],  # by file: the package would import ipyparallel first
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is not for it
            text=True,
        )

    def watch(self, pids: Iterable[int], files: Iterable[str] = ()) -> None:
        """Add processes to end, and files or folders to remove, if the client dies."""
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._tell(f"pid {pid} {psutil.Process(pid).create_time()}")
        for file in files:
            if file:
                self._tell(f"file {file}")

    def dismiss(self, *, is_done: bool = True) -> None:
        """Say that everything was stopped in good order; or else have ended what is left of it."""
        if is_done:
            self._tell("done")
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line + "\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]


def main() -> None:
    """Wait for the pipe to close; then end what is still there."""
    watched: dict[int, float] = {}
    files: list[str] = []
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "done":
            return
        if word == "pid":
            pid, created = rest.split()
            watched[int(pid)] = float(created)
        elif word == "file":
            files.append(rest)
    _end(watched)
    for file in files:
        if os.path.isdir(file):
            shutil.rmtree(file, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(file)


def _end(watched: dict[int, float]) -> None:
    family: list[psutil.Process] = []
    for pid, created in watched.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.create_time() == created:  # not another process that got the number since
                family += [process, *process.children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=_GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    main()
