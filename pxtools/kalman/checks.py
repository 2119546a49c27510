"""Shapes, symmetry and definiteness of a model's matrices: every error names the matrix and says what to type."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError

Array = NDArray[np.float64]

#: asymmetry, or a negative eigenvalue, below this fraction of the largest element is round-off
ROUND_OFF = 1e-10


def states_text(n_states: int) -> str:
    """Return "1 state" or "4 states"."""
    return f"{n_states} state" if n_states == 1 else f"{n_states} states"


def as_array(name: str, value: Any) -> Array:
    """Return `value` as a float64 array; text, complex numbers and ragged lists are usage errors."""
    try:
        raw = np.asarray(value)
        if raw.dtype.kind == "c":
            raise TypeError("complex numbers")
        is_new = type(value) in (list, tuple, float, int) and raw.dtype == np.float64
        array = raw if is_new else np.array(raw, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise PxUsageError(
            f"`{name}` is no array of real numbers: {error}.\nGive nested lists or a NumPy array of floats."
        ) from None
    if not (math.isfinite(array.item()) if array.size == 1 else _are_finite(array)):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise PxUsageError(
            f"`{name}` holds {array[where]} at {list(where)}.\n"
            "A model's matrices must be finite; NaN marks missing values in the observations only."
        )
    return array


def _are_finite(array: Array) -> bool:
    """Whether all numbers are: one that is not spoils the sum of squares, which may overflow without any."""
    flat = array.ravel()
    return math.isfinite(flat.dot(flat)) or bool(np.isfinite(flat).all())


def as_matrices(name: str, value: Any, rows: int | None, columns: int | None) -> Array:
    """Return a constant matrix as `(1, rows, columns)`, a time-varying one as `(n_steps, rows, columns)`."""
    array = as_array(name, value)
    if array.ndim < 2:
        array = array.reshape(1, -1) if rows in (None, 1) else array.reshape(-1, 1)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or not _fits(array.shape[1:], (rows, columns)) or array.shape[0] == 0:
        raise PxUsageError(_shape_message(name, np.shape(value), (rows, columns)))
    return array


def as_vectors(name: str, value: Any, length: int) -> Array:
    """Return a constant vector as `(1, length)`, a time-varying one as `(n_steps, length)`."""
    if value is None:
        return np.zeros((1, length))
    array = as_array(name, value)
    if array.ndim == 0 and length == 1:
        array = array.reshape(1, 1)
    elif array.ndim == 1 and array.size == length:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != length or array.shape[0] == 0:
        raise PxUsageError(
            f"`{name}` has shape {np.shape(value)}; it must be ({length},), or (n_steps, {length}) when it "
            "changes with time."
        )
    return array


def as_covariances(name: str, value: Any, size: int | None) -> Array:
    """Return symmetric positive semi-definite matrices `(1 or n_steps, size, size)`, exactly symmetric."""
    array = as_matrices(name, value, size, size)
    if array.shape[1] != array.shape[2]:
        raise PxUsageError(f"`{name}` has shape {np.shape(value)}; a covariance matrix is square.")
    diagonal = array.diagonal(0, 1, 2)
    if np.count_nonzero(array) > np.count_nonzero(diagonal) and (array != array.transpose(0, 2, 1)).any():
        check_symmetric(name, array)
        array = np.ascontiguousarray((array + array.transpose(0, 2, 1)) / 2)
    check_definite(name, array)
    return array


def check_symmetric(name: str, array: Array) -> None:
    """Raise if any of the matrices `(k, size, size)` differs from its transpose by more than round-off."""
    gap = np.abs(array - array.transpose(0, 2, 1))
    if gap.size and gap.max() > ROUND_OFF * max(np.abs(array).max(), np.finfo(float).tiny):
        step, i, j = (int(k) for k in np.unravel_index(gap.argmax(), gap.shape))
        raise PxUsageError(
            f"`{name}` is not symmetric{_at(array, step)}: element [{i}, {j}] is {array[step, i, j]:.6g}, "
            f"[{j}, {i}] is {array[step, j, i]:.6g}.\nIf this is round-off, pass ({name} + {name}.T) / 2."
        )


def check_definite(name: str, array: Array) -> None:
    """Raise if any of the symmetric matrices `(k, size, size)` has a negative eigenvalue beyond round-off."""
    diagonal = array.diagonal(0, 1, 2)
    if np.count_nonzero(array) == np.count_nonzero(diagonal) and not (diagonal < 0).any():
        return
    lowest, limit = _lowest(array), _negative(array)
    if (lowest < limit).any():
        step = int((lowest - limit).argmin())
        raise PxUsageError(
            f"`{name}` is no covariance{_at(array, step)}: its smallest eigenvalue is {lowest[step]:.4g}.\n"
            "A covariance has no negative eigenvalue: check signs and off-diagonal elements."
        )


def are_definite(arrays: Array) -> NDArray[np.bool_]:
    """Tell of each `(n, …, size, size)` whether all its symmetric matrices are positive semi-definite."""
    if arrays.shape[-1] == 1:
        fine = (arrays >= 0).reshape(len(arrays), -1)
    else:
        fine = (_lowest(arrays) >= _negative(arrays)).reshape(len(arrays), -1)
    return np.asarray(fine.all(axis=1))


def _lowest(arrays: Array) -> Array:
    """The smallest eigenvalues."""
    diagonal = np.diagonal(arrays, axis1=-2, axis2=-1)
    if np.count_nonzero(arrays) == np.count_nonzero(diagonal):
        return diagonal.min(axis=-1, initial=np.inf)
    return np.asarray(np.linalg.eigvalsh(arrays)[..., 0])


def _negative(arrays: Array) -> Array:
    """The limits below which an eigenvalue counts as negative."""
    return np.asarray(-ROUND_OFF * np.abs(arrays).max(axis=(-2, -1)))


@functools.cache
def identity(size: int) -> Array:
    """Return the identity matrix, (1, size, size) and read-only."""
    return freeze(np.eye(size)[None])


def common_steps(lengths: dict[str, int]) -> int | None:
    """Return the one number of steps of all time-varying parts, None if all are constant."""
    varying = {name: steps for name, steps in lengths.items() if steps != 1}
    if not varying:
        return None
    if len(set(varying.values())) > 1:
        told = ", ".join(f"`{name}` {steps}" for name, steps in varying.items())
        raise PxUsageError(f"Time-varying parts differ in their number of steps: {told}.\nGive each the same number.")
    return next(iter(varying.values()), None)


def freeze(array: Array) -> Array:
    """Return the array C-contiguous and read-only."""
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    (rows, columns), (rows_wanted, columns_wanted) = shape, wanted
    return rows_wanted in (None, rows) and columns_wanted in (None, columns)


def _at(array: Array, step: int) -> str:
    return f" at step {step}" if len(array) > 1 else ""


def _shape_message(name: str, got: tuple[int, ...], wanted: tuple[int | None, ...]) -> str:
    rows, columns = ("any" if size is None else size for size in wanted)
    return (
        f"`{name}` has shape {got}; it must be ({rows}, {columns}), or (n_steps, {rows}, {columns}) when it "
        "changes with time.\nStates are counted by `transition_matrix`, observations by the rows of "
        "`observation_matrix`."
    )
