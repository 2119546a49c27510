"""Maximum likelihood and EM against published maxima, other libraries, and each other."""

import pickle

import numpy as np
import pytest

from pxtools.kalman import (
    FreeModel,
    StateSpaceModel,
    arima,
    filter_series,
    fit_model,
    free,
    kalman,
    local_level,
    seasonal,
    simulate,
)
from pxtools.kalman.fitting.ml import start_of
from pxtools.kalman.fitting.until import Until
from pxtools.kalman.parameters import Free
from pxtools.kernels import kalman_climb, kalman_climb_numpy
from tests.kalman.data import LH, NILE, PRESIDENTS
from tests.kalman.models import random_model


def level_model(**starts):
    def build(level_var, noise_var):
        return local_level(level_var, observation_var=noise_var)

    marks = {"level_var": free(positive=True), "noise_var": free(positive=True)}
    return FreeModel(build, marks | starts)


def test_nile_maximum_is_that_of_statsmodels_and_kfas():
    fit = fit_model(level_model(), NILE)
    assert fit.has_converged
    assert fit.values["noise_var"] == pytest.approx(15098.519, rel=1e-6)
    assert fit.values["level_var"] == pytest.approx(1469.176, rel=2e-6)
    assert fit.log_likelihood == pytest.approx(-633.4645636362455, abs=1e-8)


def test_standard_errors_are_those_of_the_observed_information():
    fit = fit_model(level_model(), NILE)
    step = {"level_var": 2.0, "noise_var": 20.0}

    def at(**moves):
        values = {name: fit.values[name] + moves.get(name, 0) * step[name] for name in step}
        return filter_series(level_model().at(values), NILE).log_likelihood

    names = list(step)
    information = np.empty((2, 2))
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            corners = [at(**{a: s}) if a == b else at(**{a: s, b: u}) for s in (1, -1) for u in (1, -1)]
            if a == b:
                information[i, j] = -(at(**{a: 1}) - 2 * at() + at(**{a: -1})) / step[a] ** 2
            else:
                information[i, j] = -(corners[0] - corners[1] - corners[2] + corners[3]) / (4 * step[a] * step[b])
    wanted = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose(list(fit.standard_errors.values()), wanted, rtol=1e-2)


def test_r_arima_maximum_with_standard_errors():
    model = FreeModel(
        lambda a, b, c, var, mean: arima([a, b, c], var=var, mean=mean),
        {
            **{name: free(0.0) for name in "abc"},
            "var": free(positive=True),
            "mean": free(2.0),
        },
    )
    fit = fit_model(model, LH)
    assert fit.log_likelihood == pytest.approx(-27.092411, abs=1e-5)
    wanted = {"a": 0.6448, "b": -0.0634, "c": -0.2198, "var": 0.1787, "mean": 2.3931}
    for name, value in wanted.items():
        assert fit.values[name] == pytest.approx(value, abs=1e-3)
    errors = {"a": 0.139356, "b": 0.166766, "c": 0.142110, "mean": 0.096260}
    for name, error in errors.items():
        assert fit.standard_errors[name] == pytest.approx(error, rel=0.02)


def test_r_arima_maximum_of_a_series_with_gaps():
    model = FreeModel(
        lambda a, b, c, var, mean: arima([a, b, c], var=var, mean=mean),
        {**{name: free(0.0) for name in "abc"}, "var": free(positive=True), "mean": free(50.0)},
    )
    assert fit_model(model, PRESIDENTS).log_likelihood == pytest.approx(-414.0819314, abs=1e-5)


def test_a_variance_on_its_bound_is_found_and_has_no_standard_error():
    rng = np.random.default_rng(3)
    fit = fit_model(level_model(), 5 + rng.normal(size=80))
    assert fit.values["level_var"] < 1e-3
    assert fit.values["noise_var"] == pytest.approx(1.0, abs=0.4)


def test_a_step_onto_the_model_without_any_noise_is_no_maximum():
    """Its filter has nothing to say against it, since it leaves values of no variance out."""

    def build(a, b, c):
        return local_level(a, observation_var=b) + seasonal(4, c)

    model = FreeModel(build, dict.fromkeys("abc", free(positive=True)))
    y = simulate(local_level(0.03, observation_var=0.3) + seasonal(4, 5.0), 64, seed=11).observations[0][:, 0]
    problem, place = start_of(model, y[None, :, None])
    for one in (problem.ready(), problem._replace(template=None)):
        assert np.isneginf(one.look(0 * place).total)
        assert np.isneginf(one.log_likelihoods(np.array([0 * place]))[0])
        assert np.isfinite(one.look(np.array([0, 0, 1.0])).total)
    fit = fit_model(model, y)
    assert fit.values["c"] == pytest.approx(5.0, rel=0.6)


