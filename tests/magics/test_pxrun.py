"""`%%pxrun` through a real shell on a real cluster."""

from __future__ import annotations

from typing import Any

import pytest

from pxtools.errors import PxUsageError


def test_names_are_pushed_and_come_back_per_engine(cell: Any, shell: Any) -> None:
    cell("base = 10")
    cell("%pxrun x = base + px_rank")
    assert list(shell.user_ns["x"]) == [10, 11, 12, 13]


def test_running_twice_counts_to_two_on_each_engine(cell: Any, shell: Any) -> None:
    cell("x = 0")
    cell("%pxrun x = x + 1")
    cell("%pxrun x = x + 1")
    assert list(shell.user_ns["x"]) == [2, 2, 2, 2]


def test_an_unknown_option_is_a_usage_error_that_names_the_nearest(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="--target"):
        cell("%pxrun --tragets 0 x = 1")


def test_an_exception_on_one_engine_can_be_caught_by_its_own_type(cell: Any, capsys: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        cell("%pxrun 1 / px_rank")
    assert capsys.readouterr().out.splitlines() == [
        "ZeroDivisionError: division by zero  (engine 0); 3 of 4 engines finished",
        "in line 1 of the cell: 1 / px_rank",
    ]
