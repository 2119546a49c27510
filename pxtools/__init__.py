"""Engines as an extension of the notebook: ``%load_ext pxtools``.

Importing the package is light and starts nothing; the functions below are loaded when they are first used.
"""

from __future__ import annotations

from typing import Any

from pxtools._version import __version__

_API = (
    "background",
    "Box",
    "clear",
    "client",
    "cluster",
    "collect",
    "connect",
    "current_session",
    "cython",
    "doctor",
    "formula",
    "gather",
    "imports",
    "last_map",
    "map",
    "octave",
    "parallel",
    "push",
    "r",
    "run",
    "sample",
    "scatter",
    "who",
    "within",
)

__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'pxtools' has no attribute {name!r}")
    from pxtools import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])


def load_ipython_extension(shell: Any) -> None:
    """Register the magics; called by ``%load_ext pxtools``."""
    from pxtools import magics

    magics.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take everything back; a local cluster that pxtools started is stopped."""
    from pxtools import magics

    magics.unload(shell)
