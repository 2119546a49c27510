"""Random-walk Metropolis with a uniform box: the loop without a compiler. Its twin is `_rwm.pyx`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.kernels.calls_numpy import Steps
from pxtools.kernels.calls_numpy import Walk as AnyWalk

Floats = NDArray[np.float64]

#: steps whose random numbers are drawn in one call
BLOCK = 512


class Walk(AnyWalk):
    """One chain that walks at random; see `steps` and `pxtools.kernels.calls_numpy.Walk` for the arguments."""

    @staticmethod
    def steps(walk: Walk, box: Floats, slope: float = 0.0) -> Steps:
        """Propose `x + step * (2u - 1)`, u uniform in [0, 1) for each coordinate; accept with min(1, new / old).

        A rejected step repeats its point. A step takes n_params + 1 uniforms from the generator, whatever happens, and
        evaluates the target once, or not at all outside the bounds.

        Parameters
        ----------
        walk : Walk
            Of one chain.
        box : (4, n_params) array
            Half-width of the proposal, lower bound, upper bound, period (0: not periodic), in walking coordinates.
        slope : float
            With a mapping: the logarithm of its Jacobian at the first point.

        References
        ----------
        N. Metropolis et al. (1953), J. Chem. Phys. 21, 1087.
        """
        position: list[float] = walk.x[0].tolist()
        value: float = walk.value[0].item()
        widths, lowers, uppers, periods = box.tolist()
        is_bounded, is_periodic = bool(np.isfinite(box[1:3]).any()), any(periods)
        for uniforms in _uniforms(walk.generator, walk.n_steps, len(position) + 1):
            proposal = [p + width * (2.0 * u - 1.0) for p, width, u in zip(position, widths, uniforms, strict=False)]
            if is_periodic:
                proposal = wrapped(proposal, lowers, periods)
            is_inside = not is_bounded or all(
                low <= p <= high for low, p, high in zip(lowers, proposal, uppers, strict=True)
            )
            (answer,) = yield [proposal if is_inside else None]
            if answer is not None:
                old, new, is_density = value, answer.value, walk.is_density
                if walk.mapping is not None:
                    old, new = (log(old), log(new)) if is_density else (old, new)
                    old, new, is_density = old + slope, new + answer.jacobian, False
                if _accepts(uniforms[-1], old, new, is_density):
                    position, value, slope = proposal, answer.value, answer.jacobian
                    walk.accept(0, answer)
                    walk.counts[1] += 1
            walk.end_step()
        walk.x[0] = position


def walk(
    target: Callable[..., Any],
    x: Floats,
    value: float,
    n_steps: int,
    generator: Generator,
    *,
    draws: Floats,
    values: Floats,
    **options: Any,
) -> float:
    """Walk one chain `n_steps` from `x`, in place, and return the target's value at the last point.

    Parameters
    ----------
    target, n_steps, generator, **options
        See `Walk`.
    x : (n_params,) array
        The point to start from; holds the last point afterwards.
    value : float
        The target's value at `x`; positive when it is a density, else finite.
    draws : (n_kept, n_params) array
        Receives the kept points; must have exactly the rows that are kept.
    values : (n_kept,) array
        Receives the target's values there.

    Raises
    ------
    TargetError
        The target returned no real number, a negative density, or plus infinity.
    Exception
        Whatever the target raises, with a note that names the call.
    """
    last = np.array([value])
    Walk(
        target, x[np.newaxis], last, n_steps, generator, draws=draws[np.newaxis], values=values[np.newaxis], **options
    ).run()
    return float(last[0])


def log(value: float) -> float:
    """Return C's logarithm: minus infinity of 0, NaN of NaN."""
    return math.log(value) if value != 0 else -math.inf


def wrapped(point: list[float], lowers: list[float], periods: list[float]) -> list[float]:
    """Return the point with its periodic coordinates brought between their bounds."""
    return [
        p - period * math.floor((p - low) / period) if period else p
        for p, low, period in zip(point, lowers, periods, strict=True)
    ]


def _accepts(uniform: float, old: float, new: float, is_density: bool) -> bool:
    if is_density:
        return uniform * old < new
    return new >= old or (math.log(uniform) if uniform else -math.inf) < new - old


def _uniforms(generator: Generator, n_steps: int, per_step: int) -> Iterator[list[float]]:
    for first in range(0, n_steps, BLOCK):
        yield from generator.random((min(BLOCK, n_steps - first), per_step)).tolist()
