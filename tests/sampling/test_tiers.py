"""C pointers and Numba: the same walk at the speed of C, trusted only where it agrees with Python."""

import importlib.util
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from three_gaussians import gaussian

from pxtools import sampling
from pxtools.errors import PxUsageError
from pxtools.sampling import numba_tier
from pxtools.sampling.numba_tier import choose_tier

numba = pytest.importorskip("numba")

offset = 0.25
table = np.array([1.0, 2.0])


def helper(x):
    return x - offset


def with_helpers(x, y):
    return -0.5 * (helper(x) ** 2 * table[0] + helper(y) ** 2 * table[1])


def of_a_vector(p):
    p[0] += 1.0  # its own copy
    return -0.5 * (p[0] - 1.0) ** 2 - 0.5 * (p**2)[1:].sum()


def raising(x, y):
    if x > 100:
        raise ValueError("far")
    return -x * x - y * y


settings = {"scale": 1.0}


def with_a_dict(x, y):
    return -x * x - y * y * settings["scale"]


def samples_of(function, tier, sampler="auto", density=False, **options):
    target = sampling.resolve_target(function, density=density)
    plan = sampling.make_plan(target, seed=3, draws=300, warmup=200, sampler=sampler, **options)
    target, notes = choose_tier(target.with_size(len(plan.names)), plan, tier)
    return sampling.sample_here(target, plan), notes


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_numba_of_the_unchanged_function_with_its_helpers_gives_the_same_draws(sampler):
    fast, _ = samples_of(with_helpers, "numba", sampler)
    plain, _ = samples_of(with_helpers, "python", sampler)
    assert (fast.target_tier, plain.target_tier) == ("numba", "python")
    np.testing.assert_allclose(fast.draws, plain.draws, rtol=1e-6, atol=1e-9)


def test_function_that_changes_its_vector_gets_a_copy():
    fast, _ = samples_of(of_a_vector, "numba", initial=np.random.default_rng(0).standard_normal((4, 3)))
    plain, _ = samples_of(of_a_vector, "python", initial=np.random.default_rng(0).standard_normal((4, 3)))
    np.testing.assert_allclose(fast.draws, plain.draws, rtol=1e-6, atol=1e-9)


def test_changed_global_is_compiled_anew(monkeypatch):
    before, _ = samples_of(with_helpers, "numba")
    monkeypatch.setitem(globals(), "offset", 5.0)
    after, _ = samples_of(with_helpers, "numba")
    assert abs(after["x"].mean() - before["x"].mean() - 4.75) < 1


@pytest.mark.parametrize(
    ("function", "words"),
    [(raising, "raises exceptions on purpose"), (with_a_dict, "does not compile"), (gaussian, "does not compile")],
)
def test_what_numba_cannot_do_is_said_when_asked_for_and_noted_otherwise(function, words, monkeypatch):
    with pytest.raises(PxUsageError, match=words):
        samples_of(function, "numba", density=function is gaussian)
    monkeypatch.setattr("pxtools.sampling.numba_tier.WORTH_EVALUATIONS", 1)
    samples, notes = samples_of(function, "auto", density=function is gaussian)
    assert samples.target_tier == "python"
    assert words in notes[0]


def test_numba_that_disagrees_with_python_is_not_trusted(monkeypatch):
    from pxtools.sampling import numba_tier

    right = numba_tier._compile
    monkeypatch.setattr(numba_tier, "_compiled", {})

    def wrong(function, n_params, is_scalar):
        return right(lambda x, y: -x * x - y * y + 1e-6, n_params, is_scalar)

    monkeypatch.setattr(numba_tier, "_compile", wrong)
    with pytest.raises(PxUsageError, match="Numba gives"):
        samples_of(with_helpers, "numba")


def test_little_work_is_not_worth_compiling_and_unknown_tiers_are_refused():
    samples, notes = samples_of(with_helpers, "auto")
    assert (samples.target_tier, notes) == ("python", [])
    with pytest.raises(PxUsageError, match=r"auto \| python \| numba"):
        samples_of(with_helpers, "jax")


def c_of_numba():
    kinds = numba.types

    @numba.cfunc(kinds.float64(kinds.CPointer(kinds.float64), kinds.intc))
    def bowl(p, n):
        total = 0.0
        for i in range(n):
            total -= 0.5 * p[i] * p[i]
        return total

    return bowl


def bowl_in_python(p):
    total = 0.0
    for i in range(len(p)):
        total -= 0.5 * p[i] * p[i]
    return total


