"""The climb of a log-likelihood, of the best tier there is."""

from __future__ import annotations

from pxtools.kernels import kalman_climb_numpy
from pxtools.kernels.kalman_climb_numpy import NARROW, Hill, Look, Place

try:
    from pxtools.kernels._kalman_climb import LineHill, ascend, from_line, seen_from_line, slopes_on_line
except ImportError:  # not compiled here, or shipped to an engine as source
    LineHill = None  # type: ignore[assignment, misc]
    ascend = kalman_climb_numpy.ascend
    from_line = kalman_climb_numpy.from_line
    seen_from_line = kalman_climb_numpy.seen_from_line
    slopes_on_line = kalman_climb_numpy.slopes_on_line

__all__ = ["NARROW", "Hill", "LineHill", "Look", "Place", "ascend", "from_line", "seen_from_line", "slopes_on_line"]
