"""Differential evolution with an archive of the past, snooker and mixture moves: the default sampler.

The chains of a group learn from their common archive during warm-up, which has eight parts: the archive grows; after
each of the first ones its older half is dropped, and after each one a mixture of t distributions is fitted to it. The
density is flattened at first, so that chains find modes that they did not start in. At the end of the warm-up archive
and mixture are frozen. From then on every move keeps the target exactly, and chains are independent.

References
----------
C. J. F. ter Braak, J. A. Vrugt (2008), Differential evolution Markov chain with snooker updater and fewer chains,
Statistics and Computing 18, 435-446.
P. Giordani, R. Kohn (2010), Adaptive independent Metropolis-Hastings by fast estimation of mixtures of normals,
J. Comput. Graph. Stat. 19, 243-259.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.kernels.demcz import COMPILED, walk
from pxtools.sampling.group import Rejections, counted, find_start, generator_at, stream
from pxtools.sampling.mixture import Mixture, fit_mixture, no_mixture
from pxtools.sampling.samplers import Chunk, GroupStats
from pxtools.sampling.starts import RandomStart
from pxtools.sampling.targets import Target

if TYPE_CHECKING:
    from pxtools.sampling.plan import SamplePlan

Floats = NDArray[np.float64]

SNOOKER_CHANCE = 0.1
#: share of mixture moves, and the acceptance below which they are not worth their calls
MIXTURE_CHANCE = 0.4
MIXTURE_WORTH = 0.05
#: the density is raised to these powers in the parts of the warm-up; the archive is looked at after each part. The
#: flatter powers find narrow modes, but a posterior with vague priors has no end there: chains that run away in the
#: first part, farther than this many spreads of the first archive, are put back and go on with the steeper powers
FLAT = (0.005, 0.015, 0.05, 0.15, 0.4, 1.0, 1.0, 1.0)
STEEP = (0.005, 0.1, 0.3, 0.6, 1.0, 1.0, 1.0, 1.0)
PARTS = len(FLAT)
RUNAWAY = 4.0
#: at so many looks the older half of the archive is dropped; after flat powers fewer, for it remembers far modes
DROPS: dict[tuple[float, ...], int] = {FLAT: 5, STEEP: 7}
#: points that the archive holds when it is frozen, about; and before the first step
ARCHIVE_SIZE = 4_000
FIRST_ARCHIVE = 10
#: noise of a difference next to the archive's standard deviation
JITTER = 1e-6
#: spread of the first archive around given points: powers of ten
SPREADS = (-2.0, 1.0)


@dataclass(frozen=True)
class DemczState:
    """Where a group stands. Plain data.

    Attributes
    ----------
    group, first_chain : int
        The group's number, which is also its stream, and the number of its first chain.
    positions : (n_chains, n_params) array
        The current points.
    values : (n_chains,) array or None
        The target there; None until the first chunk evaluates it.
    redraw : RandomStart or None
        How to draw other start points, if these were random and turn out to be outside the support.
    bits : dict
        State of the PCG64 bit generator.
    box : (4, n_params) array
        Lower bound, upper bound, period, noise of a difference.
    archive : (n_archive, n_params) array
        Points to take differences of.
    mixture : Mixture
        What mixture moves draw from.
    chances : (2,) array
        Probabilities of a mixture move and of a snooker move.
    warmup, thin, n_done : int
        Steps to discard, distance of kept steps, steps taken so far.
    moves : (2, 3) array
        Proposed and accepted differences, snooker and mixture moves since the last look at the archive.
    stats : GroupStats
        The counters.
    powers : tuple of float
        What the density is raised to in the parts of the warm-up.
    home : tuple of arrays or None
        Until the first look: the first positions, their values, and the first archive.
    """

    group: int
    first_chain: int
    positions: Floats
    values: Floats | None
    redraw: RandomStart | None
    bits: dict[str, Any]
    box: Floats
    archive: Floats
    mixture: Mixture
    chances: Floats
    warmup: int
    thin: int
    n_done: int
    moves: NDArray[np.int64]
    stats: GroupStats
    powers: tuple[float, ...] = FLAT
    home: tuple[Floats, Floats, Floats] | None = None
    sampler: str = "auto"

    @property
    def looks(self) -> list[int]:
        """The steps after which the archive is looked at; the last one is the end of the warm-up."""
        return [self.warmup * part // PARTS for part in range(1, PARTS + 1)]

    @property
    def power(self) -> float:
        """What the density is raised to in this part of the warm-up."""
        return (*self.powers, 1.0)[sum(look <= self.n_done for look in self.looks)]

    @property
    def store_every(self) -> int:
        """Steps between additions to the archive."""
        return max(1, len(self.positions) * self.warmup // (2 * ARCHIVE_SIZE))


def start(plan: SamplePlan, group: int) -> DemczState:
    """Return the state of a group before its first step; the target is not called yet."""
    generator = stream(plan.seed, group)
    chains = plan.chains_of(group)
    redraw, n_params = plan.random_start, len(plan.names)
    n_first = max(2 * len(chains), FIRST_ARCHIVE * n_params)
    if redraw is not None:
        positions = np.array([redraw.draw(generator) for _ in chains])
        archive = np.array([redraw.draw(generator) for _ in range(n_first)])
    else:
        positions = np.array(plan.initial[chains.start : chains.stop])
        archive = _around(plan.initial, plan.step, n_first, generator).clip(plan.lower, plan.upper)
    return DemczState(
        group=group,
        first_chain=chains.start,
        positions=positions,
        values=None,
        redraw=redraw,
        bits=dict(generator.bit_generator.state),
        box=np.vstack([plan.lower, plan.upper, plan.period, JITTER * _spread(archive)]),
        archive=archive,
        mixture=no_mixture(n_params),
        chances=np.array([0.0, SNOOKER_CHANCE]),
        warmup=plan.warmup,
        thin=plan.thin,
        n_done=0,
        moves=np.zeros((2, 3), dtype=np.int64),
        stats=GroupStats(n_evaluations=0, n_kept_steps=0, n_accepted=np.zeros(len(chains), dtype=np.int64)),
    )


def _around(points: Floats, step: Floats, count: int, generator: Generator) -> Floats:
    """Return points around given ones, near and far, since their spread need not be the target's."""
    spread = np.where(np.ptp(points, axis=0) > 0, points.std(axis=0), step)
    rows = points[(generator.random(count) * len(points)).astype(int)]
    scales = 10.0 ** (SPREADS[0] + (SPREADS[1] - SPREADS[0]) * generator.random((count, 1)))
    return np.asarray(rows + scales * spread * generator.standard_normal(rows.shape))


