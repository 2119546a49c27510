"""Many series at once: the same as one by one, for any missing values and models; bad series harm no other."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxtools.errors import PxUsageError
from pxtools.kalman import FleetResult, StateSpaceModel, filter_series, kalman, local_level, local_linear_trend
from pxtools.kalman.batch import SHARING, run_fleet
from pxtools.kalman.uncorrelated import run_sums, uncorrelated
from pxtools.kernels import kalman_batch, kalman_batch_numpy
from pxtools.kernels.kalman_batch_layout import AXES, n_statistics, shape_of
from tests.kalman.models import random_model

MOMENTS = [name for name in AXES if name.startswith(("predicted", "filtered", "smoothed"))]
NUMBERS = ["log_likelihood", "log_likelihood_steps", "standardized_residuals"]


def series(seed, n_series, n_steps, m, missing=0.3):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n_series, n_steps, m)) * 2
    y[rng.random(y.shape) < missing] = np.nan
    y[:, -1] = rng.normal(size=(n_series, m))
    return y


class Drawn:
    """One model or a model for each series, and series with their own gaps, some with common ones."""

    def __init__(self, sizes, seed, kind, **flags):
        self.told = f"Drawn({sizes}, {seed}, {kind!r}, **{flags})"
        n, m, n_series = sizes
        varying = 9 if flags["varies"] and kind != "stationary" else 0
        options = {"varying": varying, "diagonal": flags["is_diagonal"], "initial": kind}
        made = [random_model(seed + k, n, m, **options) for k in range(n_series if flags["has_own"] else 1)]
        self.models = made if flags["has_own"] else made[0]
        self.y = series(seed, n_series, 9, m, flags["missing"])
        if flags["shares"]:
            some = self.y[: SHARING + 1]
            some[:] = np.where(np.isnan(some[:1]), np.nan, np.nan_to_num(some, nan=0.3))

    def model(self, s):
        return self.models[s] if isinstance(self.models, list) else self.models

    def __repr__(self):
        return self.told


def fleets(*kinds):
    """Draw fleets."""
    sizes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.sampled_from([1, 7, SHARING + 4]))
    flags = {name: st.booleans() for name in ("varies", "is_diagonal", "has_own", "shares")}
    missing = st.sampled_from([0.0, 0.1, 0.5])
    return st.builds(Drawn, sizes, st.integers(0, 10_000), st.sampled_from(kinds), missing=missing, **flags)


@settings(max_examples=25, deadline=None)
@given(fleets("known", "stationary"))
def test_a_series_has_the_same_moments_beside_others_and_alone(fleet):
    models, y = fleet.models, fleet.y
    found = run_fleet(models, y, AXES)
    for s in range(len(y)):
        one = filter_series(fleet.model(s), y[s], steady=False)
        if s in found.redone:
            continue
        for name in MOMENTS:
            assert np.allclose(found.arrays[name][s], getattr(one, name), rtol=1e-13, atol=1e-13), name
        for name in NUMBERS:
            close = np.allclose(found.arrays[name][s], getattr(one, name), rtol=1e-12, atol=1e-12, equal_nan=True)
            assert close, name


@settings(max_examples=15, deadline=None)
@given(fleets("diffuse"))
def test_a_series_with_a_diffuse_start_has_the_same_moments_beside_others_and_alone(fleet):
    models, y = fleet.models, fleet.y
    found = run_fleet(models, y, AXES)
    for s in range(len(y)):
        one = filter_series(fleet.model(s), y[s], steady=False)
        for name in [*MOMENTS, "log_likelihood"]:
            exact = getattr(one, name)
            # the regression of a nearly undetermined state on the next one loses the digits by which it is large
            scale = 1 + np.abs(exact).max() + np.abs(one.filtered_cov).max()
            assert np.allclose(found.arrays[name][s], exact, rtol=1e-8, atol=1e-9 * scale), name


@settings(max_examples=15, deadline=None)
@given(fleets("known", "stationary", "diffuse"), st.integers(1, 10_000))
def test_the_bits_of_a_series_do_not_depend_on_the_others(fleet, seed):
    models, y = fleet.models, fleet.y
    chosen = np.sort(np.random.default_rng(seed).permutation(len(y))[: 1 + seed % len(y)])
    every = run_fleet(models, y, AXES).arrays
    some = run_fleet([models[s] for s in chosen] if isinstance(models, list) else models, y[chosen], AXES).arrays
    for name in AXES:
        assert np.array_equal(every[name][chosen], some[name], equal_nan=True), name


@pytest.mark.skipif(kalman_batch.TIER == "numpy", reason="the kernel is not compiled here")
def test_one_series_has_the_bits_of_the_kernel_for_one_series():
    model, y = random_model(3, 4, 2, diagonal=True), series(3, 20, 60, 2)
    found = run_fleet(model, y, MOMENTS).arrays
    one = filter_series(model, y, steady=False)
    for name in ("predicted_mean", "predicted_cov", "filtered_mean", "filtered_cov"):
        assert np.array_equal(found[name], getattr(one, name)), name


def passes(kernel, models, y, start):
    """Return everything one tier's pass gives."""
    from pxtools.kalman.batch import _initial, fleet_parts

    parts = [*fleet_parts(models, y.shape[1]), *_initial(models, len(y))]
    n, m = parts[0].shape[-1], y.shape[2]
    out = {name: np.zeros((len(y), *shape_of(name, y.shape[1], n, m))) for name in [*AXES, "statistics"]}
    out |= {name: np.zeros(len(y), dtype=np.int_) for name in ("cancelled", "lost")}
    kernel.lanes_pass(y, parts, start, np.arange(len(y)), out)
    return out


