"""The density of the notebooks: three Gaussians in the plane, of which everything is known exactly."""

import math

import numpy as np

from pxtools.kernels import rwm_numpy

try:
    from pxtools.kernels import _rwm
except ImportError:  # an installation without a compiler: its tests run on the twin alone
    TIERS = {"twin": rwm_numpy.walk}
else:
    TIERS = {"compiled": _rwm.walk, "twin": rwm_numpy.walk}

CENTRES = np.array([[0.5, 0.2], [0.7, 0.7], [0.3, 0.7]])
WIDTHS = np.array([[0.15, 0.04], [0.05, 0.05], [0.05, 0.07]])
MASSES = WIDTHS.prod(axis=1) / WIDTHS.prod(axis=1).sum()
MEAN = MASSES @ CENTRES
SD = np.sqrt(MASSES @ (WIDTHS**2 + CENTRES**2) - MEAN**2)


def gaussian(x, y):
    return sum(
        math.exp(-((((cx - x) / wx) ** 2) + ((cy - y) / wy) ** 2) / 2)
        for (cx, cy), (wx, wy) in zip(CENTRES.tolist(), WIDTHS.tolist(), strict=True)
    )


def exact_draws(rng, n):
    """Independent draws, (n, 2), chosen by mass."""
    mode = rng.choice(3, n, p=MASSES)
    return CENTRES[mode] + WIDTHS[mode] * rng.standard_normal((n, 2))


def call_walk(walk, target, x, n_steps, seed=1, **changes):
    """Call a kernel with its outputs allocated; returns draws, values, counts, first NaN and the last value."""
    options = {
        "is_density": True,
        "is_scalar": True,
        "step": 0.1,
        "lower": -np.inf,
        "upper": np.inf,
        "first_kept": 1,
        "thin": 1,
    }
    options |= changes
    x = np.array(x, dtype=float)
    n_kept = max(0, (n_steps - options["first_kept"]) // options["thin"] + 1)
    draws, values = np.empty((n_kept, x.size)), np.empty(n_kept)
    counts, first_nan = np.zeros(3, dtype=np.int64), np.full(x.size, np.nan)
    value = walk(
        target,
        x,
        float(target(*x.tolist()) if options["is_scalar"] else target(x.copy())),
        n_steps,
        np.random.default_rng(seed),
        box=np.array([np.full(x.size, options[name]) for name in ("step", "lower", "upper")]),
        is_density=options["is_density"],
        is_scalar=options["is_scalar"],
        first_kept=options["first_kept"],
        thin=options["thin"],
        draws=draws,
        values=values,
        counts=counts,
        first_nan=first_nan,
    )
    return draws, values, counts, first_nan, value
