"""Bad input is refused in two to four lines that name the matrix and say what to type."""

import numpy as np
import pandas as pd
import pytest

from pxtools.errors import PxUsageError
from pxtools.kalman import (
    FreeModel,
    StateSpaceModel,
    arima,
    cycle,
    filter_series,
    fit_model,
    free,
    from_statsmodels,
    kalman,
    local_level,
    local_linear_trend,
    regression,
    seasonal,
    trigonometric_seasonal,
)

LEVEL = local_level(1.0, observation_var=1.0)


def level_with(q):
    return local_level(q)


GOOD = {
    "transition_matrix": np.eye(2),
    "observation_matrix": [[1, 0]],
    "process_cov": np.eye(2),
    "observation_cov": [[1]],
}

MODELS = {
    "not square": ({"transition_matrix": np.ones((2, 3))}, "transition_matrix.*square"),
    "wrong columns": ({"observation_matrix": [[1, 0, 0]]}, "observation_matrix.*shape"),
    "wrong size": ({"process_cov": np.eye(3)}, "process_cov.*shape"),
    "wrong noise": ({"observation_cov": np.eye(2)}, "observation_cov.*shape"),
    "asymmetric": ({"process_cov": [[1, 0.5], [0.2, 1]]}, "process_cov.*not symmetric"),
    "indefinite": ({"process_cov": [[1, 2], [2, 1]]}, "process_cov.*eigenvalue"),
    "negative": ({"observation_cov": [[-1]]}, "observation_cov.*eigenvalue"),
    "infinite": ({"transition_matrix": [[1, np.inf], [0, 1]]}, "transition_matrix.*inf"),
    "nan": ({"observation_cov": [[np.nan]]}, "observation_cov.*nan"),
    "text": ({"process_cov": [["a", 0], [0, 1]]}, "process_cov.*real numbers"),
    "ragged": ({"process_cov": [[1], [0, 1]]}, "process_cov.*real numbers"),
    "complex": ({"process_cov": np.eye(2) * 1j}, "process_cov.*complex"),
    "intercept": ({"transition_intercept": [1, 2, 3]}, "transition_intercept.*shape"),
    "selection": ({"selection_matrix": np.eye(3)}, "selection_matrix.*shape"),
    "steps": (
        {"process_cov": np.ones((4, 2, 2)), "observation_cov": np.ones((5, 1, 1))},
        "process_cov.*4.*5",
    ),
    "mean alone": ({"initial_mean": [0, 0]}, "initial_cov"),
    "unknown start": ({"initial": "stationry"}, "Did you mean `stationary`"),
    "start too short": ({"initial": ["diffuse"]}, "initial.*1.*2"),
    "known without moments": ({"initial": "known"}, "initial_cov"),
    "not stationary": ({"initial": "stationary"}, "transition_matrix.*modulus"),
    "varying start": ({"initial_cov": np.ones((3, 2, 2))}, "initial_cov.*shape"),
    "asymmetric start": ({"initial_cov": [[1, 1], [0, 1]]}, "initial_cov.*not symmetric"),
    "names": ({"state_names": ["a"]}, "1 names"),
    "vague": ({"initial": "approximate", "approximate_variance": -1}, "approximate_variance"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_bad_model_is_refused_and_the_matrix_named(case):
    change, message = MODELS[case]
    with pytest.raises(PxUsageError, match=f"(?s){message}") as error:
        StateSpaceModel(**GOOD | change)
    assert len(str(error.value).splitlines()) <= 4


def dates(*days):
    return pd.Series(np.arange(float(len(days))), index=pd.to_datetime(list(days)))


OBSERVATIONS = {
    "all missing": ([np.nan, np.nan], "no number at all"),
    "infinite": ([1.0, np.inf], "infinite value at row 1"),
    "two columns": (np.ones((5, 2)), r"shape \(5, 2\)"),
    "empty": ([], "empty"),
    "text": (["a", "b"], "real numbers"),
    "four axes": (np.ones((1, 1, 1, 1)), "shape"),
    "duplicated dates": (dates("2020-01-01", "2020-01-01"), "duplicates"),
    "unsorted dates": (dates("2020-01-02", "2020-01-01"), "increasing order"),
    "one empty series": (np.array([[[1.0]], [[np.nan]]]), "series 1"),
}


@pytest.mark.parametrize("case", OBSERVATIONS)
def test_bad_observations_are_refused(case):
    y, message = OBSERVATIONS[case]
    with pytest.raises(PxUsageError, match=message) as error:
        filter_series(LEVEL, y)
    assert 1 <= len(str(error.value).splitlines()) <= 4


def test_transposed_observations_are_recognised():
    with pytest.raises(PxUsageError, match=r"observations.T"):
        filter_series(
            StateSpaceModel(**GOOD | {"observation_matrix": np.eye(2), "observation_cov": np.eye(2)}),
            np.ones((2, 9)),
        )


def test_dates_that_are_not_those_of_the_regressors_are_refused():
    X = pd.DataFrame({"x": [1.0, 2.0, 3.0]}, index=pd.date_range("2020-01-01", periods=3))
    y = pd.Series([1.0, 2.0, 3.0], index=pd.date_range("2020-01-02", periods=3))
    with pytest.raises(PxUsageError, match=r"row 0.*2020-01-02.*(?s:.)*reindex"):
        filter_series(regression(X, observation_var=1.0), y)
    with pytest.raises(PxUsageError, match="different dates"):
        regression(X) + regression(X.set_index(y.index))


def test_more_rows_than_matrices_are_refused():
    with pytest.raises(PxUsageError, match=r"cover 3 steps.*4 rows"):
        filter_series(regression(np.ones(3), observation_var=1.0), np.ones(4))


CALLS = {
    "form": (lambda: filter_series(LEVEL, [1.0], form="chol"), "form"),
    "model": (lambda: kalman([[1]], [1.0]), "StateSpaceModel"),
    "fit": (lambda: kalman(LEVEL, [1.0], fit="mle"), "Did you mean `ml`"),
    "nothing free": (lambda: kalman(LEVEL, [1.0], fit="ml"), "free"),
    "until alone": (lambda: kalman(LEVEL, [1.0], until="gain<1"), "fit='ml'"),
    "until word": (lambda: kalman(LEVEL, [1.0], fit="em", until="gian<1e-8"), "Did you mean `gain`"),
    "until side": (lambda: kalman(LEVEL, [1.0], fit="em", until="gain>1e-8"), "iterations"),
    "until syntax": (lambda: kalman(LEVEL, [1.0], fit="em", until="gain"), "no condition"),
    "em matrix": (lambda: fit_model(LEVEL, [1.0], "em", em_matrices=["process"]), "Did you mean"),
    "em diffuse": (lambda: fit_model(LEVEL, [1.0], "em", em_matrices=["initial_cov"]), "known initial state"),
    "bounds": (lambda: free(lower=1, upper=0), "no room"),
    "start": (lambda: free(-1.0, positive=True), "outside its bounds"),
    "no parameter": (lambda: FreeModel(lambda: LEVEL, {}), "no free parameter"),
    "not free": (lambda: FreeModel(lambda q: LEVEL, {"q": 1.0}), "mark it with free"),
    "starts": (lambda: fit_model(FreeModel(level_with, {"q": free(1.0)}), [1.0, 2.0], starts=0), "starts"),
    "no start": (lambda: fit_model(FreeModel(level_with, {"q": free(-1.0)}), [1.0, 2.0]), "process_cov"),
    "not a model": (lambda: fit_model(FreeModel(lambda q: q, {"q": free(1.0)}), [1.0]), "not a StateSpaceModel"),
    "forecast": (lambda: filter_series(LEVEL, [1.0]).forecast(0), "positive integer"),
    "level": (lambda: filter_series(LEVEL, [1.0]).forecast(1, level=95), "between 0 and 1"),
    "undetermined": (
        lambda: filter_series(local_linear_trend(1, 1, observation_var=1), [1.0]).forecast(1),
        "infinite variance",
    ),
    "no future": (lambda: filter_series(regression(np.ones(3), observation_var=1), np.ones(3)).forecast(1), "need 4"),
    "table": (lambda: filter_series(LEVEL, [1.0]).to_frame("smooth_mean"), "Did you mean"),
    "part": (lambda: LEVEL.replace(process_covariance=1), "Did you mean `process_cov`"),
    "period": (lambda: seasonal(1, 1.0), "period"),
    "harmonics": (lambda: trigonometric_seasonal(4, 1.0, n_harmonics=3), "at most 2"),
    "cycle": (lambda: cycle(0.5, 1.0), "period"),
    "damping": (lambda: cycle(8, 1.0, damping=1.5), "damping"),
    "arima": (lambda: arima([1.2]), "stationary"),
    "seasonal arima": (lambda: arima(seasonal_ar=[0.2]), "period"),
    "differences": (lambda: arima(d=-1), "negative"),
    "sum": (lambda: LEVEL + StateSpaceModel([[1]], [[1], [1]], [[1]], np.eye(2)), "cannot be added"),
    "statsmodels": (lambda: from_statsmodels(3), "statsmodels"),
    "information": (
        lambda: filter_series(LEVEL.replace(observation_cov=[[0]], initial_cov=[[1.0]]), [1.0], form="information"),
        "singular",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_a_bad_call_is_refused_with_what_to_type(case):
    call, message = CALLS[case]
    with pytest.raises(PxUsageError, match=f"(?s){message}") as error:
        call()
    assert 1 <= len(str(error.value).splitlines()) <= 4


def test_round_off_asymmetry_is_mended_and_not_refused():
    Q = np.array([[1.0, 0.5], [0.5 + 1e-13, 1.0]])
    model = StateSpaceModel(**GOOD | {"process_cov": Q})
    assert (model.process_cov == model.process_cov.T).all()


def test_a_model_is_frozen_and_its_arrays_are_read_only():
    model = StateSpaceModel(**GOOD)
    with pytest.raises(AttributeError):
        model.process_cov = np.eye(2)
    with pytest.raises(ValueError, match="read-only"):
        model.process_cov[0, 0] = 2.0
