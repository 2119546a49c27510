"""Fits to many series, wherever they lie: what travels for an iteration is a model there and a few sums back.

References as for `em.py` and `ml.py`; the disturbances' moments from r and N: Koopman (1993), Disturbance smoother for
state space models, Biometrika 80.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.kalman.checks import Array
from pxtools.kalman.fitting.em import DEFAULT, MATRICES
from pxtools.kalman.fitting.fit import METHODS, Fit
from pxtools.kalman.fitting.ml import Start, _shift
from pxtools.kalman.fitting.problem import STEP
from pxtools.kalman.fitting.sums import Summed
from pxtools.kalman.fitting.until import Until
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.parameters import FreeModel
from pxtools.kernels.kalman_climb import from_line, slopes_on_line

MAX_ITERATIONS = 200

#: what EM can fit from sums; a transition matrix needs moments of pairs of states
FROM_SUMS = tuple(name for name in MATRICES if name != "transition_matrix")


class Sums(Protocol):
    """Series that can be summed over."""

    def totals(self, models: list[StateSpaceModel]) -> Array:
        """Return the log-likelihood of all good series together under each of the models."""

    def statistics(self, model: StateSpaceModel) -> Summed:
        """Return the sufficient statistics of all good series together."""


Tick = Callable[[int, float], None]


def can_fit(model: StateSpaceModel | FreeModel, method: str, em_matrices: Iterable[str] | None) -> bool:
    """Return whether a fit works from sums alone; otherwise the series must be in one place."""
    if method != "em":
        return True
    chosen = em_matrices or (model.fills if isinstance(model, FreeModel) else ()) or DEFAULT
    start = model.at(model.start()) if isinstance(model, FreeModel) else model
    return not ("transition_matrix" in chosen or start.initial_state.diffuse_cov.any())


def fit_fleet(
    model: StateSpaceModel | FreeModel,
    series: Sums,
    method: str = "ml",
    *,
    until: str | None = None,
    starts: int = 1,
    seed: int = 0,
    em_matrices: Iterable[str] | None = None,
    scale: float = 1.0,
    tick: Tick | None = None,
) -> Fit:
    """Fit one set of parameters to many series: see `fit_model` for the arguments.

    Parameters
    ----------
    series : anything with `totals(models)` and `statistics(model)`
    scale : float
        A variance of the data, on which free variances start.
    tick : callable, optional
        Told the number of each iteration and its log-likelihood.

    Raises
    ------
    PxUsageError
    """
    if method not in METHODS:
        raise PxUsageError(f"`fit` is {method!r}; it must be one of {', '.join(METHODS)}.{nearest(method, METHODS)}")
    stop = Until.parse(until)
    if method == "em":
        chosen = em_matrices
        if isinstance(model, FreeModel):
            chosen = em_matrices or model.fills
            if not chosen:
                raise PxUsageError(
                    "EM fits whole matrices: say which, for example em_matrices=['process_cov', 'observation_cov']."
                )
            model = model.at(model.start(scale))
        return _em(model, series, stop, tuple(chosen or DEFAULT), tick)
    if not isinstance(model, FreeModel):
        raise PxUsageError(
            "Maximum likelihood needs to know what to fit, and the model has no free parameter.\n"
            "Mark some in a cell (`Q = [[free(positive=True)]]`), build a FreeModel, or use EM (`--fit em`)."
        )
    if starts < 1:
        raise PxUsageError(f"`starts` is {starts}; at least one start is needed.")
    return _Climb(model, series, stop, scale, tick).best(starts, seed)


def _em(model: StateSpaceModel, series: Sums, until: Until, chosen: tuple[str, ...], tick: Tick | None) -> Fit:
    for name in chosen:
        if name not in FROM_SUMS:
            raise PxUsageError(
                f"EM over many series cannot fit `{name}`; it fits {', '.join(FROM_SUMS)}.{nearest(name, FROM_SUMS)}"
            )
    if any(kind != "known" for kind in model.initial or ()):
        chosen = tuple(name for name in chosen if not name.startswith("initial"))
    goal, path = until.goal("gain", 1e-6), []
    while True:
        sums = series.statistics(model)
        path.append(sums.log_likelihood)
        if tick is not None:
            tick(len(path) - 1, path[-1])
        reason = until.limit_reached(len(path) - 1, MAX_ITERATIONS)
        has_converged = len(path) > 1 and path[-1] - path[-2] < goal
        if has_converged or reason:
            break
        model = maximised(model, sums, chosen)
    return Fit(
        model=model,
        method="em",
        values={},
        standard_errors={},
        log_likelihood=path[-1],
        path=tuple(path),
        has_converged=has_converged,
        message="converged" if has_converged else reason,
        n_values=sums.n_values,
    )


def maximised(model: StateSpaceModel, sums: Summed, chosen: tuple[str, ...]) -> StateSpaceModel:
    """The M step: the matrices that make the expected log-likelihood greatest."""
    changes: dict[str, Any] = {}
    noise = sums.noise
    if "observation_matrix" in chosen:
        step = np.linalg.solve(sums.states, sums.noise_state.T).T
        changes["observation_matrix"] = model.parts["H"][0] + step
        noise = noise - step @ sums.noise_state.T - sums.noise_state @ step.T + step @ sums.states @ step.T
    if "observation_cov" in chosen:
        changes["observation_cov"] = noise / sums.n_rows
    if "process_cov" in chosen:
        GQ = model.parts["G"][0] @ model.parts["Q"][0]
        changes["process_cov"] = model.parts["Q"][0] + GQ.T @ sums.scores @ GQ / sums.n_moves
    if "initial_mean" in chosen:
        changes["initial_mean"] = sums.first_mean
    if "initial_cov" in chosen:
        scatter = sums.first_scatter
        if "initial_mean" not in chosen:
            apart = sums.first_mean - model.initial_state.mean
            scatter = scatter + sums.n_series * np.outer(apart, apart)
        changes["initial_cov"] = (sums.first_cov + scatter) / sums.n_series
    return model.replace(**{n: (v + v.T) / 2 if n.endswith("cov") else v for n, v in changes.items()})


class _Climb:
    """Quasi-Newton steps on the line that the parameters were moved to; every gradient is one pass over the series."""

    def __init__(self, model: FreeModel, series: Sums, until: Until, scale: float, tick: Tick | None) -> None:
        self.model, self.series, self.until, self.tick = model, series, until, tick
        start = Start.of(model, scale)
        self.bounds, self.first = start.bounds, start.place
        self.n_values = max(1, series.statistics(start.built(model)).n_values)
        self.path: list[float] = []

    def parameters(self, places: Array) -> dict[str, float]:
        """Return the parameters that belong to places on the line."""
        return dict(zip(self.model.names, from_line(places, self.bounds).tolist(), strict=True))

    def heights(self, places: list[Array]) -> Array:
        """Return the log-likelihood at each place, minus infinity where there is no model."""
        models: list[StateSpaceModel] = []
        found = np.full(len(places), -np.inf)
        where = []
        for k, place in enumerate(places):
            try:
                with np.errstate(all="ignore"):
                    models.append(self.model.at(self.parameters(place)))
                where.append(k)
            except (PxUsageError, np.linalg.LinAlgError):
                continue
        if models:
            found[where] = self.series.totals(models)
        return np.where(np.isfinite(found), found, -np.inf)

    def rise(self, place: Array) -> tuple[float, Array]:
        """Return the negative log-likelihood of a value, and its gradient, in one round."""
        steps = STEP * np.maximum(1.0, np.abs(place))
        moves = np.diag(steps)
        heights = self.heights([place, *(place + moves), *(place - moves)])
        k = len(place)
        with np.errstate(invalid="ignore"):
            gradient = (heights[1 : k + 1] - heights[k + 1 :]) / (2 * steps)
        gradient = np.where(np.isfinite(gradient), gradient, 0.0)
        # a finite wall: line searches cannot interpolate an infinite one
        height = heights[0] if np.isfinite(heights[0]) else -1e3 * self.n_values - abs(self.path[0])
        return -height / self.n_values, -gradient / self.n_values

    def climb(self, place: Array) -> tuple[float, Array, list[float], bool, str]:
        """Climb from one start."""
        from scipy.optimize import minimize

        start = float(self.heights([place])[0])
        self.path = [start]
        if not np.isfinite(start):
            return start, place, self.path, False, "the start has no finite log-likelihood"
        gain, reason = self.until.goals.get("gain"), ""
        last = place

        def after_step(intermediate_result: Any) -> None:
            nonlocal reason, last
            last = np.array(intermediate_result.x)
            self.path.append(float(-intermediate_result.fun * self.n_values))
            if self.tick is not None:
                self.tick(len(self.path) - 1, self.path[-1])
            if gain is not None and self.path[-1] - self.path[-2] < gain:
                reason = f"the last iteration gained less than {gain:g}"
            reason = reason or self.until.limit_reached(len(self.path) - 1, MAX_ITERATIONS)
            if reason:
                raise StopIteration

        options = {"gtol": self.until.goal("gradient", 1e-7), "maxiter": 10 * MAX_ITERATIONS}
        end = minimize(self.rise, place, jac=True, method="BFGS", callback=after_step, options=options)
        if not reason and -end.fun * self.n_values >= self.path[-1]:
            last = end.x
        # BFGS calls it a loss of precision when the line search can gain no more: at a maximum that is convergence
        is_flat = end.success or (end.status == 2 and np.abs(end.jac).max() < 1e-4)
        message = reason or ("converged" if is_flat else f"not converged: {end.message}")
        return self.path[-1], last, list(self.path), bool(is_flat or "gained" in reason), message

    def best(self, starts: int, seed: int) -> Fit:
        """Climb from every start and keep the highest."""
        places = [self.first, *(self.first + _shift(seed, k, len(self.first)) for k in range(1, starts))]
        climbs = [self.climb(place) for place in places]
        height, place, path, has_converged, message = max(climbs, key=lambda one: one[0])
        if not np.isfinite(height):
            told = ", ".join(f"{name}={value:.4g}" for name, value in self.parameters(self.first).items())
            raise PxUsageError(
                f"No start has a finite log-likelihood; the first was {told}.\nGive other starts: free(1.0, …)."
            )
        values = self.parameters(place)
        return Fit(
            model=self.model.at(values),
            method="ml",
            values=values,
            standard_errors=dict(zip(values, self._standard_errors(place), strict=True)),
            log_likelihood=height,
            path=tuple(path),
            has_converged=has_converged,
            message=message,
            n_values=self.n_values,
        )

    def _standard_errors(self, place: Array) -> list[float]:
        """Invert the observed information on the line and carry it to the parameters; NaN where it is not positive."""
        k = len(place)
        slopes = slopes_on_line(place, self.bounds)
        moves = np.diag(1e-3 * np.maximum(0.1, np.abs(place)))
        signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
        pairs = [(i, j) for i in range(k) for j in range(i + 1)]
        corners = [place + a * moves[i] + b * moves[j] for i, j in pairs for a, b in signs]
        heights = self.heights(corners).reshape(-1, 4)
        information = np.full((k, k), np.nan)
        for (i, j), (a, b, c, d) in zip(pairs, heights, strict=True):
            with np.errstate(invalid="ignore"):
                information[i, j] = information[j, i] = -(a - b - c + d) / (4 * moves[i, i] * moves[j, j])
        diagonal = np.diagonal(information)
        inner = np.isfinite(diagonal) & (diagonal > 0) & (np.abs(slopes) > 1e-6)
        errors = np.full(k, np.nan)
        block = information[np.ix_(inner, inner)]
        if inner.any() and np.isfinite(block).all() and np.linalg.eigvalsh(block)[0] > 0:
            errors[inner] = np.sqrt(np.diagonal(np.linalg.inv(block))) * np.abs(slopes[inner])
        return [float(error) for error in errors]
