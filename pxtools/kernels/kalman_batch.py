"""The passes over many series of the best tier there is: compiled if the package was built here, NumPy otherwise."""

from __future__ import annotations

from pxtools.kernels import kalman_batch_numpy

#: "compiled" or "numpy"
TIER = "compiled"

try:
    from pxtools.kernels._kalman_batch import lanes_pass, means_pass, patterns
except ImportError:  # not compiled here, or shipped to an engine as source
    lanes_pass, means_pass = kalman_batch_numpy.lanes_pass, kalman_batch_numpy.means_pass
    patterns = kalman_batch_numpy.patterns
    TIER = "numpy"

__all__ = ["TIER", "lanes_pass", "means_pass", "patterns"]
