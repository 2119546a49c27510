"""The cell form: textbook letters, NumPy expressions, free parameters."""

import pickle

import numpy as np
import pytest

from pxtools.errors import PxUsageError
from pxtools.kalman import FreeModel, StateSpaceModel, filter_series, kalman, model_from_cell
from tests.kalman.data import NILE

NILE_CELL = 'F = [[1]]; H = [[1]]; Q = [[1469.1]]; R = [[15099]]\ninitial = "diffuse"'


def test_the_cell_of_the_contract():
    model = model_from_cell(NILE_CELL, {})
    assert isinstance(model, StateSpaceModel)
    assert filter_series(model, NILE).log_likelihood == pytest.approx(-633.4645636488784, abs=1e-9)


def test_expressions_read_the_notebooks_names_and_change_none():
    notebook = {"dt": 0.5, "q": np.eye(2), "np": np, "scale": lambda a: 2 * a}
    model = model_from_cell(
        "F = np.array([[1, dt], [0, 1]])\nH = [[1, 0]]\nQ = scale(q)\nR = 0.3\nx0 = [1, 2]\nP0 = 4 * np.eye(2)",
        notebook,
    )
    np.testing.assert_array_equal(model.transition_matrix, [[1, 0.5], [0, 1]])
    np.testing.assert_array_equal(model.process_cov, 2 * np.eye(2))
    np.testing.assert_array_equal(model.initial_mean, [1, 2])
    assert set(notebook) == {"dt", "q", "np", "scale"}


def test_public_names_serve_as_well_as_letters():
    cell = "transition_matrix = [[0.5]]; H = 1; process_cov = 1; R = 1; initial = 'stationary'; c = [2]; d = [1]"
    model = model_from_cell(cell, {})
    assert model.initial == ("stationary",)
    assert model.initial_state.mean[0] == pytest.approx(4.0)


NAMES = {
    "F = H = 1; Q = free(); R = free()": (["Q", "R"], [0.0, 0.0]),
    "F = H = 1\nq = free()\nQ = q; R = 2.0": (["q"], [0.0]),
    "F = [[free()]]; H = 1; Q = 1; R = 1; initial = 'approximate'": (["F[0,0]"], [-np.inf]),
    "F = np.eye(2); H = np.eye(2); R = np.eye(2); Q = [[free(), free()], [0, 1]]": (
        ["Q[0,0]", "Q[0,1]"],
        [0, -np.inf],
    ),
    "F = H = 1; Q = free(name='drift'); R = free(3.0, lower=1.0)": (["drift", "R"], [0.0, 1.0]),
    "model = local_level(free(), observation_var=free())": (
        ["local_level.level_var", "local_level.observation_var"],
        [0.0, 0.0],
    ),
    "model = cycle(8, free(), damping=free(), observation_var=1)": (
        ["cycle.cycle_var", "cycle.damping"],
        [0.0, 0.0],
    ),
    "F = H = 1; Q = sum([free(1.0) for i in range(2)]); R = 1": (["Q", "Q.2"], [0.0, 0.0]),
}


@pytest.mark.parametrize("cell", NAMES)
def test_free_parameters_are_named_by_their_place_and_variances_are_positive(cell):
    names, lower = NAMES[cell]
    if "[0, 1]]" in cell:  # half a covariance is refused once numbers are put in
        cell = cell.replace("[[free(), free()], [0, 1]]", "[[free(1.0), free(0.0)], [0, 1]]")
    model = model_from_cell(cell, {})
    assert isinstance(model, FreeModel)
    assert list(model.names) == names
    assert [mark.lower for mark in model.parameters.values()] == lower


def test_a_name_off_the_diagonal_is_no_variance():
    cell = "a = free(2.0); b = free(0.1)\nF = H = R = np.eye(2)\nQ = [[a, b], [b, a]]"
    marks = model_from_cell(cell, {}).parameters
    assert marks["a"].lower == 0.0
    assert marks["b"].lower == -np.inf


def test_the_free_cell_is_fitted():
    result = kalman(model_from_cell("F = H = [[1]]; Q = [[free()]]; R = [[free()]]", {}), NILE)
    assert result.log_likelihood == pytest.approx(-633.4645636362455, abs=1e-8)
    assert result.fit.values["R[0,0]"] == pytest.approx(15098.52, rel=1e-5)


def test_em_fits_the_matrices_that_hold_free_parameters():
    model = model_from_cell("F = H = 1; Q = free(1000.); R = 15099; initial = 'diffuse'", {})
    assert model.fills == ("process_cov",)
    result = kalman(model, NILE, fit="em", until="iterations>20")
    assert result.model.observation_cov[0, 0] == 15099
    assert result.model.process_cov[0, 0] != 1000


def test_a_free_cell_travels_to_engines():
    model = model_from_cell("F = H = 1; Q = k * free(); R = free()", {"k": 2.0, "unused": lambda: None})
    copy = pickle.loads(pickle.dumps(model))
    values = {"Q": 3.0, "R": 1.0}
    assert copy.at(values).process_cov[0, 0] == 6.0


def test_the_users_own_free_is_left_alone():
    model = model_from_cell("F = H = 1; Q = free(3); R = 1", {"free": lambda x: x + 1.0})
    assert isinstance(model, StateSpaceModel)
    assert model.process_cov[0, 0] == 4.0


BAD = {
    "F = 1; H = 1; Q = 1": "does not define `R`",
    "F = H = Q = R = 1; transition_matrix = 1": "both `F` and `transition_matrix`",
    "F = H = Q = R = 1; intial = 'diffuse'": "Line 1.*intial.*Did you mean `initial`",
    "F = H = 1; Q = -1; R = 1": "process_cov.*eigenvalue",
    "": "does not define `F`",
}


@pytest.mark.parametrize("cell", BAD)
def test_a_bad_cell_is_refused(cell):
    with pytest.raises(PxUsageError, match=f"(?s){BAD[cell]}"):
        model_from_cell(cell, {})


def test_errors_of_the_cells_own_code_are_the_users():
    with pytest.raises(NameError, match="sigma"):
        model_from_cell("F = H = Q = 1\nR = sigma", {})
    with pytest.raises(SyntaxError):
        model_from_cell("F = [1", {})
