"""A model as the kernels take it: arrays with a leading axis, and the state to start from for every series."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pxtools.kalman.model import StateSpaceModel
from pxtools.kernels import kalman
from pxtools.kernels.kalman_results import Array, Filtered


class System(NamedTuple):
    """The arguments of a kernel, in its order."""

    F: Array
    H: Array
    Q: Array
    R: Array
    c: Array
    d: Array
    x: Array
    P: Array
    Pinf: Array

    def between(self, start: int, stop: int | None = None) -> System:
        """Return the system with time-varying parts cut to the steps from `start` to `stop`."""
        cut = [part[start:stop] if len(part) > 1 else part for part in self[:6]]
        return System._make([*cut, *self[6:]])

    def starting(self, x: Array, P: Array, Pinf: Array | None = None) -> System:
        """Return the system with another state to start from."""
        Pinf = np.zeros_like(P) if Pinf is None else Pinf
        return self._replace(x=np.ascontiguousarray(x), P=np.ascontiguousarray(P), Pinf=np.ascontiguousarray(Pinf))


def system_of(model: StateSpaceModel, n_series: int, n_steps: int) -> System:
    """Return the model's arrays for the first `n_steps`, and its initial state for each series."""
    start = model.initial_state
    starts = [np.repeat(part[None], n_series, axis=0) if n_series > 1 else part[None] for part in start]
    system = System._make([*model.kernel_parts, *starts])
    return system if model.n_steps is None else system.between(0, n_steps)


def after_diffuse(system: System, y: Array, proper: Callable[[System, Array], Filtered]) -> Filtered:
    """Run the exact diffuse steps element by element, and `proper`, a form without such a phase, on the rest."""
    if not system.Pinf.any():
        return proper(system, y)
    n_steps, length = y.shape[1], 2 * y.shape[2] * system.F.shape[1]
    while True:
        length = min(2 * length, n_steps)
        start = kalman.univariate_filter(np.ascontiguousarray(y[:, :length]), *system.between(0, length))
        n_diffuse = start.diffuse_cov.shape[1]
        if n_diffuse < length or length == n_steps:
            break
    if n_diffuse >= n_steps:
        return start
    rest = system.between(n_diffuse).starting(start.predicted_mean[:, n_diffuse], start.predicted_cov[:, n_diffuse])
    return _joined(start, proper(rest, np.ascontiguousarray(y[:, n_diffuse:])), n_diffuse)


def _joined(start: Filtered, rest: Filtered, n: int) -> Filtered:
    # covariances cannot stand still while some are infinite, so the start has kept all of its own
    moments = (np.concatenate([a[:, :n], b], axis=1) for a, b in zip(start[:5], rest[:5], strict=True))
    return Filtered._make([*moments, *start[5:9], start.n_cancelled + rest.n_cancelled])
