"""`%pxcollect` through a real shell on a real cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxClusterError, PxNameError, PxUsageError
from pxtools.results import PerEngine, Remote

N_ENGINES = 4


def test_one_value_per_engine_comes_back(cell: Any, shell: Any) -> None:
    cell("%pxrun import os")
    cell("pids = %pxcollect os.getpid()")
    assert isinstance(shell.user_ns["pids"], PerEngine)
    assert len(set(shell.user_ns["pids"])) == N_ENGINES


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("list", [[0], [1], [2], [3]]),
        ("concat", [0, 1, 2, 3]),
        ("dict", {0: [0], 1: [1], 2: [2], 3: [3]}),
        ("first", [0]),
    ],
)
def test_values_are_combined_as_asked(how: str, expected: Any, cell: Any) -> None:
    cell("%pxrun -o nothing nothing = x = [px_rank]")
    assert cell(f"%pxcollect --how {how} x") == expected
    assert cell(f"%pxcollect x --how {how}") == expected


def test_arrays_are_stacked_and_same_is_one_value(cell: Any) -> None:
    cell("%pxrun import numpy as np; y = np.full(2, float('nan')); z = np.full(2, px_rank)")
    assert cell("%pxcollect --how stack z").tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert np.isnan(cell("%pxcollect --how same y")).all()
    with pytest.raises(PxUsageError, match="engines 1, 2, 3 differ from engine 0"):
        cell("%pxcollect --how same z")


@pytest.mark.parametrize("line", ["-o kept x + 1", "x + 1 -o kept", "--out kept -t 0,1 x + 1", "x + 1 -t 0,1 -o kept"])
def test_the_result_is_returned_and_bound(line: str, cell: Any, shell: Any) -> None:
    cell("%pxpush x=1")
    returned = cell(f"%pxcollect {line}")
    assert list(shell.user_ns["kept"]) == list(returned) == [2] * (2 if "-t" in line else 4)


def test_expressions_may_hold_blanks_quotes_and_minus_signs(cell: Any) -> None:
    cell("%pxpush d={'a b': [5, 6]} a=3 t=1")
    assert list(cell('%pxcollect d["a b"][0]')) == [5] * N_ENGINES
    assert list(cell("%pxcollect a -t")) == [2] * N_ENGINES
    assert list(cell("%pxcollect [u for u in d['a b'] if u > 5]")) == [[6]] * N_ENGINES


def test_a_collected_value_is_seen_element_wise_by_cells(cell: Any) -> None:
    cell("%pxrun -o q q = px_rank")
    cell("mine = %pxcollect q * 10")
    assert list(cell("%pxrun mine + 1")) == [1, 11, 21, 31]


def test_large_values_stay_until_they_are_read(cell: Any, shell: Any) -> None:
    cell("%pxrun import numpy as np; big = np.arange(300_000)")
    cell("part = %pxcollect big * 2")
    assert isinstance(shell.user_ns["part"].slot(1), Remote)
    assert shell.user_ns["part"][1][-1] == 599_998


def test_a_name_on_no_engine_says_what_to_push(cell: Any) -> None:
    cell("theta = 1\nother = 2")
    cell("%pxpush other")
    with pytest.raises(
        PxNameError, match=r"`theta` is on no engine. Run `%pxpush theta` first \(pushed so far: other\)"
    ):
        cell("%pxcollect theta")
    with pytest.raises(PxNameError, match="Did you mean `other`"):
        cell("%pxcollect othr")


def test_a_name_on_some_engines_names_the_others(cell: Any) -> None:
    cell("%pxpush -t 0,1 x=1")
    with pytest.raises(PxNameError, match="`x` is not on engines 2-3"):
        cell("%pxcollect x")


def test_an_exception_on_one_engine_keeps_its_type(cell: Any, capsys: Any) -> None:
    cell("%pxrun r = px_rank")
    with pytest.raises(ZeroDivisionError):
        cell("%pxcollect 1 / r")
    assert "(engine 0); 3 of 4 engines finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "nothing to collect"),
        ("x = 1", "no expression"),
        ("--hwo list x", "--how"),
        ("x --how lst", "Did you mean `list`"),
        ("-o a.b x", "give a name"),
        ("-t 9 x", "no engine 9"),
    ],
)
def test_a_bad_line_is_a_usage_error(line: str, message: str, cell: Any) -> None:
    cell("%pxpush x=1")
    with pytest.raises(PxUsageError, match=message):
        cell(f"%pxcollect {line}")


def test_without_engines_it_is_an_error_of_two_lines(cell: Any, no_cluster: Any, capsys: Any) -> None:
    with pytest.raises(PxClusterError, match=r"no file .*gone"):
        cell("%pxcollect x")
    assert len(capsys.readouterr().out.splitlines()) == 2
