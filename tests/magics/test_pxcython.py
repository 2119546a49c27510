"""`%%pxcython` through a real shell on a real cluster."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxClusterError, PxCompileError, PxMissing, PxUsageError

pytest.importorskip("Cython", reason="Cython is not installed")

TWICE = "%%pxcython\ndef twice(double x):\n    return 2 * x\n"
COUNTER = """%%pxcython
cdef class Counter:
    cdef public double total
    def __init__(self, double total=0):
        self.total = total
    def add(self, double x):
        self.total += x
        return self
"""


@pytest.fixture
def n_builds(monkeypatch: Any) -> Iterator[list[str]]:
    """The names of the modules that were compiled here."""
    from pxtools.session import cython

    compiled: list[str] = []
    usual = cython.build

    def counting(name: str, *rest: Any) -> Any:
        compiled.append(name)
        return usual(name, *rest)

    monkeypatch.setattr(cython, "build", counting)
    return compiled


def test_a_function_is_compiled_once_and_works_here_and_on_every_engine(cell: Any, shell: Any, n_builds: Any) -> None:
    cell(TWICE)
    cell("%pxrun y = twice(px_rank)")
    assert list(shell.user_ns["y"]) == [0, 2, 4, 6]
    assert shell.user_ns["twice"](21) == 42
    cell(TWICE)
    assert len(n_builds) == 1
    cell(TWICE.replace("%%pxcython", "%%pxcython -f"))
    assert len(n_builds) == 2


def test_redefinition_replaces_it_everywhere(cell: Any, shell: Any) -> None:
    for factor in (2, 3, 2, 5):
        cell(f"%%pxcython\ndef scaled(double x):\n    return {factor} * x\n")
        cell("%pxrun y = scaled(10)")
        assert list(shell.user_ns["y"]) == [10 * factor] * 4
        assert shell.user_ns["scaled"](10) == 10 * factor
        assert cell("%pxmap scaled [1, 2, 3]") == [factor, 2 * factor, 3 * factor]


def test_a_compiled_function_can_be_mapped_closed_over_collected_and_sampled(cell: Any, shell: Any) -> None:
    cell("%%pxcython\nfrom libc.math cimport exp\ndef bell(double x, double y):\n    return exp(-(x*x + y*y) / 2)\n")
    cell("def outer(k):\n    def inner(x):\n        return bell(x, 0.0) + k\n    return inner")
    assert cell("%pxmap outer(1) [0.0, 0.0]") == [2.0, 2.0]
    collected = cell("%pxcollect bell")
    assert collected[0] is shell.user_ns["bell"]
    walk = cell("%pxsample bell --density --draws 50 --warmup 0 --seed 1 --bounds (-5,5)")
    assert walk.n_draws == 50
    assert walk.names == ("x", "y")


def test_a_typed_function_is_sampled_through_a_c_pointer_on_every_engine(cell: Any) -> None:
    cell("%%pxcython\nfrom libc.math cimport exp\ndef bell(double x, double y):\n    return exp(-(x*x + y*y) / 2)\n")
    line = "%pxsample bell --density --draws 400 --seed 1 --initial [[0,0],[1,1],[0,1],[1,0]]"
    fast, one, slow = (cell(f"{line} {more}") for more in ("", "-t 0", "--tier python"))
    assert re.search(r"\(target: C pointer, [\d.]+ \S?s per evaluation\)", repr(fast))
    assert slow.target_tier == "cython"
    np.testing.assert_array_equal(fast.draws, one.draws)
    np.testing.assert_array_equal(fast.draws, slow.draws)


def test_a_cdef_function_of_a_pointer_is_bound_as_a_target(cell: Any) -> None:
    cell("""%%pxcython
cdef double bowl(const double* x, int n) noexcept nogil:
    cdef double total = 0
    for i in range(n):
        total -= x[i] * x[i]
    return total
