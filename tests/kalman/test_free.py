"""The log-likelihood as a function of free parameters: the compiled kernel against its twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxtools.kalman import FreeModel, StateSpaceModel, arima, filter_series, free
from pxtools.kalman.fitting.differences import differenced
from pxtools.kalman.fitting.ml import start_of
from pxtools.kernels import kalman_free, kalman_free_numpy
from tests.kalman.test_kernels import compiled
from tests.kalman.test_score import MODELS, VARIANCE


def sparse(a, b, q, r):
    """Eight states, mostly zeros, a gap in the disturbances, and a matrix that spreads them."""
    F = np.diag(np.ones(7), 1)
    F[0, 0], F[7, 0] = a, b
    G = np.zeros((8, 2))
    G[0, 0], G[7, 1], G[3, 1] = 1.0, 1.0, a
    H = [[1.0, 0, 0, 0, 0, 0, 0, 0]]
    return StateSpaceModel(F, H, [[q, 0.1 * q], [0.1 * q, 1.0]], [[r]], selection_matrix=G, initial="stationary")


def changing(a, q, r):
    """Spread noise, F and H that change with time."""
    steps = np.arange(80.0)[:, None, None]
    F = np.concatenate([np.cos(steps / 9) * a, 0 * steps, 0 * steps + 0.1, 0 * steps + 0.5], axis=2).reshape(80, 2, 2)
    H = np.concatenate([1 + 0 * steps, np.sin(steps / 5) * a], axis=2)
    G = np.concatenate([1 + 0 * steps, steps / 80], axis=1)
    return StateSpaceModel(F, H, [[q]], [[r]], selection_matrix=G, initial=["diffuse", "diffuse"])


def moves(a, b, q, r):
    """Eight states that move on, one with a weight that is one where the parameters start."""
    F = np.diag(np.ones(7), -1)
    F[1, 0], F[0, 7], F[6, 5] = 0.7 + a, b, b
    return StateSpaceModel(F, np.eye(1, 8, 7), q * np.diag([1.0] + 7 * [0.0]), [[r]], initial="stationary")


CASES = {name: case[:3] for name, case in MODELS.items() if case[3]} | {
    "sparse": (sparse, "NNVV", 1),
    "moves": (moves, "NNVV", 1),
    "changing with time": (changing, "NVV", 1),
}


def problem_of(name, seed, missing=True):
    build, marks, columns = CASES[name]
    names = build.__code__.co_varnames[: len(marks)]
    model = FreeModel(build, {n: VARIANCE if mark == "V" else free(0.3) for n, mark in zip(names, marks, strict=True)})
    rng = np.random.default_rng(seed)
    y = np.cumsum(rng.normal(size=(2, 80, columns)), axis=1)
    if missing:
        y[0, 10:14], y[1, 30, 0] = np.nan, np.nan
    return start_of(model, y)


@compiled
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 1000), missing=st.booleans())
def test_compiled_log_likelihood_and_gradient_equal_their_twin(name, seed, missing):
    problem, _ = problem_of(name, seed, missing)
    numbers = problem.template.numbers
    moves = 0.1 * np.random.default_rng(seed).normal(size=(2, numbers.n_params))
    got = kalman_free.Likelihood(problem.values, numbers).at(moves)
    wanted = kalman_free_numpy.Likelihood(problem.values, numbers).at(moves)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-12)
    # differences serve where F or H move while part of the state is infinite
    rtol = 1e-5 if "diffuse" in name or name in ("seasonal ARIMA", "changing with time") else 1e-9
    np.testing.assert_allclose(got[1], wanted[1], rtol=rtol, atol=rtol * np.abs(wanted[1]).max())
    np.testing.assert_array_equal(got[2], wanted[2])


@compiled
@pytest.mark.parametrize("name", ["level", "H and correlated noise", "stationary start", "moves", "sparse"])
def test_gaps_in_series_that_had_settled_equal_the_twin(name):
    """Gains are kept until the covariances stand still, and anew from a gap on."""
    problem, _ = problem_of(name, 5)
    numbers = problem.template.numbers
    y = np.random.default_rng(5).normal(size=(2, 500, numbers.n_obs))
    y[0, 300:303], y[1, 400, 0] = np.nan, np.nan
    move = 0.1 * np.random.default_rng(1).normal(size=(1, numbers.n_params))
    got, wanted = (kernel.Likelihood(y, numbers).at(move) for kernel in (kalman_free, kalman_free_numpy))
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-12)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-9, atol=1e-9 * np.abs(wanted[1]).max())


@pytest.mark.parametrize("kernel", [kalman_free, kalman_free_numpy])
@pytest.mark.parametrize("name", CASES)
def test_log_likelihood_is_that_of_the_model_built_there(name, kernel):
    problem, _ = problem_of(name, 5)
    move = 0.1 * np.random.default_rng(1).normal(size=problem.template.numbers.n_params)
    model = problem.model.at(dict(zip(problem.model.names, problem.template.base + move, strict=True)))
    found = kernel.Likelihood(problem.values, problem.template.numbers).at(move[None], gradients=False)
    assert found[0][0] == pytest.approx(filter_series(model, problem.values).log_likelihood.sum(), rel=1e-11)
    assert found[1].shape == (0, len(move))


@pytest.mark.parametrize("kernel", [kalman_free, kalman_free_numpy])
def test_no_model_has_no_log_likelihood_and_points_do_not_disturb_each_other(kernel):
    problem, _ = problem_of("stationary start", 5)
    likelihood = kernel.Likelihood(problem.values, problem.template.numbers)
    good = np.array([0.1, 0.1, 0.2, 0.3])
    explosive, negative = good + np.array([2, 0, 0, 0]), good - np.array([0, 0, 5, 0])
    totals, slopes, _ = likelihood.at(np.array([good, explosive, negative, good]))
    assert np.isneginf(totals[1:3]).all()
    assert totals[0] == totals[3] == likelihood.at(good[None])[0][0]
    np.testing.assert_array_equal(slopes[0], slopes[3])


@pytest.mark.parametrize("kernel", [kalman_free, kalman_free_numpy])
def test_shapes_that_do_not_fit_are_refused(kernel):
    problem, _ = problem_of("level", 5)
    numbers = problem.template.numbers
    with pytest.raises(ValueError, match="n_series, n_steps, n_obs"):
        kernel.Likelihood(np.zeros((1, 9, 2)), numbers)
    with pytest.raises(ValueError, match="one entry for each step"):
        kernel.Likelihood(np.zeros((1, 9, 1)), problem_of("regression", 5)[0].template.numbers)


@compiled
@pytest.mark.parametrize("radius", [0.5, 0.999, 1.5])
def test_compiled_sum_over_powers_equals_its_twin(radius):
    rng = np.random.default_rng(3)
    A = rng.normal(size=(5, 5))
    A *= radius / np.abs(np.linalg.eigvals(A)).max()
    got, wanted = (kernel.settled(A, np.ones(5), np.eye(5)) for kernel in (kalman_free, kalman_free_numpy))
    assert got[2] == wanted[2] == (radius < 1)
    if radius < 1:
        np.testing.assert_allclose(got[0], np.linalg.solve(np.eye(5) - A, np.ones(5)), rtol=1e-9)
        np.testing.assert_allclose(got[1], A @ got[1] @ A.T + np.eye(5), rtol=1e-9)
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-11)


def arima_problem(y, **options):
    def build(a, b, var):
        return arima([a], [b], var, **options)

    return start_of(FreeModel(build, {"a": free(0.3), "b": free(0.2), "var": VARIANCE}), y)


DIFFERENCES = [{"d": 1}, {"d": 2}, {"period": 4, "seasonal_d": 1}, {"d": 1, "period": 4, "seasonal_d": 1}]


@pytest.mark.parametrize("options", DIFFERENCES)
def test_differencing_ahead_of_a_fit_leaves_the_likelihood_as_it_is(options):
    y = np.cumsum(np.random.default_rng(2).normal(size=(2, 60, 1)), axis=1)
    problem, place = arima_problem(y, **options)
    ready = problem.ready()
    few = differenced(y, problem.template.numbers)
    assert few.numbers.n_states == 2
    assert few.values.shape[1] == 60 - options.get("d", 0) - 4 * options.get("seasonal_d", 0)
    whole, small = problem.look(place), ready.look(place)
    built = filter_series(problem.model.at(problem.named(place)), y).log_likelihood.sum()
    assert whole.total == pytest.approx(built, rel=1e-11)
    assert small.total == pytest.approx(built, rel=1e-11)
    np.testing.assert_allclose(small.gradient(), whole.gradient(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("what", ["missing", "noisy", "no past", "short"])
def test_what_cannot_be_differenced_is_left_as_it_is(what):
    y = np.cumsum(np.random.default_rng(2).normal(size=(1, 60, 1)), axis=1)
    if what == "missing":
        y[0, 30] = np.nan
    if what == "noisy":

        def build(a, b, var):
            return arima([a], [b], var, d=1).replace(observation_cov=[[1.0]])

        problem, _ = start_of(FreeModel(build, {"a": free(0.3), "b": free(0.2), "var": VARIANCE}), y)
    else:
        problem, _ = arima_problem(y[:, : 1 if what == "short" else 60], d=0 if what == "no past" else 1)
    few = differenced(problem.values, problem.template.numbers)
    assert few.numbers is problem.template.numbers
    assert few.values is problem.values
    assert few.constant == 0


def test_the_last_coefficient_of_the_past_counts():
    """A past that is not simply differenced: y[t] = 0.5 y[t - 1] + u[t], with a diffuse y[0]."""
    y = np.cumsum(np.random.default_rng(2).normal(size=(1, 30, 1)), axis=1)

    def build(b, var):
        F, kinds = [[0.5, 1.0], [0, b]], ["diffuse", "stationary"]
        return StateSpaceModel(F, F[:1], [[var]], [[0]], initial=kinds, selection_matrix=[[0], [1]])

    problem, place = start_of(FreeModel(build, {"b": free(0.3), "var": VARIANCE}), y)
    ready = problem.ready()
    assert ready.constant == pytest.approx(-np.log(2 * np.pi) / 2 - np.log(0.5))
    assert ready.look(place).total == pytest.approx(problem.look(place).total, rel=1e-12)
