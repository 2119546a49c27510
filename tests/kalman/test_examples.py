"""Every example runs: those of the docstrings, and the notebook's cells."""

import doctest
import importlib
import json
import pkgutil
from pathlib import Path

import pytest

import pxtools.kalman

MODULES = [module.name for module in pkgutil.walk_packages(pxtools.kalman.__path__, "pxtools.kalman.")]
NOTEBOOK = Path(__file__).parents[2] / "examples" / "kalman.ipynb"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    if name.endswith("extended"):
        pytest.importorskip("sympy", reason="the example derives Jacobians by SymPy")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_notebooks_cells_run(cell, shell):
    pytest.importorskip("matplotlib", reason="the notebook draws").use("Agg")
    pytest.importorskip("pandas", reason="the notebook has dates")
    for part in json.loads(NOTEBOOK.read_text())["cells"]:
        source = "".join(part["source"])
        if part["cell_type"] == "code" and "load_ext" not in source:
            cell(source)
    names = shell.user_ns
    assert names["nile"].forecasts.mean.shape == (15, 1)
    assert names["gps"].n_diffuse_obs == 4
    assert names["demand"].fit.has_converged


def test_the_notebook_was_run_and_holds_its_pictures():
    outputs = [o for c in json.loads(NOTEBOOK.read_text())["cells"] for o in c.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 5
    assert not any(o["output_type"] == "error" for o in outputs)
