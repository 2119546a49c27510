"""`%pxwho` through a real shell on a real cluster."""

from __future__ import annotations

from typing import Any

import pytest

from pxtools.errors import PxClusterError, PxUsageError


def test_it_lists_type_shape_size_and_whether_all_hold_the_same(cell: Any) -> None:
    cell("import numpy as np\nx = np.zeros((2, 3))\ndef f(): return np.sum(x)")
    cell("%pxrun f(); y = px_rank; None")
    rows = {row[0]: row[1:] for row in cell("%pxwho").rows}
    assert rows["x"][:2] == ("ndarray", "float64[2, 3]")
    assert rows["x"][3:5] == ("same", "all")
    assert rows["y"][:1] == ("int",)
    assert rows["y"][3] == "different"
    assert rows["f"][3] == "same"
    assert rows["np"][0] == "module"
    assert set(rows) == {"x", "y", "f", "np"}


def test_functions_defined_on_the_engines_are_the_same(cell: Any) -> None:
    cell("%%pxrun\ndef g(): return 1")
    assert {row[0]: row[4] for row in cell("%pxwho").rows} == {"g": "same"}


def test_names_on_some_engines_say_which(cell: Any) -> None:
    cell("%pxpush -t 1,2 z=1")
    assert [(row[0], row[5]) for row in cell("%pxwho").rows] == [("z", "1-2")]
    assert [(row[0], row[5]) for row in cell("%pxwho -t 1").rows] == [("z", "all")]


def test_nothing_there_is_said_in_words(cell: Any) -> None:
    table = cell("%pxwho")
    assert table.rows == []
    assert repr(table) == table._repr_html_()
    assert repr(table).startswith("nothing is there; ")


def test_values_whose_repr_raises_or_that_cannot_be_pickled_are_listed(cell: Any) -> None:
    cell(
        "%%pxrun\nimport threading\nlock = threading.Lock()\n"
        "class Bad:\n    def __repr__(self): raise ValueError\nbad = Bad()"
    )
    rows = {row[0]: row[1] for row in cell("%pxwho").rows}
    assert rows["lock"] == "lock"
    assert rows["bad"] == "Bad"


@pytest.mark.parametrize("line", ["--tragets 0", "-t 9", "x"])
def test_a_bad_line_is_a_usage_error(line: str, cell: Any) -> None:
    with pytest.raises(PxUsageError):
        cell(f"%pxwho {line}")


def test_without_engines_it_is_an_error_of_two_lines(cell: Any, no_cluster: Any, capsys: Any) -> None:
    with pytest.raises(PxClusterError, match=r"no file .*gone"):
        cell("%pxwho")
    assert len(capsys.readouterr().out.splitlines()) == 2
