"""Free parameters: what `free(…)` marks, and a model that is built from their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.model import StateSpaceModel


@dataclass(frozen=True)
class Free:
    """A number that is to be fitted, between `lower` and `upper`; `start` None lets the data choose."""

    start: float | None = None
    lower: float = -np.inf
    upper: float = np.inf
    name: str | None = None

    def guess(self, scale: float = 1.0) -> float:
        """Return the start, or a value inside the bounds on the scale of a variance of the data."""
        if self.start is not None:
            return self.start
        if math.isfinite(self.lower) and math.isfinite(self.upper):
            return (self.lower + self.upper) / 2
        if math.isfinite(self.lower):
            return self.lower + scale
        return self.upper - scale if math.isfinite(self.upper) else 0.0

    def to_line(self, value: float, unit: float) -> float:
        """Return the place of a value on the whole line, where `unit` makes steps of about one: see `from_line`."""
        low, high = math.isfinite(self.lower), math.isfinite(self.upper)
        if low and high:
            share = 2 * (value - self.lower) / (self.upper - self.lower) - 1
            share = min(max(share, -1 + 1e-9), 1 - 1e-9)
            return share / math.sqrt(1 - share * share)
        if low or high:
            gap = value - self.lower if low else self.upper - value
            return math.sqrt(max(gap, 1e-8 * unit) / unit)
        return value / unit


def free(
    start: float | None = None,
    *,
    lower: float | None = None,
    upper: float | None = None,
    positive: bool = False,
    name: str | None = None,
) -> Free:
    """Mark a number as to be fitted.

    Parameters
    ----------
    start : float, optional
        Where the search begins; chosen from the data when left out.
    lower, upper : float, optional
        Bounds.
    positive : bool
        The same as `lower=0`.
    name : str, optional
        The parameter's name in the results.

    Returns
    -------
    Free
        The mark, to stand in the place of a number.

    Raises
    ------
    PxUsageError
        Bounds that leave no room, or a start outside them.

    Examples
    --------
    >>> from pxtools.kalman import free
    >>> free(0.5, lower=-1, upper=1)
    Free(start=0.5, lower=-1.0, upper=1.0, name=None)
    """
    low = 0.0 if positive and lower is None else -np.inf if lower is None else float(lower)
    high = np.inf if upper is None else float(upper)
    if not low < high:
        raise PxUsageError(f"free(): the bounds {low:g} and {high:g} leave no room between them.")
    if start is not None and not low <= start <= high:
        raise PxUsageError(f"free({start!r}): the start lies outside its bounds, {low:g} and {high:g}.")
    return Free(None if start is None else float(start), low, high, name)


@dataclass(frozen=True, eq=False, repr=False)
class FreeModel:
    """Hold a model with free parameters: their marks, and the function that builds the model from their values.

    Parameters
    ----------
    build : callable
        Takes one keyword argument for each parameter, returns a `StateSpaceModel`.
    parameters : mapping of str to Free
        By name, in the order of the results.

    Examples
    --------
    >>> from pxtools.kalman import FreeModel, free, local_level
    >>> model = FreeModel(
    ...     lambda level_var, noise_var: local_level(level_var, observation_var=noise_var),
    ...     {"level_var": free(positive=True), "noise_var": free(positive=True)},
    ... )
    >>> model.at({"level_var": 1.0, "noise_var": 2.0})
    StateSpaceModel(n_states=1, n_obs=1, initial=diffuse)
    """

    build: Callable[..., StateSpaceModel]
    parameters: Mapping[str, Free]
    #: the matrices that hold the parameters, where this is known (EM fits whole matrices)
    fills: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.parameters:
            raise PxUsageError("The model has no free parameter to fit.\nMark one: `Q = [[free(positive=True)]]`.")
        for name, parameter in self.parameters.items():
            if not isinstance(parameter, Free):
                raise PxUsageError(f"Parameter `{name}` is {parameter!r}; mark it with free(…).")

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names."""
        return tuple(self.parameters)

    def at(self, values: Mapping[str, float]) -> StateSpaceModel:
        """Return the model at these values."""
        model = self.build(**values)
        if not isinstance(model, StateSpaceModel):
            raise PxUsageError(f"The model's `build` returned a {type(model).__name__}, not a StateSpaceModel.")
        return model

    def start(self, scale: float = 1.0) -> dict[str, float]:
        """Return the values to start from; `scale` is a variance of the data."""
        return {name: parameter.guess(scale) for name, parameter in self.parameters.items()}

    def starting(self, values: Mapping[str, float]) -> FreeModel:
        """Return a copy that starts from these values."""
        marks = {n: replace(p, start=float(values[n])) if n in values else p for n, p in self.parameters.items()}
        return replace(self, parameters=marks)

    def __repr__(self) -> str:
        return f"FreeModel({', '.join(self.parameters)})"


def variance_scale(values: Array) -> float:
    """Return a variance on which free variances may start: that of the observations' differences, halved."""
    with np.errstate(invalid="ignore"):
        steps = (values[:, 1:] - values[:, :-1]).ravel()
    steps = steps[~np.isnan(steps)]
    if not steps.size:
        return 1.0
    steps -= steps.sum() / steps.size
    spread = float(steps @ steps) / (2 * steps.size)
    return spread if 0 < spread < np.inf else 1.0