def test_a_coefficient_at_the_end_of_its_range_is_reached():
    """Over-differenced white noise: the moving average has its root on the circle, infinitely far along the line."""
    y = np.diff(np.random.default_rng(3).normal(size=61))
    marks = {"q": free(0.1, lower=-1, upper=1), "var": free(positive=True)}
    fit = fit_model(FreeModel(lambda q, var: arima([], [q], var), marks), y)
    assert fit.has_converged
    assert fit.n_iterations < 100
    assert fit.values["q"] == pytest.approx(-1, abs=1e-4)


def test_more_starts_are_never_worse_and_run_through_any_map():
    calls = []

    def counting_map(function, *arguments):
        calls.append(len(arguments[0]))
        return map(function, *arguments)

    one = fit_model(level_model(), NILE)
    many = fit_model(level_model(), NILE, starts=4, map=counting_map)
    assert calls == [4]
    assert many.log_likelihood >= one.log_likelihood - 1e-9


def test_starts_do_not_depend_on_who_runs_them():
    def backwards(function, *arguments):
        return list(map(function, *(list(a)[::-1] for a in arguments)))[::-1]

    first = fit_model(level_model(), NILE, starts=3, seed=5)
    second = fit_model(level_model(), NILE, starts=3, seed=5, map=backwards)
    assert first.values == second.values


def test_a_batch_shares_one_set_of_parameters():
    y = simulate(local_level(1.0, observation_var=4.0), 200, n_draws=5, seed=0).observations
    fit = fit_model(level_model(), y)
    assert fit.values["level_var"] == pytest.approx(1.0, abs=0.3)
    assert fit.values["noise_var"] == pytest.approx(4.0, abs=0.6)
    assert fit.log_likelihood == pytest.approx(filter_series(fit.model, y).log_likelihood.sum())


def em_model():
    return random_model(11, 2, 2)


def em_data(missing):
    y = simulate(em_model(), 60, n_draws=2, seed=1).observations
    rng = np.random.default_rng(2)
    y[rng.random(y.shape) < missing] = np.nan
    y[:, 5] = np.nan
    return y


ALL = [
    "transition_matrix",
    "observation_matrix",
    "process_cov",
    "observation_cov",
    "initial_mean",
    "initial_cov",
]


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("matrices", [ALL, ALL[:1], ALL[1:2], ALL[2:3], ALL[3:4], ALL[1:4]])
def test_em_gains_log_likelihood_in_every_iteration(missing, matrices):
    start = em_model().replace(
        transition_matrix=0.5 * np.eye(2), process_cov=2 * np.eye(2), observation_cov=[[2, 0.3], [0.3, 1]]
    )
    fit = fit_model(start, em_data(missing), "em", em_matrices=matrices, until="iterations>15")
    path = np.array(fit.path)
    assert (np.diff(path) > -1e-9 * np.abs(path[0])).all()
    assert path[-1] > path[0]


def test_em_stops_where_the_gradient_is_zero():
    """At EM's limit no observation variance improves the log-likelihood: an independent check of the M step."""
    model = em_model().replace(observation_cov=[[5.0, 1.0], [1.0, 4.0]])
    y = simulate(model, 80, seed=1).observations[0]
    y[np.random.default_rng(2).random(y.shape) < 0.2] = np.nan
    fit = fit_model(model, y, "em", em_matrices=["observation_cov"], until="gain<1e-10 iterations>500")
    assert fit.has_converged
    for i, j in ((0, 0), (0, 1), (1, 1)):
        step = np.zeros((2, 2))
        step[i, j] = step[j, i] = 1e-4

        def at(sign, step=step):
            moved = fit.model.replace(observation_cov=fit.model.observation_cov + sign * step)
            return filter_series(moved, y).log_likelihood

        assert abs(at(1) - at(-1)) / 2e-4 < 1e-4