""")
    assert cell("bowl([1, 2])") == -5
    samples = cell("%pxsample bowl --draws 50 --seed 1 --initial [[0,0,1],[1,1,0]]")
    assert (samples.target_tier, samples.n_params) == ("C pointer", 3)


def test_instances_of_a_compiled_class_travel_both_ways(cell: Any, shell: Any) -> None:
    cell(COUNTER)
    cell("c = Counter(10)")
    cell("%pxrun c = c.add(px_rank)")
    assert [c.total for c in shell.user_ns["c"]] == [10, 11, 12, 13]
    assert type(shell.user_ns["c"][0]) is shell.user_ns["Counter"]


def test_a_failed_build_changes_nothing_and_shows_the_caret(cell: Any, shell: Any) -> None:
    cell(TWICE)
    before = shell.user_ns["twice"]
    with pytest.raises(PxCompileError, match=r"line 4: undeclared name not builtin: s") as caught:
        cell("%%pxcython\ndef twice(double x):\n    y = 3\n    # no\n    return x * s\n")
    assert str(caught.value).splitlines()[1:] == ["        return x * s", "                   ^"]
    assert shell.user_ns["twice"] is before
    cell("%pxrun y = twice(1)")
    assert list(shell.user_ns["y"]) == [2] * 4


def test_an_error_of_the_c_compiler_names_the_line_of_the_cell(cell: Any) -> None:
    with pytest.raises(PxCompileError, match=r"^line 1: the C compiler says: nope\.h"):
        cell("%%pxcython\ncdef extern from 'nope.h':\n    int foo()\ndef f():\n    return foo()\n")
    with pytest.raises(PxCompileError, match=r"the C compiler says: .*nosuchlibrary"):
        cell("%%pxcython -l nosuchlibrary\ndef f():\n    return 1\n")


def test_a_module_whose_top_level_raises_binds_no_name(cell: Any, shell: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        cell("%%pxcython\ndef never(): return 1\nx = 1 / 0\n")
    assert "never" not in shell.user_ns


def test_a_module_that_fails_on_engines_only_binds_no_name_anywhere(cell: Any, shell: Any) -> None:
    code = "import builtins\nif hasattr(builtins, 'px_broken'): raise KeyError('here')\ndef fragile(): return 1\n"
    cell("%pxrun import builtins; builtins.px_broken = True")
    try:
        with pytest.raises(KeyError):
            cell(f"%%pxcython\n{code}")
    finally:
        cell("%pxrun del builtins.px_broken")
    assert "fragile" not in shell.user_ns
    assert cell("%pxrun 'fragile' in globals()").same() is False


def test_imports_of_the_cell_do_not_leak_into_the_notebook(cell: Any, shell: Any) -> None:
    cell(
        "%%pxcython\nimport numpy as np_leaked\nfrom math import exp as exp_leaked\n"
        "def one():\n    return exp_leaked(0)\n"
    )
    assert shell.user_ns["one"]() == 1
    assert not {"np_leaked", "exp_leaked"} & set(shell.user_ns)


def test_numpy_memoryviews_and_openmp_work(cell: Any, shell: Any) -> None:
    cell("""%%pxcython -c=-fopenmp --link-args=-fopenmp
# cython: boundscheck=False
cimport numpy as cnp
from cython.parallel cimport prange
def total(const double[::1] x):
    cdef double s = 0
    cdef Py_ssize_t i
    for i in prange(x.shape[0], nogil=True):
        s += x[i]
    return s
""")
    cell("import numpy as np")
    cell("%pxrun t = total(np.arange(10.0))")
    assert list(shell.user_ns["t"]) == [45.0] * 4


def test_cpp_and_a_module_name_work(cell: Any) -> None:
    cell("""%%pxcython -+ -n sorting_px
from libcpp.vector cimport vector
from libcpp.algorithm cimport sort
def ordered(vector[double] x):
    sort(x.begin(), x.end())
    return x
