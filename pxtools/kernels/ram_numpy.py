"""Robust adaptive Metropolis: the loop without a compiler. Its twin is `_ram.pyx`; sums run in the same order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.kernels.calls_numpy import Steps
from pxtools.kernels.calls_numpy import Walk as AnyWalk
from pxtools.kernels.rwm_numpy import log, wrapped

Floats = NDArray[np.float64]


class Walk(AnyWalk):
    """One chain that learns its steps; see `steps` and `pxtools.kernels.calls_numpy.Walk` for the arguments."""

    @staticmethod
    def steps(walk: Walk, box: Floats, factor: Floats, rates: Floats, goal: float, slope: float = 0.0) -> Steps:
        """Propose `x + S u`, u standard normal, and accept by Metropolis' rule. While there are `rates`, S follows.

        `S S' <- S (I + rate (chance - goal) u u' / |u|^2) S'`, where `chance` is the probability of acceptance.

        Parameters
        ----------
        walk : Walk
            Of one chain.
        box : (3, n_params) array
            Lower bound, upper bound, period (0: not periodic), in walking coordinates.
        factor : (n_params, n_params) array
            S, lower triangular; changed in place.
        rates : (n_adapting,) array
            The first steps adapt S at these rates, below 1 each; the others leave it.
        goal : float
            The acceptance rate that S is led to.
        slope : float
            With a mapping: the logarithm of its Jacobian at the first point.

        References
        ----------
        M. Vihola (2012), Robust adaptive Metropolis algorithm with coerced acceptance rate, Stat. Comput. 22, 997.
        """
        position: list[float] = walk.x[0].tolist()
        lower, upper, period = box.tolist()
        rows: list[list[float]] = factor.tolist()
        value: float = walk.value[0].item()
        here_log = (log(value) if walk.is_density else value) + slope
        is_periodic, changes = any(period), rates.tolist()
        for t in range(walk.n_steps):
            normals = [walk.generator.standard_normal() for _ in position]
            proposal = [p + _dot(row, normals, i) for i, (p, row) in enumerate(zip(position, rows, strict=True))]
            if is_periodic:
                proposal = wrapped(proposal, lower, period)
            u, chance = walk.generator.random(), 0.0
            is_inside = all(low <= p <= high for low, p, high in zip(lower, proposal, upper, strict=True))
            (answer,) = yield [proposal if is_inside else None]
            if answer is not None:
                new_log = (log(answer.value) if walk.is_density else answer.value) + answer.jacobian
                difference = new_log - here_log
                if difference >= 0:
                    chance = 1.0
                elif difference == difference:
                    chance = math.exp(difference)
                if u < chance:
                    position, here_log = proposal, new_log
                    walk.accept(0, answer)
                    walk.counts[1] += 1
            if t < len(changes):
                update(rows, normals, changes[t] * (chance - goal))
            walk.end_step()
        walk.x[0], factor[:] = position, rows


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
    """Walk one chain, in place, and return the target's value at the last point; see `rwm_numpy.walk`."""
    last = np.array([value])
    Walk(
        target, x[np.newaxis], last, n_steps, generator, draws=draws[np.newaxis], values=values[np.newaxis], **options
    ).run()
    return float(last[0])


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
