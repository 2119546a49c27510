"""Random-walk Metropolis with a uniform box: the loop without a compiler. Its twin is `_rwm.pyx`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.errors import TargetError
from pxtools.kernels.target_calls import checked_number, note_call, refuse_value

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
    box : (3, n_params) array
        Half-width of the proposal, lower bound, upper bound.
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
    position: list[float] = x.tolist()
    steps, lowers, uppers = box.tolist()
    is_bounded = bool(np.isfinite(box[1:]).any())
    kept, next_kept = 0, first_kept
    for t, uniforms in enumerate(_uniforms(generator, n_steps, len(position) + 1), start=1):
        proposal = [p + step * (2.0 * u - 1.0) for p, step, u in zip(position, steps, uniforms, strict=False)]
        if not is_bounded or all(low <= p <= high for low, p, high in zip(lowers, proposal, uppers, strict=True)):
            new = value_at(target, proposal, is_scalar)
            counts[0] += 1
            if new == math.inf or (is_density and new < 0):
                refuse_value(target, new, proposal, is_scalar, is_density)
            if new != new:
                if counts[2] == 0:
                    first_nan[:] = proposal
                counts[2] += 1
            if _accepts(uniforms[-1], value, new, is_density):
                position, value = proposal, new
                counts[1] += 1
        if t == next_kept:
            draws[kept], values[kept] = position, value
            kept += 1
            next_kept += thin
    x[:] = position
    return value


def value_at(target: Callable[..., Any], point: list[float], is_scalar: bool) -> float:
    """Return the target's value at `point` as a float, not yet judged as a density."""
    try:
        result = target(*point) if is_scalar else target(np.array(point))
    except TargetError:
        raise
    except Exception as error:
        note_call(error, target, point, is_scalar)
        raise
    return result if type(result) is float else checked_number(target, result, point, is_scalar)


def _accepts(uniform: float, old: float, new: float, is_density: bool) -> bool:
    if is_density:
        return uniform * old < new
    return new >= old or (math.log(uniform) if uniform else -math.inf) < new - old


def _uniforms(generator: Generator, n_steps: int, per_step: int) -> Iterator[list[float]]:
    for first in range(0, n_steps, BLOCK):
        yield from generator.random((min(BLOCK, n_steps - first), per_step)).tolist()
