"""The loop of differential evolution: compiled where pxtools was installed, else its twin."""

from __future__ import annotations

try:
    from pxtools.kernels._demcz import walk

    COMPILED = True
except ImportError:
    from pxtools.kernels.demcz_numpy import walk

    COMPILED = False

__all__ = ["COMPILED", "walk"]
