"""What is hard about a target's shape, in plain words: funnels, mass at the bounds, many dimensions, exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pxtools.sampling.samples import Samples

Floats = NDArray[np.float64]

#: points to look at; rank correlation of a parameter with the size of others that makes a funnel
MAX_POINTS = 4_000
FUNNEL = 0.45
#: share of the draws within this share of the width of a bound that counts as a pile
NEAR_BOUND, PILE = 0.01, 0.08
#: from here on gradients win
MANY_PARAMETERS = 20


def _ranks(values: Floats) -> Floats:
    return np.argsort(np.argsort(values, axis=0), axis=0).astype(np.float64)


def funnel(samples: Samples) -> tuple[int, float] | None:
    """Return the parameter that sets the scale of another, and the rank correlation that says so; None without one."""
    points = samples.points
    points = points[:: max(1, len(points) // MAX_POINTS)]
    if len(points) < 50 or points.shape[1] < 2:
        return None
    sizes = _ranks(np.log(np.abs(points - np.median(points, axis=0)) + np.finfo(np.float64).tiny))
    ranks = _ranks(points)
    scores = np.corrcoef(ranks.T, sizes.T)[: points.shape[1], points.shape[1] :]
    np.fill_diagonal(scores, 0.0)
    # a monotone dependence makes such correlations, too, but then one that a plain correlation sees
    linear = np.corrcoef(ranks.T)
    scores = np.where(np.abs(linear) < 0.3, np.nan_to_num(scores), 0.0)
    k = int(np.abs(scores).max(axis=1).argmax())
    best = float(np.abs(scores[k]).max())
    return (k, best) if best > FUNNEL else None


def is_a_funnel(samples: Samples) -> list[str]:
    """One parameter sets the scale of others: the narrow end is missed by every sampler."""
    found = funnel(samples)
    if found is None:
        return []
    name = samples.names[found[0]]
    return [
        f"a funnel: `{name}` sets the scale of other parameters, and chains do not get to the bottom of its narrow "
        f"end, so the tail of `{name}` is not to be trusted, whatever R-hat says.\n"
        f"Write the target with standardised parameters: sample z with theta = mu + exp({name}) * z."
    ]


def piles_up(samples: Samples) -> list[str]:
    """Much of the mass lies at a bound."""
    points, texts = samples.points, []
    for k, name in enumerate(samples.names):
        low, high = samples.bounds[k]
        width = min(high - low, np.ptp(points[:, k]) * 2)
        for side, bound in (("lower", low), ("upper", high)):
            if np.isfinite(bound) and (np.abs(points[:, k] - bound) < NEAR_BOUND * width).mean() > PILE:
                texts.append(
                    f"`{name}` piles up at its {side} bound {bound:g}: is the bound meant, or does it cut the answer?\n"
                    f"Widen --bounds to see."
                )
    return texts[:2]


def has_raised(samples: Samples) -> list[str]:
    """The target raised exceptions, which rejected the step."""
    if not samples.n_errors or samples.first_error is None:
        return []
    lines: Sequence[str] = samples.first_error.splitlines()
    what = next((line for line in lines if line and not line.startswith((" ", "Traceback"))), lines[-1])
    where = next((line for line in lines if line.startswith("raised by")), "").removeprefix("raised by the target in ")
    share = 100 * samples.n_errors / samples.n_evaluations
    return [
        f"`{samples.target_name}` raised {samples.n_errors:,} times ({share:.2g} % of its calls), "
        f"first {what} in {where}. "
        f"Such steps are rejected: right where the density is 0, wrong elsewhere. "
        f"The whole traceback: `.first_error`."
    ]


def has_many_parameters(samples: Samples) -> list[str]:
    """With gradients, other samplers are faster from about 20 dimensions."""
    if samples.n_params < MANY_PARAMETERS:
        return []
    return [
        f"{samples.n_params} parameters: if you can write the gradient (PyMC, Stan, JAX), nutpie or numpyro need far "
        f"fewer evaluations."
    ]
