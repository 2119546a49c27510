"""Random-walk Metropolis with a uniform box: the loop without a compiler. Its twin is `_rwm.pyx`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.kernels.calls_numpy import Caller, OnError

#: steps whose random numbers are drawn in one call
BLOCK = 512


def walk(
    target: Callable[..., Any],
    x: NDArray[np.float64],
    value: float,
    n_steps: int,
    generator: Generator,
    *,
    box: NDArray[np.float64],
    is_density: bool,
    is_scalar: bool,
    first_kept: int,
    thin: int,
    draws: NDArray[np.float64],
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    first_nan: NDArray[np.float64],
    on_error: OnError | None = None,
) -> float:
    """Walk `n_steps` from `x`, in place, and return the target's value at the last point.

    A step proposes `x + step * (2u - 1)`, u uniform in [0, 1) for each coordinate, and accepts the proposal with
    probability min(1, new / old). A rejected step repeats its point. A step takes n_params + 1 uniforms from the
    generator, whatever happens, and evaluates the target once, or not at all outside the bounds.

    Parameters
    ----------
    target : callable
        Called with n_params floats when `is_scalar`, else with one float64 vector that is its own to keep.
    x : (n_params,) array
        The point to start from; holds the last point afterwards.
    value : float
        The target's value at `x`; positive when `is_density`, else finite.
    n_steps : int
        Steps to take.
    generator : numpy.random.Generator
        The stream; nobody else may use it meanwhile.
    box : (4, n_params) array
        Half-width of the proposal, lower bound, upper bound, period (0: not periodic).
    is_density, is_scalar : bool
        What the target returns (density or log-density) and takes (floats or a vector).
    first_kept, thin : int
        Steps `first_kept`, `first_kept + thin`, … (the first step is number 1) are written to `draws`.
    draws : (n_kept, n_params) array
        Receives the kept points; must have exactly the rows that are kept.
    values : (n_kept,) array
        Receives the target's values there.
    counts : (3,) int64 array
        Evaluations, accepted proposals and NaN values are added to it.
    first_nan : (n_params,) array
        Receives the first point where the target was NaN, if `counts[2]` was 0.
    on_error : callable, optional
        Called with an exception of the target, the point and the number of the call; raises, or the step is rejected.

    Raises
    ------
    TargetError
        The target returned no real number, a negative density, or plus infinity.
    Exception
        Whatever the target raises, with a note that names the call.

    References
    ----------
    N. Metropolis et al. (1953), J. Chem. Phys. 21, 1087.
    """
    caller = Caller(
        target, is_scalar=is_scalar, is_density=is_density, counts=counts, first_nan=first_nan, on_error=on_error
    )
    position: list[float] = x.tolist()
    steps, lowers, uppers, periods = box.tolist()
    is_bounded, is_periodic = bool(np.isfinite(box[1:3]).any()), any(periods)
    kept, next_kept = 0, first_kept
    for t, uniforms in enumerate(_uniforms(generator, n_steps, len(position) + 1), start=1):
        proposal = [p + step * (2.0 * u - 1.0) for p, step, u in zip(position, steps, uniforms, strict=False)]
        if is_periodic:
            proposal = wrapped(proposal, lowers, periods)
        if not is_bounded or all(low <= p <= high for low, p, high in zip(lowers, proposal, uppers, strict=True)):
            new = caller.evaluate(proposal)
            if _accepts(uniforms[-1], value, new, is_density):
                position, value = proposal, new
                counts[1] += 1
        if t == next_kept:
            draws[kept], values[kept] = position, value
            kept += 1
            next_kept += thin
    counts[0] += caller.evaluations
    x[:] = position
    return value


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
