"""A model with free parameters as numbers, each a polynomial of the parameters: what both tiers of the kernel take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.kernels.kalman_results import Array

Integers = NDArray[np.int_]

#: the parts of a model in the order of their numbers; Q is the disturbances' own, which G spreads over the states
F, H, Q, R, C, D, X, P, G = range(9)

#: below zero by less than this fraction, a variance is zero
BELOW_ZERO = 1e-10


class FreeNumbers(NamedTuple):
    """All numbers of a model in one row: F, H, Q, R, c, d, x, P and G, one part after another.

    base : (n_numbers,) numbers where the parameters have not moved
    shapes : nine shapes; those of F, H, Q, R, c, d and G begin with one or the number of steps
    diffuse_cov : (n_states, n_states)
    spreads : whether G has to be applied
    stationary : states that start from their stationary moments, zero in the numbers
    where, first, second, weight : (n_terms,)
        `numbers[where] += weight * move[first] * move[second]`, without the last factor where `second` is negative.
    n_params : int
    """

    base: Array
    shapes: Sequence[tuple[int, ...]]
    diffuse_cov: Array
    spreads: bool
    stationary: Integers
    where: Integers
    first: Integers
    second: Integers
    weight: Array
    n_params: int

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(self.diffuse_cov)

    @property
    def n_obs(self) -> int:
        """Number of observed series in a row."""
        return self.shapes[H][1]

    @property
    def n_noise(self) -> int:
        """Number of process disturbances."""
        return self.shapes[Q][2]

    def slice(self, part: int) -> slice:
        """Return where a part stands."""
        start = sum(math.prod(shape) for shape in self.shapes[:part])
        return slice(start, start + math.prod(self.shapes[part]))

    @property
    def starts(self) -> list[int]:
        """Where each part begins."""
        sizes = [math.prod(shape) for shape in self.shapes[:-1]]
        return list(itertools.accumulate(sizes, initial=0))

    def at(self, move: Array) -> Array:
        """Return the numbers where the parameters have moved."""
        numbers, factors = self.base.copy(), np.where(self.second < 0, 1.0, move[self.second])
        np.add.at(numbers, self.where, self.weight * move[self.first] * factors)
        return numbers

    def spreads_noise(self) -> bool:
        """Return whether G is, or may become, other than the identity."""
        n, shape = self.n_states, self.shapes[G]
        return self.moves(G) or shape != (1, n, n) or not np.array_equal(self.base[-n * n :], np.eye(n).ravel())

    def parts(self, numbers: Array) -> list[Array]:
        """Return the parts of a row of numbers, views of it."""
        return [numbers[self.slice(part)].reshape(shape) for part, shape in enumerate(self.shapes)]

    @property
    def touched(self) -> Integers:
        """Numbers that move."""
        return np.unique(self.where)

    def moves(self, part: int) -> bool:
        """Return whether any number of a part moves."""
        where = self.slice(part)
        return bool(((self.where >= where.start) & (self.where < where.stop)).any())

    def _moving(self) -> NDArray[np.bool_]:
        moving = np.zeros(len(self.base), dtype=bool)
        moving[self.where] = True
        return moving

    @property
    def variances(self) -> Integers:
        """Numbers that move and stand on the diagonal of a covariance."""
        moving = self._moving()
        found = []
        for part in (Q, R, P):
            own = self.slice(part)
            size = self.shapes[part][-1]
            found.append(
                own.start + np.flatnonzero(moving[own] & np.tile(np.eye(size).ravel() > 0, _count(self, part)))
            )
        return np.concatenate(found)

    def mask(self, part: int) -> NDArray[np.bool_]:
        """Return which elements of a part's matrix are, or may become, other than zero at any step."""
        own = self.slice(part)
        shape = self.shapes[part][-2:]
        return np.asarray(((self.base[own] != 0) | self._moving()[own]).reshape(-1, *shape).any(axis=0))

    def wanted(self) -> NDArray[np.bool_]:
        """Return which elements of F move at any step, row by row."""
        return np.asarray(self._moving()[self.slice(F)].reshape(-1, self.n_states**2).any(axis=0))

    def is_diagonal(self, part: int) -> bool:
        """Return whether a part's matrices are diagonal wherever the parameters move."""
        mask = self.mask(part)
        return int(mask.sum()) == int(np.diagonal(mask).sum())


def matrix_step(shape: tuple[int, ...], part: int, n_steps: int) -> int:
    """Return the distance between a part's steps in its row of numbers, zero if it is constant."""
    if part in (X, P) or shape[0] == 1:
        return 0
    if shape[0] != n_steps:
        raise ValueError("a time-varying matrix needs one entry for each step")
    return math.prod(shape[1:])


def _count(numbers: FreeNumbers, part: int) -> int:
    return 1 if part == P else numbers.shapes[part][0]
