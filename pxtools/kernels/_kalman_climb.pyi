"""Types of the compiled twin of `kalman_climb_numpy`."""

from collections.abc import Callable

from pxtools.kernels.kalman_climb_numpy import Hill, Place
from pxtools.kernels.kalman_results import Array

def ascend(
    hill: Hill, start: Place, gradient_goal: float, after_step: Callable[[Place], bool]
) -> tuple[Place, str]: ...
def from_line(places: Array, bounds: Array) -> Array: ...
def slopes_on_line(places: Array, bounds: Array) -> Array: ...
