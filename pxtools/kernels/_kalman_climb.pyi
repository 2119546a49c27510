"""Types of the compiled twin of `kalman_climb_numpy`."""

from collections.abc import Callable

from pxtools.kernels.kalman_climb_numpy import Hill, Moves, Place
from pxtools.kernels.kalman_results import Array, Counts

def ascend(
    hill: Hill, start: Place, gradient_goal: float, after_step: Callable[[Place], bool]
) -> tuple[Place, str]: ...
def from_line(places: Array, bounds: Array) -> Array: ...
def seen_from_line(
    likelihood: Moves, places: Array, base: Array, bounds: Array, gradients: bool
) -> tuple[Array, Array, Counts]: ...
def slopes_on_line(places: Array, bounds: Array) -> Array: ...
