"""C functions beside the typed functions of a cell: the same draws as through Python, and the same failures."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

pytest.importorskip("Cython", reason="Cython is not installed")

from pxtools import sampling
from pxtools.errors import PxMissing, TargetError
from pxtools.kernels.rwm import COMPILED
from pxtools.languages.cython_build import CythonFlags, build, module_name
from pxtools.languages.cython_targets import entries
from pxtools.remote import importer
from pxtools.sampling.numba_tier import choose_tier
from pxtools.sampling.pointers import c_arguments, why_python

CELL = '''
# cython: language_level=3
cimport cython
from libc.math cimport exp, NAN

scale = 2.0
@cython.cdivision(True)
@cython.boundscheck(False)
def plain(double x,
          double y):
    """Has a docstring: with a colon."""
# a comment at the margin
    cdef double z = x * x
    return exp(-(z + y * y) / scale)

def one_line(double x, double y): return exp(-x*x - 2*y*y)  # hm: yes
def with_default(double x, double y, double width=-1.5e0):
    return exp(-(x*x + y*y) * width * width)
def annotated(x: cython.double, y: float):
    return exp(-x*x - y*y)
def whole_numbers(double x, double y):
    return 1 if x * x + y * y < 1 else 0
cpdef double quick(double x, double y) noexcept nogil:
    return exp(-x*x - 3*y*y)
cpdef boxed(double x, double y):
    return exp(-x*x - 3*y*y)
cpdef double narrow(float x, float y):
    return exp(-x*x - y*y)
def view(double[::1] x):
    return exp(-x[0]*x[0] - x[1]*x[1])
def spoils(double[:] x):
    x[0] *= x[0]
    return exp(-x[0] - x[1]*x[1])
cdef double inner(const double[::1] x) noexcept:
    return x[0]*x[0] + x[1]*x[1]
cpdef double const_view(const double[::1] x) except? -1:
    return exp(-inner(x)) if len(x) == 2 else 0
cdef double pointer(const double* x, int n) noexcept nogil:
    cdef double s = 0
    for i in range(n):
        s += x[i] * x[i]
    return exp(-s)

def sometimes_nan(double x, double y):
    return NAN if x > 0.5 else exp(-x*x - y*y)
def raises(double x, double y):
    if x > 0.5:
        raise ZeroDivisionError("x is large")
    return exp(-x*x - y*y)
cpdef double declared(double x, double y) except? -1:
    if x > 0.5:
        raise ZeroDivisionError("x is large")
    return exp(-x*x - y*y)
def view_raises(double[::1] x):
    return exp(-x[0]*x[0]) if x[0] < 0.5 else x[7]
def forgets(double x, double y):
    if x < 0.5:
        return exp(-x*x - y*y)
def text(double x, double y):
    value = None if x > 0.5 else exp(-x*x)
    return value

def untyped(double x, y):
    return x * y
def several(double x, *more):
    return x
def by_name(double x, *, double y):
    return x
def keeps(double[::1] x):
    kept = [x]
    return kept[0][0]
def yields(double x):
    yield x
def no_number(double x, double y=scale):
    return x
cdef double helper(double* x, int n) noexcept:
    return x[0]
'''


@pytest.fixture(scope="module")
def module() -> types.ModuleType:
    """The cell, compiled and imported here."""
    flags = CythonFlags(compile_args=("-O0",))  # a quick build
    name = module_name(CELL, flags)
    try:
        return importer.load(name, build(name, CELL, flags).binary, CELL)
    except PxMissing as error:
        pytest.skip(str(error))


def both(module: Any, name: str, **options: Any) -> list[Any]:
    """Sample through the C pointer and through Python; return two Samples, or the exceptions."""
    found = []
    for tier in ("auto", "python"):
        target = sampling.resolve_target(getattr(module, name), density=True)
        plan = sampling.make_plan(
            target, initial=np.array([[0.1, 0.2]]), draws=4000, warmup=0, seed=3, sampler="rwm", step=0.4, **options
        )
        chosen, _ = choose_tier(target, plan, tier)
        assert chosen.tier == ("C pointer" if tier == "auto" else "cython")
        try:
            found.append(sampling.sample_here(chosen, plan))
        except Exception as error:
            found.append(error)
    return found


@pytest.mark.parametrize(
    "name",
    "plain one_line with_default annotated whole_numbers quick boxed narrow view spoils const_view pointer".split(),
)
def test_a_typed_function_is_called_by_pointer_and_gives_the_draws_of_the_python_call(module: Any, name: str) -> None:
    fast, slow = both(module, name)
    assert fast.draws.shape == (1, 4000, 2)
    assert len(np.unique(fast.draws)) > 1000
    np.testing.assert_array_equal(fast.draws, slow.draws)
    np.testing.assert_array_equal(fast.values, slow.values)


def test_the_kernel_calls_the_pointer_and_not_the_python_function(module: Any) -> None:
    if not COMPILED:
        pytest.skip("the kernels are not compiled: their twin calls Python")
    target = sampling.resolve_target(module.plain, density=True)
    calls: list[Any] = []
    target.caller.python = lambda *point: calls.append(point) or module.plain(*point)  # type: ignore[attr-defined]
    plan = sampling.make_plan(target, initial=np.array([[0.1, 0.2]]), draws=500, warmup=0, seed=3, sampler="rwm")
    samples = sampling.sample_here(target, plan)
    assert samples.n_evaluations >= 500
    assert len(calls) == 1  # the start point


@pytest.mark.parametrize("name", ["sometimes_nan", "raises", "declared", "view_raises"])
def test_nan_and_exceptions_reject_and_are_counted_as_through_python(module: Any, name: str) -> None:
    fast, slow = both(module, name)
    np.testing.assert_array_equal(fast.draws, slow.draws)
    counts = [(s.n_nan, s.n_errors, s.first_error) for s in (fast, slow)]
    assert counts[0] == counts[1]
    assert sum(counts[0][:2]) > 0


@pytest.mark.parametrize("name", ["forgets", "text"])
def test_a_value_that_is_no_number_is_the_target_error_of_the_python_call(module: Any, name: str) -> None:
    fast, slow = both(module, name)
    assert isinstance(fast, TargetError)
    assert str(fast) == str(slow)


def test_an_exception_names_the_line_of_the_cell(module: Any) -> None:
    first = both(module, "raises")[0].first_error
    line = CELL.splitlines().index('        raise ZeroDivisionError("x is large")') + 1
    assert f"line {line}, in" in first


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("untyped", "`y` is no C double"),
        ("several", "any number of arguments"),
        ("by_name", "by name only"),
        ("keeps", "more with `x` than to read"),
        ("yields", "does not compile"),
        ("no_number", "default of `y`"),
    ],
)
def test_a_function_without_a_c_function_says_why(module: Any, name: str, why: str) -> None:
    function = getattr(module, name)
    assert c_arguments(function) is None
    assert why in why_python(function)
    if name == "untyped":
        target = sampling.resolve_target(function)
        plan = sampling.make_plan(target, initial=np.array([[0.1, 0.2]]), draws=10, seed=1)
        assert why in choose_tier(target, plan)[1][0]


def test_a_default_can_be_sampled_too(module: Any) -> None:
    target = sampling.resolve_target(module.with_default, density=True, names=("a", "b", "c"))
    plan = sampling.make_plan(target, initial=np.array([[0.1, 0.2, 0.3]]), draws=300, seed=1, sampler="rwm")
    fast, slow = (sampling.sample_here(t, plan) for t in (target, target.as_python()))
    assert fast.target_tier == "C pointer"
    np.testing.assert_array_equal(fast.draws, slow.draws)


def test_a_helper_with_a_pointer_stays_inside_the_cell_and_a_target_is_known_to_python(module: Any) -> None:
    assert not hasattr(module, "helper")
    assert module.pointer([1.0, 2.0]) == pytest.approx(np.exp(-5))
    assert module.pointer.__qualname__ == "pointer"


def test_a_cell_that_cython_cannot_read_has_no_entries() -> None:
    assert entries("def f(double x:\n    return x\n") == []
