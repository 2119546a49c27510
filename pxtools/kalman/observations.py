"""Observations in, checked: arrays, Series, DataFrames, one series or many; NaN is a missing value."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.model import StateSpaceModel


class Observed(NamedTuple):
    """Observations as the kernels take them, and the labels they came with."""

    values: Array
    """(n_series, n_steps, n_obs), NaN where missing"""
    index: Any
    """the pandas index of the steps, None if there was none"""
    columns: tuple[str, ...] | None
    is_batch: bool
    """whether a leading axis of series was given"""


def read_observations(data: Any, model: StateSpaceModel) -> Observed:
    """Return the observations as `(n_series, n_steps, n_obs)`, after checking them against the model.

    Raises
    ------
    PxUsageError
        Wrong shape, an infinite value, no number at all, an index with duplicates or out of order, dates that are
        not the model's, or fewer time-varying matrices than rows.
    """
    index, columns = getattr(data, "index", None), getattr(data, "columns", None)
    if callable(index):  # a list has an `index` method
        index = None
    values = _shaped(_numbers(data), model.n_obs)
    _check_values(values)
    if index is not None:
        _check_index(index)
    n_steps = values.shape[1]
    if model.n_steps is not None and model.n_steps < n_steps:
        raise PxUsageError(
            f"The model's matrices cover {model.n_steps} steps, the observations have {n_steps} rows.\n"
            "Give a time-varying matrix one entry for each row (more serve forecasts)."
        )
    if model.index is not None and index is not None:
        _check_same_index(index, model.index)
    if columns is not None:
        columns = tuple(str(name) for name in columns)
    elif getattr(data, "name", None) is not None:
        columns = (str(data.name),)
    return Observed(values, index, columns, np.ndim(data) == 3)


def likely_series(data: Any) -> Array:
    """Return the observations as `(n_series, n_steps, n_obs)` where no model says how to read them.

    One row of several values is taken for a series of one value: nothing else is read in another way.
    """
    values = _numbers(data)
    values = values[:, None] if values.ndim < 2 else values
    return values[None] if values.ndim == 2 else values


def _numbers(data: Any) -> Array:
    try:
        if isinstance(data, np.ma.MaskedArray):
            return np.array(np.ma.filled(data.astype(np.float64), np.nan))
        if hasattr(data, "to_numpy"):
            return np.array(data.to_numpy(dtype=np.float64, na_value=np.nan))
        array = np.asarray(data)
        if array.dtype.kind == "c":
            raise TypeError("complex numbers")
        return np.array(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PxUsageError(
            f"`observations` are no array of real numbers: {error}.\nMissing values are NaN (or masked, or pandas NA)."
        ) from None


def _shaped(values: Array, n_obs: int) -> Array:
    shape = values.shape
    if values.ndim == 1:
        values = values[:, None] if n_obs == 1 else values[None, :]
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.shape[2] != n_obs:
        hint = ""
        if len(shape) == 2 and shape[0] == n_obs:
            hint = "\nThe rows are time: transpose them, `observations.T`."
        elif len(shape) == 2 and n_obs == 1:
            hint = "\nIf each column is a series of its own, pass `observations.T[:, :, None]`."
        raise PxUsageError(
            f"`observations` has shape {shape}; the model observes {n_obs} value{'s' * (n_obs > 1)} a step, so it must "
            f"be (n_steps, {n_obs}) or (n_series, n_steps, {n_obs}).{hint}"
        )
    if values.shape[0] == 0 or values.shape[1] == 0:
        raise PxUsageError(f"`observations` is empty: its shape is {shape}.")
    return np.ascontiguousarray(values)


def _check_values(values: Array) -> None:
    if math.isfinite(np.vdot(values, values)):  # the quickest look: what is not finite, or huge, is looked at below
        return
    if np.isinf(values).any():
        series, step, column = (int(i) for i in np.argwhere(np.isinf(values))[0])
        where = f"row {step}, column {column}" + (f" of series {series}" if len(values) > 1 else "")
        raise PxUsageError(
            f"`observations` holds an infinite value at {where}.\nIf it stands for a missing value, make it NaN."
        )
    empty = np.isnan(values).all(axis=(1, 2))
    if empty.any():
        which = f" in series {int(empty.argmax())}" if len(values) > 1 else ""
        raise PxUsageError(
            f"`observations` holds no number at all{which}: every value is NaN.\nCheck how they were read."
        )


def _check_index(index: Any) -> None:
    if not index.is_unique:
        raise PxUsageError(
            f"The index of the observations has duplicates, such as {index[index.duplicated()][0]}.\n"
            "Keep one row for each: `y = y[~y.index.duplicated()]`."
        )
    if not index.is_monotonic_increasing:
        raise PxUsageError("The index of the observations is not in increasing order.\nSort it: `y = y.sort_index()`.")


def _check_same_index(index: Any, wanted: Any) -> None:
    wanted = wanted[: len(index)]
    if len(wanted) == len(index) and (np.asarray(wanted) == np.asarray(index)).all():
        return
    differ = [i for i, (a, b) in enumerate(zip(wanted, index, strict=False)) if a != b]
    first = differ[0] if differ else len(wanted)
    raise PxUsageError(
        "The dates of the observations are not those of the model's time-varying matrices: the first that differs is "
        f"row {first} ({index[first]}, the model has {wanted[first] if first < len(wanted) else 'none'}).\n"
        "Align them: `X = X.reindex(y.index)`."
    )
