"""The random walk's loop: compiled where pxtools was installed, else its twin."""

from __future__ import annotations

try:
    from pxtools.kernels._calls import drive
    from pxtools.kernels._rwm import Walk, walk

    COMPILED = True
except ImportError:
    from pxtools.kernels.calls_numpy import drive
    from pxtools.kernels.rwm_numpy import Walk, walk

    COMPILED = False

__all__ = ["COMPILED", "Walk", "drive", "walk"]
