"""Draws against exact moments, streaming against the batch filter, the extended filter against the linear one."""

import numpy as np
import pytest

from pxtools.errors import PxUsageError
from pxtools.kalman import (
    ExtendedModel,
    extended_filter,
    filter_series,
    local_level,
    local_linear_trend,
    regression,
    simulate,
    simulate_states,
    start_stream,
)
from pxtools.kernels import kalman, kalman_numpy
from tests.kalman.data import NILE
from tests.kalman.models import random_model, random_rows
from tests.kalman.oracle import dense


def test_simulated_series_have_the_moments_of_the_model():
    model = random_model(1, 2, 2, n_noise=1, varying=4)
    drawn, truth = simulate(model, 4, n_draws=40_000, seed=3), dense(model, 4)
    z = np.concatenate([drawn.states.reshape(40_000, -1), drawn.observations.reshape(40_000, -1)], axis=1)
    scale = np.sqrt(np.diag(truth.cov))
    np.testing.assert_array_less(np.abs(z.mean(axis=0) - truth.mean), 5 * scale / np.sqrt(40_000))
    error = np.abs(np.cov(z.T) - truth.cov) / np.outer(scale, scale)
    assert error.max() < 5 * np.sqrt(2 / 40_000)


def test_the_same_seed_gives_the_same_draws():
    model = random_model(1, 2, 2)
    np.testing.assert_array_equal(simulate(model, 5, seed=1).states, simulate(model, 5, seed=1).states)
    assert (simulate(model, 5, seed=1).states != simulate(model, 5, seed=2).states).all()


@pytest.mark.parametrize("initial", ["known", "diffuse"])
@pytest.mark.parametrize("form", ["univariate", "cholesky", "sqrt", "information"])
def test_states_drawn_given_observations_have_the_smoothed_moments(initial, form):
    model, y = random_model(2, 2, 2, initial=initial), random_rows(2, 6, 2)
    result = filter_series(model, y, form=form)
    n = 4000
    drawn = simulate_states(result, n, seed=5)
    truth = dense(model, 6)
    mean, cov = truth.given(y, 6, np.arange(12))
    scale = np.sqrt(np.diag(cov))
    z = drawn.reshape(n, -1)
    np.testing.assert_array_less(np.abs(z.mean(axis=0) - mean), 5 * scale / np.sqrt(n))
    assert (np.abs(np.cov(z.T) - cov) / np.outer(scale, scale)).max() < 5 * np.sqrt(2 / n)


def test_states_are_drawn_of_one_determined_series():
    with pytest.raises(PxUsageError, match="one series"):
        simulate_states(filter_series(local_level(1.0), np.ones((2, 3, 1))), 1)
    with pytest.raises(PxUsageError, match="determine"):
        simulate_states(filter_series(local_linear_trend(1.0, 1.0, observation_var=1.0), [1.0]), 1)
    with pytest.raises(PxUsageError, match="n_steps"):
        simulate(local_level(1.0), 0)
    with pytest.raises(PxUsageError, match="cover 3"):
        simulate(regression(np.ones(3)), 4)