def _spread(archive: Floats) -> Floats:
    return np.maximum(archive.std(axis=0), np.finfo(np.float64).tiny)


def advance(target: Target, state: DemczState, n_steps: int) -> Chunk:
    """Take the group `n_steps` further; see `pxtools.sampling.samplers.advance`."""
    generator = generator_at(state.bits)
    if state.values is None:
        state = _begin(target, state, generator)
    parts: list[Chunk] = []
    end = state.n_done + n_steps
    while state.n_done < end:
        stop = min([end, *(look for look in state.looks if look > state.n_done)])
        parts.append(_walk(target, state, generator, stop - state.n_done))
        state = parts[-1].state
        if state.n_done in state.looks:
            state = _look(_put_back(state), generator)
    n_chains, n_params = state.positions.shape
    draws = np.concatenate([np.empty((n_chains, 0, n_params)), *(part.draws for part in parts)], axis=1)
    values = np.concatenate([np.empty((n_chains, 0)), *(part.values for part in parts)], axis=1)
    return Chunk(draws, values, replace(state, bits=dict(generator.bit_generator.state)))


def _begin(target: Target, state: DemczState, generator: Generator) -> DemczState:
    """Evaluate the start points; random ones outside the support are drawn again."""
    found = [
        find_start(target, position, state.redraw, generator, state.first_chain + chain)
        for chain, position in enumerate(state.positions)
    ]
    positions, values = np.array([f[0] for f in found]), np.array([f[1] for f in found])
    stats = replace(state.stats, n_evaluations=sum(f[2] for f in found), initial=positions, is_compiled=COMPILED)
    home = (positions, values, state.archive)
    return replace(state, positions=positions, values=values, redraw=None, stats=stats, home=home)


