"""Results as NumPy, pandas, text and pictures; batches; forecasts with dates."""

import numpy as np
import pandas as pd
import pytest

from pxtools.errors import PxUsageError
from pxtools.kalman import (
    StateSpaceModel,
    filter_series,
    kalman,
    local_level,
    local_linear_trend,
)
from pxtools.kalman.diagnostics import autocorrelation, diagnose
from pxtools.kalman.observations import read_observations
from tests.kalman.data import NILE
from tests.kalman.models import random_model, random_rows

MODEL = local_level(1469.1, observation_var=15099.0)


def test_one_call_filters_smooths_and_forecasts():
    result = kalman(MODEL, NILE, smooth=True, forecast=3, level=0.5)
    assert "smoothed" in result.__dict__
    assert result.forecasts.mean.shape == (3, 1)
    assert result.forecasts.level == 0.5
    width = (result.forecasts.upper - result.forecasts.mean)[:, 0] / np.sqrt(result.forecasts.cov[:, 0, 0])
    np.testing.assert_allclose(width, 0.6744897501960817)


def test_the_package_is_the_plain_twin_of_the_magic():
    import pxtools

    assert pxtools.kalman(MODEL, NILE).log_likelihood == kalman(MODEL, NILE).log_likelihood


def test_importing_the_package_loads_nothing_heavy():
    import subprocess
    import sys

    heavy = ("scipy.linalg", "pandas", "matplotlib", "sympy")
    code = f"import sys, pxtools.kalman; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_shapes_of_one_series_and_of_a_batch():
    model, y = random_model(1, 3, 2), random_rows(1, 7, 2)
    one, batch = filter_series(model, y), filter_series(model, np.stack([y, y]))
    for name in (
        *("observations", "predicted_mean", "predicted_cov", "filtered_mean", "filtered_cov", "innovations"),
        *(
            "innovation_cov",
            "gain",
            "standardized_residuals",
            "smoothed_mean",
            "smoothed_cov",
            "log_likelihood_steps",
        ),
        *(
            "smoothed_lag_one_cov",
            "process_disturbance",
            "process_disturbance_cov",
            "observation_disturbance",
        ),
        "observation_disturbance_cov",
    ):
        single, double = getattr(one, name), getattr(batch, name)
        assert double.shape == (2, *single.shape), name
        np.testing.assert_allclose(double[1], single, err_msg=name)
    assert isinstance(one.log_likelihood, float)
    assert batch.log_likelihood.shape == (2,)
    assert batch.forecast(2).mean.shape == (2, 2, 2)


def test_masked_arrays_and_pandas_missing_values_are_missing():
    y = NILE.copy()
    y[5] = np.nan
    wanted = filter_series(MODEL, y).log_likelihood
    assert filter_series(MODEL, np.ma.masked_invalid(y)).log_likelihood == wanted
    frame = pd.DataFrame({"flow": pd.array(y, dtype="Float64")})
    frame.loc[5, "flow"] = pd.NA
    assert filter_series(MODEL, frame).log_likelihood == wanted
    assert read_observations(NILE.astype(int), MODEL).values.dtype == np.float64


@pytest.mark.parametrize(
    ("index", "wanted"),
    [
        (pd.date_range("2020-01-31", periods=100, freq="ME"), ["2028-05-31", "2028-06-30"]),
        (pd.DatetimeIndex(list(pd.date_range("2020-01-01", periods=100))), ["2020-04-10", "2020-04-11"]),
        (pd.period_range("2020Q1", periods=100, freq="Q"), ["2045Q1", "2045Q2"]),
        (pd.RangeIndex(10, 210, 2), ["210", "212"]),
        (pd.Index(np.arange(100) / 4), ["25.0", "25.25"]),
        (pd.Index([f"row {i:03}" for i in range(100)]), None),
    ],
)
def test_forecasts_carry_the_dates_that_follow(index, wanted):
    result = filter_series(MODEL, pd.Series(NILE, index=index))
    after = result.forecast(2).index
    if wanted is None:
        assert after is None
    else:
        shown = after.strftime("%Y-%m-%d") if isinstance(after, pd.DatetimeIndex) else after.astype(str)
        assert list(shown) == wanted
    assert result.to_frame("filtered_mean").index is result.index


def test_uneven_dates_have_no_future():
    days = pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-05", "2020-01-06"])
    with pytest.raises(PxUsageError, match="asfreq"):
        filter_series(MODEL, pd.Series(NILE[:4], index=days)).forecast(1)


