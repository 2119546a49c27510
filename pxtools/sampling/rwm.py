"""Random-walk Metropolis with a uniform box: the walker of the notebooks. One chain is one group."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.kernels.rwm import COMPILED, walk
from pxtools.sampling.group import Rejections, counted, find_start, generator_at, stream
from pxtools.sampling.samplers import Chunk, GroupStats
from pxtools.sampling.starts import RandomStart
from pxtools.sampling.targets import Target

if TYPE_CHECKING:
    from pxtools.sampling.plan import SamplePlan


@dataclass(frozen=True)
class RwmState:
    """Where one chain stands. Plain data: pickles to about a kilobyte.

    Attributes
    ----------
    group : int
        The chain's number, which is also its stream: `SeedSequence(seed, spawn_key=(group,))`.
    position : (n_params,) array
        The current point.
    value : float or None
        The target there; None until the first chunk evaluates it.
    redraw : RandomStart or None
        How to draw another start point, if this one was random and turns out to be outside the support.
    bits : dict
        State of the PCG64 bit generator.
    box : (4, n_params) array
        Half-width of the proposal, lower bound, upper bound, period.
    warmup, thin, n_done : int
        Steps to discard, distance of kept steps, steps taken so far.
    stats : GroupStats
        The counters.
    """

    group: int
    position: NDArray[np.float64]
    value: float | None
    redraw: RandomStart | None
    bits: dict[str, Any]
    box: NDArray[np.float64]
    warmup: int
    thin: int
    n_done: int
    stats: GroupStats
    sampler: str = "rwm"


def start(plan: SamplePlan, group: int) -> RwmState:
    """Return the state of chain `group` before its first step; the target is not called yet."""
    generator = stream(plan.seed, group)
    redraw = plan.random_start
    position = np.array(plan.initial[group]) if redraw is None else redraw.draw(generator)
    return RwmState(
        group=group,
        position=position,
        value=None,
        redraw=redraw,
        bits=dict(generator.bit_generator.state),
        box=np.vstack([plan.step, plan.lower, plan.upper, plan.period]),
        warmup=plan.warmup,
        thin=plan.thin,
        n_done=0,
        stats=GroupStats(n_evaluations=0, n_kept_steps=0, n_accepted=np.zeros(1, dtype=np.int64)),
    )


def advance(target: Target, state: RwmState, n_steps: int) -> Chunk:
    """Take the chain `n_steps` further; see `pxtools.sampling.samplers.advance`."""
    generator = generator_at(state.bits)
    if state.value is None:
        state = _begin(target, state, generator)
    in_warmup = min(n_steps, max(0, state.warmup - state.n_done))
    _, _, state = _walk(target, state, generator, in_warmup, is_kept=False)
    draws, values, state = _walk(target, state, generator, n_steps - in_warmup, is_kept=True)
    return Chunk(draws[np.newaxis], values[np.newaxis], replace(state, bits=dict(generator.bit_generator.state)))


def _begin(target: Target, state: RwmState, generator: Generator) -> RwmState:
    """Evaluate the start point; a random one outside the support is drawn again."""
    position, value, tries = find_start(target, state.position, state.redraw, generator, state.group)
    stats = replace(state.stats, n_evaluations=tries, initial=position[np.newaxis], is_compiled=COMPILED)
    return replace(state, position=position, value=value, redraw=None, stats=stats)


def _walk(target: Target, state: RwmState, generator: Generator, n_steps: int, is_kept: bool) -> Chunk:
    """Walk within warm-up or after it, never across its end."""
    phase = max(0, state.n_done - state.warmup) % state.thin
    n_kept = (phase + n_steps) // state.thin if is_kept else 0
    position = state.position.copy()
    draws, values = np.empty((n_kept, position.size)), np.empty(n_kept)
    counts, first_nan = np.zeros(3, dtype=np.int64), np.full(position.size, math.nan)
    rejections = Rejections(state.stats)
    own_walk = getattr(target.function, "walk", None)  # a function of another language, whose loop runs there
    value = (own_walk or partial(walk, target.caller))(
        position,
        state.value if state.value is not None else math.nan,
        n_steps,
        generator,
        box=state.box,
        is_density=target.is_density,
        is_scalar=target.is_scalar,
        first_kept=state.thin - phase if is_kept else n_steps + 1,
        thin=state.thin,
        draws=draws,
        values=values,
        counts=counts,
        first_nan=first_nan,
        on_error=rejections,
    )
    stats = counted(state.stats, counts, counts[1:2], first_nan, n_steps if is_kept else 0, rejections)
    return Chunk(
        draws, values, replace(state, position=position, value=value, n_done=state.n_done + n_steps, stats=stats)
    )
