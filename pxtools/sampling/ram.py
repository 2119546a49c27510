"""Robust adaptive Metropolis: a random walk that learns its steps during warm-up. One chain is one group.

References
----------
M. Vihola (2012), Robust adaptive Metropolis algorithm with coerced acceptance rate, Stat. Comput. 22, 997-1008.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.kernels.ram import COMPILED, walk
from pxtools.sampling.group import Rejections, counted, find_start, generator_at, stream
from pxtools.sampling.samplers import Chunk, GroupStats
from pxtools.sampling.starts import RandomStart
from pxtools.sampling.targets import Target

if TYPE_CHECKING:
    from pxtools.sampling.plan import SamplePlan

Floats = NDArray[np.float64]

#: the acceptance rate to reach, and how fast steps forget: rate = min(1, n_params * n ** -FORGET)
GOAL = 0.234
FORGET = 0.66


@dataclass(frozen=True)
class RamState:
    """Where one chain stands. Plain data.

    Attributes
    ----------
    group : int
        The chain's number, which is also its stream.
    position, value
        The current point, and the target there; None until the first chunk evaluates it.
    redraw : RandomStart or None
        How to draw another start point, if this one was random and turns out to be outside the support.
    bits : dict
        State of the PCG64 bit generator.
    box : (3, n_params) array
        Lower bound, upper bound, period.
    factor : (n_params, n_params) array
        Lower triangular: a proposal adds its product with standard normal deviates.
    warmup, thin, n_done : int
        Steps to discard, distance of kept steps, steps taken so far.
    stats : GroupStats
        The counters.
    """

    group: int
    position: Floats
    value: float | None
    redraw: RandomStart | None
    bits: dict[str, Any]
    box: Floats
    factor: Floats
    warmup: int
    thin: int
    n_done: int
    stats: GroupStats
    sampler: str = "ram"


def start(plan: SamplePlan, group: int) -> RamState:
    """Return the state of chain `group` before its first step; the target is not called yet."""
    generator = stream(plan.seed, group)
    redraw = plan.random_start
    position = np.array(plan.initial[group]) if redraw is None else redraw.draw(generator)
    return RamState(
        group=group,
        position=position,
        value=None,
        redraw=redraw,
        bits=dict(generator.bit_generator.state),
        box=np.vstack([plan.lower, plan.upper, plan.period]),
        factor=np.diag(2.38 / np.sqrt(len(plan.names)) * _spread(plan)),
        warmup=plan.warmup,
        thin=plan.thin,
        n_done=0,
        stats=GroupStats(n_evaluations=0, n_kept_steps=0, n_accepted=np.zeros(1, dtype=np.int64)),
    )


def _spread(plan: SamplePlan) -> Floats:
    """Return a guess of the target's scales: those of the start points, or the step where they are all one."""
    if plan.random_start is not None:
        points = np.array([plan.random_start.draw(stream(plan.seed, 2**31 + k)) for k in range(20)])
        return np.asarray(points.std(axis=0))
    return np.where(np.ptp(plan.initial, axis=0) > 0, plan.initial.std(axis=0), plan.step)


def advance(target: Target, state: RamState, n_steps: int) -> Chunk:
    """Take the chain `n_steps` further; see `pxtools.sampling.samplers.advance`."""
    generator = generator_at(state.bits)
    if state.value is None:
        position, value, tries = find_start(target, state.position, state.redraw, generator, state.group)
        stats = replace(state.stats, n_evaluations=tries, initial=position[np.newaxis], is_compiled=COMPILED)
        state = replace(state, position=position, value=value, redraw=None, stats=stats)
    in_warmup = min(n_steps, max(0, state.warmup - state.n_done))
    _, _, state = _walk(target, state, generator, in_warmup, is_kept=False)
    draws, values, state = _walk(target, state, generator, n_steps - in_warmup, is_kept=True)
    return Chunk(draws[np.newaxis], values[np.newaxis], replace(state, bits=dict(generator.bit_generator.state)))


def _walk(target: Target, state: RamState, generator: Generator, n_steps: int, is_kept: bool) -> Chunk:
    """Walk within warm-up, where steps adapt, or after it, never across its end."""
    assert state.value is not None
    phase = max(0, state.n_done - state.warmup) % state.thin
    n_kept = (phase + n_steps) // state.thin if is_kept else 0
    position, factor = state.position.copy(), state.factor.copy()
    draws, values = np.empty((n_kept, position.size)), np.empty(n_kept)
    counts, first_nan = np.zeros(3, dtype=np.int64), np.full(position.size, np.nan)
    rejections = Rejections(state.stats)
    value = walk(
        target.caller,
        position,
        state.value,
        n_steps,
        generator,
        box=state.box,
        is_density=target.is_density,
        is_scalar=target.is_scalar,
        factor=factor,
        rates=np.empty(0) if is_kept else _rates(state.n_done, n_steps, position.size),
        goal=GOAL,
        first_kept=state.thin - phase if is_kept else n_steps + 1,
        thin=state.thin,
        draws=draws,
        values=values,
        counts=counts,
        first_nan=first_nan,
        on_error=rejections,
    )
    stats = counted(state.stats, counts, counts[1:2], first_nan, n_steps if is_kept else 0, rejections)
    n_done = state.n_done + n_steps
    return Chunk(
        draws, values, replace(state, position=position, value=value, factor=factor, n_done=n_done, stats=stats)
    )


def _rates(n_done: int, n_steps: int, n_params: int) -> Floats:
    """Return how fast to adapt; always below 1, so that the factor stays one."""
    steps = np.arange(n_done + 1, n_done + n_steps + 1, dtype=np.float64)
    return np.asarray(np.minimum(0.99, n_params * steps**-FORGET))
