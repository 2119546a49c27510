"""Temporary folders of an engine that vanish with it, however it ends: engines are mostly ended by SIGKILL.

A shell process reads the names of the folders from a pipe of which only the engine holds the other end. When the pipe
closes, the engine is gone, and it removes them.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pxtools.remote.sharing import shared_memory

#: it goes on as an orphan: who ends the engine with all its children does not end this
_GUARD = """
exec 3<&0
{
  while IFS= read -r folder; do set -- "$@" "$folder"; done <&3
  rm -rf -- "$@"
} &
"""


def vanishing_folder(prefix: str, *, in_memory: bool = False) -> Path:
    """Create a folder that only this user can look into, and that is removed when this process is gone.

    Parameters
    ----------
    in_memory
        In shared memory, where there is some; else on disk.
    """
    folder = tempfile.mkdtemp(prefix=prefix, dir=shared_memory() if in_memory else None)
    vanish_at_end(folder)
    return Path(folder)


def vanish_at_end(folder: str | None) -> None:
    """Have a folder removed when this process is gone; None is no folder."""
    if folder is None:
        return
    with contextlib.suppress(OSError):  # no shell (Windows), or none that answers
        pipe = _guard().stdin
        pipe.write(f"{folder}\n".encode())
        pipe.flush()


def _guard() -> Any:
    """Return this process's guard, kept on the shell if there is one: newer code of pxtools takes it over."""
    ipython = sys.modules.get("IPython")
    keeper: Any = (ipython and ipython.get_ipython()) or sys.modules[__name__]
    if not hasattr(keeper, "pxtools_guard"):
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        guard = subprocess.Popen(["sh", "-c", _GUARD, "sh"], stdin=subprocess.PIPE, start_new_session=True, **quiet)
        guard.wait()  # the shell itself is done at once
        keeper.pxtools_guard = guard
    return keeper.pxtools_guard