""")
    cell("import sorting_px")
    assert cell("sorting_px.ordered([3, 1, 2])") == [1, 2, 3]
    assert cell("%pxrun __import__('sorting_px').ordered([2, 1])").same() == [1, 2]


def test_the_annotation_is_shown_once(cell: Any, monkeypatch: Any) -> None:
    from pxtools.magics import pxcython

    shown: list[Any] = []
    monkeypatch.setattr(pxcython, "display", shown.append)
    cell("%%pxcython -a\ndef f(x):\n    return x + 1\n")
    assert len(shown) == 1
    assert "cython" in shown[0].data.lower()


def test_check_finds_the_wrong_formula_of_a_density(cell: Any, capsys: Any) -> None:
    cell("from math import exp\ndef gauss(a, b):\n    return exp(-(a**2 + b**2) / 2)")
    cell(
        "%%pxcython --check gauss\nfrom libc.math cimport exp\n"
        "def gauss_c(double a, double b):\n    return exp(-(a**2 + b**2) / 2)\n"
    )
    out = capsys.readouterr().out
    assert "check gauss_c vs gauss: 200 points, max |difference|" in out
    assert "DIFFERENT" not in out
    cell(
        "%%pxcython --check gauss\nfrom libc.math cimport exp\n"
        "def gauss_c(double a, double b):\n    return exp(-(a**2 + b**2/2))\n"
    )
    out = capsys.readouterr().out
    assert "DIFFERENT at 200 of 200 points" in out
    assert max(map(len, out.splitlines())) < 78  # half a screen


def test_check_compares_with_the_python_function_of_the_same_name_and_takes_vectors(cell: Any, capsys: Any) -> None:
    cell("import numpy as np\ndef norm(x):\n    return float(np.sum(x**2))")
    cell("""%%pxcython --check norm --bounds [(-1,1),(-1,1),(0,9)]
def norm(double[::1] x):
    return x[0]**2 + x[1]**2 + x[2]**2
""")
    assert "check norm vs the former norm: 200 points, max |difference|" in capsys.readouterr().out


def test_check_of_an_unknown_function_is_a_usage_error_and_binds_nothing(cell: Any, shell: Any) -> None:
    with pytest.raises(PxUsageError, match="no function `nobody`"):
        cell("%%pxcython --check nobody\ndef unbound(double a): return a\n")
    assert "unbound" not in shell.user_ns


def test_an_unknown_flag_is_a_usage_error(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="--check"):
        cell("%%pxcython --chekc f\ndef f(): pass\n")


def test_engines_of_another_platform_compile_for_themselves_once_per_host(cell: Any, shell: Any, session: Any) -> None:
    wire = session.wire
    usual = {i: said["abi"] for i, said in wire.engines.items()}
    for i in (2, 3):
        wire.engines[i]["abi"] = "another platform"
    asked: list[Any] = []
    call = wire.call

    def watching(function: str, messages: Any, *rest: Any) -> Any:
        if function.endswith("build_for"):
            asked.extend(messages)
        return call(function, messages, *rest)

    wire.call = watching
    try:
        cell("%%pxcython\ndef foreign(double x):\n    return x + 40\n")
        cell("%pxrun y = foreign(px_rank)")
    finally:
        del wire.call
        for i, text in usual.items():
            wire.engines[i]["abi"] = text
    assert asked == [2]
    assert list(shell.user_ns["y"]) == [40, 41, 42, 43]


def test_without_a_compiler_here_an_engine_compiles_for_all(cell: Any, shell: Any, monkeypatch: Any) -> None:
    from pxtools.session import cython

    def missing(*_: Any) -> Any:
        raise PxMissing("there is no C compiler here.\nInstall one.")

    monkeypatch.setattr(cython, "build", missing)
    cell("%%pxcython\ndef borrowed(double x):\n    return x + 7\n")
    assert shell.user_ns["borrowed"](1) == 8
    assert cell("%pxrun borrowed(1)").same() == 8


def test_without_any_compiler_the_error_says_what_to_install(cell: Any, monkeypatch: Any) -> None:
    from pxtools.session import cython

    def missing(*_: Any) -> Any:
        raise PxMissing("there is no C compiler here.\nInstall one: `apt-get install gcc`.")

    monkeypatch.setattr(cython, "build", missing)
    monkeypatch.setattr(cython, "_build_on_one", lambda *_: None)
    with pytest.raises(PxMissing, match=r"apt-get install gcc[\s\S]*No engine can compile either"):
        cell("%%pxcython\ndef nowhere(double x):\n    return x\n")


def test_the_plain_twin_does_the_same(cell: Any, shell: Any) -> None:
    import pxtools

    result = pxtools.cython("def thrice(double x):\n    return 3 * x\n")
    assert result.names == ("thrice",)
    assert np.isclose(shell.user_ns["thrice"](2), 6)
    assert dataclasses.is_dataclass(result)


def test_without_a_cluster_the_error_says_so_and_nothing_is_bound(cell: Any, shell: Any, no_cluster: Any) -> None:
    with pytest.raises(PxClusterError):
        cell("%%pxcython\ndef alone(double x):\n    return x\n")
    assert "alone" not in shell.user_ns
