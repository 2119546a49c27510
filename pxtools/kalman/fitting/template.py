"""Models as numbers: how the arrays of a model with free parameters move with them, found out by building a few.

Building a model runs the user's code and checks every matrix, which takes many times as long as filtering a short
series. Nearly always the arrays are polynomials in the parameters, of degree one (variances on a diagonal, coefficients
in a row) or two (the coefficients of a seasonal ARIMA are products), so that a handful of builds says all, derivatives
included: one, if every number is 0, 1, a parameter or the product of two, as in the models of the builders; two, if
every number that moves is a multiple of such, since it then moves in the same ratio; otherwise one along each axis, or
two axes. Where they are no such polynomials, there is no template and every point is built. What is found is held
against the fitted model at the end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array, are_definite
from pxtools.kalman.filtering import first_form
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel
from pxtools.kernels.kalman_free_layout import FreeNumbers, P, Q, R

#: of the largest element: arrays that differ by less are the same
ALIKE = 1e-12

#: of an element: a difference below this is round-off
NO_BEND = 1e-13

#: of a distance that is inside the bounds and of the parameter's size: where models are built
NEAR = 1 / 16


class Built(NamedTuple):
    """A model's numbers in one row, in the order of `FreeNumbers`, and what may not change with the parameters."""

    row: Array
    shapes: tuple[tuple[int, ...], ...]
    initial: tuple[str, ...]

    @classmethod
    def of(cls, model: StateSpaceModel, n_steps: int) -> Built:
        """Return the numbers of a model; the start of stationary states is zero, since it follows from the others."""
        every = (model.parts[letter] for letter in "FHQRcdG")
        parts = [part[:n_steps] if len(part) > 1 else part for part in every]
        mean, cov, _ = model.initial_state
        kinds = tuple(model.initial or ())
        if "stationary" in kinds:
            keeps = np.array([kind != "stationary" for kind in kinds])
            mean, cov = mean * keeps, cov * keeps * keeps[:, None]
        parts[6:6] = mean, cov
        if any(part.size == 0 for part in parts):
            raise ValueError("a part without numbers")
        return cls(np.concatenate([part.ravel() for part in parts]), tuple(part.shape for part in parts), kinds)


class Template(NamedTuple):
    """A model's numbers as polynomials of the parameters around `base`.

    `correlated` are the covariances of which no look at the diagonal tells whether they are definite.
    """

    base: Array
    numbers: FreeNumbers
    initial: tuple[str, ...]
    correlated: tuple[int, ...]

    @classmethod
    def of(
        cls, model: FreeModel, base: Array, reach: Array, beside: StateSpaceModel, n_steps: int, form: str
    ) -> Template | None:
        """Return the template of a model around `base`, None if it has none.

        The model is built at parts of the distances `reach`; `beside` is that at the first of `asides`.
        """
        if first_form(form, beside.n_states, beside.n_obs) != "univariate":
            return None

        def rows(at: Array) -> Array:
            built = Built.of(model.at(dict(zip(model.names, at.tolist(), strict=True))), n_steps)
            if built[1:] != first[1:]:
                raise ValueError("the arrays change their shapes, or the start its kind")
            return built.row

        try:
            first, (a, b) = Built.of(beside, n_steps), asides(base, reach)
            row = first.row
            terms = _plain(a, row) or _multiples(a, row, b, rows(b))
            if terms is not None:
                return cls._from(base, first, beside, *_moved_to(base, row, terms))
            # a build off the axes and at another distance tells whether the degree is right
            steps, middle = NEAR * reach, rows(base)
            ahead = np.array([rows(base + step) for step in np.diag(steps)])
            template = cls._from(base, first, beside, middle, _linear(middle, ahead, steps))
            if template._has(a - base, row):
                return template
            terms = _quadratic(middle, ahead, lambda move: rows(base + move), steps)
            template = cls._from(base, first, beside, middle, terms)
            return template if template._has(a - base, row) else None
        except (PxUsageError, ValueError, np.linalg.LinAlgError):
            return None

    @classmethod
    def _from(cls, base: Array, first: Built, model: StateSpaceModel, row: Array, terms: Terms) -> Template:
        stationary = np.array([k for k, kind in enumerate(first.initial) if kind == "stationary"], dtype=int)
        diffuse = model.initial_state.diffuse_cov
        numbers = FreeNumbers(row, first.shapes, diffuse, stationary, *terms, n_params=len(base))
        correlated = tuple(part for part in numbers.moved_parts & {Q, R, P} if not numbers.is_diagonal(part))
        return cls(base, numbers, first.initial, correlated)

    def are_models(self, moves: Array) -> NDArray[np.bool_]:
        """Tell at which moves (n_points, n_params) the correlated covariances are definite."""
        fine = np.ones(len(moves), dtype=bool)
        for part in self.correlated:
            own = self.numbers.slice(part)
            arrays = np.array([self.numbers.at(move)[own].reshape(self.numbers.shapes[part]) for move in moves])
            fine &= are_definite(arrays)
        return fine

    def agrees(self, place: Array, model: StateSpaceModel, n_steps: int) -> bool:
        """Whether the model built at these parameters has the numbers that are expected there."""
        built = Built.of(model, n_steps)
        return built[1:] == (self.numbers.shapes, self.initial) and self._has(place - self.base, built.row)

    def _has(self, move: Array, row: Array) -> bool:
        gaps, starts = np.abs(self.numbers.at(move) - row), self.numbers.starts[:-1]
        return bool((np.maximum.reduceat(gaps, starts) <= ALIKE * np.maximum.reduceat(np.abs(row), starts)).all())


