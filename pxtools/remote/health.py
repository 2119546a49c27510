"""What the operating system knows of an engine's process: looked up by the client, or by another engine of its host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from pxtools.remote.engine import Engine


def is_stopped(pid: int) -> bool:
    """Return whether a process of this host exists and is stopped: by SIGSTOP, by Ctrl-Z, or by a debugger."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def stopped(engine: Engine, message: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of the engines in ``pids`` (number to process of this host), and of those that are stopped."""
    pids = message["pids"]
    return {"asked": set(pids), "stopped": {i for i, pid in pids.items() if is_stopped(pid)}}


def processes_seen() -> str:
    """Return what processes with the same process numbers have in common; containers of one host have not."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
