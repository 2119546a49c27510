"""Differential evolution with an archive, snooker and mixture moves: the loop without a compiler.

Its twin is `_demcz.pyx`. Sums run in the same order in both, and powers are products, so that the bits agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.kernels.calls_numpy import Steps
from pxtools.kernels.calls_numpy import Walk as AnyWalk
from pxtools.kernels.rwm_numpy import log, wrapped

Floats = NDArray[np.float64]

#: degrees of freedom of the mixture's components
DOF = 5
DIFFERENCE, SNOOKER, MIXTURE = 0, 1, 2


class Walk(AnyWalk):
    """A group of chains; see `steps` and `pxtools.kernels.calls_numpy.Walk` for the arguments."""

    n_archive: int

    @staticmethod
    def steps(
        walk: Walk,
        box: Floats,
        power: float,
        archive: Floats,
        n_archive: int,
        first_stored: int,
        store_every: int,
        chances: Floats,
        weights: Floats,
        means: Floats,
        factors: Floats,
        accepted: NDArray[np.int64],
        moves: NDArray[np.int64],
        slopes: Floats | None = None,
    ) -> Steps:
        """Move each chain of a group, one after the other.

        A move is one of three, chosen at random: the difference of two archive points is added (ter Braak & Vrugt 2008,
        section 2); the point moves along its line to an archive point (snooker, ibid. section 3); it is replaced by a
        draw of a mixture of t distributions (Metropolis-Hastings). With a fixed archive and mixture each one keeps the
        target exactly.

        Parameters
        ----------
        walk : Walk
            Of the group.
        box : (4, n_params) array
            Lower bound, upper bound, period (0: not periodic), width of the noise of a difference.
        power : float
            The density is raised to it: below 1 it is flatter. 1 leaves the target as it is.
        archive : (capacity, n_params) array
            Its first `n_archive` rows are the points to take differences of; at least two.
        n_archive : int
            See `archive`; `walk.n_archive` is the new length.
        first_stored, store_every : int
            After steps `first_stored`, `first_stored + store_every`, … (the first step is number 1) all chains' points
            are added to the archive.
        chances : (2,) array
            Probabilities of a mixture move and of a snooker move.
        weights : (2, n_components) array
            The mixture: cumulative weights; heights of its components, in any unit.
        means : (n_components, n_params) array
            Their centres.
        factors : (2, n_components, n_params, n_params) array
            Lower Cholesky factors of their scale matrices, and the inverses of these.
        accepted : (n_chains,) int64 array
            Accepted proposals are added.
        moves : (2, 3) int64 array
            Proposals, and accepted ones, are added for the difference, snooker and mixture moves.
        slopes : (n_chains,) array, optional
            With a mapping: the logarithm of its Jacobian at the first points.

        References
        ----------
        C. J. F. ter Braak, J. A. Vrugt (2008), Statistics and Computing 18, 435.
        P. Giordani, R. Kohn (2010), J. Comput. Graph. Stat. 19, 243.
        """
        propose = _Moves(_Space(box, walk.generator), _Mixture(weights, means, factors), chances.tolist())
        points: list[list[float]] = walk.x.tolist()
        firsts = [0.0] * len(points) if slopes is None else slopes.tolist()
        logs = [(log(v) if walk.is_density else v) + s for v, s in zip(walk.value.tolist(), firsts, strict=True)]
        q = [math.nan] * len(points)
        next_stored = first_stored
        past: list[list[float]] = archive[:n_archive].tolist()
        for t in range(1, walk.n_steps + 1):
            proposed = [propose(past, c, points, q) for c in range(len(points))]
            answers = yield [p.point if p.is_open else None for p in proposed]
            for c, (answer, (proposal, move, correction, new_q, u, _)) in enumerate(
                zip(answers, proposed, strict=True)
            ):
                moves[0, move] += 1
                if answer is not None:
                    new_log = (log(answer.value) if walk.is_density else answer.value) + answer.jacobian
                    if log(u) < power * (new_log - logs[c]) + correction:
                        points[c], logs[c], q[c] = proposal, new_log, new_q
                        walk.accept(c, answer)
                        accepted[c] += 1
                        moves[1, move] += 1
            walk.end_step()
            if t == next_stored:
                past += points
                next_stored += store_every
        if len(past) > n_archive:
            archive[n_archive : len(past)] = past[n_archive:]
        walk.n_archive, walk.x[:] = len(past), points


def walk(
    target: Callable[..., Any], x: Floats, value: Floats, n_steps: int, generator: Generator, **options: Any
) -> int:
    """Move each chain of a group `n_steps` times, in place; return the archive's new length. See `Walk`."""
    chains = Walk(target, x, value, n_steps, generator, **options)
    chains.run()
    return chains.n_archive


class _Proposal(NamedTuple):
    point: list[float]
    move: int
    correction: float
    new_q: float
    uniform: float
    is_open: bool