@settings(max_examples=25, deadline=None)
@given(fleets("known"), st.integers(0, 4))
def test_the_compiled_passes_equal_their_twins(fleet, late):
    models, y = fleet.models, fleet.y
    start = np.arange(len(y)) % (late + 1)
    ours, twin = (passes(kernel, models, y, start) for kernel in (kalman_batch, kalman_batch_numpy))
    assert twin["statistics"].shape[1] == n_statistics(4, 2) or twin["statistics"].shape[1] > 0
    for name, exact in twin.items():
        for s, first in enumerate(start):  # steps before the start are the caller's
            a, b = ours[name][s], exact[s]
            if AXES.get(name, "").startswith(("T", "+")):
                a, b = a[first:], b[first:]
            assert np.allclose(
                a, b, rtol=1e-11, atol=1e-11 * (1 + np.nanmax(np.abs(b), initial=0)) if b.size else 0, equal_nan=True
            ), name


@settings(max_examples=15, deadline=None)
@given(fleets("known"))
def test_patterns_are_told_apart(fleet):
    y = np.array(fleet.y)
    y[0, 0, 0] = -np.inf
    y[-1] = np.nan
    for kernel in (kalman_batch, kalman_batch_numpy):
        hashes, n_values, is_bad = kernel.patterns(y)
        assert list(np.flatnonzero(is_bad)) == [0] * (len(y) > 1)
        missing = np.isnan(y)
        assert np.array_equal(n_values, (~missing).sum(axis=(1, 2)))
        assert not kernel.patterns(y, False)[0].any()
        for s in range(len(y)):
            assert (hashes[s] == hashes[-1]) == np.array_equal(missing[s], missing[-1])


def test_an_infinite_value_leaves_out_its_series_alone_and_names_it():
    y = series(1, 6, 30, 1)
    y[2, 4] = np.inf
    result = kalman(local_level(1.0, observation_var=2.0), y)
    assert result.failed == {2: "an infinite value at row 4, column 0"}
    assert np.isnan(result.log_likelihood[2])
    assert np.isnan(result.smoothed_mean[2]).all()
    others = [0, 1, 3, 4, 5]
    assert np.array_equal(result.filtered_mean[others], kalman(result.models, y[others]).filtered_mean)
    assert "series 2 was left out: an infinite value" in repr(result)


def test_a_series_of_infinities_alone_is_an_error_that_says_what_to_do():
    with pytest.raises(PxUsageError, match="make them NaN"):
        kalman(local_level(1.0, observation_var=2.0), np.full((3, 10, 1), -np.inf))


@pytest.mark.parametrize("initial", ["known", "diffuse", "stationary"])
def test_a_series_of_nan_only_is_the_model_without_data(initial):
    model, y = random_model(5, 2, 2, initial=initial), series(2, 5, 12, 2)
    y[3] = np.nan
    result = kalman(model, y, smooth=True, forecast=2)
    assert result.empty == [3]
    assert result.log_likelihood[3] == 0
    if initial == "stationary":
        assert np.allclose(result.smoothed_cov[3], model.initial_state.cov, atol=1e-12)
        assert np.allclose(result.filtered_mean[3], model.initial_state.mean)
    assert np.isnan(result.forecasts.mean[3]).all() == (initial == "diffuse")
    assert np.isfinite(result.forecasts.upper[[0, 1, 2, 4]]).all()


def test_an_ill_conditioned_series_is_done_again_by_itself():
    model = StateSpaceModel(
        [[1.0]], [[1.0], [1.0]], [[1.0]], 1e-12 * np.eye(2), initial_mean=[0.0], initial_cov=[[1e10]]
    )
    y = series(4, 5, 20, 1, missing=0.0)
    y = np.repeat(y, 2, axis=2)
    y[1:, :, 1] = np.nan
    result = kalman(model, y)
    alone = filter_series(model, y[0])
    result.compute("filtered_mean")
    assert result.redone == {0: "sqrt"}
    assert np.array_equal(result.filtered_mean[0], alone.filtered_mean)


