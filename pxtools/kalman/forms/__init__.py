"""The forms of the filter: one file each, all with the same arguments and the same result."""

from __future__ import annotations

from collections.abc import Callable

from pxtools.kalman.forms import cholesky, generated, information, square_root, univariate
from pxtools.kalman.system import System
from pxtools.kernels.kalman_results import Array, Filtered

#: the form's name, as `--form` takes it, and its filter
FORMS: dict[str, Callable[[System, Array, bool], Filtered]] = {
    "univariate": univariate.run,
    "cholesky": cholesky.run,
    "sqrt": square_root.run,
    "information": information.run,
    "generated": generated.run,
}

__all__ = ["FORMS", "System"]
