"""Models as numbers: how the arrays of a model with free parameters move with them, found out by building a few.

Building a model runs the user's code and checks every matrix, which takes many times as long as filtering a short
series. Nearly always the arrays are affine in the parameters (variances on a diagonal, coefficients in a row), so that
a handful of builds says all, and the log-likelihoods at many points are one call of a kernel. Where they are not, or
where the kernel is not the one that the form asks for, there is no template and every point is built.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array, are_definite
from pxtools.kalman.filtering import first_form
from pxtools.kalman.initial import lyapunov
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel
from pxtools.kalman.system import System, system_of
from pxtools.kernels import kalman

#: of the largest element: arrays that differ by less are the same
ALIKE = 1e-12

F_, Q, R, C, X, P = 0, 2, 3, 4, 6, 7


class Template(NamedTuple):
    """The arrays of a kernel, each as a value at `base` and slopes along the parameters (None where it stands still).

    `stationary` holds the states whose start follows from the other arrays.
    """

    base: Array
    values: tuple[Array, ...]
    slopes: tuple[Array | None, ...]
    stationary: NDArray[np.intp]

    @classmethod
    def of(cls, model: FreeModel, base: Array, steps: Array, values: Array, form: str) -> Template | None:
        """Return the template of a model around `base`, with builds at distances `steps`; None if there is none."""
        names = model.names

        def build(place: Array) -> StateSpaceModel:
            return model.at(dict(zip(names, place.tolist(), strict=True)))

        try:
            middle = build(base)
            if first_form(form, middle.n_states, middle.n_obs) != "univariate":
                return None
            arrays = _arrays(middle, values)
            ahead = [_arrays(build(base + step), values) for step in np.diag(steps)]
            kinds = np.array(middle.initial)
            template = _affine(base, arrays, ahead, steps, np.flatnonzero(kinds == "stationary"))
            # one more build, off the axes and at another distance, tells whether it was affine
            aside = base + steps * np.where(np.arange(len(base)) % 2, 0.61, 1.7)
            checked = template.agrees(aside, build(aside), values)
        except (PxUsageError, ValueError, np.linalg.LinAlgError):
            return None
        return template if checked else None

    def at(self, places: Array) -> tuple[System, NDArray[np.bool_]]:
        """Return the kernel's arrays at parameters (n_points, n_params), and which of the points are models."""
        moves = places - self.base
        arrays = [
            value[None] if slope is None else value + np.tensordot(moves, slope, axes=1)
            for value, slope in zip(self.values, self.slopes, strict=True)
        ]
        are_models = np.ones(len(places), dtype=bool)
        for which in (Q, R, P):
            if self.slopes[which] is not None:
                are_models &= are_definite(arrays[which])
        if self.stationary.size:
            settle = self._start(arrays)
            are_models &= settle
        return System._make(map(np.ascontiguousarray, arrays)), are_models

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

    def agrees(self, place: Array, model: StateSpaceModel, values: Array) -> bool:
        """Whether the model built at these parameters has the arrays that are expected there."""
        expected, are_models = self.at(place[None])
        return bool(are_models[0]) and all(map(_alike, (part[0] for part in expected), _arrays(model, values)))

    def log_likelihoods(self, places: Array, values: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Return the log-likelihood at each point, minus infinity where there is no model.

        The second array says where digits were cancelled, so that another form has to decide.
        """
        arrays, are_models = self.at(places)
        totals, _, cancelled = kalman.univariate_log_likelihoods(values, *arrays)
        heights = np.where(are_models, totals.sum(axis=1), -np.inf)
        return np.broadcast_to(heights, len(places)), np.broadcast_to(cancelled > 0, len(places)) & are_models


def _arrays(model: StateSpaceModel, values: Array) -> tuple[Array, ...]:
    system = system_of(model, 1, values.shape[1])
    return (*system[:6], *(part[0] for part in system[6:]))


def _alike(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= ALIKE * np.abs(b).max(initial=1e-300))


def _affine(
    base: Array, values: tuple[Array, ...], ahead: list[tuple[Array, ...]], steps: Array, stationary: NDArray[np.intp]
) -> Template:
    slopes: list[Array | None] = []
    for which, value in enumerate(values):
        moved = np.stack([arrays[which] for arrays in ahead])
        slope = (moved - value) / steps.reshape(-1, *[1] * value.ndim)
        follows = stationary.size and which in (X, P)
        slopes.append(None if follows or not slope.any() else slope)
    return Template(base, values, tuple(slopes), stationary)
