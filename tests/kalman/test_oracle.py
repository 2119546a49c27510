"""Every form and every pattern of missing values against the dense joint normal."""

import numpy as np
import pytest
from hypothesis import assume, given, settings

from pxtools.kalman import filter_series, local_linear_trend, seasonal, simulate
from tests.kalman.models import cases, nonstationary, random_model, random_rows
from tests.kalman.oracle import dense

FORMS = ["univariate", "cholesky", "sqrt", "information"]


def close(got, wanted, rtol=1e-9):
    """Compare relative to the largest element: small elements carry the round-off of large ones."""
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol * max(1.0, np.abs(wanted).max()))


def check_filter(model, y, form):
    truth, result = dense(model, len(y)), filter_series(model, y, form=form)
    close(result.log_likelihood, truth.log_likelihood(y))
    first = result.n_diffuse_steps
    for t in range(len(y)):
        if t > first:
            mean, cov = truth.given(y, t, truth.states(t))
            close(result.predicted_mean[t], mean)
            close(result.predicted_cov[t], cov)
        if t >= first:
            mean, cov = truth.given(y, t + 1, truth.states(t))
            close(result.filtered_mean[t], mean)
            close(result.filtered_cov[t], cov)


def check_smoother(model, y, form, rtol=1e-7):
    truth, result = dense(model, len(y)), filter_series(model, y, form=form)
    for t in range(len(y)):
        mean, cov = truth.given(y, len(y), truth.states(t))
        close(result.smoothed_mean[t], mean, rtol)
        close(result.smoothed_cov[t], cov, rtol)
        if t:
            both = np.concatenate([truth.states(t), truth.states(t - 1)])
            joint = truth.given(y, len(y), both)[1]
            close(result.smoothed_lag_one_cov[t - 1], joint[: truth.n, truth.n :], rtol)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None)
@given(case=cases(initial=("known", "stationary")))
def test_filter_equals_the_dense_normal(form, case):
    model, y = case
    if form == "information":
        assume(model.n_noise == model.n_states)
    check_filter(model, y, form)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None)
@given(case=cases(initial=("known", "stationary"), max_states=3, n_steps=5))
def test_smoother_equals_the_dense_normal(form, case):
    model, y = case
    if form == "information":
        assume(model.n_noise == model.n_states)
    check_smoother(model, y, form)


def is_determined(model, y):
    """Whether the rows of the diffuse phase pin down the diffuse states well enough for double precision."""
    truth = dense(model, len(y))
    seen, _ = truth.rows(max(filter_series(model, y).n_diffuse_steps, 1), y)
    A, V = truth.A[seen], truth.cov[np.ix_(seen, seen)]
    if A.shape[1] == 0:
        return True
    if len(seen) < A.shape[1]:
        return False
    return np.linalg.cond(A.T @ np.linalg.solve(V, A)) < 1e4


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30, deadline=None)
@given(case=cases(initial=("diffuse",), max_states=3))
def test_exact_diffuse_log_likelihood_and_smoother_equal_generalised_least_squares(form, case):
    model, y = case
    if form == "information":
        assume(model.n_noise == model.n_states)
    assume(is_determined(model, y))
    result, truth = filter_series(model, y, form=form), dense(model, len(y))
    close(result.log_likelihood, truth.log_likelihood(y), 1e-8)
    assume(result.n_diffuse_steps < len(y))
    check_filter(model, y, form)
    check_smoother(model, y, form, rtol=1e-7)


@pytest.mark.parametrize(("form", "digits"), [("univariate", 1e-5), ("sqrt", 1e-7)])
@settings(max_examples=25, deadline=None)
@given(case=nonstationary())
def test_differenced_and_seasonal_models_equal_generalised_least_squares(form, digits, case):
    """Exact observations, and states that are known, vanish or are all but known, through a diffuse start and gaps."""
    model, y = case
    truth, result, n_steps = dense(model, len(y)), filter_series(model, y, form=form), len(y)
    seen, _ = truth.rows(n_steps, y)
    V, A = truth.cov[np.ix_(seen, seen)], truth.A[seen]
    # the truth is found by inverting these, and loses as many digits
    assume(np.linalg.cond(V) < 1e8)
    assume(A.shape[1] == 0 or np.linalg.cond(A.T @ np.linalg.solve(V, A)) < 1e8)
    close(result.log_likelihood, truth.log_likelihood(y), 1e-7)
    for t in (0, 1, 4, 11, 20, n_steps - 2):
        both = np.concatenate([truth.states(t), truth.states(t + 1)])
        mean, cov = truth.given(y, n_steps, both)
        # of states that are known exactly, the truth is the round-off of what was known before
        before = 1e-3 * np.abs(truth.cov[both, both]).max()
        near = {"rtol": digits, "atol": digits * max(np.abs(cov).max(), before)}
        n = truth.n
        np.testing.assert_allclose(result.smoothed_mean[t], mean[:n], atol=digits * np.abs(mean).max())
        np.testing.assert_allclose(result.smoothed_cov[t], cov[:n, :n], **near)
        if form == "sqrt":
            np.testing.assert_allclose(result.smoothed_lag_one_cov[t], cov[n:, :n], **near)