@pytest.mark.parametrize("initial", ["known", "diffuse"])
@pytest.mark.parametrize("varying", [0, 9])
def test_streaming_equals_the_batch_filter(initial, varying):
    model, y = random_model(4, 3, 2, initial=initial, varying=varying), random_rows(4, 9, 2)
    result, state = filter_series(model, y, steady=False), start_stream(model)
    for t in range(9):
        before, state = state, state.update(y[t])
        assert before.n_steps == t
        np.testing.assert_allclose(state.filtered_mean, result.filtered_mean[t], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(state.predicted_cov, result.predicted_cov[t + 1], rtol=1e-7, atol=1e-7)
    assert state.log_likelihood == pytest.approx(result.log_likelihood, rel=1e-9)
    assert not state.is_diffuse


def test_streaming_refuses_bad_rows():
    state = start_stream(local_level(1.0))
    for row, message in (([1.0, 2.0], "2 values"), ("a", "no row"), (np.inf, "infinite")):
        with pytest.raises(PxUsageError, match=message):
            state.update(row)
    state = start_stream(regression(np.ones(2))).update(1.0).update(2.0)
    with pytest.raises(PxUsageError, match="used up"):
        state.update(1.0)


def pendulum(**changes):
    sp = pytest.importorskip("sympy", reason="Jacobians come from SymPy")
    angle, speed = sp.symbols("angle speed")
    parts = {
        "process_cov": np.diag([1e-4, 1e-3]),
        "observation_cov": [[0.01]],
        "initial_mean": [0.5, 0.0],
        "initial_cov": 0.1 * np.eye(2),
    }
    dt = 0.05
    transition = [angle + dt * speed, speed - dt * 9.81 * sp.sin(angle)]
    return ExtendedModel.from_sympy([angle, speed], transition, [sp.sin(angle)], **parts | changes)


def test_sympys_jacobians_are_the_derivatives():
    model, x = pendulum(), np.array([0.4, -1.0])
    for function, jacobian in (
        (model.transition, model.transition_jacobian),
        (model.observation, model.observation_jacobian),
    ):
        numeric = np.stack([(function(x + 1e-6 * e) - function(x - 1e-6 * e)) / 2e-6 for e in np.eye(2)], axis=-1)
        np.testing.assert_allclose(jacobian(x), numeric, atol=1e-8)


def test_a_linear_model_in_the_extended_filter_is_the_linear_filter():
    linear, y = random_model(5, 2, 2, diagonal=True), random_rows(5, 9, 2)
    F, H = linear.transition_matrix, linear.observation_matrix
    model = ExtendedModel(
        lambda x: F @ x + linear.transition_intercept,
        lambda x: H @ x + linear.observation_intercept,
        lambda x: F,
        lambda x: H,
        linear.process_cov,
        linear.observation_cov,
        linear.initial_mean,
        linear.initial_cov,
    )
    got, wanted = extended_filter(model, y), filter_series(linear, y)
    np.testing.assert_allclose(got.filtered_mean, wanted.filtered_mean, rtol=1e-10)
    np.testing.assert_allclose(got.predicted_cov, wanted.predicted_cov, rtol=1e-10)
    assert got.log_likelihood == pytest.approx(wanted.log_likelihood, rel=1e-12)


def test_the_extended_filter_follows_a_pendulum_through_a_gap():
    model = pendulum()
    rng = np.random.default_rng(0)
    x, states, rows = np.array([0.6, 0.0]), [], []
    for _ in range(400):
        states.append(x)
        rows.append(np.sin(x[0]) + 0.1 * rng.normal())
        x = model.transition(x) + rng.normal(size=2) * np.sqrt([1e-4, 1e-3])
    y = np.array(rows)
    y[100:120] = np.nan
    result = extended_filter(model, y)
    error = result.filtered_mean - np.array(states)
    scaled = np.einsum("ti,tij,tj->t", error, np.linalg.inv(result.filtered_cov), error)
    # the mean of a chi-square of two degrees of freedom, within the error of correlated steps
    assert 1.0 < scaled[20:].mean() < 3.5


def test_the_extended_filter_is_the_same_in_both_tiers(monkeypatch):
    y = np.sin(np.arange(30) / 5)
    y[7:9] = np.nan
    compiled = extended_filter(pendulum(), y)
    monkeypatch.setattr(kalman, "univariate_filter", kalman_numpy.univariate_filter)
    plain = extended_filter(pendulum(), y)
    for name in ("filtered_mean", "filtered_cov", "predicted_cov", "log_likelihood_steps"):
        np.testing.assert_allclose(getattr(plain, name), getattr(compiled, name), rtol=1e-10, atol=1e-12)


def test_a_bad_extended_model_is_refused():
    sp = pytest.importorskip("sympy", reason="Jacobians come from SymPy")
    with pytest.raises(PxUsageError, match="process_cov"):
        pendulum(process_cov=np.eye(3))
    x, g = sp.symbols("x g")
    parts = {"process_cov": [[1]], "observation_cov": [[1]], "initial_mean": [1.0], "initial_cov": [[1]]}
    with pytest.raises(PxUsageError, match="hold g"):
        ExtendedModel.from_sympy([x], [g * x], [x], **parts)
    with pytest.raises(PxUsageError, match="must return"):
        ExtendedModel(lambda v: v, lambda v: v, lambda v: v, lambda v: np.eye(1), **parts)
    blown = ExtendedModel.from_sympy([x], [sp.exp(40 * x)], [x], **parts)
    with pytest.raises(PxUsageError, match="not finite at step"), np.errstate(over="ignore"):
        extended_filter(blown, NILE[:5])
