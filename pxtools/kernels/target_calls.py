"""What a target may return, and the words when it returns something else.

Both tiers of every kernel use these functions, so that a compiled and an uncompiled walk accept the same values and
fail with the same message. Standard library and NumPy only: this module travels to engines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import TargetError


def name_of(target: Callable[..., Any]) -> str:
    """Return the name under which the user knows the target, also for partials and callable objects."""
    function = getattr(target, "func", target)
    return str(getattr(function, "__name__", type(function).__name__))


def call_text(target: Callable[..., Any], point: Sequence[float], is_scalar: bool) -> str:
    """Return the call as the user would type it to see the same value: `gaussian(0.5, 0.25)`."""
    numbers = ", ".join(repr(float(coordinate)) for coordinate in point)
    arguments = numbers if is_scalar else f"np.array([{numbers}])"
    return f"{name_of(target)}({arguments})"


def number_of(result: object) -> float | None:
    """Return the real number that `result` is, or None when it is none.

    Python and NumPy real scalars, booleans and 0-d arrays are numbers, and so is anything with `__float__`. Arrays with
    a dimension (even of one element), complex numbers, strings and None are not: they mean that the target computes
    something else.
    """
    if isinstance(result, (float, int)):
        return float(result)
    if isinstance(result, (str, bytes, complex, np.complexfloating, np.character)):
        return None
    if isinstance(result, np.ndarray):
        return number_of(result.item()) if result.ndim == 0 else None
    if getattr(result, "shape", ()) != () or not hasattr(result, "__float__"):
        return None
    try:
        return float(result)
    except (TypeError, ValueError):
        return None


def checked_number(target: Callable[..., Any], result: object, point: Sequence[float], is_scalar: bool) -> float:
    """Return `result` as a float, or raise a `TargetError` that names function, value and point."""
    number = number_of(result)
    if number is None:
        raise TargetError(
            f"{call_text(target, point, is_scalar)} returned {_described(result)}, where one real number is needed.\n"
            f"{_remedy(result)}"
        )
    return number


def as_values(function: Callable[..., Any], values: NDArray[Any], n_points: int) -> NDArray[np.float64]:
    """Return one float64 per point.

    Raises
    ------
    TargetError
        Another shape, or no real numbers.
    """
    if values.shape != (n_points,) or values.dtype.kind not in "fiub":
        raise TargetError(
            f"{name_of(function)}(points), with points of {n_points} rows, returned an array of shape {values.shape} "
            f"and type {values.dtype}, where shape ({n_points},) of real numbers is needed.\n"
            f"Return one number per row: `.sum(axis=1)`, or leave --vectorized out."
        )
    return np.ascontiguousarray(values, dtype=np.float64)


def _described(result: object) -> str:
    shape = getattr(result, "shape", ())
    if shape:
        return f"an array of shape {tuple(shape)}"
    text = repr(result)
    return text if len(text) <= 60 else f"a {type(result).__name__}"


def _remedy(result: object) -> str:
    if result is None:
        return "Is a `return` missing?"
    if getattr(result, "shape", ()):
        return "Reduce it to a number: `.sum()` for the log-densities of independent data, `.item()` for one element."
    if isinstance(result, (complex, np.complexfloating)):
        return "Return its real part, or `abs(...)`, if that is the density meant."
    return "Return a float."


def refuse_value(
    target: Callable[..., Any], value: float, point: Sequence[float], is_scalar: bool, is_density: bool
) -> None:
    """Raise the `TargetError` for a value that no density can have: negative, or plus infinity."""
    call = f"{call_text(target, point, is_scalar)} returned {value!r}"
    if is_density and value < 0:
        raise TargetError(f"{call}. A density is never negative;\nif this is a log-density, leave out --density.")
    kind = "A density" if is_density else "A log-density"
    raise TargetError(
        f"{call}. {kind} is finite where a chain can be;\nlook for a division by zero or an overflow there."
    )


def is_refused(value: float, is_density: bool) -> bool:
    """Tell whether `value` is one that no density can have."""
    return value == math.inf or (is_density and value < 0)


def note_call(error: BaseException, target: Callable[..., Any], point: Sequence[float], is_scalar: bool) -> None:
    """Attach the failing call to an exception that the target raised; its type stays what it was."""
    error.add_note(f"raised by the target in {call_text(target, point, is_scalar)}")
