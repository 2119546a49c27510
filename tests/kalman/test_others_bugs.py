"""What other libraries get wrong, as tests of ours."""

import numpy as np
import pytest

from pxtools.errors import PxUsageError
from pxtools.kalman import StateSpaceModel, filter_series, simulate
from tests.kalman.models import random_model, random_rows
from tests.kalman.oracle import dense


def constant_velocity(noise=0.5):
    F = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    Q = 0.01 * np.array([[1 / 3, 0, 0.5, 0], [0, 1 / 3, 0, 0.5], [0.5, 0, 1, 0], [0, 0.5, 0, 1]])
    return StateSpaceModel(F, np.eye(2, 4), Q, noise * np.eye(2), initial_mean=np.zeros(4), initial_cov=10 * np.eye(4))


def test_a_row_with_one_element_missing_is_not_dropped():
    """pykalman, simdkalman and filterpy drop the whole row."""
    model, y = random_model(7, 3, 2), random_rows(7, 8, 2)
    y[3] = [np.nan, 1.7]
    dropped = y.copy()
    dropped[3] = np.nan
    result, truth = filter_series(model, y), dense(model, 8)
    mean, _ = truth.given(y, 8, truth.states(7))
    np.testing.assert_allclose(result.filtered_mean[-1], mean, rtol=1e-10)
    assert result.log_likelihood == pytest.approx(truth.log_likelihood(y), rel=1e-12)
    assert abs(filter_series(model, dropped).log_likelihood - result.log_likelihood) > 0.1


def test_missing_values_leave_no_constant_in_the_log_likelihood():
    """FKF counts `m log(2 pi)` for rows without any observation."""
    model, y = random_model(3, 2, 2), np.full((6, 2), np.nan)
    y[2] = [0.3, -0.4]
    assert filter_series(model, y).log_likelihood == pytest.approx(dense(model, 6).log_likelihood(y), rel=1e-12)
    assert filter_series(model, y).log_likelihood_steps[0] == 0.0


def test_log_likelihood_has_its_two_pi():
    """simdkalman leaves it out."""
    model = StateSpaceModel([[1]], [[1]], [[0]], [[0.5]], initial_mean=[0], initial_cov=[[0.5]])
    assert filter_series(model, [0.0]).log_likelihood == pytest.approx(-0.5 * np.log(2 * np.pi), rel=1e-15)


@pytest.fixture(scope="module")
def ten_thousand():
    model = constant_velocity()
    return model, simulate(model, 10_000, seed=np.random.default_rng(42)).observations[0]


def test_log_likelihood_of_ten_thousand_steps_of_a_unit_root(ten_thousand):
    """The array form is an independent witness."""
    model, y = ten_thousand
    values = {form: filter_series(model, y, form=form).log_likelihood for form in ("univariate", "cholesky", "sqrt")}
    assert values["univariate"] == pytest.approx(values["sqrt"], rel=1e-12)
    assert values["cholesky"] == pytest.approx(values["sqrt"], rel=1e-12)
    off = filter_series(model, y, steady=False).log_likelihood
    assert values["univariate"] == pytest.approx(off, rel=1e-13)


def last_of_pykalman(model, y):
    pykalman = pytest.importorskip("pykalman", reason="pykalman is the one that is wrong here")
    kf = pykalman.KalmanFilter(
        *(np.array(model.parts[letter][0]) for letter in "FHQR"),
        initial_state_mean=np.array(model.initial_mean),
        initial_state_covariance=np.array(model.initial_cov),
    )
    return kf.filter(np.ma.masked_invalid(y))[0][-1]


def last_of_simdkalman(model, y):
    simdkalman = pytest.importorskip(
        "simdkalman", reason="simdkalman is the one that is wrong here: group `kalman-rivals`"
    )
    kf = simdkalman.KalmanFilter(*(np.array(model.parts[letter][0]) for letter in "FQHR"))
    start = {"initial_value": np.array(model.initial_mean), "initial_covariance": np.array(model.initial_cov)}
    return kf.compute(y[None], 0, filtered=True, **start).filtered.states.mean[0, -1]


