"""A pickled formula runs in a process that has no pxtools but what the house sends: on the NumPy twin."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from expr_reference import PAIR, SAID, update_inputs

from pxtools.engines.wire import own_sources
from pxtools.expr import compile

ENGINE = """
import importlib.util, pickle, sys, types
assert importlib.util.find_spec("pxtools") is None
sources, formula, inputs = pickle.load(sys.stdin.buffer)
importer = types.ModuleType("pxtools.remote.importer")
sys.modules[importer.__name__] = importer
exec(sources[importer.__name__][0], vars(importer))
del sys.modules[importer.__name__]
importer.install(sources)
result = pickle.loads(formula)(**inputs)
blasplan = sys.modules["pxtools.kernels.blasplan"]
pickle.dump((blasplan.run_plan is blasplan.run_plan_numpy, result.new_mu, result.new_Sigma), sys.stdout.buffer)
"""


@pytest.mark.parametrize("is_planned", [True, False])
def test_a_formula_runs_where_pxtools_is_not_installed(is_planned, tmp_path):
    formula = compile(PAIR, assumptions=SAID, name="update")
    inputs = update_inputs("well", 12, 5)
    wanted = formula(**inputs)
    if not is_planned:
        formula = compile(PAIR, assumptions=SAID, name="update")
    # away from this machine's tree, the compiled kernel included
    elsewhere = {name: (text, f"/shipped/{name}", is_package) for name, (text, _, is_package) in own_sources().items()}
    payload = pickle.dumps((elsewhere, pickle.dumps(formula), inputs))
    # -S leaves site-packages out; NumPy and SciPy are put back by a folder of their own
    folder = tmp_path / "only"
    folder.mkdir()
    site = next(path for path in sys.path if path.endswith("site-packages"))
    for name in ("numpy", "scipy", "numpy.libs", "scipy.libs", "threadpoolctl.py"):
        (folder / name).symlink_to(f"{site}/{name}")
    code = f"import sys; sys.path.append({str(folder)!r})\n" + ENGINE
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, input=payload, capture_output=True, cwd=tmp_path, env=bare)
    assert done.returncode == 0, done.stderr.decode()
    on_twin, mean, cov = pickle.loads(done.stdout)
    assert on_twin
    np.testing.assert_allclose(mean, wanted.new_mu, atol=1e-13)
    np.testing.assert_allclose(cov, wanted.new_Sigma, atol=1e-13)


def test_a_pickled_formula_is_small():
    formula = compile(PAIR, assumptions=SAID)
    formula.plan_for("n=1000,k=500")
    assert len(pickle.dumps(formula)) < 20_000