def test_only_what_is_read_is_computed(monkeypatch):
    from pxtools.kalman import fleet

    asked = []
    run = fleet.run_fleet
    monkeypatch.setattr(
        fleet,
        "run_fleet",
        lambda models, y, names, **options: asked.append(sorted(names)) or run(models, y, names, **options),
    )
    result = kalman(local_level(1.0, observation_var=2.0), series(1, 3, 30, 1))
    assert asked == [["log_likelihood"]]
    assert result.smoothed_mean is result.smoothed_mean
    assert asked == [["log_likelihood"], ["smoothed_mean"]]


def test_covariances_that_all_series_share_are_kept_once():
    y = series(1, 2 * SHARING, 30, 1, missing=0.0)
    cov = kalman(random_model(1, 2, 1), y).filtered_cov
    assert cov.strides[0] == 0
    assert not cov.flags.writeable


def test_a_data_frame_is_one_series_a_column():
    y = series(6, 3, 40, 1)
    index = pd.date_range("2024-01-01", periods=40, freq="D")
    frame = pd.DataFrame(y[:, :, 0].T, columns=["north", "south", "west"], index=index)
    model = local_linear_trend(0.1, 0.01, observation_var=1.0)
    result = kalman(model, frame, forecast=2)
    assert isinstance(result, FleetResult)
    assert result.names == ("north", "south", "west")
    assert np.array_equal(result.filtered_mean, kalman(model, y).filtered_mean)
    assert result["south"].index.equals(index)
    assert result["south"].log_likelihood == pytest.approx(result.log_likelihood[1], rel=1e-12)
    assert list(result.forecasts.index) == list(pd.date_range("2024-02-10", periods=2, freq="D"))
    with pytest.raises(PxUsageError, match="south"):
        result["soth"]


@pytest.mark.parametrize("form", ["sqrt", "cholesky", "information"])
def test_other_forms_filter_one_series_after_another(form):
    model, y = random_model(7, 2, 2), series(7, 4, 20, 2)
    assert np.allclose(kalman(model, y, form=form).smoothed_mean, kalman(model, y).smoothed_mean, atol=1e-9)


def test_details_come_from_the_series_one_by_one():
    model, y = random_model(8, 2, 2), series(8, 4, 20, 2)
    y[1, 0] = np.inf
    result = kalman(model, y)
    assert np.array_equal(result.gain[2], filter_series(model, y[2]).gain)
    assert np.isnan(result.gain[1]).all()
    with pytest.raises(AttributeError, match="result"):
        result.no_such_thing  # noqa: B018


def test_forecasts_are_those_of_each_series():
    models = [random_model(k, 2, 1) for k in range(4)]
    y = series(9, 4, 20, 1)
    result = kalman(models, y, forecast=3)
    for k, model in enumerate(models):
        assert np.allclose(result.forecasts.upper[k], filter_series(model, y[k]).forecast(3).upper, rtol=1e-12)


@pytest.mark.parametrize(
    ("models", "shape", "words"),
    [
        ([random_model(1, 2, 1)] * 2, (3, 10, 1), "2 models are given for 3 series"),
        ([], (3, 10, 1), "empty"),
        ([random_model(1, 2, 1), random_model(1, 3, 1)], (2, 10, 1), "differ"),
        ([random_model(1, 2, 1)] * 3, (10, 1), "one series"),
        (random_model(1, 2, 2), (3, 10, 1), r"\(n_series, n_steps, 2\)"),
        (random_model(1, 2, 1, varying=5), (3, 10, 1), "cover 5 steps"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(models, shape, words):
    with pytest.raises(PxUsageError, match=words):
        kalman(models, np.ones(shape))


@pytest.mark.parametrize(("n", "m"), [(1, 2), (4, 2), (3, 3)])
def test_sums_over_rows_with_correlated_noises_are_those_of_the_rows_made_uncorrelated(n, m):
    model = random_model(n + m, n, m, initial="known")
    y = series(5, 20, 30, m, missing=0.0)
    y[np.random.default_rng(6).random(y.shape[:2]) < 0.2] = np.nan
    assert uncorrelated(model, y) is not None
    quick, exact = run_sums(model, y).arrays, run_fleet(model, y, ("log_likelihood", "statistics")).arrays
    for name, array in exact.items():
        assert np.allclose(quick[name], array, rtol=1e-12, atol=1e-12 * np.abs(array).max()), name
    y[3, 4, 0] = np.nan
    assert uncorrelated(model, y) is None
    y[3, 4] = np.inf
    assert list(run_sums(model, y).failed) == [3]