class Terms(NamedTuple):
    """The terms of polynomials: see `FreeNumbers`."""

    where: NDArray[np.int_]
    first: NDArray[np.int_]
    second: NDArray[np.int_]
    weight: Array


def asides(base: Array, reach: Array) -> Array:
    """Return two points (2, n_params) near `base`, off all axes: each parameter moves in a ratio of its own."""
    return base + reach * _shares(len(base))


@functools.cache
def _shares(n_params: int) -> Array:
    return NEAR * (0.5 + 1.3 * (np.arange(1, n_params + 1) * [[2**0.5], [3**0.5]] % 1))


def _plain(a: Array, at_a: Array) -> Terms | None:
    """Return the terms of numbers that are parameters or products of two, up to the sign; None if any other is not 1.

    A parameter off all axes is no number that a model has by chance.
    """
    sizes = np.abs(at_a)
    where = np.flatnonzero((sizes != 0) & (sizes != 1))
    for products in (_singles, _pairs):
        first, second, value = products(a)
        is_same = sizes[where, None] == np.abs(value)
        if is_same.any(axis=1).all():
            found = is_same.argmax(axis=1)
            terms = Terms(where, first[found], second[found], at_a[where] / value[found])
            has_all = len({*terms.first.tolist(), *terms.second.tolist()} - {-1}) == len(a)
            return terms if has_all else None
    return None


def _multiples(a: Array, at_a: Array, b: Array, at_b: Array) -> Terms | None:
    """Return the terms of numbers that are multiples of a parameter or of the product of two; None if any is not."""
    where = np.flatnonzero(np.abs(at_b - at_a) > NO_BEND * (np.abs(at_a) + np.abs(at_b)))
    old, new = at_a[where, None], at_b[where, None]
    for products in (_singles, _pairs):
        (first, second, value), (*_, later) = products(a), products(b)
        gaps = np.abs(new * value - old * later)
        found = gaps.argmin(axis=1)
        if (gaps[np.arange(len(found)), found] <= NO_BEND * np.abs(new[:, 0] * value[found])).all():
            return Terms(where, first[found], second[found], old[:, 0] / value[found])
    return None


def _singles(a: Array) -> tuple[NDArray[np.int_], NDArray[np.int_], Array]:
    return np.arange(len(a)), np.full(len(a), -1), a


def _pairs(a: Array) -> tuple[NDArray[np.int_], NDArray[np.int_], Array]:
    """The parameters and the products of two."""
    first, second = np.array([(i, j) for i in range(len(a)) for j in range(-1, i + 1)]).T
    return first, second, a[first] * np.where(second < 0, 1.0, a[second])


def _moved_to(base: Array, row: Array, terms: Terms) -> tuple[Array, Terms]:
    """Return the row of numbers at `base`, and multiples of parameters as polynomials around it."""
    where, first, second, weight = terms
    pairs = second >= 0
    row, other = row.copy(), np.where(pairs, base[second], 1.0)
    row[where] = weight * base[first] * other
    if not pairs.any():
        return row, terms
    again = Terms(where[pairs], second[pairs], np.full(int(pairs.sum()), -1), (weight * base[first])[pairs])
    alone = Terms(where, first, np.full(len(where), -1), weight * other)
    both = Terms(where[pairs], first[pairs], second[pairs], weight[pairs])
    return row, Terms(*(np.concatenate(parts) for parts in zip(alone, again, both, strict=True)))


def _linear(row: Array, ahead: Array, steps: Array) -> Terms:
    moved = ahead - row
    moved[np.abs(moved) <= NO_BEND * np.abs(row)] = 0.0
    first, where = map(np.ascontiguousarray, np.nonzero(moved))
    return Terms(where, first, np.full(len(where), -1), moved[first, where] / steps[first])


def _quadratic(row: Array, ahead: Array, rows: Callable[[Array], Array], steps: Array) -> Terms:
    axes, moved, found = np.diag(steps), ahead - row, []
    for i in range(len(steps)):
        for j in range(i + 1):
            corner = rows(axes[i] + axes[j])
            bend = corner - row - moved[i] - moved[j]
            bend[np.abs(bend) <= NO_BEND * (np.abs(corner) + np.abs(row))] = 0.0
            if i == j:
                bend /= 2
            where = np.flatnonzero(bend)
            found.append(Terms(where, 0 * where + i, 0 * where + j, bend[where] / (steps[i] * steps[j])))
            if i == j:
                ahead = ahead.copy()
                ahead[i] -= bend
    found.append(_linear(row, ahead, steps))
    return Terms(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