def test_tables_keep_index_and_names():
    frame = pd.DataFrame({"a": NILE, "b": NILE / 2}, index=pd.period_range("1871", periods=100, freq="Y"))
    model = StateSpaceModel([[1]], [[1], [0.5]], [[1469.1]], np.eye(2) * 15099, state_names=["level"])
    result = kalman(model, frame, smooth=True, forecast=2)
    assert list(result.to_frame("innovations").columns) == ["a", "b"]
    assert list(result.to_frame("smoothed_mean").columns) == ["level"]
    assert str(result.to_frame("predicted_mean").index[-1]) == "1971"
    assert list(result.forecasts.to_frame().columns) == [f"{c} {w}" for c in "ab" for w in ("mean", "lower", "upper")]
    assert str(result.forecasts.to_frame().index[0]) == "1971"
    many = kalman(model, np.stack([frame, frame]))
    assert many.to_frame("filtered_mean").shape == (100, 2)
    assert many.to_frame("standardized_residuals", column=1).shape == (100, 2)


def test_the_summary_tells_model_fit_likelihood_and_residuals():
    text = repr(kalman(MODEL, pd.Series(NILE, index=range(1871, 1971), name="flow"), forecast=8))
    for word in ("100 steps", "-633.4646", "1 diffuse", "Ljung-Box", "flow", "1971", "2 more"):
        assert word in text
    assert all(len(line) < 130 for line in text.splitlines())


def test_a_notebook_shows_the_summary_as_tables():
    series = pd.Series(NILE, index=range(1871, 1971), name="flow <m3>")
    result = kalman(MODEL, series, forecast=2)
    shown = result._repr_html_()
    for word in ("100 steps", "-633.4646", "last state", "Ljung-Box", "flow &lt;m3&gt;", "798.37", "1972"):
        assert word in shown
    assert shown.count("<table>") == shown.count("</table>") == 3
    assert "2 series" in filter_series(MODEL, np.stack([NILE, NILE])[..., None])._repr_html_()


def test_standardised_residuals_are_white():
    from pxtools.kalman import simulate

    model = random_model(3, 3, 2)
    y = simulate(model, 4000, seed=1).observations[0]
    y[::7, 0] = np.nan
    z = filter_series(model, y).standardized_residuals
    complete = z[~np.isnan(z).any(axis=1)]
    np.testing.assert_allclose(np.cov(complete.T), np.eye(2), atol=5 / np.sqrt(len(complete)))
    assert np.abs(autocorrelation(z[:, 1], 5)).max() < 4 / np.sqrt(4000)


def test_diagnostics_equal_statsmodels():
    sm = pytest.importorskip("statsmodels.api", reason="statsmodels is the witness here")
    from scipy.stats import jarque_bera

    z = filter_series(MODEL, NILE).standardized_residuals[1:, 0]
    d = diagnose(z)
    wanted = sm.stats.acorr_ljungbox(z, lags=[d.n_lags])
    assert d.ljung_box == pytest.approx(wanted["lb_stat"].iloc[0])
    assert d.ljung_box_p == pytest.approx(wanted["lb_pvalue"].iloc[0])
    assert d.jarque_bera == pytest.approx(jarque_bera(z).statistic)


def test_pictures_show_observations_signal_and_forecasts():
    matplotlib = pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    matplotlib.use("Agg")
    series = pd.Series(NILE, index=pd.date_range("1871", periods=100, freq="YS"), name="flow")
    result = kalman(MODEL, series, smooth=True, forecast=10)
    (axis,) = result.plot().axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["observed", "smoothed signal", "forecast", "95% interval"]
    np.testing.assert_allclose(axis.lines[1].get_ydata(), result.smoothed_mean[:, 0])
    assert axis.get_ylabel() == "flow"
    assert len(result.plot_diagnostics().axes) == 4
    two = random_model(1, 2, 2)
    assert len(kalman(two, np.stack([random_rows(1, 30, 2)] * 3), forecast=2).plot(series=1).axes) == 2
    with pytest.raises(PxUsageError, match="series"):
        kalman(two, random_rows(1, 30, 2)).plot(series=1)
    with pytest.raises(PxUsageError, match="too few"):
        kalman(two, random_rows(1, 5, 2)).plot_diagnostics()


def test_a_diffuse_signal_is_not_drawn_before_it_is_known():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    result = filter_series(local_linear_trend(1.0, 1.0, observation_var=1.0), NILE)
    assert len(result.plot().axes[0].lines[1].get_ydata()) == 99


def test_infinite_innovation_variances_are_infinite_and_have_no_residual():
    result = filter_series(local_linear_trend(1.0, 1.0, observation_var=1.0), NILE)
    assert np.isinf(result.innovation_cov[:2]).all()
    assert np.isnan(result.standardized_residuals[:2]).all()
    assert np.isfinite(result.standardized_residuals[2:]).all()
