"""Where chains walk: between hard bounds, or in coordinates without bounds that are mapped between them.

Standard library and NumPy only: engines run this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pxtools.kernels.calls_numpy import ABOVE, BETWEEN, FREE, map_point

if TYPE_CHECKING:
    from pxtools.sampling.plan import SamplePlan

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """Bounds in walking coordinates, and the way from there to the target's.

    Attributes
    ----------
    lower, upper, period : (n_params,) array
        In walking coordinates; infinite and 0 where there is none.
    mapping : (3, n_params) array or None
        Kind, anchor and width of each coordinate; see `pxtools.kernels.calls_numpy.map_point`.
    """

    lower: Floats
    upper: Floats
    period: Floats
    mapping: Floats | None = None

    def inward(self, points: Floats) -> Floats:
        """Return walking coordinates of (n, n_params) points of the target; infinite for those at a bound."""
        if self.mapping is None:
            return np.array(points)
        with np.errstate(divide="ignore"):
            columns = [_inward(*row) for row in zip(*self.mapping, points.T, strict=True)]
        return np.stack(columns, axis=1)

    def outward(self, points: Floats) -> tuple[Floats, Floats]:
        """Return the target's points, (n, n_params), and the logarithms of the Jacobian there, (n,)."""
        if self.mapping is None:
            return points, np.zeros(len(points))
        mapped = [map_point(self.mapping.tolist(), point) for point in points.tolist()]
        found = [one if one is not None else ([np.nan] * points.shape[1], -np.inf) for one in mapped]
        return np.array([one[0] for one in found]), np.array([one[1] for one in found])


def _inward(kind: float, anchor: float, width: float, x: Floats) -> Floats:
    if kind == FREE:
        return x
    share = (x - anchor) / width
    return np.asarray(np.log(share) if kind == ABOVE else np.log(share) - np.log1p(-share))


def space_of(plan: SamplePlan) -> Space:
    """Return hard bounds, or with `transform` free coordinates: log between a bound and infinity, logit between two."""
    if not plan.transform:
        return Space(plan.lower, plan.upper, plan.period)
    rows = [_mapping(*row) for row in zip(plan.lower, plan.upper, plan.period, strict=True)]
    mapping = np.array(rows).T.copy()
    is_free = mapping[0] == FREE
    return Space(np.where(is_free, plan.lower, -np.inf), np.where(is_free, plan.upper, np.inf), plan.period, mapping)


def _mapping(lower: float, upper: float, period: float) -> tuple[float, float, float]:
    if period or not (np.isfinite(lower) or np.isfinite(upper)):
        return FREE, 0.0, 1.0
    if np.isfinite(lower) and np.isfinite(upper):
        return BETWEEN, lower, upper - lower
    return (ABOVE, lower, 1.0) if np.isfinite(lower) else (ABOVE, upper, -1.0)
