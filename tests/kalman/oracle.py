"""The truth for small models: the joint normal of all states and observations, written down densely.

Nothing here runs through time: states are linear in (infinite directions, initial state, disturbances), and all
answers are conditional moments of one big normal. Infinite directions are flat priors, solved by generalised least
squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pxtools.kalman import StateSpaceModel


@dataclass
class Dense:
    """`z = mean + A delta + e`, e ~ N(0, cov), delta flat; z holds all states, then all observations."""

    mean: np.ndarray
    cov: np.ndarray
    A: np.ndarray
    n_steps: int
    n: int
    m: int

    def states(self, t):
        return np.arange(t * self.n, (t + 1) * self.n)

    def rows(self, steps, y):
        """Where the observed elements of the first `steps` rows stand in z, and their values."""
        offset = self.n_steps * self.n
        where = [offset + t * self.m + i for t in range(steps) for i in range(self.m) if not np.isnan(y[t, i])]
        values = [y[t, i] for t in range(steps) for i in range(self.m) if not np.isnan(y[t, i])]
        return np.array(where, dtype=int), np.array(values)

    def given(self, y, steps, wanted):
        """Mean and covariance of z[wanted] given the first `steps` rows of y."""
        seen, values = self.rows(steps, y)
        V = self.cov[np.ix_(seen, seen)]
        C = self.cov[np.ix_(wanted, seen)]
        A, B = self.A[seen], self.A[wanted]
        solved = (
            np.linalg.solve(V, np.column_stack([values - self.mean[seen], A, C.T]))
            if len(seen)
            else np.zeros((0, 1 + A.shape[1] + len(wanted)))
        )
        v, VA, VC = solved[:, 0], solved[:, 1 : 1 + A.shape[1]], solved[:, 1 + A.shape[1] :]
        mean, cov = self.mean[wanted] + C @ v, self.cov[np.ix_(wanted, wanted)] - C @ VC
        if A.shape[1]:
            information = A.T @ VA
            delta = np.linalg.solve(information, A.T @ v)
            D = B - C @ VA
            mean, cov = mean + D @ delta, cov + D @ np.linalg.solve(information, D.T)
        return mean, cov

    def log_likelihood(self, y):
        seen, values = self.rows(self.n_steps, y)
        V, A = self.cov[np.ix_(seen, seen)], self.A[seen]
        v = values - self.mean[seen]
        solved = np.linalg.solve(V, np.column_stack([v, A]))
        total = len(v) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + v @ solved[:, 0]
        if A.shape[1]:
            information = A.T @ solved[:, 1:]
            score = A.T @ solved[:, 0]
            total += np.linalg.slogdet(information)[1] - score @ np.linalg.solve(information, score)
        return -0.5 * total


def dense(model: StateSpaceModel, n_steps: int) -> Dense:
    """Write the model down as one normal."""
    n, m, q = model.n_states, model.n_obs, model.n_noise
    F, H, Q, R, c, d, G = (
        [part[t if len(part) > 1 else 0] for t in range(n_steps)] for part in (model.parts[k] for k in "FHQRcdG")
    )
    start = model.initial_state
    wide = np.flatnonzero(np.diag(start.diffuse_cov))
    sizes = [n, *[q] * (n_steps - 1), *[m] * n_steps]
    edges = np.concatenate([[0], np.cumsum(sizes)])
    basic = np.zeros((edges[-1], edges[-1]))
    basic[:n, :n] = start.cov
    for t in range(n_steps - 1):
        basic[edges[1 + t] : edges[2 + t], edges[1 + t] : edges[2 + t]] = Q[t]
    for t in range(n_steps):
        k = n_steps + t
        basic[edges[k] : edges[k + 1], edges[k] : edges[k + 1]] = R[t]
    mean, A, maps = [start.mean], [np.eye(n)[:, wide]], [np.eye(n, edges[-1])]
    for t in range(n_steps - 1):
        step = F[t] @ maps[t]
        step[:, edges[1 + t] : edges[2 + t]] += G[t]
        maps.append(step)
        mean.append(F[t] @ mean[t] + c[t])
        A.append(F[t] @ A[t])
    for t in range(n_steps):
        row = H[t] @ maps[t]
        row[:, edges[n_steps + t] : edges[n_steps + t + 1]] += np.eye(m)
        maps.append(row)
        mean.append(H[t] @ mean[t] + d[t])
        A.append(H[t] @ A[t])
    L = np.vstack(maps)
    return Dense(np.concatenate(mean), L @ basic @ L.T, np.vstack(A), n_steps, n, m)
