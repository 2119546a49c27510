"""NumPy twin of the compiled log-likelihood and gradient of models with free parameters.

The formulas stand in `kalman_free.h`.
"""

from __future__ import annotations

import numpy as np

from pxtools.kernels import kalman_free_layout as layout
from pxtools.kernels.kalman_free_layout import BELOW_ZERO, FreeNumbers
from pxtools.kernels.kalman_numpy import univariate_filter
from pxtools.kernels.kalman_results import Array, Counts, Filtered
from pxtools.kernels.kalman_score_numpy import through_start, univariate_score

#: a transition raised to the power of 2 to the power of MAX_DOUBLINGS has vanished, or never will
MAX_DOUBLINGS, VANISHED = 40, 1e-30


class Likelihood:
    """The log-likelihood of series as a function of a model's free parameters.

    Parameters
    ----------
    y : (n_series, n_steps, n_obs)
    numbers : FreeNumbers

    Attributes
    ----------
    is_exact : bool
        Whether gradients are exact to round-off: F or H that move while part of the state is infinite are followed by
        differences in those steps.
    """

    def __init__(self, y: Array, numbers: FreeNumbers) -> None:
        if y.ndim != 3 or y.size == 0 or y.shape[2] != numbers.n_obs:
            raise ValueError("y must be (n_series, n_steps, n_obs) and not empty")
        for part, shape in enumerate(numbers.shapes):
            layout.matrix_step(shape, part, y.shape[1])
        self.y, self.numbers, self.is_exact = y, numbers, numbers.is_exact

    def at(self, moves: Array, gradients: bool = True) -> tuple[Array, Array, Counts]:
        """Return log-likelihoods and gradients where the parameters have moved.

        Parameters
        ----------
        moves : (n_points, n_params)
        gradients : bool
            Whether they are wanted.

        Returns
        -------
        array, array, array
            The log-likelihood of all series together (n_points,), minus infinity where there is no model; its
            gradients (n_points, n_params), none if not wanted, NaN where the diffuse start does not end in the same
            step for models nearby; how many innovation variances lost over ten digits (n_points,).
        """
        found = [self._one(move, gradients) for move in moves]
        slopes = np.array([one[1] for one in found if gradients]).reshape(-1, self.numbers.n_params)
        return np.array([one[0] for one in found]), slopes, np.array([one[2] for one in found], dtype=np.int64)

    def _one(self, move: Array, gradient: bool) -> tuple[float, Array, int]:
        numbers = self._numbers(move)
        none = np.zeros(self.numbers.n_params)
        if numbers is None:
            return -np.inf, none, 0
        parts = self.numbers.parts(numbers)
        noise = self._noise(parts)
        if not self._settle_start(parts, noise):
            return -np.inf, none, 0
        starts = [np.repeat(part[None], len(self.y), axis=0) for part in (parts[6], parts[7], self.numbers.diffuse_cov)]
        system = [*parts[:2], noise, *parts[3:6], *starts]
        filtered = univariate_filter(self.y, *system)  # type: ignore[arg-type]
        total = float(filtered.log_likelihood.sum())
        if not np.isfinite(total):
            return -np.inf, none, filtered.n_cancelled
        return total, self._gradient(move, system, parts, filtered) if gradient else none, filtered.n_cancelled

    def _numbers(self, move: Array) -> Array | None:
        own, numbers = self.numbers, self.numbers.at(move)
        where = own.variances
        if not (numbers[where] >= -BELOW_ZERO * np.abs(own.base[where])).all():
            return None
        numbers[where] = np.maximum(numbers[where], 0.0)
        return numbers

    def _noise(self, parts: list[Array]) -> Array:
        if not self.numbers.spreads:
            return parts[layout.Q]
        noise = parts[layout.G] @ parts[layout.Q] @ parts[layout.G].swapaxes(1, 2)
        return np.asarray((noise + noise.swapaxes(1, 2)) / 2)

    def _settle_start(self, parts: list[Array], noise: Array) -> bool:
        rows = self.numbers.stationary
        if not rows.size:
            return True
        block = np.ix_(rows, rows)
        x, P, settles = settled(parts[layout.F][0][block], parts[layout.C][0][rows], noise[0][block])
        parts[layout.X][rows], parts[layout.P][block] = x, (P + P.T) / 2
        return settles

    def _gradient(self, move: Array, system: list[Array], parts: list[Array], filtered: Filtered) -> Array:
        own = self.numbers
        by_number = np.zeros(len(own.base))
        slopes = own.parts(by_number)
        by_noise = np.zeros_like(system[2])
        lengths = tuple(map(len, system[:6]))
        F, H, _, R, _, d = system[:6]
        found = univariate_score(self.y, F, H, R, d, filtered, lengths, np.arange(own.n_states**2))
        for part in (layout.F, layout.H, layout.R, layout.C, layout.D):
            slopes[part] += np.asarray(found[part])
        by_noise += np.asarray(found.Q)
        r, N = found.r[:, 0], found.N[:, 0]
        slopes[layout.X] += r.sum(axis=0)
        slopes[layout.P] += ((r[:, :, None] * r[:, None, :] - N) / 2).sum(axis=0)
        if own.stationary.size:
            self._gather_start(slopes, by_noise, parts)
        if own.spreads:
            spread, disturbances = parts[layout.G], parts[layout.Q]
            by_Q, by_G = spread.swapaxes(1, 2) @ by_noise @ spread, 2 * by_noise @ spread @ disturbances
            slopes[layout.Q] += by_Q.sum(axis=0) if len(slopes[layout.Q]) == 1 else by_Q
            slopes[layout.G] += by_G.sum(axis=0) if len(slopes[layout.G]) == 1 else by_G
        else:
            slopes[layout.Q] += by_noise
        gradient = self._pulled_back(move, by_number)
        n_diffuse = filtered.diffuse_cov.shape[1]
        if n_diffuse and own.moved_parts & {layout.F, layout.H}:
            turns = [own.parts(self._slope(move, k))[:2] for k in range(own.n_params)]
            slopes_FH = tuple(np.stack([turn[which] for turn in turns]) for which in (0, 1))
            gradient += through_start(univariate_filter, self.y, system, slopes_FH, n_diffuse, found)
        return gradient

    def _gather_start(self, slopes: list[Array], by_noise: Array, parts: list[Array]) -> None:
        rows = self.numbers.stationary
        block = np.ix_(rows, rows)
        F, x, P = parts[layout.F][0][block], parts[layout.X][rows], parts[layout.P][block]
        by_x, by_P, settles = settled(F.T, slopes[layout.X][rows], slopes[layout.P][block])
        slopes[layout.C][0][rows] += by_x
        by_noise[0][block] += by_P if settles else np.nan
        slopes[layout.F][0][block] += 2 * by_P @ F @ P + np.outer(by_x, x)

    def _slope(self, move: Array, k: int) -> Array:
        """Return the derivatives of the numbers by one parameter."""
        own = self.numbers
        slope = np.zeros(len(own.base))
        for one, other in ((own.first, own.second), (own.second, own.first)):
            factors = np.where(other < 0, 1.0, move[other])
            np.add.at(slope, own.where[one == k], (own.weight * factors)[one == k])
        return slope

    def _pulled_back(self, move: Array, by_number: Array) -> Array:
        return np.array([self._slope(move, k) @ by_number for k in range(self.numbers.n_params)])


def settled(A: Array, x: Array, P: Array) -> tuple[Array, Array, bool]:
    """Return the solutions of `s = A s + x` and `S = A S A' + P`, and whether there are any.

    The sums of `A^i x` and `A^i P A'^i` are doubled in length by each step (Smith, 1968, Matrix equation XA + BX = C).
    """
    size = 0.0
    with np.errstate(all="ignore"):
        for _ in range(MAX_DOUBLINGS):
            P, x = P + A @ P @ A.T, x + A @ x
            A = A @ A
            size = float(np.abs(A).max(initial=0.0))
            if not size > VANISHED or size > 1 / VANISHED:
                break
    return x, P, bool(size <= VANISHED and np.isfinite(P).all())
