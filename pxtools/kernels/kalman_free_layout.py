"""A model with free parameters as numbers, each a polynomial of the parameters: what both tiers of the kernel take."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pxtools.kernels.kalman_results import Array

Integers = NDArray[np.int_]

#: the parts of a model in the order of their numbers; Q is the disturbances' own, which G spreads over the states
F, H, Q, R, C, D, X, P, G = range(9)

#: below zero by less than this fraction, a variance is zero
BELOW_ZERO = 1e-10


@dataclass(frozen=True, eq=False)
class FreeNumbers:
    """All numbers of a model in one row: F, H, Q, R, c, d, x, P and G, one part after another.

    base : (n_numbers,) numbers where the parameters have not moved
    shapes : nine shapes; those of F, H, Q, R, c, d and G begin with one or the number of steps
    diffuse_cov : (n_states, n_states)
    stationary : states that start from their stationary moments, zero in the numbers
    where, first, second, weight : (n_terms,)
        `numbers[where] += weight * move[first] * move[second]`, without the last factor where `second` is negative.
    n_params : int
    """

    base: Array
    shapes: tuple[tuple[int, ...], ...]
    diffuse_cov: Array
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

    @cached_property
    def starts(self) -> list[int]:
        """Where each part begins, and the number of numbers."""
        return list(itertools.accumulate(map(math.prod, self.shapes), initial=0))

    @cached_property
    def moving(self) -> NDArray[np.bool_]:
        """Which numbers move."""
        moving = np.zeros(len(self.base), dtype=bool)
        moving[self.where] = True
        return moving

    @cached_property
    def touched(self) -> Integers:
        """The numbers that move."""
        return np.flatnonzero(self.moving)

    @cached_property
    def _cuts(self) -> list[int]:
        """Where each part begins among the numbers that move, and how many these are."""
        return np.searchsorted(self.touched, self.starts).tolist()

    @cached_property
    def moved_parts(self) -> frozenset[int]:
        """The parts that hold numbers that move."""
        return frozenset(part for part, (start, end) in enumerate(itertools.pairwise(self._cuts)) if start < end)

    @cached_property
    def variances(self) -> Integers:
        """Numbers that move and stand on the diagonal of a covariance."""
        found = []
        for part in sorted(self.moved_parts & {Q, R, P}):
            own, size = self.touched[slice(*self._cuts[part : part + 2])], self.shapes[part][-1]
            place = own - self.starts[part]
            found.append(own if size == 1 else own[place % (size * size) % (size + 1) == 0])
        return np.concatenate(found) if found else np.zeros(0, dtype=int)

    @cached_property
    def spreads(self) -> bool:
        """Whether G is, or may become, other than the identity."""
        n = self.n_states
        if G in self.moved_parts or self.shapes[G] != (1, n, n):
            return True
        matrix = self.base[-n * n :]
        return bool(np.count_nonzero(matrix) > n or (matrix[:: n + 1] != 1).any())

    @cached_property
    def is_exact(self) -> bool:
        """Whether neither F nor H moves while part of the state is infinite."""
        return not (self.moved_parts & {F, H} and self.diffuse_cov.any())

    def slice(self, part: int) -> slice:
        """Return where a part stands."""
        return slice(*self.starts[part : part + 2])

    def parts(self, numbers: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the parts of a row of numbers, views of it."""
        return [numbers[self.slice(part)].reshape(shape) for part, shape in enumerate(self.shapes)]

    def at(self, move: Array) -> Array:
        """Return the numbers where the parameters have moved."""
        numbers, factors = self.base.copy(), np.where(self.second < 0, 1.0, move[self.second])
        np.add.at(numbers, self.where, self.weight * move[self.first] * factors)
        return numbers

    def mask(self, part: int) -> NDArray[np.bool_]:
        """Return which elements of a part's matrix are, or may become, other than zero at any step."""
        own = self.slice(part)
        shape = self.shapes[part][-2:]
        return np.asarray(((self.base[own] != 0) | self.moving[own]).reshape(-1, *shape).any(axis=0))

    def wanted(self, part: int) -> Integers:
        """Return which elements of a part's matrix move at any step, row by row."""
        if part not in self.moved_parts:
            return np.zeros(0, dtype=int)
        return np.unique(np.flatnonzero(self.moving[self.slice(part)]) % math.prod(self.shapes[part][1:]))

    def is_diagonal(self, part: int) -> bool:
        """Return whether a part's matrices are diagonal wherever the parameters move."""
        if self.shapes[part][-1] == 1:
            return True
        mask = self.mask(part)
        return int(mask.sum()) == int(np.diagonal(mask).sum())


def matrix_step(shape: tuple[int, ...], part: int, n_steps: int) -> int:
    """Return the distance between a part's steps in its row of numbers, zero if it is constant."""
    if part in (X, P) or shape[0] == 1:
        return 0
    if shape[0] != n_steps:
        raise ValueError("a time-varying matrix needs one entry for each step")
    return math.prod(shape[1:])


def rank_of(diffuse_cov: Array) -> int:
    """Return the number of infinite directions."""
    diagonal = np.diagonal(diffuse_cov)
    n_diagonal = np.count_nonzero(diagonal)
    if n_diagonal == np.count_nonzero(diffuse_cov):
        return int(n_diagonal)
    return int(np.linalg.matrix_rank(diffuse_cov, hermitian=True))