def last_of_filterpy(model, y):
    pytest.importorskip("filterpy", reason="filterpy is the one that is wrong here: group `kalman-rivals`")
    from filterpy.kalman import KalmanFilter

    kf = KalmanFilter(dim_x=model.n_states, dim_z=model.n_obs)
    kf.F, kf.H, kf.Q, kf.R = (np.array(model.parts[letter][0]) for letter in "FHQR")
    kf.x, kf.P = np.zeros((model.n_states, 1)), np.array(model.initial_cov)
    for t, row in enumerate(y):
        if t:
            kf.predict()
        kf.update(None if np.isnan(row).any() else row[:, None])
    return kf.x[:, 0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rival", [last_of_pykalman, last_of_simdkalman, last_of_filterpy])
def test_rivals_drop_a_row_with_one_element_missing_and_we_do_not(rival):
    model = constant_velocity()
    y = simulate(model, 40, seed=3).observations[0]
    y[-2:, 0] = np.nan
    dropped = np.where(np.isnan(y).any(axis=1, keepdims=True), np.nan, y)
    theirs, ours = rival(model, y), filter_series(model, y).filtered_mean[-1]
    np.testing.assert_allclose(theirs, filter_series(model, dropped).filtered_mean[-1], rtol=1e-6)
    truth, _ = dense(model, 40).given(y, 40, 4 * 39 + np.arange(4))
    np.testing.assert_allclose(ours, truth, rtol=1e-9)
    assert np.abs(theirs - truth).max() > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_dynamaxs_parallel_log_likelihood_is_wrong_where_ours_is_not(ten_thousand):
    """Its sequential filter agrees with us; its parallel one, in the same precision, loses two digits out of three."""
    pytest.importorskip("dynamax", reason="dynamax is the one that is wrong here, and heavy: group `kalman-rivals`")
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from dynamax.linear_gaussian_ssm import LinearGaussianSSM, lgssm_filter
    from dynamax.linear_gaussian_ssm.parallel_inference import lgssm_filter as parallel_filter

    model, y = ten_thousand
    params, _ = LinearGaussianSSM(4, 2).initialize(
        jax.random.PRNGKey(0),
        initial_mean=jnp.array(model.initial_mean),
        initial_covariance=jnp.array(model.initial_cov),
        dynamics_weights=jnp.array(model.transition_matrix),
        dynamics_covariance=jnp.array(model.process_cov),
        emission_weights=jnp.array(model.observation_matrix),
        emission_covariance=jnp.array(model.observation_cov),
    )
    ours = filter_series(model, y).log_likelihood
    assert float(jax.jit(lgssm_filter)(params, jnp.array(y)).marginal_loglik) == pytest.approx(ours, rel=1e-9)
    parallel = float(jax.jit(parallel_filter)(params, jnp.array(y)).marginal_loglik)
    assert abs(parallel / ours - 1) > 1e-2


def test_no_observation_does_not_turn_into_nan():
    """dynamax returns NaN for everything after a missing row."""
    y = np.array([[1.0, 2.0], [np.nan, np.nan], [2.0, 3.0]])
    result = filter_series(constant_velocity(), y)
    assert np.isfinite(result.filtered_mean).all()
    assert np.isnan(result.innovations[1]).all()


GREWAL_ANDREWS = np.array(
    [
        [0.6250000009375, -0.3749999990625, -0.250000000625],
        [-0.3749999990625, 0.6250000009375, -0.250000000625],
        [-0.250000000625, -0.250000000625, 0.49999999875],
    ]
)


def grewal_andrews(d=1e-8):
    """Two almost equal measurements (Grewal & Andrews, Kalman Filtering, section 7.2)."""
    return StateSpaceModel(
        np.eye(3),
        [[1, 1, 1], [1, 1, 1 + d]],
        np.zeros((3, 3)),
        d**2 * np.eye(2),
        initial_mean=np.zeros(3),
        initial_cov=np.eye(3),
    )


@pytest.mark.parametrize("form", ["sqrt", "auto"])
def test_ill_conditioned_measurements_in_square_root_form(form):
    result = filter_series(grewal_andrews(), [[1.0, 1.0]], form=form)
    assert result.form == "sqrt"
    assert np.abs(result.filtered_cov[0] - GREWAL_ANDREWS).max() <= 1e-8
    assert np.linalg.eigvalsh(result.filtered_cov[0])[0] >= -1e-15


def test_ill_conditioned_measurements_are_refused_by_the_cholesky_form():
    with pytest.raises(PxUsageError, match='form="sqrt"'):
        filter_series(grewal_andrews(), [[1.0, 1.0]], form="cholesky")


def test_duplicated_exact_observations_are_used_once():
    model = StateSpaceModel([[1]], [[1], [1]], [[1]], np.zeros((2, 2)), initial_mean=[0], initial_cov=[[1]])
    once = StateSpaceModel([[1]], [[1]], [[1]], [[0]], initial_mean=[0], initial_cov=[[1]])
    result = filter_series(model, [[1.0, 1.0], [3.0, 3.0]], form="univariate")
    wanted = filter_series(once, [1.0, 3.0])
    np.testing.assert_allclose(result.filtered_mean, wanted.filtered_mean)
    assert result.log_likelihood == pytest.approx(wanted.log_likelihood)


@pytest.mark.parametrize("seed", range(6))
def test_smoothed_diffuse_steps_keep_their_digits(seed):
    """The textbook's exact diffuse recursion was off by up to 1e-2 on such models."""
    model = random_model(seed, 6, 2, initial="diffuse")
    y = np.random.default_rng(seed).normal(size=(12, 2))
    truth, result = dense(model, 12), filter_series(model, y)
    for t in range(12):
        mean, cov = truth.given(y, 12, truth.states(t))
        np.testing.assert_allclose(result.smoothed_mean[t], mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(result.smoothed_cov[t], cov, rtol=1e-6, atol=1e-6)
