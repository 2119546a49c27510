"""Small models for tests: random ones of every kind, and Hypothesis strategies over them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from pxtools.kalman import StateSpaceModel, arima, local_linear_trend, seasonal, trigonometric_seasonal


def covariance(rng, size, floor=0.3):
    A = rng.normal(size=(size, size))
    return A @ A.T / size + floor * np.eye(size)


def random_model(seed, n=2, m=2, *, n_noise=None, varying=0, diagonal=False, initial="known"):
    """Return a model with all its parts in use; `varying` is the number of steps if it changes with time."""
    rng = np.random.default_rng(seed)

    def part(make):
        return np.stack([make() for _ in range(varying)]) if varying else make()

    q = n if n_noise is None else n_noise
    known = {}
    if initial == "known":
        known = {"initial_mean": rng.normal(size=n), "initial_cov": covariance(rng, n)}
    return StateSpaceModel(
        part(lambda: 0.9 * np.linalg.qr(rng.normal(size=(n, n)))[0]),
        part(lambda: rng.normal(size=(m, n))),
        part(lambda: covariance(rng, q)),
        part(lambda: covariance(rng, m) * (np.eye(m) if diagonal else 1)),
        initial=initial,
        transition_intercept=part(lambda: rng.normal(size=n)),
        observation_intercept=part(lambda: rng.normal(size=m)),
        selection_matrix=part(lambda: rng.normal(size=(n, q))) if n_noise is not None else None,
        **known,
    )


def sparse_model(seed, n, m):
    """Return a model whose states are mostly moved, as by a seasonal or an ARIMA model, and seldom observed."""
    rng = np.random.default_rng(seed)
    F = np.eye(n, k=-1) if rng.random() < 0.5 else np.eye(n)[rng.integers(n, size=n)]
    for i in rng.integers(n, size=rng.integers(4)):
        F[i] = 0
        columns = rng.integers(n, size=rng.integers(3))
        F[i, columns] = rng.choice([1.0, -0.5, 0.7], size=len(columns))
    if rng.random() < 0.5:
        F[rng.integers(n)] = -1 / n
    H = np.zeros((m, n))
    H[np.arange(m), rng.integers(n, size=m)] = 1
    H[0, rng.integers(n)] += 0.5
    start = {"initial_mean": rng.normal(size=n), "initial_cov": covariance(rng, n)}
    return StateSpaceModel(F, H, np.diag(rng.integers(2, size=n) / 4), covariance(rng, m), **start)


def random_rows(seed, n_steps, m, missing=0.3):
    """Return observations with single elements missing, the first row complete."""
    rng = np.random.default_rng([seed, 1])
    y = rng.normal(size=(n_steps, m))
    y[rng.random(y.shape) < missing] = np.nan
    y[0] = rng.normal(size=m)
    return y


@st.composite
def cases(draw, initial=("known", "stationary", "diffuse"), max_states=4, n_steps=6):
    """Draw a model and observations with any pattern of missing elements, at least one number."""
    n, m = draw(st.integers(1, max_states)), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(initial))
    model = random_model(
        draw(st.integers(0, 10_000)),
        n,
        m,
        n_noise=draw(st.sampled_from([None, 1, n])) if kind != "stationary" else None,
        varying=draw(st.sampled_from([0, n_steps])),
        diagonal=draw(st.booleans()),
        initial=kind,
    )
    y = np.random.default_rng(draw(st.integers(0, 10_000))).normal(size=(n_steps, m)) * 2
    pattern = draw(st.lists(st.booleans(), min_size=y.size, max_size=y.size))
    y[np.array(pattern).reshape(y.shape)] = np.nan
    if np.isnan(y).all():
        y[0, 0] = 1.0
    return model, y


@st.composite
def nonstationary(draw, n_steps=30):
    """Draw a differenced ARIMA model, whose observations are exact, or a trend with a season; a series with a gap."""

    def weights(most):
        return [weight / 100 for weight in draw(st.lists(st.integers(-45, 45), max_size=most))]

    period = draw(st.sampled_from([3, 4, 6]))
    if draw(st.booleans()):
        orders = {"d": draw(st.integers(0, 2)), "seasonal_d": draw(st.integers(0, 1))}
        seasonal_parts = {"seasonal_ar": weights(1), "seasonal_ma": weights(1)}
        model = arima(
            weights(2), weights(2), draw(st.sampled_from([0.01, 1.0])), period=period, **orders, **seasonal_parts
        )
    else:
        level, slope, season = (draw(st.sampled_from([0.0, 1e-4, 0.1, 1.0])) for _ in range(3))
        model = local_linear_trend(level, slope, observation_var=draw(st.sampled_from([0.01, 1.0])))
        model = model + draw(st.sampled_from([seasonal, trigonometric_seasonal]))(period, season)
    y = np.cumsum(np.random.default_rng(draw(st.integers(0, 10_000))).normal(size=n_steps))[:, None]
    start = draw(st.integers(0, 15))
    y[start : start + draw(st.integers(0, 8))] = np.nan
    return model, y