class _Moves:
    """Chooses a move and makes it."""

    def __init__(self, space: _Space, mixture: _Mixture, chances: list[float]) -> None:
        self.space, self.mixture = space, mixture
        self.mixture_chance, self.snooker_chance = chances[0], chances[0] + chances[1]

    def __call__(self, past: list[list[float]], c: int, points: list[list[float]], q: list[float]) -> _Proposal:
        generator, point = self.space.generator, points[c]
        u, correction, new_q = generator.random(), 0.0, math.nan
        if u < self.mixture_chance:
            move, proposal = MIXTURE, self.mixture.draw(generator)
            if q[c] != q[c]:
                q[c] = self.mixture.log_density(point)
            new_q = self.mixture.log_density(proposal)
            correction = q[c] - new_q
        elif u < self.snooker_chance:
            move, (proposal, correction) = SNOOKER, self.space.snook(past, point)
        else:
            move, proposal = DIFFERENCE, self.space.differ(past, point)
        is_open = correction - correction == 0 and self.space.is_inside(proposal)
        return _Proposal(proposal, move, correction, new_q, generator.random(), is_open)


def half_power(base: float, twice: int) -> float:
    """Return base ** (twice / 2) by multiplications."""
    result, left = math.sqrt(base) if twice & 1 else 1.0, twice >> 1
    while left:
        if left & 1:
            result *= base
        base *= base
        left >>= 1
    return result


class _Space:
    """Proposals made from the archive."""

    def __init__(self, box: Floats, generator: Generator) -> None:
        self.lower, self.upper, self.period, self.jitter = box.tolist()
        self.is_periodic = any(self.period)
        self.generator = generator

    def is_inside(self, point: list[float]) -> bool:
        return all(low <= p <= high for low, p, high in zip(self.lower, point, self.upper, strict=True))

    def _two(self, past: list[list[float]]) -> tuple[list[float], list[float]]:
        first = int(self.generator.random() * len(past))
        second = int(self.generator.random() * (len(past) - 1))
        return past[first], past[second + (second >= first)]

    def differ(self, past: list[list[float]], x: list[float]) -> list[float]:
        random = self.generator.random
        first, second = self._two(past)
        gamma = 1.0
        if random() >= 0.1:
            gamma = 2.38 / math.sqrt(2.0 * len(x)) * (0.9 + 0.2 * random())
        proposal = [
            p + gamma * (a - b) + noise * (random() - 0.5)
            for p, a, b, noise in zip(x, first, second, self.jitter, strict=True)
        ]
        return wrapped(proposal, self.lower, self.period) if self.is_periodic else proposal

    def snook(self, past: list[list[float]], x: list[float]) -> tuple[list[float], float]:
        centre = past[int(self.generator.random() * len(past))]
        first, second = self._two(past)
        old = along = new = 0.0
        for p, z, a, b in zip(x, centre, first, second, strict=True):
            old += (p - z) * (p - z)
            along += (a - b) * (p - z)
        scale = (1.2 + self.generator.random()) * along
        if old == 0:
            return x, math.nan
        scale /= old
        proposal = [p + scale * (p - z) for p, z in zip(x, centre, strict=True)]
        for p, z in zip(proposal, centre, strict=True):
            new += (p - z) * (p - z)
        return proposal, 0.5 * (len(x) - 1) * (log(new) - log(old))


class _Mixture:
    """A mixture of multivariate t distributions: draws and, up to a constant, log-densities."""

    def __init__(self, weights: Floats, means: Floats, factors: Floats) -> None:
        self.n_components, self.n_params = means.shape
        self.cumulative, self.peaks = weights.tolist()
        self.means = means.tolist()
        self.factors, self.inverses = factors.tolist()

    def draw(self, generator: Generator) -> list[float]:
        u, k, chi2 = generator.random(), 0, 0.0
        while k < self.n_components - 1 and u >= self.cumulative[k]:
            k += 1
        normals = [generator.standard_normal() for _ in range(self.n_params)]
        for _ in range(DOF):
            z = generator.standard_normal()
            chi2 += z * z
        stretch = math.sqrt(DOF / chi2)
        proposal = []
        for i, (row, mean) in enumerate(zip(self.factors[k], self.means[k], strict=True)):
            z = 0.0
            for j in range(i + 1):
                z += row[j] * normals[j]
            proposal.append(mean + stretch * z)
        return proposal

    def log_density(self, point: list[float]) -> float:
        distances = [self._distance(k, point) for k in range(self.n_components)]
        nearest, total = min(distances), 0.0
        for peak, distance in zip(self.peaks, distances, strict=True):
            total += peak * half_power(nearest / distance, DOF + self.n_params)
        return log(total) - 0.5 * (DOF + self.n_params) * log(nearest)

    def _distance(self, k: int, point: list[float]) -> float:
        offsets = [p - mean for p, mean in zip(point, self.means[k], strict=True)]
        total = 0.0
        for i, row in enumerate(self.inverses[k]):
            z = 0.0
            for j in range(i + 1):
                z += row[j] * offsets[j]
            total += z * z
        return 1.0 + total / DOF
