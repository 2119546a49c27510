"""Published numbers, to the digits that were given: the Nile, R's StructTS and arima, pykalman's robot.

The Nile's were computed with statsmodels 0.15 and KFAS 1.6, which agree to 1e-12; R's with R 4.2.2.
"""

import gc
import warnings

import numpy as np
import pytest

from pxtools.kalman import (
    StateSpaceModel,
    arima,
    filter_series,
    fit_model,
    local_level,
    local_linear_trend,
    seasonal,
)
from tests.kalman.data import LH, NILE, PRESIDENTS, UK_GAS, US_ACC_DEATHS

LEVEL = local_level(1469.1, observation_var=15099.0)
FORMS = ["univariate", "cholesky", "sqrt"]


@pytest.mark.parametrize("form", FORMS)
def test_nile_with_exact_diffuse_start(form):
    result = filter_series(LEVEL, NILE, form=form)
    assert result.log_likelihood == pytest.approx(-633.4645636488784, abs=1e-9)
    assert result.n_diffuse_obs == 1
    at = np.array([1, 2, 3, 50, 99, 100]) - 1
    filtered = [
        1120,
        1140.927839934822,
        1072.7985295274439,
        849.0705662042777,
        819.6372663004927,
        798.3702926083641,
    ]
    variance = [
        15099,
        7899.7363793969125,
        5781.46993870002,
        4032.1579418087836,
        4032.1579418084766,
        4032.1579418084766,
    ]
    np.testing.assert_allclose(result.filtered_mean[at, 0], filtered, rtol=1e-12)
    np.testing.assert_allclose(result.filtered_cov[at, 0, 0], variance, rtol=1e-12)
    smoothed = [
        1111.6683191267957,
        1110.857664621807,
        1105.2655673123875,
        834.7632591037506,
        804.0495956662453,
    ]
    variance = [
        4032.1579418084766,
        3242.9300732247184,
        2818.942170053208,
        2326.7568698141936,
        3242.930073224717,
    ]
    np.testing.assert_allclose(result.smoothed_mean[at[:5], 0], smoothed, rtol=1e-11)
    np.testing.assert_allclose(result.smoothed_cov[at[:5], 0, 0], variance, rtol=1e-11)
    assert result.smoothed_mean.sum() == pytest.approx(91935.0, rel=1e-12)
    assert result.smoothed_cov.sum() == pytest.approx(240045.9102898603, rel=1e-12)
    assert result.filtered_mean.sum() == pytest.approx(92809.37090680483, rel=1e-12)
    assert result.innovations[-1, 0] == pytest.approx(-79.63726630049268, rel=1e-11)
    assert result.observation_disturbance[0, 0] == pytest.approx(8.331680873204165, rel=1e-10)
    assert result.process_disturbance[0, 0] == pytest.approx(-0.8106545049886905, rel=1e-10)


def test_nile_forecasts():
    forecast = filter_series(LEVEL, NILE).forecast(31)
    np.testing.assert_allclose(forecast.mean[:, 0], 798.3702926083641, rtol=1e-12)
    variance = forecast.cov[[0, 1, 2, 30], 0, 0]
    wanted = [20600.25794180848, 22069.357941808477, 23538.457941808476, 63204.15794180845 + 1469.1]
    np.testing.assert_allclose(variance[:3], wanted[:3], rtol=1e-12)
    # the research's "131st" counts the 30 missing years after the hundredth
    assert forecast.cov[29, 0, 0] == pytest.approx(63204.15794180845, rel=1e-12)
    half = 1.959963984540054 * np.sqrt(wanted[0])
    np.testing.assert_allclose(forecast.upper[0, 0] - forecast.mean[0, 0], half, rtol=1e-12)


def test_nile_steady_state_has_its_closed_form():
    result = filter_series(LEVEL, NILE)
    q, r = 1469.1, 15099.0
    P = q * (1 + np.sqrt(1 + 4 * r / q)) / 2
    np.testing.assert_allclose(result.predicted_cov[-1, 0, 0], P, rtol=1e-14)
    np.testing.assert_allclose(result.gain[-1, 0, 0], 0.2670480125709303, rtol=1e-13)
    np.testing.assert_allclose(result.innovation_cov[-1, 0, 0], 20600.257941808475, rtol=1e-13)


