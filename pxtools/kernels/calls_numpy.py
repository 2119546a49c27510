"""How uncompiled loops call their target. The twin is `_calls.pyx`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import TargetError
from pxtools.kernels.target_calls import checked_number, is_refused, note_call, refuse_value

#: called with an exception of the target, the point, and the calls so far; raises, or lets the step be rejected
OnError = Callable[[Exception, list[float], int], None]


class Caller:
    """Calls the target at a point and counts; refuses what no density can be.

    Parameters
    ----------
    target : callable
        Called with floats when `is_scalar`, else with one float64 vector that is its own to keep.
    is_scalar, is_density : bool
        What the target takes and returns.
    counts : (3,) int64 array
        NaN values are added to its last entry.
    first_nan : (n_params,) array
        Receives the first point where the target was NaN, if `counts[2]` was 0.
    on_error : callable, optional
        Decides about exceptions; without it they are raised.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        *,
        is_scalar: bool,
        is_density: bool,
        counts: NDArray[np.int64],
        first_nan: NDArray[np.float64],
        on_error: OnError | None = None,
    ) -> None:
        self.target = target
        self.is_scalar = is_scalar
        self.is_density = is_density
        self.counts = counts
        self.first_nan = first_nan
        self.on_error = on_error
        self.evaluations = 0

    def evaluate(self, point: list[float]) -> float:
        """Return the target's value at `point`."""
        self.evaluations += 1
        try:
            value = value_at(self.target, point, self.is_scalar)
        except TargetError:
            raise
        except Exception as error:
            if self.on_error is None:
                raise
            self.on_error(error, point, self.evaluations)
            return 0.0 if self.is_density else -math.inf
        if value != value:
            if self.counts[2] == 0:
                self.first_nan[:] = point
            self.counts[2] += 1
        elif is_refused(value, self.is_density):
            refuse_value(self.target, value, point, self.is_scalar, self.is_density)
        return value


def value_at(target: Callable[..., Any], point: list[float], is_scalar: bool) -> float:
    """Return the target's value at `point` as a float, not yet judged as a density."""
    try:
        result = target(*point) if is_scalar else target(np.array(point))
    except TargetError:
        raise
    except Exception as error:
        note_call(error, target, point, is_scalar)
        raise
    return result if type(result) is float else checked_number(target, result, point, is_scalar)
