"""Free parameters: what `free(…)` marks, and a model that is built from their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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
        if np.isfinite(self.lower) and np.isfinite(self.upper):
            return (self.lower + self.upper) / 2
        if np.isfinite(self.lower):
            return self.lower + scale
        return self.upper - scale if np.isfinite(self.upper) else 0.0

    def to_line(self, value: float, unit: float) -> float:
        """Return the place of a value on the whole line, where `unit` makes steps of about one."""
        low, high = np.isfinite(self.lower), np.isfinite(self.upper)
        if low and high:
            share = 2 * (value - self.lower) / (self.upper - self.lower) - 1
            share = min(max(share, -1 + 1e-9), 1 - 1e-9)
            return float(share / np.sqrt(1 - share * share))
        if low or high:
            gap = value - self.lower if low else self.upper - value
            return float(np.sqrt(max(gap, 1e-8 * unit) / unit))
        return value / unit

    def from_line(self, place: Any, unit: float) -> Any:
        """Return the value that belongs to a place on the line, or an array of them; the inverse of `to_line`."""
        low, high = math.isfinite(self.lower), math.isfinite(self.upper)
        if low and high:
            share = place / np.sqrt(1 + place * place)
            return self.lower + (self.upper - self.lower) * (1 + share) / 2
        if low:
            return self.lower + unit * place * place
        return self.upper - unit * place * place if high else place * unit

    def slope(self, place: Any, unit: float) -> Any:
        """Return the derivative of `from_line`, or an array of them."""
        low, high = math.isfinite(self.lower), math.isfinite(self.upper)
        if low and high:
            return (self.upper - self.lower) / 2 / (1 + place * place) ** 1.5
        if low or high:
            return 2 * unit * place * (1 if low else -1)
        return unit + 0 * place


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
    steps = np.diff(values, axis=1)
    spread: Any = np.var(steps[~np.isnan(steps)]) / 2 if (~np.isnan(steps)).any() else 1.0
    return float(spread) if spread > 0 else 1.0