def test_numba_cfunc_is_a_target_that_travels():
    starts = np.random.default_rng(0).standard_normal((4, 3))
    target = sampling.resolve_target(c_of_numba())
    plan = sampling.make_plan(target, initial=starts, draws=100, warmup=100, seed=1)
    target = target.with_size(3)
    expected = sampling.sample_here(sampling.resolve_target(bowl_in_python), plan).draws
    np.testing.assert_array_equal(sampling.sample_here(target, plan).draws, expected)
    assert target.tier == "C pointer"
    assert "caller" not in pickle.loads(pickle.dumps(sampling.resolve_target(math.hypot, scalar=False))).__dict__


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_cython_capsule_and_low_level_callable_are_targets(tmp_path, monkeypatch):
    pytest.importorskip("Cython")
    scipy = pytest.importorskip("scipy")
    (tmp_path / "bowls.pyx").write_text(
        "cdef api double bowl(const double* p, int n) noexcept nogil:\n"
        "    cdef double total = 0.0\n    cdef int i\n"
        "    for i in range(n):\n        total -= 0.5 * p[i] * p[i]\n    return total\n"
        "cdef api double other(double x) noexcept nogil:\n    return x\n"
    )
    build = [sys.executable, "-m", "Cython.Build.Cythonize", "-i", "-q", "-3", "bowls.pyx"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    spec = importlib.util.spec_from_file_location("bowls", next(tmp_path.glob("bowls.*.so")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "bowls", module)
    starts = np.random.default_rng(0).standard_normal((4, 3))
    plan = sampling.make_plan(sampling.resolve_target(bowl_in_python), initial=starts, draws=100, warmup=50, seed=1)
    expected = sampling.sample_here(sampling.resolve_target(bowl_in_python), plan).draws
    low_level = scipy.LowLevelCallable.from_cython(module, "bowl")
    for thing in (module.__pyx_capi__["bowl"], low_level):
        target = pickle.loads(pickle.dumps(sampling.resolve_target(thing)))
        assert (target.name, target.tier) == ("bowl", "C pointer")
        np.testing.assert_array_equal(sampling.sample_here(target.with_size(3), plan).draws, expected)
    with pytest.raises(PxUsageError, match="A target needs double f"):
        sampling.resolve_target(module.__pyx_capi__["other"])


def test_numba_runs_on_engines(session, cell):
    from pxtools.session.sampling import sample

    cell("import math\nscale = 0.5\ndef bell(x, y):\n    return -0.5 * ((x / scale) ** 2 + y * y)")
    bell = session.namespace["bell"]
    fast, plain = (
        sample(session, bell, tier=tier, draws=300, chains=8, seed=4, targets=[session.wire.ids[0]])
        for tier in ("numba", "python")
    )
    assert (fast.target_tier, plain.target_tier) == ("numba", "python")
    np.testing.assert_allclose(fast.draws, plain.draws, rtol=1e-6, atol=1e-9)


INTERRUPTED = """
import os, signal, sys, threading, time
from pxtools import sampling
from pxtools.sampling.numba_tier import choose_tier

def press():
    while "numba.core" not in sys.modules:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

target = sampling.resolve_target(lambda x, y: -x * x - y * y)
plan = sampling.make_plan(target, draws=2_000_000, seed=1)
assert "numba" not in sys.modules
threading.Thread(target=press, daemon=True).start()
try:
    choose_tier(target, plan)
except KeyboardInterrupt:
    print("interrupted,", choose_tier(target, plan)[0].tier)
"""


def test_ctrl_c_while_numba_is_imported_leaves_a_numba_that_works():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert done.stdout == "interrupted, numba\n", done.stderr


def test_ctrl_c_while_numba_compiles_is_not_lost(monkeypatch):
    """LLVM calls Python meanwhile, and an exception there goes nowhere."""
    target = sampling.resolve_target(with_helpers)
    plan = sampling.make_plan(target, draws=2_000_000, seed=1)
    cfunc = numba.cfunc

    def pressed(*signature, **options):
        def compile_and_swallow(function):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            except KeyboardInterrupt:
                pass
            return cfunc(*signature, **options)(function)

        return compile_and_swallow

    monkeypatch.setattr(numba, "cfunc", pressed)
    numba_tier._compiled.clear()
    with pytest.raises(KeyboardInterrupt):
        choose_tier(target, plan)
    monkeypatch.undo()
    assert choose_tier(target, plan)[0].tier == "numba"