@pytest.mark.parametrize("form", FORMS)
def test_forecasts_equal_the_dense_normal(form):
    model, y = random_model(5, 3, 2), random_rows(5, 6, 2)
    longer = np.vstack([y, np.full((4, 2), np.nan)])
    truth, forecast = dense(model, 10), filter_series(model, y, form=form).forecast(4)
    for h in range(4):
        wanted = truth.n * 10 + (6 + h) * 2 + np.arange(2)
        mean, cov = truth.given(longer, 10, wanted)
        close(forecast.mean[h], mean)
        close(forecast.cov[h], cov)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None)
@given(case=cases(initial=("known", "stationary", "diffuse"), max_states=3))
def test_disturbances_equal_the_dense_normal(form, case):
    model, y = case
    if form == "information":
        assume(model.n_noise == model.n_states)
    assume(is_determined(model, y))
    result, truth = filter_series(model, y, form=form), dense(model, len(y))
    offset = truth.n * len(y)
    part = {k: model.parts[k] for k in "FHGRcd"}

    def at(k, t):
        return part[k][t if len(part[k]) > 1 else 0]

    for t in range(len(y)):
        both = np.concatenate([truth.states(t), offset + t * truth.m + np.arange(truth.m)])
        mean, cov = truth.given(y, len(y), both)
        take = np.hstack([-at("H", t), np.eye(truth.m)])
        close(result.observation_disturbance[t], take @ mean - at("d", t), 1e-6)
        close(result.observation_disturbance_cov[t], take @ cov @ take.T, 1e-6)
        if t + 1 < len(y):
            both = np.concatenate([truth.states(t), truth.states(t + 1)])
            mean, cov = truth.given(y, len(y), both)
            take = np.hstack([-at("F", t), np.eye(truth.n)])
            G = at("G", t)
            close(G @ result.process_disturbance[t], take @ mean - at("c", t), 1e-6)
            close(G @ result.process_disturbance_cov[t] @ G.T, take @ cov @ take.T, 1e-6)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 3), (3, 3)])
def test_gain_in_the_diffuse_phase_of_rows_that_are_partly_missing(n, m):
    """A missing element's variance of zero was inverted, round-off and all, on some of these models."""
    for seed in range(200):
        model, y = random_model(seed, n, m, initial="diffuse"), random_rows(seed, 5, m, missing=0.45)
        y[0] = np.where(np.arange(m) == seed % m, y[0], np.nan)
        result = filter_series(model, y)
        step = np.einsum("tij,tj->ti", result.gain, np.nan_to_num(result.innovations))
        close(result.predicted_mean[:-1] + step, result.filtered_mean, 1e-6)


@settings(max_examples=40, deadline=None)
@given(case=cases(initial=("known", "diffuse"), max_states=3))
def test_gain_turns_innovations_into_the_filtered_mean(case):
    model, y = case
    assume(is_determined(model, y))
    result = filter_series(model, y)
    step = np.einsum("tij,tj->ti", result.gain, np.nan_to_num(result.innovations))
    close(result.predicted_mean[:-1] + step, result.filtered_mean, 1e-6)


def test_a_long_seasonal_series_is_smoothed_without_an_overflow():
    """Round-off handed on by a seasonal transition alone would double with every step."""
    model = local_linear_trend(0.1, 0.01, observation_var=1.0) + seasonal(4, 0.1)
    y = simulate(model, 1_300, seed=2).observations[0].copy()
    y[600:640] = np.nan
    smoothed, wanted = (filter_series(model, y, form=form).smoothed for form in ("univariate", "sqrt"))
    np.testing.assert_allclose(smoothed.mean, wanted.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(smoothed.cov, wanted.cov, rtol=1e-9, atol=1e-9)
