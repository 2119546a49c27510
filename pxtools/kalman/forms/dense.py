"""Long rows with independent noise: each step of the filter is one compiled plan of `pxtools.expr`.

The plan takes the row in blocks, one after another, and so has no k×k factor: 3 n² k flops instead of
3 n² k + 3 n k² + k³/3; F*P*F.T costs 3 n³ instead of 4 n³, because it knows that covariances are symmetric.

Reference: Anderson & Moore (1979), Optimal Filtering, section 6.4.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from pxtools.kernels.kalman_results import STEADY, Array, Filtered

if TYPE_CHECKING:
    from pxtools.expr import CompiledFormula

#: what a plan costs more than the kernel, in flops that take as long: to be made, for each step, and its lower rate
PLANNING, STEP_COST, RATE = 2e9, 2e7, 1.5
#: after so many steps the covariances of a constant model usually stand still
TRANSIENT = 50

#: letters of `kalman_results`; v is the innovation, S its covariance
STEP = """
_S             = H*P*H.T + R
_v             = y - H*x
filtered_mean  = x + P*H.T*_S.I*_v
filtered_cov   = P - P*H.T*_S.I*H*P
log_likelihood = -0.5*(_v.T*_S.I*_v + logdet(_S) + constant)
predicted_mean = c + F*filtered_mean
predicted_cov  = F*filtered_cov*F.T + Q
"""
STEP_SAID = "x, y, c: vector; P, Q: positive_semidefinite; R: diagonal, positive_definite; constant: scalar"
PREDICTION = """
predicted_mean = c + F*x
predicted_cov  = F*P*F.T + Q
"""


@cache
def _formulas() -> tuple[CompiledFormula, CompiledFormula]:
    from pxtools.expr import compile  # loads SciPy's BLAS

    step = compile(STEP, assumptions=STEP_SAID, name="step", form="sequential")
    return step, compile(PREDICTION, assumptions="x, c: vector; P, Q: positive_semidefinite", name="prediction")


def pays(y: Array, F: Array, R: Array, is_constant: bool) -> bool:
    """Return whether plans are faster than the kernel for rows `y` (n_series, n_steps, n_obs)."""
    (n_series, n_steps, k), n = y.shape, F.shape[1]
    n_moving = n_series * (min(n_steps, TRANSIENT) if is_constant else n_steps)
    kernel, plan = 3.0 * n * n * k + 3.0 * n * k * k + k**3 / 3 + 4.0 * n**3, 3.0 * n * n * (k + n)
    if n_moving * (kernel - RATE * plan - STEP_COST) < PLANNING:
        return False
    diagonals = np.diagonal(R, axis1=1, axis2=2)
    return bool(np.count_nonzero(R) == diagonals.size and np.all(diagonals > 0))


def filter_rows(
    y: Array,
    F: Array,
    H: Array,
    Q: Array,
    R: Array,
    c: Array,
    d: Array,
    x: Array,
    P: Array,
    Pinf: Array,
    steady: bool = True,
) -> Filtered:
    """Filter every series: arguments, result and errors of `kalman_numpy.cholesky_filter`, for diagonal R."""
    (n_series, n_steps, m), n = y.shape, F.shape[1]
    pm, pc = np.empty((n_series, n_steps + 1, n)), np.empty((n_series, n_steps + 1, n, n))
    fm, fc = np.empty((n_series, n_steps, n)), np.empty((n_series, n_steps, n, n))
    log_lik = np.zeros((n_series, n_steps))
    may_settle = steady and len(F) == len(H) == len(Q) == len(R) == 1
    for s in range(n_series):
        pm[s, 0], pc[s, 0] = x[s], P[s]
        settled: _Settled | None = None
        for t in range(n_steps):
            row, Ht, Rt = _present(y[s, t] - _at(d, t), _at(H, t), np.diagonal(_at(R, t)))
            settled = settled if row.size == m else None
            if settled is not None:
                fm[s, t], log_lik[s, t] = settled.step(pm[s, t], row)
                fc[s, t], pc[s, t + 1] = fc[s, t - 1], pc[s, t]
                pm[s, t + 1] = _at(c, t) + F[0] @ fm[s, t]
                continue
            step = _step(pm[s, t], pc[s, t], _at(F, t), Ht, _at(Q, t), Rt, _at(c, t), row, t)
            fm[s, t], fc[s, t], pm[s, t + 1], pc[s, t + 1], log_lik[s, t] = step
            if may_settle and row.size == m and _stands_still(pc[s, t + 1], pc[s, t]):
                settled = _Settled(pc[s, t], Ht, Rt)
    none, used = np.zeros((n_series, 0, n, n)), np.zeros((n_series, 0, m), dtype=np.uint8)
    return Filtered(pm, pc, fm, fc, log_lik, none, none.copy(), used, np.zeros((n_series, n, n)), 0)


def _at(part: Array, t: int) -> Array:
    found: Array = part[t if len(part) > 1 else 0]
    return found


def _present(row: Array, H: Array, R: Array) -> tuple[Array, Array, Array]:
    """Return what is observed of a row, and what belongs to it."""
    here = ~np.isnan(row)
    return (row, H, R) if here.all() else (row[here], H[here], R[here])


def _step(
    x: Array, P: Array, F: Array, H: Array, Q: Array, R: Array, c: Array, row: Array, t: int
) -> tuple[Array, Array, Array, Array, float]:
    """Return filtered moments, moments predicted for the next step, and the log-likelihood; R is a diagonal."""
    from pxtools.expr import NotPositiveDefinite

    update, prediction = _formulas()
    if not row.size:
        moved = prediction(x=x, P=P, F=F, Q=Q, c=c)
        return x, P, moved.predicted_mean, moved.predicted_cov, 0.0
    try:
        done = update(x=x, P=P, H=H, R=R, y=row, F=F, Q=Q, c=c, constant=row.size * math.log(2 * math.pi))
    except NotPositiveDefinite:
        raise np.linalg.LinAlgError(f"the innovation covariance at step {t} is not positive definite") from None
    return done.filtered_mean, done.filtered_cov, done.predicted_mean, done.predicted_cov, done.log_likelihood


def _stands_still(P: Array, before: Array) -> bool:
    """Return whether no entry changed beyond round-off, measured in its standard deviations."""
    scale = np.sqrt(np.diagonal(P))
    return bool(np.all(np.abs(P - before) <= STEADY * np.outer(scale, scale)))


class _Settled:
    """Covariances that stand still: the mean moves by a constant gain."""

    def __init__(self, P: Array, H: Array, R: Array) -> None:
        cross = P @ H.T
        S = H @ cross + np.diag(R)
        self.H, self.root = H, np.linalg.inv(np.linalg.cholesky(S))
        self.gain = cross @ self.root.T @ self.root
        self.constant = -0.5 * len(S) * math.log(2 * math.pi) + float(np.log(np.diagonal(self.root)).sum())

    def step(self, x: Array, row: Array) -> tuple[Array, float]:
        """Return the filtered mean and the log-likelihood of a row."""
        v = row - self.H @ x
        white = self.root @ v
        return x + self.gain @ v, self.constant - 0.5 * float(white @ white)
