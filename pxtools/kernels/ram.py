"""The loop of robust adaptive Metropolis: compiled where pxtools was installed, else its twin."""

from __future__ import annotations

try:
    from pxtools.kernels._ram import walk

    COMPILED = True
except ImportError:
    from pxtools.kernels.ram_numpy import walk

    COMPILED = False

__all__ = ["COMPILED", "walk"]
