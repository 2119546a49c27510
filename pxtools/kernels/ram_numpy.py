"""Robust adaptive Metropolis: the loop without a compiler. Its twin is `_ram.pyx`; sums run in the same order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.kernels.calls_numpy import Caller, OnError
from pxtools.kernels.demcz_numpy import log
from pxtools.kernels.rwm_numpy import wrapped

Floats = NDArray[np.float64]


def walk(
    target: Callable[..., Any],
    x: Floats,
    value: float,
    n_steps: int,
    generator: Generator,
    *,
    box: Floats,
    is_density: bool,
    is_scalar: bool,
    factor: Floats,
    rates: Floats,
    goal: float,
    first_kept: int,
    thin: int,
    draws: Floats,
    values: Floats,
    counts: NDArray[np.int64],
    first_nan: Floats,
    on_error: OnError | None = None,
) -> float:
    """Walk `n_steps` from `x`, in place, and return the target's value at the last point.

    A step proposes `x + S u`, u standard normal, and accepts by Metropolis' rule. While there are `rates`, S follows:
    `S S' <- S (I + rate (chance - goal) u u' / |u|^2) S'`, where `chance` is the probability of acceptance.

    Parameters
    ----------
    target, x, value, n_steps, generator, is_density, is_scalar
        See `pxtools.kernels.rwm_numpy.walk`.
    box : (3, n_params) array
        Lower bound, upper bound, period (0: not periodic).
    factor : (n_params, n_params) array
        S, lower triangular; changed in place.
    rates : (n_adapting,) array
        The first steps adapt S at these rates, below 1 each; the others leave it.
    goal : float
        The acceptance rate that S is led to.
    first_kept, thin, draws, values, counts, first_nan, on_error
        See `pxtools.kernels.rwm_numpy.walk`.

    References
    ----------
    M. Vihola (2012), Robust adaptive Metropolis algorithm with coerced acceptance rate, Stat. Comput. 22, 997.
    """
    caller = Caller(
        target, is_scalar=is_scalar, is_density=is_density, counts=counts, first_nan=first_nan, on_error=on_error
    )
    position: list[float] = x.tolist()
    lower, upper, period = box.tolist()
    rows: list[list[float]] = factor.tolist()
    here_log = log(value) if is_density else value
    is_periodic, kept, next_kept = any(period), 0, first_kept
    changes = rates.tolist()
    for t in range(1, n_steps + 1):
        normals = [generator.standard_normal() for _ in position]
        proposal = [p + _dot(row, normals, i) for i, (p, row) in enumerate(zip(position, rows, strict=True))]
        if is_periodic:
            proposal = wrapped(proposal, lower, period)
        u, chance = generator.random(), 0.0
        if all(low <= p <= high for low, p, high in zip(lower, proposal, upper, strict=True)):
            new = caller.evaluate(proposal)
            new_log = log(new) if is_density else new
            difference = new_log - here_log
            if difference >= 0:
                chance = 1.0
            elif difference == difference:
                chance = math.exp(difference)
            if u < chance:
                position, value, here_log = proposal, new, new_log
                counts[1] += 1
        if t <= len(changes):
            update(rows, normals, changes[t - 1] * (chance - goal))
        if t == next_kept:
            draws[kept], values[kept] = position, value
            kept += 1
            next_kept += thin
    counts[0] += caller.evaluations
    x[:], factor[:] = position, rows
    return value


def _dot(row: list[float], normals: list[float], last: int) -> float:
    total = 0.0
    for j in range(last + 1):
        total += row[j] * normals[j]
    return total


def update(factor: list[list[float]], normals: list[float], change: float) -> None:
    """Make S S' into S (I + change u u' / |u|^2) S': a rank-one update of the Cholesky factor, in place."""
    square = 0.0
    for z in normals:
        square += z * z
    if square == 0:
        return
    move = [_dot(row, normals, i) for i, row in enumerate(factor)]
    weight, ratio = change / square, 1.0
    for j, pivot_row in enumerate(factor):
        old, pivot = pivot_row[j], move[j]
        new = math.sqrt(old * old + weight / ratio * pivot * pivot)
        square = old * old * ratio + weight * pivot * pivot
        for i in range(j + 1, len(factor)):
            move[i] = move[i] - pivot / old * factor[i][j]
            factor[i][j] = new / old * factor[i][j] + new * weight * pivot / square * move[i]
        ratio = ratio + weight * pivot * pivot / (old * old)
        pivot_row[j] = new
