"""`%pxpush` through a real shell on a real cluster."""

from __future__ import annotations

from typing import Any

import pytest

from pxtools.errors import PxClusterError, PxNameError, PxPickleError, PxUsageError

N_ENGINES = 4


def test_names_and_values_arrive(cell: Any) -> None:
    cell("import numpy as np\na = 1\ndef f(x): return x + a")
    cell("%pxpush a f x=1+2 grid=np.linspace(0, 1, 3) text='a b = c' d={'k': [1, 2]} g=lambda u: u * a")
    assert (
        list(cell("%pxcollect (a, f(1), x, grid.tolist(), text, d['k'], g(5))"))
        == [(1, 2, 3, [0.0, 0.5, 1.0], "a b = c", [1, 2], 5)] * N_ENGINES
    )


@pytest.mark.parametrize("line", ["-t 0,1 x=5", "x=5 -t 0,1", "--targets 0,1 x = 5"])
def test_targets_may_stand_before_or_behind(line: str, cell: Any) -> None:
    cell(f"%pxpush {line}")
    assert list(cell("%pxcollect 'x' in globals()")) == [True, True, False, False]


def test_functions_bring_what_they_use(cell: Any) -> None:
    cell("import math\nK = 2\ndef h(x): return math.floor(x) * K\ndef f(x): return h(x)")
    cell("%pxpush f")
    assert list(cell("%pxcollect f(2.5)")) == [4] * N_ENGINES


def test_a_value_given_with_the_function_that_uses_it_is_the_one_that_counts(cell: Any) -> None:
    cell("K = 2\ndef f(): return K")
    cell("%pxpush f K=7")
    assert list(cell("%pxrun f()")) == [7] * N_ENGINES


def test_locals_of_a_function_go_before_globals(cell: Any) -> None:
    cell("x = 'global'")
    cell("def g():\n    x = 'local'\n    get_ipython().run_line_magic('pxpush', 'x y=x+x')\ng()")
    assert list(cell("%pxcollect (x, y)")) == [("local", "locallocal")] * N_ENGINES


def test_a_function_made_in_the_line_sees_later_values_of_the_notebook_and_the_callers_locals(cell: Any) -> None:
    cell("a = 1")
    cell("%pxpush g=lambda u: u * a")
    cell("a = 10")
    cell("%pxpush a")
    assert list(cell("%pxcollect g(2)")) == [20] * N_ENGINES
    cell(
        "def caller():\n    k = 3\n"
        "    get_ipython().run_line_magic('pxpush', 'h=[k * i for i in range(2)] m=lambda: k')"
    )
    cell("caller()")
    assert list(cell("%pxcollect (h, m())")) == [([0, 3], 3)] * N_ENGINES


def test_an_expression_that_raises_is_shown_in_two_lines_and_pushes_nothing(
    cell: Any, session: Any, capsys: Any
) -> None:
    before = session.ledger.bytes_sent
    with pytest.raises(ZeroDivisionError):
        cell("%pxpush x=1 y=1/0")
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert session.ledger.bytes_sent == before


def test_only_what_changed_travels(cell: Any, session: Any) -> None:
    cell("import numpy as np\nx = np.zeros(50_000)")
    cell("%pxpush x")
    before = session.ledger.bytes_sent
    cell("%pxpush x")
    assert session.ledger.bytes_sent == before
    cell("x[7] = 1")
    cell("%pxpush x")
    assert session.ledger.bytes_sent > before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "nothing to push"),
        ("--tragets 0 x", "--targets"),
        ("a.b", "neither a name"),
        ("x=", "no expression"),
        ("x=(1", "not whole|no expression"),
        ("1", "neither a name"),
        ("-t 9 x", "there is no engine 9"),
        ("x -t 9", "there is no engine 9"),
    ],
)
def test_a_bad_line_is_a_usage_error_and_pushes_nothing(line: str, message: str, cell: Any, session: Any) -> None:
    cell("x = 1")
    before = session.ledger.bytes_sent
    with pytest.raises(PxUsageError, match=message):
        cell(f"%pxpush {line}")
    assert session.ledger.bytes_sent == before


def test_an_undefined_name_names_the_nearest_and_pushes_nothing(cell: Any, session: Any) -> None:
    cell("theta = 1\nother = 2")
    before = session.ledger.bytes_sent
    with pytest.raises(PxNameError, match=r"`thteta` is not in the notebook. Did you mean `theta`"):
        cell("%pxpush other thteta")
    assert session.ledger.bytes_sent == before


def test_a_value_that_cannot_travel_says_why(cell: Any) -> None:
    cell("import threading\nlock = threading.Lock()")
    with pytest.raises(PxPickleError, match="belongs to this process"):
        cell("%pxpush lock")
    with pytest.raises(PxPickleError, match="cannot"):
        cell("%pxpush x=[lock]")


def test_a_value_that_one_engine_cannot_take_in_raises_its_own_error(cell: Any) -> None:
    cell("class Picky:\n    def __reduce__(self): return eval, ('1 / px_rank', {'px_rank': 1})\nimport os\np = Picky()")
    cell("%pxpush p")
    assert list(cell("%pxcollect p")) == [1.0] * N_ENGINES
    cell("class Bad:\n    def __reduce__(self): return int, ('no number',)\nbad = Bad()")
    with pytest.raises(ValueError, match="no number"):
        cell("%pxpush bad")
    assert list(cell("%pxrun 1")) == [1] * N_ENGINES


def test_without_engines_it_is_an_error_of_two_lines(cell: Any, no_cluster: Any, capsys: Any) -> None:
    with pytest.raises(PxClusterError, match=r"no file .*gone"):
        cell("%pxpush x=1")
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    "made_there", ["%pxpush x=5", "%pxscatter x", "%pxrun -t 0 globals()['x'] = 5", "%pxrun x.append(5)"]
)
def test_a_name_pushed_on_purpose_takes_the_place_of_what_engines_made_of_it(made_there: str, cell: Any) -> None:
    cell("x = [1, 2, 3, 4]\n%pxpush x")
    cell(made_there)
    cell("%pxpush x")
    assert list(cell("%pxcollect x")) == [[1, 2, 3, 4]] * 4
