"""The compiled kernels against their NumPy twins, and both against what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxtools.kalman import arima, filter_series
from pxtools.kalman.factors import factors
from pxtools.kalman.system import system_of
from pxtools.kernels import kalman, kalman_numpy, kalman_roots_numpy, kalman_rows_numpy, kalman_score_numpy
from tests.kalman.models import covariance, random_model, sparse_model

compiled = pytest.mark.skipif(kalman.TIER != "compiled", reason="the kernels were not compiled here")


def same(a, b, rtol=1e-12):
    for name, got, wanted in zip(a._fields, a, b, strict=True):
        wanted = np.asarray(wanted, dtype=float)
        scale = max(1.0, np.abs(wanted).max(initial=0))
        np.testing.assert_allclose(np.asarray(got, dtype=float), wanted, rtol=rtol, atol=rtol * scale, err_msg=name)


def largest_variance(system, filtered):
    """Of a predicted state, or within a row, before its next element: of one that hardly sees an infinite direction."""
    largest = max(np.abs(filtered.predicted_cov).max(), np.abs(system.R).max() / np.square(system.H).sum(axis=-1).min())
    for s, t in np.argwhere(filtered.diffuse_obs.any(axis=-1)):
        Pinf = filtered.diffuse_cov[s, t].copy()
        for i in np.flatnonzero(filtered.diffuse_obs[s, t]):
            seen = Pinf @ system.H[t % len(system.H), i]
            finf = system.H[t % len(system.H), i] @ seen
            largest = max(largest, system.R[t % len(system.R), i, i] / finf)
            Pinf -= np.outer(seen, seen) / finf
    return largest


@st.composite
def systems(draw, max_states=8, initial=("known",)):
    n, m, n_steps = draw(st.integers(1, max_states)), draw(st.integers(1, 4)), draw(st.integers(1, 12))
    model = random_model(
        draw(st.integers(0, 10_000)),
        n,
        m,
        varying=draw(st.sampled_from([0, n_steps])),
        diagonal=draw(st.booleans()),
        initial=draw(st.sampled_from(initial)),
    )
    n_series = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    y = rng.normal(size=(n_series, n_steps, m))
    y[rng.random(y.shape) < draw(st.sampled_from([0.0, 0.3, 0.9]))] = np.nan
    return system_of(model, n_series, n_steps), y


@compiled
@settings(max_examples=120, deadline=None)
@given(case=systems())
def test_univariate_filter_and_smoother_equal_their_twins(case):
    system, y = case
    got, wanted = kalman.univariate_filter(y, *system), kalman_numpy.univariate_filter(y, *system)
    same(got.complete(), wanted.complete())
    parts = (y, system.F, system.H, system.R, system.d)
    same(kalman.univariate_smoother(*parts, got), kalman_numpy.univariate_smoother(*parts, wanted))


@compiled
@settings(max_examples=60, deadline=None)
@given(case=systems(max_states=3, initial=("diffuse",)))
def test_exact_diffuse_steps_equal_their_twins(case):
    system, y = case
    got, wanted = kalman.univariate_filter(y, *system), kalman_numpy.univariate_filter(y, *system)
    np.testing.assert_array_equal(got.diffuse_obs, wanted.diffuse_obs)
    # rows that hardly tell the infinite directions apart leave variances far above the noise's, which is about one:
    # their cancellation, of as many digits, is the model's, not the kernels'
    largest = largest_variance(system, wanted)
    same(got.complete(), wanted, rtol=max(1e-12, 1e-15 * largest**2))


@compiled
@settings(max_examples=60, deadline=None)
@given(case=systems(max_states=10))
def test_cholesky_filter_equals_its_twin(case):
    system, y = case
    got, wanted = kalman.cholesky_filter(y, *system), kalman_rows_numpy.cholesky_filter(y, *system)
    same(got.complete(), wanted.complete())


@compiled
@settings(max_examples=60, deadline=None)
@given(case=systems(max_states=6, initial=("known", "diffuse")))
def test_square_root_filter_and_smoother_equal_their_twins(case):
    system, y = case
    start = (system.x, factors(system.P), factors(system.Pinf))
    parts = (y, system.F, system.H, factors(system.Q), factors(system.R), system.c, system.d, *start)
    got, wanted = kalman.square_root_filter(*parts), kalman_roots_numpy.square_root_filter(*parts)
    # rows that hardly tell the infinite directions apart: as above, but in factors half as many digits
    rtol = max(1e-12, 1e-15 * largest_variance(system, wanted))
    same(got, wanted, rtol)
    got, wanted = kalman.square_root_smoother(*parts), kalman_roots_numpy.square_root_smoother(*parts)
    same(got, wanted, rtol)


def test_square_root_filter_of_variances_that_vanish_stays_finite():
    model = arima([], [0.2], d=1, period=4, seasonal_ma=[0.3])
    y = np.cumsum(np.random.default_rng(0).normal(size=400))
    assert np.isfinite(filter_series(model, y, form="sqrt").filtered_cov).all()


@compiled
@settings(max_examples=60, deadline=None)
@given(case=systems(max_states=10))
def test_information_filter_equals_its_twin(case):
    system, y = case
    got = kalman.information_filter(y, *system[:8])
    same(got.complete(), kalman_rows_numpy.information_filter(y, *system[:8]).complete())


@compiled
@settings(max_examples=60, deadline=None)
@given(case=systems(max_states=8, initial=("known", "diffuse")))
def test_log_likelihoods_equal_their_twins_and_the_filter(case):
    system, y = case
    parts = [*system[:6], *(part[0] for part in system[6:])]
    got, wanted = kalman.univariate_log_likelihood(y, *parts), kalman_numpy.univariate_log_likelihood(y, *parts)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-9)
    np.testing.assert_array_equal(got[1], wanted[1])
    filtered = kalman.univariate_filter(y, *system)
    np.testing.assert_allclose(got[0], filtered.log_likelihood.sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(got[1], filtered.diffuse_obs.sum(axis=(1, 2)))
    assert got[2] == filtered.n_cancelled


def cut(filtered, n_steps):
    """The first steps of a filtered series without diffuse ones."""
    states = [part[:, : n_steps + 1].copy() for part in filtered[:2]]
    return filtered._replace(
        predicted_mean=states[0],
        predicted_cov=states[1],
        filtered_mean=filtered.filtered_mean[:, :n_steps].copy(),
        filtered_cov=filtered.filtered_cov[:, :n_steps].copy(),
    )


@compiled
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 12])
def test_steady_switch_changes_the_log_likelihood_by_round_off_only(n):
    rng = np.random.default_rng(n)
    model = random_model(n, n, 2)
    system = system_of(model, 1, 3000)
    y = rng.normal(size=(1, 3000, 2))
    y[0, 1500] = np.nan
    y[0, 2000, 0] = np.nan
    for filter_ in (kalman.univariate_filter, kalman.cholesky_filter):
        on, off = filter_(y, *system, steady=True), filter_(y, *system, steady=False)
        np.testing.assert_allclose(on.log_likelihood.sum(), off.log_likelihood.sum(), rtol=1e-12)
        np.testing.assert_allclose(on.filtered_mean, off.filtered_mean, rtol=1e-9, atol=1e-11)
        smooth = [kalman.univariate_smoother(y, system.F, system.H, system.R, system.d, f) for f in (on, off)]
        for one, other in zip(smooth[0][:4], smooth[1][:4], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
        twin = kalman_numpy.univariate_smoother(y[:, :400], system.F, system.H, system.R, system.d, cut(on, 400))
        again = kalman.univariate_smoother(y[:, :400].copy(), system.F, system.H, system.R, system.d, cut(on, 400))
        for one, other in zip(again[:4], twin[:4], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
        # it did switch: the covariance stands still to the bit
        assert (on.predicted_cov[0, 1400] == on.predicted_cov[0, 1300]).all()


@compiled
def test_sparse_transitions_equal_the_twin():
    from pxtools.kalman import local_linear_trend, seasonal

    model = local_linear_trend(1.0, 0.1, observation_var=2.0) + seasonal(12, 0.5)
    model = model.replace(initial_mean=np.zeros(13), initial_cov=np.eye(13))
    rng = np.random.default_rng(0)
    y = rng.normal(size=(2, 40, 1))
    y[:, 5:9] = np.nan
    system = system_of(model, 2, 40)
    got, wanted = kalman.univariate_filter(y, *system), kalman_numpy.univariate_filter(y, *system)
    same(got, wanted, rtol=1e-11)
    parts = (y, system.F, system.H, system.R, system.d)
    same(kalman.univariate_smoother(*parts, got), kalman_numpy.univariate_smoother(*parts, wanted), rtol=1e-10)


@compiled
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(7, 16), m=st.integers(1, 3), missing=st.sampled_from([0.0, 0.3]))
def test_transitions_that_mostly_move_states_equal_the_twin(seed, n, m, missing):
    system = system_of(sparse_model(seed, n, m), 2, 20)
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(2, 20, m))
    y[rng.random(y.shape) < missing] = np.nan
    got, wanted = kalman.univariate_filter(y, *system), kalman_numpy.univariate_filter(y, *system)
    same(got.complete(), wanted.complete())
    parts = (y, system.F, system.H, system.R, system.d)
    same(kalman.univariate_smoother(*parts, got), kalman_numpy.univariate_smoother(*parts, wanted), rtol=1e-11)
    lengths, entries = (1,) * 6, np.flatnonzero(system.F)
    found = kalman.univariate_score(*parts, got, lengths, entries)
    same(found, kalman_score_numpy.univariate_score(*parts, wanted, lengths, entries), rtol=1e-11)
    for cov in (got.predicted_cov, found.N):
        np.testing.assert_array_equal(cov, cov.swapaxes(-1, -2))


@compiled
def test_kernels_refuse_arrays_that_do_not_fit():
    system = system_of(random_model(0, 2, 2), 1, 5)
    y = np.zeros((1, 5, 2))
    for change in (
        {"F": np.zeros((1, 3, 2))},
        {"H": np.zeros((1, 3, 2))},
        {"Q": np.zeros((4, 2, 2))},
        {"c": np.zeros((1, 3))},
        {"x": np.zeros((2, 2))},
        {"P": np.zeros((1, 3, 3))},
    ):
        for filter_ in (kalman.univariate_filter, kalman.cholesky_filter):
            with pytest.raises(ValueError):  # noqa: PT011 - the words are those of Cython, or of the twin
                filter_(y, *system._replace(**change))


@compiled
def test_kernels_take_read_only_arrays():
    system = system_of(random_model(0, 2, 2), 1, 5)
    y = np.zeros((1, 5, 2))
    for array in (y, *system):
        array.setflags(write=False)
    kalman.univariate_smoother(y, system.F, system.H, system.R, system.d, kalman.univariate_filter(y, *system))
    kalman.cholesky_filter(y, *system)


@pytest.mark.parametrize("tier", [kalman, kalman_numpy])
def test_covariances_are_exactly_symmetric(tier):
    system = system_of(random_model(3, 5, 3), 1, 30)
    y = np.random.default_rng(0).normal(size=(1, 30, 3))
    y[0, ::4, 1] = np.nan
    filtered = tier.univariate_filter(y, *system)
    smoothed = tier.univariate_smoother(y, system.F, system.H, system.R, system.d, filtered)
    for cov in (filtered.predicted_cov, filtered.filtered_cov, smoothed.cov):
        np.testing.assert_array_equal(cov, cov.swapaxes(-1, -2))


@pytest.mark.parametrize("tier", [kalman, kalman_numpy])
def test_a_batch_equals_its_series_one_by_one(tier):
    system = system_of(random_model(3, 3, 2, initial="diffuse"), 4, 30)
    y = np.random.default_rng(0).normal(size=(4, 30, 2))
    y[np.random.default_rng(1).random(y.shape) < 0.4] = np.nan
    together = tier.univariate_filter(y, *system)
    for s in range(4):
        alone = tier.univariate_filter(y[s : s + 1], *system[:6], *(part[s : s + 1] for part in system[6:]))
        np.testing.assert_allclose(together.log_likelihood[s], alone.log_likelihood[0], rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(together.filtered_mean[s], alone.filtered_mean[0], rtol=1e-12, atol=1e-12)


def test_a_singular_observation_noise_is_allowed():
    root = np.random.default_rng(0).normal(size=(3, 2))
    model = random_model(4, 3, 3).replace(observation_cov=root @ root.T)
    system = system_of(model, 1, 8)
    y = np.random.default_rng(1).normal(size=(1, 8, 3))
    got, wanted = kalman.univariate_filter(y, *system), kalman.cholesky_filter(y, *system)
    np.testing.assert_allclose(got.log_likelihood, wanted.log_likelihood, rtol=1e-9)
    assert covariance(np.random.default_rng(0), 2).shape == (2, 2)