def _walk(target: Target, state: DemczState, generator: Generator, n_steps: int) -> Chunk:
    """Walk between two looks at the archive."""
    assert state.values is not None
    is_kept = state.n_done >= state.warmup
    phase = max(0, state.n_done - state.warmup) % state.thin
    n_kept = (phase + n_steps) // state.thin if is_kept else 0
    n_chains, n_params = state.positions.shape
    every = n_steps + 1 if is_kept else state.store_every
    first_stored = every - state.n_done % every if not is_kept else every
    n_stored = 0 if is_kept else len(range(first_stored, n_steps + 1, every)) * n_chains
    archive = np.concatenate([state.archive, np.empty((n_stored, n_params))])
    positions, values, moves = state.positions.copy(), state.values.copy(), state.moves.copy()
    draws, kept_values = np.empty((n_chains, n_kept, n_params)), np.empty((n_chains, n_kept))
    counts, accepted = np.zeros(3, dtype=np.int64), np.zeros(n_chains, dtype=np.int64)
    first_nan, rejections = np.full(n_params, np.nan), Rejections(state.stats)
    walk(
        target.caller,
        positions,
        values,
        n_steps,
        generator,
        box=state.box,
        is_density=target.is_density,
        is_scalar=target.is_scalar,
        power=state.power,
        archive=archive,
        n_archive=len(state.archive),
        first_stored=first_stored,
        store_every=every,
        chances=state.chances,
        weights=state.mixture.weights,
        means=state.mixture.means,
        factors=state.mixture.factors,
        first_kept=state.thin - phase if is_kept else n_steps + 1,
        thin=state.thin,
        draws=draws,
        values=kept_values,
        counts=counts,
        accepted=accepted,
        moves=moves,
        first_nan=first_nan,
        on_error=rejections,
    )
    stats = counted(state.stats, counts, accepted, first_nan, n_steps if is_kept else 0, rejections)
    state = replace(
        state,
        positions=positions,
        values=values,
        archive=archive,
        moves=moves,
        n_done=state.n_done + n_steps,
        stats=stats,
    )
    return Chunk(draws, kept_values, state)


def _put_back(state: DemczState) -> DemczState:
    """After the first part: undo it if the chains ran away from where they started."""
    if state.home is None:
        return state
    positions, values, archive = state.home
    new = state.archive[len(archive) :]
    if len(new) == 0 or (_spread(new) <= RUNAWAY * _spread(archive)).all():
        return replace(state, home=None)
    return replace(state, positions=positions, values=values, archive=archive, powers=STEEP, home=None)


def _look(state: DemczState, generator: Generator) -> DemczState:
    """Drop what is old, fit the mixture anew; after the last look nothing changes any more."""
    archive = state.archive
    if state.n_done <= state.looks[DROPS[state.powers] - 1]:
        archive = archive[len(archive) // 2 :]
    proposed, accepted = state.moves[:, 2]
    is_last = state.n_done == state.warmup
    fitted = fit_mixture(archive, generator)
    is_worth = fitted is not None and not (is_last and proposed > 0 and accepted < MIXTURE_WORTH * proposed)
    return replace(
        state,
        archive=archive,
        mixture=fitted if fitted is not None and is_worth else no_mixture(archive.shape[1]),
        chances=np.array(
            [MIXTURE_CHANCE, (1 - MIXTURE_CHANCE) * SNOOKER_CHANCE] if is_worth else [0.0, SNOOKER_CHANCE]
        ),
        box=np.vstack([state.box[:3], JITTER * _spread(archive)]),
        moves=np.zeros((2, 3), dtype=np.int64),
    )
