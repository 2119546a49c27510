"""Builders, sums of components, ARIMA and models of statsmodels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pxtools.errors import PxUsageError
from pxtools.kalman import (
    StateSpaceModel,
    arima,
    cycle,
    filter_series,
    from_statsmodels,
    kalman,
    local_level,
    local_linear_trend,
    regression,
    seasonal,
    trigonometric_seasonal,
)
from tests.kalman.data import LH, NILE, US_ACC_DEATHS
from tests.kalman.models import random_model
from tests.kalman.oracle import dense

sm = pytest.importorskip("statsmodels.api", reason="statsmodels is the witness here")

NILE_BY_YEAR = pd.Series(NILE, index=pd.period_range("1871", periods=100, freq="Y"), name="volume")


def exact(y, *args, **options):
    return sm.tsa.UnobservedComponents(y, *args, use_exact_diffuse=True, **options)


def results(model, params):
    return model.smooth(params)


CASES = {
    "level": (
        lambda: exact(NILE, "llevel"),
        [15099.0, 1469.1],
        lambda: local_level(1469.1, observation_var=15099.0),
    ),
    "trend": (
        lambda: exact(NILE, "lltrend"),
        [15099.0, 1469.1, 3.0],
        lambda: local_linear_trend(1469.1, 3.0, observation_var=15099.0),
    ),
    "seasonal": (
        lambda: exact(US_ACC_DEATHS, "llevel", seasonal=12),
        [1e5, 1e4, 1e3],
        lambda: local_level(1e4, observation_var=1e5) + seasonal(12, 1e3),
    ),
    "harmonics": (
        lambda: exact(US_ACC_DEATHS, "llevel", freq_seasonal=[{"period": 12}]),
        [1e5, 1e4, 1e3],
        lambda: local_level(1e4, observation_var=1e5) + trigonometric_seasonal(12, 1e3),
    ),
    "regression": (
        lambda: exact(NILE, "llevel", exog=np.sin(np.arange(100.0)), mle_regression=False),
        [15099.0, 1469.1],
        lambda: local_level(1469.1, observation_var=15099.0) + regression(np.sin(np.arange(100.0))),
    ),
    "arma": (
        lambda: sm.tsa.SARIMAX(LH, order=(2, 0, 1), trend=None),
        [0.4, 0.1, 0.3, 0.5],
        lambda: arima([0.4, 0.1], [0.3], 0.5),
    ),
    "seasonal arima": (
        lambda: sm.tsa.SARIMAX(US_ACC_DEATHS, order=(1, 1, 1), seasonal_order=(1, 1, 1, 12), use_exact_diffuse=True),
        [0.3, -0.5, 0.2, -0.3, 1e5],
        lambda: arima([0.3], [-0.5], 1e5, d=1, period=12, seasonal_ar=[0.2], seasonal_ma=[-0.3], seasonal_d=1),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_a_builder_has_the_log_likelihood_of_statsmodels(case):
    theirs, params, ours = CASES[case]
    theirs = theirs()
    y = np.asarray(theirs.endog)
    wanted = theirs.smooth(params)
    result = filter_series(ours(), y)
    assert result.log_likelihood == pytest.approx(wanted.llf, rel=1e-9)
    taken = filter_series(from_statsmodels(wanted), y)
    assert taken.log_likelihood == pytest.approx(wanted.llf, rel=1e-9)
    after = result.n_diffuse_steps
    np.testing.assert_allclose(
        taken.smoothed_mean[after:], wanted.smoothed_state.T[after:], rtol=1e-6, atol=1e-6 * np.abs(y).max()
    )


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_statsmodels_with_single_elements_missing():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(60, 2)).cumsum(axis=0)
    y[rng.random(y.shape) < 0.2] = np.nan
    theirs = sm.tsa.DynamicFactor(y, k_factors=1, factor_order=1)
    wanted = theirs.smooth(theirs.start_params)
    result = kalman(wanted, y, smooth=True)
    assert result.log_likelihood == pytest.approx(wanted.llf, rel=1e-11)
    np.testing.assert_allclose(result.smoothed_mean, wanted.smoothed_state.T, atol=1e-9)
    np.testing.assert_allclose(result.smoothed_cov, np.moveaxis(wanted.smoothed_state_cov, -1, 0), atol=1e-9)
    lag = np.moveaxis(wanted.smoothed_state_autocov, -1, 0)[:-1]
    np.testing.assert_allclose(result.smoothed_lag_one_cov, lag.swapaxes(1, 2), atol=1e-9)
    np.testing.assert_allclose(result.process_disturbance[:-1], wanted.smoothed_state_disturbance.T[:-1], atol=1e-9)


def other_of_statsmodels(name):
    rng = np.random.default_rng(0)
    y = np.cumsum(rng.normal(size=120)) + rng.normal(size=120)
    both = np.column_stack([y, 0.5 * y + rng.normal(size=120)])
    gaps = both.copy()
    gaps[5, 0], gaps[50:60, 1] = np.nan, np.nan
    if name == "states that are observed exactly":
        options = {"order": (1, 1, 1), "seasonal_order": (1, 0, 1, 12), "trend": "c"}
        return sm.tsa.SARIMAX(y, use_exact_diffuse=True, **options)
    if name == "variances that vanish":
        return sm.tsa.VARMAX(both, order=(1, 1))
    if name == "gaps":
        return sm.tsa.VARMAX(gaps, order=(1, 0))
    if name == "noise at rest":
        return sm.tsa.DynamicFactorMQ(both, factors=1, factor_orders=1)
    return sm.tsa.statespace.ExponentialSmoothing(y, trend=True, seasonal=12)


OTHERS = ["states that are observed exactly", "variances that vanish", "gaps", "noise at rest", "scale of its own"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_other_models_of_statsmodels_are_filtered_and_smoothed_alike(name):
    theirs = other_of_statsmodels(name)
    wanted = theirs.smooth(theirs.start_params)
    result = kalman(wanted, theirs.endog, smooth=True)
    assert result.log_likelihood == pytest.approx(wanted.llf, rel=1e-9)
    after = result.n_diffuse_steps
    scale = np.abs(wanted.smoothed_state).max()
    np.testing.assert_allclose(result.smoothed_mean[after:], wanted.smoothed_state.T[after:], atol=1e-7 * scale)
    if name != "scale of its own":
        cov = np.moveaxis(wanted.smoothed_state_cov, -1, 0)[after:]
        np.testing.assert_allclose(result.smoothed_cov[after:], cov, atol=1e-7 * np.abs(cov).max())


def test_a_model_of_statsmodels_that_leaves_its_scale_out_needs_its_results():
    y = np.random.default_rng(0).normal(size=30)
    theirs = sm.tsa.SARIMAX(y, order=(1, 0, 0), concentrate_scale=True)
    with pytest.raises(PxUsageError, match="results"):
        from_statsmodels(theirs, [0.5])


@pytest.mark.filterwarnings("ignore")
def test_forecasts_of_statsmodels():
    theirs = exact(NILE_BY_YEAR, "lltrend")
    wanted = theirs.smooth([15099.0, 1469.1, 3.0]).get_forecast(5)
    got = filter_series(from_statsmodels(theirs, [15099.0, 1469.1, 3.0]), NILE_BY_YEAR).forecast(5, level=0.9)
    np.testing.assert_allclose(got.mean[:, 0], wanted.predicted_mean, rtol=1e-10)
    np.testing.assert_allclose(np.column_stack([got.lower, got.upper]), wanted.conf_int(alpha=0.1), rtol=1e-10)
    assert list(got.index.astype(str)) == ["1971", "1972", "1973", "1974", "1975"]


RESULTS = "statsmodels.tsa.statespace.tests.results"


@pytest.mark.parametrize("missing", [False, True])
def test_kfas_table_of_a_diffuse_trend_that_statsmodels_ships(missing):
    """Filtered and smoothed states and disturbances of KFAS, in and after the exact diffuse phase."""
    results = pytest.importorskip(RESULTS)
    name = f"results_exact_initial_local_linear_trend{'_missing' * missing}_R.csv"
    table = pd.read_csv(Path(results.__file__).with_name(name))
    y = np.r_[10.2394, 4.2039, 6.123123, [1.0] * 7]
    if missing:
        y[1] = np.nan
    result = filter_series(local_linear_trend(8.253, 2.334, observation_var=1.993), y, diffuse_constant=False)
    assert result.log_likelihood == pytest.approx(table["llf"][0], rel=1e-10)
    assert result.n_diffuse_steps == 2 + missing
    pairs = {
        "a": result.predicted_mean[:10],
        "att": result.filtered_mean,
        "alphahat": result.smoothed_mean,
        "etahat": result.process_disturbance,
        "epshat": result.observation_disturbance,
    }
    # R counts the state after the last row as one more, and its predictions start with the second row
    for stem, ours in pairs.items():
        theirs = table[[column for column in table if column.startswith(f"{stem}_")]].to_numpy()
        np.testing.assert_allclose(ours, theirs[: len(ours)], atol=1e-6, err_msg=stem)
    np.testing.assert_allclose(result.smoothed_cov.sum(axis=(1, 2)), table["sumV"][:10], atol=1e-6)
    np.testing.assert_allclose(result.process_disturbance_cov.sum(axis=(1, 2)), table["sumVeta"][:10], atol=1e-6)


def clark(table, F_and_Q):
    F, Q, H = F_and_Q
    start = F @ (100 * np.eye(len(F))) @ F.T
    zeros = np.zeros(len(H))
    return StateSpaceModel(F, H, Q, np.diag(zeros), initial_mean=np.zeros(len(F)), initial_cov=start)


def test_clarks_1987_model_of_output_by_kim_and_nelson():
    """GAUSS tables of Kim & Nelson (1999) that statsmodels ships."""
    tables = pytest.importorskip(f"{RESULTS}.results_kalman_filter").uc_uni
    v, e, w, phi_1, phi_2 = tables["parameters"]
    F = np.zeros((4, 4))
    F[[0, 0, 1, 1, 2, 3], [0, 3, 1, 2, 1, 3]] = [1, 1, phi_1, phi_2, 1, 1]
    model = clark(tables, (F, np.diag([v**2, e**2, 0, w**2]), np.array([[1.0, 1, 0, 0]])))
    result = filter_series(model, np.log(np.array(tables["data"], dtype=float)))
    start = tables["start"]
    assert result.log_likelihood_steps[start:].sum() == pytest.approx(tables["loglike"], abs=1e-5)
    np.testing.assert_allclose(result.filtered_mean[start:, [0, 1, 3]], tables["states"], atol=1e-4)


def test_a_sum_is_the_sum_of_independent_components():
    a, b = random_model(1, 2, 2), random_model(2, 1, 2)
    both, one, other = (dense(model, 4) for model in (a + b, a, b))
    rows = [slice(4 * k, None) for k in (3, 2, 1)]
    np.testing.assert_allclose(both.mean[rows[0]], one.mean[rows[1]] + other.mean[rows[2]])
    np.testing.assert_allclose(
        both.cov[rows[0], rows[0]], one.cov[rows[1], rows[1]] + other.cov[rows[2], rows[2]], atol=1e-12
    )


def test_a_damped_cycle_is_stationary_with_its_own_variance():
    model = cycle(8.0, 0.5, damping=0.9)
    np.testing.assert_allclose(model.initial_state.cov, 0.5 / (1 - 0.81) * np.eye(2), atol=1e-12)
    assert cycle(8.0, 0.5).initial == ("diffuse", "diffuse")


def test_an_ar_model_starts_from_its_autocovariances():
    start = arima([0.6], var=2.0).initial_state
    assert start.cov[0, 0] == pytest.approx(2.0 / (1 - 0.36))


def test_constant_regression_is_generalised_least_squares():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2))
    y = X @ [1.0, -2.0] + rng.normal(size=30)
    result = filter_series(regression(X, observation_var=1.0), y)
    np.testing.assert_allclose(result.filtered_mean[-1], np.linalg.lstsq(X, y, rcond=None)[0], rtol=1e-9)
    np.testing.assert_allclose(result.filtered_cov[-1], np.linalg.inv(X.T @ X), rtol=1e-8)
    np.testing.assert_allclose(result.smoothed_cov[0], np.linalg.inv(X.T @ X), rtol=1e-8)


@pytest.mark.parametrize("form", ["univariate", "cholesky", "sqrt"])
@pytest.mark.parametrize("gap", [slice(0), slice(0, 5), slice(10, 20)])
@pytest.mark.parametrize("weights", [(0.3, -0.3), (-0.4, -0.3)])
def test_smoothed_states_of_differenced_models_equal_the_dense_normal(form, gap, weights):
    """The observations are exact and a diffuse start lasts: round-off must not be taken for variance."""
    model = arima([], weights[:1], 1.0, d=1, period=4, seasonal_d=1, seasonal_ma=weights[1:])
    y = np.cumsum(np.random.default_rng(1).normal(size=30))[:, None]
    y[gap] = np.nan
    result, truth = filter_series(model, y, form=form), dense(model, 30)
    assert result.log_likelihood == pytest.approx(truth.log_likelihood(y), rel=1e-9)
    moments = [truth.given(y, 30, truth.states(t)) for t in range(30)]
    mean, cov = (np.array(part) for part in zip(*moments, strict=True))
    exact = form == "sqrt"  # the other forms take differences of covariances
    np.testing.assert_allclose(result.smoothed_mean, mean, atol=(1e-10 if exact else 1e-6) * np.abs(mean).max())
    np.testing.assert_allclose(result.smoothed_cov, cov, atol=(1e-9 if exact else 1e-5) * np.abs(cov).max())
