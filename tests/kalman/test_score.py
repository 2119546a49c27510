"""Derivatives of the log-likelihood: the compiled pass against its twin, and against differences of the filter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxtools.kalman import (
    FreeModel,
    StateSpaceModel,
    arima,
    cycle,
    free,
    local_level,
    local_linear_trend,
    log_likelihood,
    regression,
    seasonal,
)
from pxtools.kalman.fitting.ml import start_of
from pxtools.kalman.fitting.problem import Problem
from pxtools.kalman.system import system_of
from pxtools.kernels import kalman, kalman_numpy, kalman_score_numpy
from tests.kalman.models import random_model
from tests.kalman.test_kernels import compiled, same, systems

INITIAL = ("known", "diffuse")


def score(kernel, y, system, filtered, n_left_out=0):
    n = system.F.shape[1]
    lengths = tuple(map(len, system[:6]))
    return kernel(y, system.F, system.H, system.R, system.d, filtered, lengths, np.arange(n * n), n_left_out)


@compiled
@settings(max_examples=100, deadline=None)
@given(case=systems(initial=INITIAL), n_left_out=st.integers(0, 12))
def test_compiled_score_equals_its_twin(case, n_left_out):
    system, y = case
    filtered = kalman.univariate_filter(y, *system)
    got = score(kalman.univariate_score, y, system, filtered, n_left_out)
    wanted = score(kalman_score_numpy.univariate_score, y, system, filtered, n_left_out)
    # diffuse steps that hardly tell directions apart leave variances, and cancellations, of any size
    largest = np.abs(filtered.predicted_cov).max()
    same(got, wanted, rtol=max(1e-11, 1e-16 * largest**2))


@compiled
def test_score_of_a_long_series_that_settles_equals_its_twin_also_after_a_gap():
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (3, 2), (9, 1)):
        system = system_of(random_model(n, n, m), 2, 400)
        y = rng.normal(size=(2, 400, m))
        y[0, 200], y[1, 100:103, 0] = np.nan, np.nan
        filtered = kalman.univariate_filter(y, *system)
        wanted = kalman_score_numpy.univariate_score
        same(
            score(kalman.univariate_score, y, system, filtered),
            score(wanted, y, system, kalman_numpy.univariate_filter(y, *system)),
            1e-10,
        )


def difference(y, system, which, direction, step=1e-6):
    def at(length):
        moved = system._replace(**{which: getattr(system, which) + length * direction})
        return kalman.univariate_filter(y, *moved, steady=False).log_likelihood.sum()

    # fourth order: the error is that of round-off
    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


@pytest.mark.parametrize("which", ["F", "H", "Q", "R", "c", "d", "x", "P"])
@settings(max_examples=25, deadline=None)
@given(case=systems(max_states=8), seed=st.integers(0, 1000))
def test_score_equals_differences_of_the_log_likelihood(which, case, seed):
    system, y = case
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=getattr(system, which).shape)
    if which in "QRP":
        direction = direction + direction.swapaxes(-1, -2)
    found = score(kalman.univariate_score, y, system, kalman.univariate_filter(y, *system))
    if which == "x":
        slope = np.einsum("si,si", found.r[:, 0], direction)
    elif which == "P":
        r, N = found.r[:, 0], found.N[:, 0]
        slope = np.einsum("sij,sij", (r[:, :, None] * r[:, None, :] - N) / 2, direction)
    else:
        slope = (getattr(found, which) * direction).sum()
    wanted = difference(y, system, which, direction, 1e-4)
    assert slope == pytest.approx(wanted, rel=1e-6, abs=1e-6 * (1 + abs(wanted)))


@pytest.mark.parametrize("which", ["Q", "R", "c", "d"])
@settings(max_examples=25, deadline=None)
@given(case=systems(max_states=3, initial=("diffuse",)), seed=st.integers(0, 1000))
def test_score_is_exact_through_a_diffuse_start(which, case, seed):
    system, y = case
    direction = np.random.default_rng(seed).normal(size=getattr(system, which).shape)
    if which in "QR":
        direction = direction + direction.swapaxes(-1, -2)
    filtered = kalman.univariate_filter(y, *system)
    if np.abs(filtered.predicted_cov).max() > 1000:
        return
    found = score(kalman.univariate_score, y, system, filtered)
    wanted = difference(y, system, which, direction, 1e-4)
    assert (getattr(found, which) * direction).sum() == pytest.approx(wanted, rel=1e-5, abs=1e-5 * (1 + abs(wanted)))


VARIANCE = free(1.3, lower=0)
HALF = np.array([[1.0, 0.5], [0.0, 1.0]])


def trend(a, b, c, d):
    return local_linear_trend(a, b, observation_var=d) + seasonal(4, c)


def free_rows(a, q, r, s, k):
    known = {"initial_mean": [0], "initial_cov": [[9]]}
    return StateSpaceModel([[1]], [[1], [a]], [[q]], [[r, 0.5 * k], [0.5 * k, s]], **known)


def numbers(c, d, x, p):
    start = {"initial_mean": [x], "initial_cov": [[p]]}
    return StateSpaceModel([[0.5]], [[1]], [[1]], [[1]], transition_intercept=[c], observation_intercept=[d], **start)


def seasonal_arima(a, b, A, B, v):
    return arima([a], [b], v, d=1, period=4, seasonal_ar=[A], seasonal_ma=[B], seasonal_d=1)


def many_states(q, r):
    return StateSpaceModel(0.9 * np.eye(16), np.eye(4, 16) + 0.1, q * np.eye(16), r * np.eye(4), initial="stationary")


#: builds, marks, columns of y, and how the arrays are known: as polynomials of degree 1 or 2, or (0) by building
MODELS = {
    "level": (lambda a, b: local_level(a, observation_var=b), "VV", 1, 1),
    "trend and season": (trend, "VVVV", 1, 1),
    "stationary start": (lambda a, b, v, m: arima([a], [b], v, mean=m), "NNVN", 1, 1),
    "F in diffuse steps": (lambda a, b, v: arima([a], [b], v, d=1), "NNV", 1, 1),
    "seasonal ARIMA": (seasonal_arima, "NNNNV", 1, 2),
    "H in diffuse steps": (
        lambda a, q, r: StateSpaceModel([[1]], [[1], [a]], [[q]], np.diag([r, 1.0])),
        "NVV",
        2,
        1,
    ),
    "H and correlated noise": (free_rows, "NVVVN", 2, 1),
    "intercepts and start": (numbers, "NNNV", 1, 1),
    "mean of a stationary start": (
        lambda f, c: StateSpaceModel([[f]], [[1]], [[1]], [[1]], transition_intercept=[c], initial="stationary"),
        "NN",
        1,
        1,
    ),
    "factor of a covariance": (
        lambda a, b: StateSpaceModel(np.eye(2), np.eye(2), np.eye(2), a * a * HALF @ HALF.T + b * np.eye(2)),
        "NV",
        2,
        2,
    ),
    "regression": (lambda v, b: regression(np.arange(80.0)[:, None] / 80, v, observation_var=b), "VV", 1, 1),
    "any function": (lambda a, b: local_level(np.exp(a), observation_var=np.exp(b)), "NN", 1, 0),
    "cycle": (lambda p, v: cycle(10 + p, v, observation_var=1.0), "NV", 1, 0),
    "many states, at once": (many_states, "VV", 4, 0),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradient_of_a_fit_equals_differences_of_its_log_likelihood(name):
    build, marks, columns, degree = MODELS[name]
    names = build.__code__.co_varnames[: len(marks)]
    model = FreeModel(build, {n: VARIANCE if mark == "V" else free(0.3) for n, mark in zip(names, marks, strict=True)})
    rng = np.random.default_rng(4)
    y = np.cumsum(rng.normal(size=(2, 80, columns)), axis=1)
    y[0, 10:14], y[1, 30, 0] = np.nan, np.nan
    problem, place = start_of(model, y)
    assert _degree(problem) == degree
    place = place + 0.1 * rng.normal(size=len(place))
    look = problem.look(place)
    assert look.exact_gradient() is not None

    def at(step):
        return np.array([problem.look(place + step * axis).total for axis in np.eye(len(place))])

    wanted = (8 * (at(1e-4) - at(-1e-4)) - (at(2e-4) - at(-2e-4))) / 12e-4
    np.testing.assert_allclose(look.gradient() * problem.n_values, wanted, rtol=1e-7, atol=1e-7 * np.abs(wanted).max())
    built = problem._replace(template=None).look(place)
    assert look.total == pytest.approx(built.total, rel=1e-10)


def _degree(problem: Problem):
    if problem.template is None:
        return 0
    return 2 if (problem.template.numbers.second >= 0).any() else 1


def test_a_covariance_that_the_end_of_the_diffuse_phase_leaves_by_chance_does_not_stand_still():
    """The level's start is infinite, the rest stationary: its predicted covariance is the same for the second step."""
    y = np.cumsum(np.random.default_rng(3).normal(size=30))
    # statsmodels, SARIMAX(y, order=(1, 1, 0), use_exact_diffuse=True).loglike([0.4, 1.3])
    assert log_likelihood(arima([0.4], var=1.3, d=1), y) == pytest.approx(-46.5508348175121, rel=1e-12)
