"""Models as numbers: how the arrays of a model with free parameters move with them, found out by building a few.

Building a model runs the user's code and checks every matrix, which takes many times as long as filtering a short
series. Nearly always the arrays are polynomials in the parameters, of degree one (variances on a diagonal, coefficients
in a row) or two (the coefficients of a seasonal ARIMA are products), so that a handful of builds says all, derivatives
included. Where they are not, there is no template and every point is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array, are_definite
from pxtools.kalman.filtering import first_form
from pxtools.kalman.initial import lyapunov
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel
from pxtools.kalman.system import System
from pxtools.kernels import kalman

#: of the largest element: arrays that differ by less are the same
ALIKE = 1e-12

#: of the largest element: a second difference below this is round-off
NO_BEND = 1e-13

#: the parts of a template are those of a kernel, with Q of the disturbances and the selection that spreads them
F_, Q, R, C, X, P, G = 0, 2, 3, 4, 6, 7, 9

#: of a distance that is inside the bounds and of the parameter's size: where models are built
NEAR = 1 / 16

#: up to so many stationary states, their covariance's equation is solved as a linear one
SMALL = 6

Slopes = tuple[Array | None, ...]


class Part(NamedTuple):
    """One array as a polynomial: `value + slopes . move + move . bends . move`, without what is nowhere needed."""

    value: Array
    slopes: Array | None = None
    bends: Array | None = None

    def at(self, moves: Array) -> Array:
        """Return the array at moves (n_points, n_params) from the base, with a leading axis of one or n_points."""
        if self.slopes is None:
            return self.value[None]
        found = self.value + np.dot(moves, self.slopes.reshape(len(self.slopes), -1)).reshape(-1, *self.value.shape)
        return found if self.bends is None else found + np.einsum("ai,ij...,aj->a...", moves, self.bends, moves)

    def slopes_at(self, move: Array) -> Array | None:
        """Return the derivatives (n_params, …) at one move from the base."""
        if self.slopes is None or self.bends is None:
            return self.slopes
        return self.slopes + 2 * np.tensordot(move, self.bends, axes=1)


class Template(NamedTuple):
    """The arrays of a kernel as polynomials of the parameters around `base`.

    `stationary` holds the states whose start follows from the other arrays; `selects` says whether the disturbances
    are spread over the states by a selection matrix.
    """

    base: Array
    parts: tuple[Part, ...]
    stationary: NDArray[np.intp]
    selects: bool

    @classmethod
    def of(cls, model: FreeModel, base: Array, reach: Array, values: Array, form: str) -> Template | None:
        """Return the template of a model around `base`, with builds at parts of the distances `reach`; None without."""
        names, steps = model.names, NEAR * reach

        def build(place: Array) -> StateSpaceModel:
            return model.at(dict(zip(names, place.tolist(), strict=True)))

        try:
            middle = build(base)
            if first_form(form, middle.n_states, middle.n_obs) != "univariate":
                return None
            rows = np.flatnonzero(np.array(middle.initial) == "stationary")

            def arrays(move: Array) -> tuple[Array, ...]:
                return _arrays(build(base + steps * move), values)

            # one more build, off the axes and at another distance, tells whether the degree is right
            aside = np.where(np.arange(len(base)) % 2, 0.61, 1.7)
            probe = _arrays(build(base + steps * aside), values)
            first, ahead = _arrays(middle, values), [arrays(axis) for axis in np.eye(len(base))]
            selects = not np.array_equal(first[G], np.eye(middle.n_states)[None])
            template = cls(base, _linear(first, ahead, steps), rows, selects)
            if template._has(aside * steps, probe):
                return template
            template = cls(base, _quadratic(first, ahead, arrays, steps), rows, selects)
            return template if template._has(aside * steps, probe) else None
        except (PxUsageError, ValueError, np.linalg.LinAlgError):
            return None

    def at(self, places: Array) -> tuple[System, NDArray[np.bool_]]:
        """Return the kernel's arrays at parameters (n_points, n_params), and which of the points are models."""
        moves = places - self.base
        arrays = [part.at(moves) for part in self.parts]
        are_models = np.ones(len(places), dtype=bool)
        for which in (Q, R, P):
            if self.parts[which].slopes is not None:
                are_models &= are_definite(arrays[which])
        selection = arrays.pop()
        if self.selects or self.parts[G].slopes is not None:
            arrays[Q] = _spread(selection, arrays[Q])
        if self.stationary.size:
            settle = self._start(arrays)
            are_models &= settle
        return System._make(map(np.ascontiguousarray, arrays)), are_models

    def slopes(self, place: Array, system: System) -> Slopes:
        """Return the derivatives of the first eight arrays of a kernel at one point, None where there are none.

        `system` holds the arrays there.
        """
        move = place - self.base
        found = [part.slopes_at(move) for part in self.parts]
        turns, noises = found.pop(), found[Q]
        if self.selects or turns is not None:
            selection, noise = (self.parts[which].at(move[None])[0] for which in (G, Q))
            found[Q] = None if noises is None else _spread(selection, noises)
            if turns is not None:
                turned = turns @ (noise @ selection.swapaxes(-1, -2))
                found[Q] = (0.0 if found[Q] is None else found[Q]) + turned + turned.swapaxes(-1, -2)
        if self.stationary.size:
            self._start_slopes(found, system)
        return tuple(found[:8])

    def _start(self, arrays: list[Array]) -> NDArray[np.bool_]:
        """Put the stationary moments in place; return at which points there are any."""
        rows = self.stationary
        block = (slice(None), rows[:, None], rows)
        F, noise, c = arrays[F_][:, 0][block], arrays[Q][:, 0][block], arrays[C][:, 0][:, rows]
        cov, settles = lyapunov(*np.broadcast_arrays(F, noise))
        n_points = max(len(cov), len(c))
        mean = np.zeros((n_points, len(rows)))
        if c.any():
            gap = np.where(settles[:, None, None], np.eye(len(rows)) - F, np.eye(len(rows)))
            mean = np.broadcast_to(np.linalg.solve(gap, c[..., None])[..., 0], mean.shape)
        arrays[X] = np.repeat(arrays[X], n_points, axis=0) if len(arrays[X]) < n_points else arrays[X].copy()
        arrays[P] = np.repeat(arrays[P], n_points, axis=0) if len(arrays[P]) < n_points else arrays[P].copy()
        arrays[X][:, rows] = mean
        arrays[P][block] = np.where(settles[:, None, None], cov, 0.0)
        return settles

    def _start_slopes(self, slopes: list[Array | None], system: System) -> None:
        """Put the derivatives of the stationary moments in place: they solve equations of the moments' own kind."""
        rows, count = self.stationary, len(self.base)
        block = (slice(None), rows[:, None], rows)
        F, x, cov = system.F[0][rows[:, None], rows], system.x[rows], system.P[rows[:, None], rows]
        noise, shift = np.zeros((count, *F.shape)), np.zeros((count, len(rows)))
        by_F, by_Q, by_c, by_x, by_P = (slopes[which] for which in (F_, Q, C, X, P))
        if by_F is not None:
            turned = by_F[:, 0][block]
            both = turned @ cov @ F.T
            noise, shift = both + both.swapaxes(-1, -2), turned @ x
        if by_Q is not None:
            noise = noise + by_Q[:, 0][block]
        if by_c is not None:
            shift = shift + by_c[:, 0][:, rows]
        if noise.any():
            moved = np.zeros((count, *system.P.shape)) if by_P is None else by_P.copy()
            moved[block] = _lyapunov_slopes(F, noise)
            slopes[P] = moved
        if shift.any():
            means = np.zeros((count, len(system.x))) if by_x is None else by_x.copy()
            means[:, rows] = np.linalg.solve(np.eye(len(rows)) - F, shift.T).T
            slopes[X] = means

    def agrees(self, place: Array, model: StateSpaceModel, values: Array) -> bool:
        """Whether the model built at these parameters has the arrays that are expected there."""
        return bool(self.at(place[None])[1][0]) and self._has(place - self.base, _arrays(model, values))

    def _has(self, move: Array, arrays: tuple[Array, ...]) -> bool:
        return all(_alike(part.at(move[None])[0], array) for part, array in zip(self.parts, arrays, strict=True))

    def log_likelihoods(self, places: Array, values: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Return the log-likelihood at each point, minus infinity where there is no model.

        The second array says where digits were cancelled, so that another form has to decide.
        """
        arrays, are_models = self.at(places)
        totals, _, cancelled = kalman.univariate_log_likelihoods(values, *arrays)
        heights = np.where(are_models, totals.sum(axis=1), -np.inf)
        return np.broadcast_to(heights, len(places)), np.broadcast_to(cancelled > 0, len(places)) & are_models


def _lyapunov_slopes(F: Array, noises: Array) -> Array:
    """Solve `P = F P F' + Q` for one F and many symmetric Q, small ones as linear equations."""
    n = len(F)
    if n > SMALL:
        return lyapunov(np.broadcast_to(F, noises.shape), noises)[0]
    solved = np.linalg.solve(np.eye(n * n) - np.kron(F, F), noises.reshape(len(noises), -1).T).T.reshape(noises.shape)
    return np.asarray((solved + solved.swapaxes(-1, -2)) / 2)


def _spread(selection: Array, noise: Array) -> Array:
    """`G Q G'`, symmetric."""
    found = selection @ noise @ selection.swapaxes(-1, -2)
    return np.asarray((found + found.swapaxes(-1, -2)) / 2)


def _arrays(model: StateSpaceModel, values: Array) -> tuple[Array, ...]:
    """The arrays of a template; the start of stationary states is left zero, since it follows from the others."""
    parts, n_steps = model.parts, values.shape[1]
    kept = [parts[letter][:n_steps] if len(parts[letter]) > 1 else parts[letter] for letter in "FHQRcdG"]
    mean, cov, diffuse = model.initial_state
    rows = np.flatnonzero(np.array(model.initial) == "stationary")
    if rows.size:
        mean, cov = mean.copy(), cov.copy()
        mean[rows], cov[rows[:, None], rows] = 0.0, 0.0
    return (*kept[:6], mean, cov, diffuse, kept[6])


def _alike(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= ALIKE * np.abs(b).max(initial=1e-300))


def _linear(values: tuple[Array, ...], ahead: list[tuple[Array, ...]], steps: Array) -> tuple[Part, ...]:
    parts = []
    for which, value in enumerate(values):
        moved = np.stack([arrays[which] for arrays in ahead]) - value
        parts.append(Part(value, moved / _column(steps, value)) if moved.any() else Part(value))
    return tuple(parts)


def _quadratic(
    values: tuple[Array, ...],
    ahead: list[tuple[Array, ...]],
    arrays: Callable[[Array], tuple[Array, ...]],
    steps: Array,
) -> tuple[Part, ...]:
    k = len(steps)
    axes = np.eye(k)
    corners = {(i, j): arrays(axes[i] + axes[j]) for i in range(k) for j in range(i + 1)}
    parts = []
    for which, value in enumerate(values):
        moved = np.stack([one[which] for one in ahead]) - value
        bends = np.zeros((k, k, *value.shape))
        for (i, j), corner in corners.items():
            bend = corner[which] - value - moved[i] - moved[j]
            size = np.abs(corner[which]) + np.abs(value)
            bends[i, j] = bends[j, i] = np.where(np.abs(bend) > NO_BEND * size, bend / 2, 0.0) / (steps[i] * steps[j])
        diagonal = bends[np.arange(k), np.arange(k)] * _column(steps**2, value)
        slopes = (moved - diagonal) / _column(steps, value)
        parts.append(Part(value, slopes, bends if bends.any() else None) if slopes.any() else Part(value))
    return tuple(parts)


def _column(steps: Array, value: Array) -> Array:
    return steps.reshape(-1, *[1] * value.ndim)
