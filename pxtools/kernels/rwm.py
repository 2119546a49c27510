"""The random walk's loop: compiled where pxtools was installed, else its twin."""

from __future__ import annotations

try:
    from pxtools.kernels._rwm import walk

    COMPILED = True
except ImportError:
    from pxtools.kernels.rwm_numpy import walk

    COMPILED = False

__all__ = ["COMPILED", "walk"]