def test_nile_with_known_and_approximate_start():
    known = LEVEL.replace(initial_mean=[0.0], initial_cov=[[1e7]])
    assert filter_series(known, NILE).log_likelihood == pytest.approx(-641.5855784594153, abs=1e-9)
    approximate = LEVEL.replace(initial="approximate", approximate_variance=1e7)
    assert filter_series(approximate, NILE).log_likelihood == pytest.approx(-641.5855784594153, abs=1e-9)
    # statsmodels' approximate start with the first value burned, at its maximum
    burned = local_level(1478.811, observation_var=15078.011).replace(initial="approximate")
    steps = filter_series(burned, NILE).log_likelihood_steps
    assert steps[1:].sum() == pytest.approx(-632.5377605724096, abs=1e-7)


def test_nile_without_the_diffuse_constant_is_that_of_kfas():
    result = filter_series(LEVEL, NILE, diffuse_constant=False)
    assert result.log_likelihood == pytest.approx(-632.5456251156735, abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_nile_with_two_gaps(form):
    y = NILE.copy()
    y[20:40] = y[60:80] = np.nan
    result = filter_series(LEVEL, y, form=form)
    assert result.log_likelihood == pytest.approx(-381.5060013085083, abs=1e-9)
    without = filter_series(LEVEL, y, form=form, diffuse_constant=False)
    assert without.log_likelihood == pytest.approx(-380.5870627753034, abs=1e-9)
    np.testing.assert_allclose(result.filtered_cov[[29, 39], 0, 0], [18723.196160107273, 33414.19616010726], rtol=1e-12)
    at = np.array([20, 30, 40, 60, 70, 80, 100]) - 1
    mean = [
        *(999.712684084174, 903.4211029581046, 807.1295218320352, 834.8893812795574),
        *(837.177323709788, 839.4652661400187, 798.3151146180785),
    ]
    variance = [
        *(3614.403429863737, 9715.005902461404, 4723.597453062563, 3614.396007412873),
        *(9715.005549011363, 4723.604168613343, 4032.186797448255),
    ]
    np.testing.assert_allclose(result.smoothed_mean[at, 0], mean, rtol=1e-11)
    np.testing.assert_allclose(result.smoothed_cov[at, 0, 0], variance, rtol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_two_variable_nile_with_single_elements_missing(form):
    y = np.column_stack([NILE, NILE / 2])
    y[[4, 29], 0] = y[[29, 76], 1] = np.nan
    model = StateSpaceModel([[1]], [[1], [1]], [[1469.1]], [[15099, 2000], [2000, 9000]], initial="diffuse")
    result = filter_series(model, y, form=form)
    assert result.log_likelihood == pytest.approx(-1688.971264588125, abs=1e-8)
    assert filter_series(model, y, form=form, diffuse_constant=False).log_likelihood == pytest.approx(
        -1688.05232605493, abs=1e-8
    )
    at = np.array([1, 5, 30, 77, 100]) - 1
    mean = [741.6529333695, 715.8413544518, 614.5635086381, 616.5205382147, 519.0061950220]
    variance = [2462.2917960760, 1636.5147081111, 1962.5725784788, 1736.8201691332, 2456.0451571866]
    np.testing.assert_allclose(result.smoothed_mean[at, 0], mean, rtol=1e-12)
    np.testing.assert_allclose(result.smoothed_cov[at, 0, 0], variance, rtol=1e-12)


def as_structts(model, y):
    """R starts StructTS one step earlier, from its first value and a variance of 1e4 var(y) in all elements."""
    n, F = model.n_states, model.transition_matrix
    x = np.eye(n)[0] * y[0]
    P = F @ np.full((n, n), 1e4 * np.var(y, ddof=1)) @ F.T + model.state_noise[0]
    return model.replace(initial_mean=F @ x, initial_cov=(P + P.T) / 2)


def test_r_structts_log_likelihoods():
    level = local_level(1469.14661923768, observation_var=15098.57715359740)
    trend = local_linear_trend(1426.73585559289, 0, observation_var=15047.32557812057)
    assert filter_series(as_structts(level, NILE), NILE).log_likelihood == pytest.approx(-643.200987515761, rel=1e-11)
    assert filter_series(as_structts(trend, NILE), NILE).log_likelihood == pytest.approx(-645.80742676898, rel=1e-11)


def test_r_structts_basic_structural_model():
    gas = np.log10(UK_GAS)
    model = local_linear_trend(0, 1.73300299457215e-05, observation_var=3.67797767574499e-04)
    model = as_structts(model + seasonal(4, 7.13694346804533e-04), gas)
    result = filter_series(model, gas, form="sqrt")
    assert result.log_likelihood == pytest.approx(153.999297443897, rel=1e-9)
    fitted = [
        [2.84269605247682, 0.0160496284113163, -0.3086395005107638],
        [2.84297288543881, 0.0118556778996236, 0.0574764272485259],
    ]
    np.testing.assert_allclose(result.filtered_mean[-2:, :3], fitted, rtol=1e-8)


def test_r_arima_with_exact_likelihood_and_forecasts():
    model = arima(
        [0.644802662936151, -0.06338195584265, -0.219798399511513],
        var=0.178660298186282,
        mean=2.39311877789299,
    )
    assert filter_series(model, LH).log_likelihood == pytest.approx(-27.092411059730381, rel=1e-12)
    model = arima([0.452180344948261], [0.198191218718824], var=0.192312145596502, mean=2.410080461551264)
    result = filter_series(model, LH)
    assert result.log_likelihood == pytest.approx(-28.762033206490351, rel=1e-12)
    forecast = result.forecast(3)
    np.testing.assert_allclose(forecast.mean[:, 0], [2.67961890351069, 2.53196044721329, 2.46519219551021], rtol=1e-12)
    deviation = [0.438534087154582, 0.523122305708149, 0.538785002962966]
    np.testing.assert_allclose(np.sqrt(forecast.cov[:, 0, 0]), deviation, rtol=1e-12)


def test_r_arima_of_a_series_with_gaps():
    model = arima(
        [0.74960713255639, 0.252256392855535, -0.189031516319071],
        var=81.1179352835686,
        mean=56.222253482836258,
    )
    assert filter_series(model, PRESIDENTS).log_likelihood == pytest.approx(-414.0819314215461, rel=1e-12)


def test_r_airline_model_up_to_rs_approximate_diffuse_start():
    model = arima(
        [],
        [-0.430278483358636],
        99347.485299702152,
        d=1,
        period=12,
        seasonal_ma=[-0.552772006869988],
        seasonal_d=1,
    )
    result = filter_series(model, US_ACC_DEATHS, diffuse_constant=False)
    # R starts the differences from a variance of 1e6 instead of infinity
    assert result.log_likelihood == pytest.approx(-425.439993561082, rel=1e-5)
    forecast = result.forecast(3)
    np.testing.assert_allclose(forecast.mean[:, 0], [8336.05991120681, 7531.82335011568, 8314.64028411660], rtol=1e-6)
    deviation = [315.448954536980, 363.005163237248, 405.015375136909]
    np.testing.assert_allclose(np.sqrt(forecast.cov[:, 0, 0]), deviation, rtol=1e-5)


@pytest.fixture(scope="module")
def robot():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pykalman leaves its file open
        datasets = pytest.importorskip("pykalman.datasets", reason="the robot data come with pykalman")
        data = datasets.load_robot()
        gc.collect()
    offsets = np.vstack([data.transition_offsets, np.zeros((1, 5))])
    model = StateSpaceModel(
        data.transition_matrix,
        data.observation_matrix,
        data.initial_transition_covariance,
        data.initial_observation_covariance,
        initial_mean=data.initial_state_mean,
        initial_cov=data.initial_state_covariance,
        transition_intercept=offsets,
        observation_intercept=data.observation_offset,
    )
    return model, data


def test_robot_em_path_of_fifty_iterations(robot):
    model, data = robot
    fit = fit_model(
        model,
        data.observations,
        "em",
        em_matrices=["process_cov", "observation_cov"],
        until="gain<-1 iterations>50",
    )
    np.testing.assert_allclose(fit.path[:50], data.loglikelihoods, rtol=1e-11)
    np.testing.assert_allclose(fit.model.process_cov, data.transition_covariance, rtol=1e-6, atol=1e-6)


def test_robot_filtered_and_smoothed_moments(robot):
    model, data = robot
    model = model.replace(process_cov=data.transition_covariance, observation_cov=data.observation_covariance)
    result = filter_series(model, data.observations)
    np.testing.assert_allclose(result.filtered_mean, data.filtered_state_means, atol=1e-11)
    np.testing.assert_allclose(result.filtered_cov, data.filtered_state_covariances, atol=1e-10)
    np.testing.assert_allclose(result.smoothed_mean, data.smoothed_state_means, atol=1e-11)
    np.testing.assert_allclose(result.smoothed_cov, data.smoothed_state_covariances, atol=1e-10)
