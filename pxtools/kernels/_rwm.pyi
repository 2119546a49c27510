from collections.abc import Callable
from typing import Any

from numpy import float64, int64
from numpy.random import Generator
from numpy.typing import NDArray

def walk(
    target: Callable[..., Any],
    x: NDArray[float64],
    value: float,
    n_steps: int,
    generator: Generator,
    *,
    box: NDArray[float64],
    is_density: bool,
    is_scalar: bool,
    first_kept: int,
    thin: int,
    draws: NDArray[float64],
    values: NDArray[float64],
    counts: NDArray[int64],
    first_nan: NDArray[float64],
) -> float: ...
