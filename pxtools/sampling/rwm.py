"""Random-walk Metropolis with a uniform box: the walker of the notebooks. One chain is one group."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from pxtools.errors import TargetError
from pxtools.kernels.rwm import COMPILED, walk
from pxtools.sampling.samplers import Chunk, GroupStats
from pxtools.sampling.starts import RandomStart
from pxtools.sampling.targets import Target

if TYPE_CHECKING:
    from pxtools.sampling.plan import SamplePlan

#: random start points outside the support are drawn again, this often
START_TRIES = 1_000


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
    box : (3, n_params) array
        Half-width of the proposal, lower bound, upper bound.
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
    generator = Generator(PCG64(SeedSequence(plan.seed, spawn_key=(group,))))
    redraw = plan.random_start
    position = np.array(plan.initial[group]) if redraw is None else redraw.draw(generator)
    return RwmState(
        group=group,
        position=position,
        value=None,
        redraw=redraw,
        bits=dict(generator.bit_generator.state),
        box=np.vstack([plan.step, plan.lower, plan.upper]),
        warmup=plan.warmup,
        thin=plan.thin,
        n_done=0,
        stats=GroupStats(n_evaluations=0, n_kept_steps=0, n_accepted=np.zeros(1, dtype=np.int64)),
    )


def advance(target: Target, state: RwmState, n_steps: int) -> Chunk:
    """Take the chain `n_steps` further; see `pxtools.sampling.samplers.advance`."""
    generator = _generator(state.bits)
    if state.value is None:
        state = _begin(target, state, generator)
    in_warmup = min(n_steps, max(0, state.warmup - state.n_done))
    _, _, state = _walk(target, state, generator, in_warmup, is_kept=False)
    draws, values, state = _walk(target, state, generator, n_steps - in_warmup, is_kept=True)
    return Chunk(draws[np.newaxis], values[np.newaxis], replace(state, bits=dict(generator.bit_generator.state)))


def _generator(bits: dict[str, Any]) -> Generator:
    bit_generator = PCG64(0)
    bit_generator.state = cast(Any, bits)
    return Generator(bit_generator)


def _begin(target: Target, state: RwmState, generator: Generator) -> RwmState:
    """Evaluate the start point; a random one outside the support is drawn again."""
    position, tries = state.position, 1
    value = target.value_at(position)
    while not target.is_inside(value) and state.redraw is not None:
        if tries == START_TRIES:
            raise TargetError(
                f"Chain {state.group} cannot start: `{target.name}` has no support at {tries:,} random points"
                f" {state.redraw}.\n"
                f"Give start points inside its support: --initial X, or --bounds around it."
            )
        position, tries = state.redraw.draw(generator), tries + 1
        value = target.value_at(position)
    if not target.is_inside(value):
        target.refuse_start(value, position, state.group)
    stats = replace(state.stats, n_evaluations=tries, initial=position[np.newaxis], is_compiled=COMPILED)
    return replace(state, position=position, value=value, redraw=None, stats=stats)


def _walk(target: Target, state: RwmState, generator: Generator, n_steps: int, is_kept: bool) -> Chunk:
    """Walk within warm-up or after it, never across its end."""
    phase = max(0, state.n_done - state.warmup) % state.thin
    n_kept = (phase + n_steps) // state.thin if is_kept else 0
    position = state.position.copy()
    draws, values = np.empty((n_kept, position.size)), np.empty(n_kept)
    counts, first_nan = np.zeros(3, dtype=np.int64), np.full(position.size, math.nan)
    value = walk(
        target.caller,
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
    )
    stats = _counted(state.stats, counts, first_nan, n_steps if is_kept else 0)
    return Chunk(
        draws, values, replace(state, position=position, value=value, n_done=state.n_done + n_steps, stats=stats)
    )


def _counted(
    stats: GroupStats, counts: NDArray[np.int64], first_nan: NDArray[np.float64], n_kept_steps: int
) -> GroupStats:
    return replace(
        stats,
        n_evaluations=stats.n_evaluations + int(counts[0]),
        n_kept_steps=stats.n_kept_steps + n_kept_steps,
        n_accepted=stats.n_accepted + (counts[1] if n_kept_steps else 0),
        n_nan=stats.n_nan + int(counts[2]),
        first_nan=first_nan if stats.n_nan == 0 and counts[2] else stats.first_nan,
    )