@pytest.mark.parametrize("matrices", [False, True])
def test_em_equals_pykalman(matrices):
    pykalman = pytest.importorskip("pykalman", reason="pykalman is the witness here")
    model = em_model()
    y = em_data(0.0)[0]
    fit = fit_model(model, y, "em", em_matrices=ALL if matrices else None, until="gain<-1 iterations>3")
    theirs = pykalman.KalmanFilter(
        model.transition_matrix,
        model.observation_matrix,
        model.process_cov,
        model.observation_cov,
        model.transition_intercept,
        model.observation_intercept,
        model.initial_mean,
        model.initial_cov,
        em_vars=[
            *["transition_matrices", "observation_matrices"][: 2 * matrices],
            *[
                "transition_covariance",
                "observation_covariance",
                "initial_state_mean",
                "initial_state_covariance",
            ],
        ],
    ).em(np.ma.masked_invalid(y), n_iter=3)
    np.testing.assert_allclose(fit.model.transition_matrix, theirs.transition_matrices, atol=1e-10)
    np.testing.assert_allclose(fit.model.observation_matrix, theirs.observation_matrices, atol=1e-10)
    np.testing.assert_allclose(fit.model.process_cov, theirs.transition_covariance, atol=1e-10)
    np.testing.assert_allclose(fit.model.observation_cov, theirs.observation_covariance, atol=1e-10)
    np.testing.assert_allclose(fit.model.initial_mean, theirs.initial_state_mean, atol=1e-10)
    np.testing.assert_allclose(fit.model.initial_cov, theirs.initial_state_covariance, atol=1e-10)


def test_em_with_a_selection_matrix_fits_the_noise_behind_it():
    true = random_model(5, 3, 2, n_noise=2)
    y = simulate(true, 400, n_draws=3, seed=4).observations
    fit = fit_model(true.replace(process_cov=3 * np.eye(2)), y, "em", em_matrices=["process_cov"])
    np.testing.assert_allclose(fit.model.process_cov, true.process_cov, atol=0.35)


def test_em_takes_time_varying_transitions():
    model = random_model(6, 2, 1, varying=40)
    y = simulate(model, 40, seed=0).observations[0]
    constant = model.replace(process_cov=np.eye(2), observation_cov=[[1.0]])
    fit = fit_model(constant, y, "em", until="iterations>10")
    assert (np.diff(fit.path) > -1e-9).all()


def test_em_on_a_diffuse_model_leaves_the_start_alone():
    fit = fit_model(local_level(1000.0, observation_var=10_000.0), NILE, "em", until="gain<1e-9 iterations>3000")
    assert fit.model.initial == ("diffuse",)
    assert fit.log_likelihood == pytest.approx(-633.46456, abs=1e-3)


def test_until_ends_a_fit():
    assert fit_model(level_model(), NILE, until="iterations>2").n_iterations == 2
    assert "2 iterations" in fit_model(level_model(), NILE, until="iterations>2").message
    assert not fit_model(level_model(), NILE, until="iterations>2").has_converged
    assert fit_model(level_model(), NILE, until="gain<1").has_converged
    assert fit_model(level_model(), NILE, until="seconds>0").n_iterations <= 1
    assert Until.parse("gain<1e-8, iterations>5").goals == {"gain": 1e-8}


@pytest.mark.parametrize("kernel", [kalman_climb, kalman_climb_numpy])
@pytest.mark.parametrize("mark", [Free(), Free(lower=0.0), Free(upper=2.0), Free(lower=-1.0, upper=1.0)])
@pytest.mark.parametrize("value", [-0.9, 0.3, 0.95])
def test_transforms_are_inverted_and_their_slopes_are_derivatives(kernel, mark, value):
    value, bounds = max(value, mark.lower + 0.1), np.array([[mark.lower], [mark.upper], [2.0]])
    place = np.array([mark.to_line(value, 2.0)])
    assert kernel.from_line(place, bounds) == pytest.approx(value, rel=1e-12)
    slope = (kernel.from_line(place + 1e-6, bounds) - kernel.from_line(place - 1e-6, bounds)) / 2e-6
    assert kernel.slopes_on_line(place, bounds) == pytest.approx(slope, rel=1e-6)


def test_a_free_model_is_fitted_by_default_and_the_result_keeps_the_fit():
    result = kalman(level_model(), NILE)
    assert result.fit.method == "ml"
    assert result.log_likelihood == pytest.approx(result.fit.log_likelihood, rel=1e-12)
    assert "level_var" in repr(result.fit)
    assert result.fit.aic == pytest.approx(2 * 2 + 2 * 633.46456364, rel=1e-8)


def test_a_result_travels():
    result = kalman(StateSpaceModel([[1]], [[1]], [[1]], [[1]]), NILE, smooth=True, forecast=2)
    copy = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(copy.smoothed_mean, result.smoothed_mean)
    np.testing.assert_array_equal(copy.forecasts.mean, result.forecasts.mean)
