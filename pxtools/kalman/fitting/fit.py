"""The result of a fit, and the one door to all ways of fitting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.kalman.checks import Array
from pxtools.kalman.fitting.until import Until
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.observations import read_observations
from pxtools.kalman.parameters import FreeModel

METHODS = ("ml", "em")


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """Hold a fitted model.

    Attributes
    ----------
    model : StateSpaceModel
        At the fitted values.
    values, standard_errors : dict
        By parameter. Standard errors come from the observed information; NaN where it is singular, as on a bound,
        and for EM, which computes none.
    log_likelihood : float
        Of all series together.
    path : tuple of float
        The log-likelihood by iteration, the start first.
    has_converged : bool
        Whether the search ended by itself.
    message : str
        Why it ended.
    """

    model: StateSpaceModel
    method: str
    values: Mapping[str, float]
    standard_errors: Mapping[str, float]
    log_likelihood: float
    path: tuple[float, ...]
    has_converged: bool
    message: str
    n_values: int

    @property
    def n_iterations(self) -> int:
        """Number of iterations of the best start."""
        return len(self.path) - 1

    @property
    def aic(self) -> float:
        """Akaike's criterion, `2 k - 2 log L`; NaN when whole matrices were fitted."""
        return 2 * len(self.values) - 2 * self.log_likelihood if self.values else float("nan")

    @property
    def bic(self) -> float:
        """Schwarz's criterion, `k log(number of values) - 2 log L`."""
        return len(self.values) * np.log(self.n_values) - 2 * self.log_likelihood if self.values else float("nan")

    def __repr__(self) -> str:
        lines = [f"Fit by {self.method}: log-likelihood {self.log_likelihood:.4f}, {self.n_iterations} iterations"]
        for name, value in self.values.items():
            lines.append(f"  {name:<24}{value:>14.6g}  (standard error {self.standard_errors[name]:.4g})")
        lines.append(f"  {self.message}")
        return "\n".join(lines)


def fit_model(
    model: StateSpaceModel | FreeModel,
    observations: Any,
    method: str = "ml",
    *,
    until: str | None = None,
    starts: int = 1,
    seed: int = 0,
    em_matrices: Iterable[str] | None = None,
    form: str = "auto",
    map: Callable[..., Iterable[Any]] = map,
) -> Fit:
    """Fit a model's free parameters to one series, or one set of parameters to a batch of series.

    Parameters
    ----------
    model : FreeModel or StateSpaceModel
        Maximum likelihood needs free parameters. EM fits whole matrices and starts from a `StateSpaceModel`, or from a
        `FreeModel` at its start, whose matrices with free parameters it fits.
    observations : array_like
        As for `filter_series`.
    method : str
        "ml" or "em".
    until : str, optional
        When to stop: `gain<1e-8` (log-likelihood gained by an iteration), `gradient<1e-6` (ml), at the latest
        `iterations>200` or `seconds>60`; several separated by spaces.
    starts : int
        Number of starts of "ml"; all but the first are drawn around it. The best is returned.
    seed : int
        Seed of these draws; start k draws from its own stream, whoever runs it.
    em_matrices : iterable of str, optional
        Matrices that EM fits; `process_cov`, `observation_cov`, `initial_mean` and `initial_cov` by default.
    form : str
        As for `filter_series`.
    map : callable
        Runs the starts; that of a view of engines, or of a pool, runs them in parallel.

    Returns
    -------
    Fit

    Raises
    ------
    PxUsageError
        Nothing to fit, unknown words, no start with a finite log-likelihood.

    Notes
    -----
    Deterministic for a given seed, however the starts are run.

    Examples
    --------
    >>> from pxtools.kalman import FreeModel, free, local_level
    >>> model = FreeModel(lambda var: local_level(var, observation_var=1.0), {"var": free(positive=True)})
    >>> fit = fit_model(model, [1.0, 3.0, 2.0, 4.0, 6.0, 5.0, 7.0])
    >>> fit.has_converged
    True
    """
    from pxtools.kalman.fitting.em import fit_em
    from pxtools.kalman.fitting.ml import fit_ml

    if method not in METHODS:
        raise PxUsageError(f"`fit` is {method!r}; it must be one of {', '.join(METHODS)}.{nearest(method, METHODS)}")
    stop = Until.parse(until)
    if method == "ml":
        if not isinstance(model, FreeModel):
            raise PxUsageError(
                "Maximum likelihood needs to know what to fit, and the model has no free parameter.\n"
                "Mark some in a cell (`Q = [[free(positive=True)]]`), build a FreeModel, or use EM (`--fit em`)."
            )
        return fit_ml(model, observations, stop, starts, seed, form, map)
    matrices = em_matrices
    if isinstance(model, FreeModel):
        if matrices is None and not model.fills:
            raise PxUsageError(
                "EM fits whole matrices: say which, for example em_matrices=['process_cov', 'observation_cov']."
            )
        matrices = matrices or model.fills
        model = model.at(model.start())
    return fit_em(model, read_observations(observations, model).values, stop, matrices, form)


def count_values(values: Array) -> int:
    """Return the number of observed values."""
    return int(np.count_nonzero(~np.isnan(values)))
