"""A pickled formula runs in a process that has no pxtools, on the NumPy twin."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest
from expr_reference import PAIR, SAID, update_inputs

from pxtools.expr import compile, shipping

OTHER_PROCESS = """
import pickle, sys
install, sources, formula, inputs = pickle.load(sys.stdin.buffer)
did = pickle.loads(install)(sources)
result = pickle.loads(formula)(**inputs)
blasplan = sys.modules["pxtools.kernels.blasplan"]
pickle.dump((did, blasplan.run_plan is blasplan.run_plan_numpy, result.new_mu, result.new_Sigma), sys.stdout.buffer)
"""


@pytest.mark.parametrize("is_planned", [True, False])
def test_a_formula_runs_where_pxtools_is_not_installed(is_planned, tmp_path):
    formula = compile(PAIR, assumptions=SAID, name="update")
    inputs = update_inputs("well", 12, 5)
    wanted = formula(**inputs)
    if not is_planned:
        formula = compile(PAIR, assumptions=SAID, name="update")
    cloudpickle.register_pickle_by_value(shipping)
    try:
        install = cloudpickle.dumps(shipping.install_modules)
    finally:
        cloudpickle.unregister_pickle_by_value(shipping)
    payload = pickle.dumps((install, shipping.module_sources(), pickle.dumps(formula), inputs))
    # -S leaves site-packages out; NumPy, SciPy and cloudpickle are put back by their own folder
    folder = tmp_path / "only"
    folder.mkdir()
    site = next(p for p in sys.path if p.endswith("site-packages"))
    for name in ("numpy", "scipy", "cloudpickle", "numpy.libs", "scipy.libs", "threadpoolctl.py"):
        (folder / name).symlink_to(f"{site}/{name}")
    code = f"import sys; sys.path.append({str(folder)!r})\n" + OTHER_PROCESS
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, input=payload, capture_output=True, cwd=tmp_path, env=bare)
    assert done.returncode == 0, done.stderr.decode()
    did, on_twin, mean, cov = pickle.loads(done.stdout)
    assert did
    assert on_twin
    np.testing.assert_allclose(mean, wanted.new_mu, atol=1e-13)
    np.testing.assert_allclose(cov, wanted.new_Sigma, atol=1e-13)


def test_a_pickled_formula_is_small():
    formula = compile(PAIR, assumptions=SAID)
    formula.plan_for("n=1000,k=500")
    assert len(pickle.dumps(formula)) < 20_000
