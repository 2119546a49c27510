"""The initial state: known, stationary, diffuse (exact or approximate), or a mixture by state.

References: Durbin & Koopman (2012), Time Series Analysis by State Space Methods, sections 5.1-5.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError, nearest
from pxtools.kalman.checks import Array, identity
from pxtools.kernels.kalman_free import settled

KINDS = ("known", "stationary", "diffuse", "approximate")

#: variance of an approximately diffuse state, unless the model says otherwise
APPROXIMATE_VARIANCE = 1e6


class InitialState(NamedTuple):
    """The first predicted state: `N(mean, cov + k * diffuse_cov)` with k going to infinity."""

    mean: Array
    cov: Array
    diffuse_cov: Array


def kinds_of(initial: str | Sequence[str], n_states: int) -> tuple[str, ...]:
    """Return one kind for each state; a single word stands for all of them."""
    kinds = (initial,) * n_states if isinstance(initial, str) else tuple(initial)
    for kind in kinds:
        if kind not in KINDS:
            raise PxUsageError(
                f"`initial` is {kind!r}; it must be one of {', '.join(KINDS)}.{nearest(str(kind), KINDS)}"
            )
    if len(kinds) != n_states:
        raise PxUsageError(f"`initial` names {len(kinds)} states, the model has {n_states}. Name one kind for each.")
    return kinds


def initial_state(
    kinds: Sequence[str],
    mean: Array,
    cov: Array,
    transition: Array,
    state_noise: Array,
    intercept: Array,
    approximate_variance: float,
) -> InitialState:
    """Return mean, covariance and diffuse covariance of the first predicted state.

    `transition`, `state_noise` (selection applied; of no matter unless a state is stationary) and `intercept` are those
    of the first step.
    """
    if all(kind == "diffuse" for kind in kinds):
        return InitialState(mean, np.zeros(cov.shape), identity(len(mean))[0])
    where = {kind: [k for k, own in enumerate(kinds) if own == kind] for kind in set(kinds)}
    mean, known, cov, diffuse = mean.copy(), cov, np.zeros_like(cov), np.zeros_like(cov)
    if "known" in where:
        block = np.ix_(where["known"], where["known"])
        cov[block] = known[block]
    for kind, variance, into in (("diffuse", 1.0, diffuse), ("approximate", approximate_variance, cov)):
        if kind in where:
            into[where[kind], where[kind]] = variance
    if "stationary" in where:
        rows = np.array(where["stationary"])
        _check_closed(transition, rows)
        block = rows[:, None], rows
        mean[rows], cov[block] = stationary_moments(transition[block], state_noise[block], intercept[rows])
    return InitialState(mean, cov, diffuse)


def stationary_moments(transition: Array, state_noise: Array, intercept: Array) -> tuple[Array, Array]:
    """Solve `x = F x + c` and the Lyapunov equation `P = F P F' + Q` of a stationary state."""
    mean, cov, settles = settled(transition, intercept, state_noise)
    if not settles:
        radius = float(np.abs(np.linalg.eigvals(transition)).max())
        raise PxUsageError(
            f"`transition_matrix` has an eigenvalue of modulus {radius:.6g}: a stationary initial state needs all "
            'below 1.\nUse initial="diffuse", or name the kind of each state.'
        )
    return mean, (cov + cov.T) / 2


def _check_closed(transition: Array, stationary: NDArray[np.intp]) -> None:
    if len(stationary) == len(transition):
        return
    into = transition[stationary]
    into[:, stationary] = 0.0
    if into.any():
        raise PxUsageError(
            "`transition_matrix` feeds states that are not stationary into states called stationary.\n"
            'Call all of them "diffuse", or give initial_mean and initial_cov.'
        )
