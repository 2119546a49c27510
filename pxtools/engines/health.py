"""What the operating system knows of an engine's process."""

from __future__ import annotations

import psutil


def is_stopped(pid: int) -> bool:
    """Return whether a process of this host exists and is stopped: by SIGSTOP, by Ctrl-Z, or by a debugger."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False
