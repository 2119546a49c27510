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
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.kernels import demcz as kernel
from pxtools.sampling.group import GroupState, begin, stream
from pxtools.sampling.mixture import Mixture, fit_mixture, no_mixture
from pxtools.sampling.targets import Target

if TYPE_CHECKING:
    from pxtools.sampling.plan import SamplePlan

Floats = NDArray[np.float64]

SNOOKER_CHANCE = 0.1
#: mixture moves are twice as frequent as they were accepted in the part before, within these limits: they are the
#: better moves where the mixture fits, and chains must not depend on them where it does not
MIXTURE_CHANCES = (0.2, 0.8)
#: before there have been any
MIXTURE_CHANCE = 0.4
#: the acceptance below which they are not worth their calls
MIXTURE_WORTH = 0.05
#: the mixture is fitted without this oldest share of the archive: what is left at the end was found at the target
OLD_SHARE = 0.25
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


@dataclass(frozen=True, kw_only=True)
class DemczState(GroupState):
    """Where a group stands.

    Attributes
    ----------
    jitter : (n_params,) array
        Noise of a difference.
    archive : (n_archive, n_params) array
        Points to take differences of, in walking coordinates.
    mixture : Mixture
        What mixture moves draw from.
    chances : (2,) array
        Probabilities of a mixture move and of a snooker move.
    moves : (2, 3) array
        Proposed and accepted differences, snooker and mixture moves since the last look at the archive.
    powers : tuple of float
        What the density is raised to in the parts of the warm-up.
    home : DemczState or None
        Until the first look: the state at the start points.
    """

    jitter: Floats
    archive: Floats
    mixture: Mixture
    chances: Floats
    moves: NDArray[np.int64]
    powers: tuple[float, ...] = FLAT
    home: Self | None = None

    @property
    def stops(self) -> list[int]:
        """The steps after which the archive is looked at; the last one is the end of the warm-up."""
        return [self.warmup * part // PARTS for part in range(1, PARTS + 1)]

    @property
    def power(self) -> float:
        """What the density is raised to in this part of the warm-up."""
        return (*self.powers, 1.0)[sum(look <= self.n_done for look in self.stops)]

    @property
    def store_every(self) -> int:
        """Steps between additions to the archive."""
        return max(1, len(self.positions) * self.warmup // (2 * ARCHIVE_SIZE))

    def begun(self) -> Self:
        """Return the state with its start points to go back to."""
        return replace(self, home=self)

    def walk(self, target: Target, common: dict[str, Any], accepted: NDArray[np.int64]) -> Any:
        """Return the kernel's walk to the next look at the archive."""
        n_steps, (n_chains, n_params) = common["n_steps"], self.positions.shape
        is_kept = self.n_done >= self.warmup
        every = n_steps + 1 if is_kept else self.store_every
        first_stored = every if is_kept else every - self.n_done % every
        n_stored = 0 if is_kept else len(range(first_stored, n_steps + 1, every)) * n_chains
        return kernel.Walk(
            target.caller,
            box=np.vstack([self.space.lower, self.space.upper, self.space.period, self.jitter]),
            power=self.power,
            archive=np.concatenate([self.archive, np.empty((n_stored, n_params))]) if n_stored else self.archive.copy(),
            n_archive=len(self.archive),
            first_stored=first_stored,
            store_every=every,
            chances=self.chances,
            weights=self.mixture.weights,
            means=self.mixture.means,
            factors=self.mixture.factors,
            accepted=accepted,
            moves=self.moves.copy(),
            slopes=self.space.outward(self.positions)[1],
            **common,
        )

    def after(self, walk: Any, generator: Generator) -> Self:
        """Return the state with a longer archive, looked at when it is time."""
        moved = replace(self, archive=np.array(walk.archive), moves=np.array(walk.moves))
        return moved.put_back().look(generator) if moved.n_done in moved.stops else moved

    def put_back(self) -> Self:
        """After the first part: undo it if the chains ran away from where they started."""
        home = self.home
        if home is None:
            return self
        new = self.archive[len(home.archive) :]
        if len(new) == 0 or (_spread(new) <= RUNAWAY * _spread(home.archive)).all():
            return replace(self, home=None)
        back = {name: getattr(home, name) for name in ("positions", "shown", "values", "blobs", "archive")}
        return replace(self, **back, powers=STEEP, home=None)

    def look(self, generator: Generator) -> Self:
        """Drop what is old, fit the mixture anew; after the last look nothing changes any more."""
        archive = self.archive
        if self.n_done <= self.stops[DROPS[self.powers] - 1]:
            archive = archive[len(archive) // 2 :]
        fitted = fit_mixture(archive[int(OLD_SHARE * len(archive)) :], generator)
        chance = self.mixture_chance() if fitted is not None else 0.0
        return replace(
            self,
            archive=archive,
            mixture=fitted if fitted is not None and chance else no_mixture(archive.shape[1]),
            chances=np.array([chance, (1 - chance) * SNOOKER_CHANCE]),
            jitter=JITTER * _spread(archive),
            moves=np.zeros((2, 3), dtype=np.int64),
        )

    def mixture_chance(self) -> float:
        """Return how often mixture moves are worth it, by how often they were accepted."""
        proposed, accepted = self.moves[:, 2]
        if not proposed:
            return MIXTURE_CHANCE
        is_last = self.n_done == self.warmup
        if is_last and accepted < MIXTURE_WORTH * proposed:
            return 0.0
        least, most = MIXTURE_CHANCES
        return float(min(most, max(least, 2 * accepted / proposed)))


def start(plan: SamplePlan, group: int) -> DemczState:
    """Return the state of a group before its first step; the target is not called yet."""
    generator = stream(plan.seed, group)
    common = begin(plan, group, generator)
    space, n_params = common["space"], len(plan.names)
    n_first = max(2 * len(common["shown"]), FIRST_ARCHIVE * n_params)
    if plan.random_start is not None:
        archive = space.inward(np.array([plan.random_start.draw(generator) for _ in range(n_first)]))
    else:
        starts = space.inward(plan.initial)
        archive = _around(starts, plan.step, n_first, generator).clip(space.lower, space.upper)
    return DemczState(
        jitter=JITTER * _spread(archive),
        archive=archive,
        mixture=no_mixture(n_params),
        chances=np.array([0.0, SNOOKER_CHANCE]),
        moves=np.zeros((2, 3), dtype=np.int64),
        bits=dict(generator.bit_generator.state),
        **common,
    )


def _around(points: Floats, step: Floats, count: int, generator: Generator) -> Floats:
    """Return points around given ones, near and far, since their spread need not be the target's."""
    spread = np.where(np.ptp(points, axis=0) > 0, points.std(axis=0), step)
    rows = points[(generator.random(count) * len(points)).astype(int)]
    scales = 10.0 ** (SPREADS[0] + (SPREADS[1] - SPREADS[0]) * generator.random((count, 1)))
    return np.asarray(rows + scales * spread * generator.standard_normal(rows.shape))


def _spread(archive: Floats) -> Floats:
    return np.maximum(archive.std(axis=0), np.finfo(np.float64).tiny)
