"""`%pxclear` through a real shell on a real cluster."""

from __future__ import annotations

from typing import Any

import pytest

from pxtools.errors import PxClusterError, PxNameError, PxUsageError

N_ENGINES = 4


def names_there(cell: Any) -> set[str]:
    return {row[0] for row in cell("%pxwho").rows}


def test_without_names_everything_of_the_users_goes_and_ipythons_stays(cell: Any) -> None:
    cell("%pxpush a=1 b=2 c=None")
    cell("%px d = 1")
    cell("%pxclear")
    assert names_there(cell) == set()
    assert list(cell("%pxrun callable(get_ipython) and 'Out' in globals()")) == [True] * N_ENGINES


def test_only_the_names_given_go(cell: Any) -> None:
    cell("%pxpush a=1 b=2 c=None")
    cell("%pxclear a c")
    assert names_there(cell) == {"b"}


def test_what_was_cleared_is_sent_again_when_it_is_needed(cell: Any) -> None:
    cell("x = 1")
    cell("%pxrun x")
    cell("%pxclear x")
    assert list(cell("%pxrun x")) == [1] * N_ENGINES
    cell("%pxclear")
    assert list(cell("%pxrun x")) == [1] * N_ENGINES


def test_a_value_kept_for_the_engines_is_the_notebooks_again_once_cleared(cell: Any) -> None:
    cell("K = 1")
    cell("%pxpush K=5")
    cell("%pxclear K")
    assert list(cell("%pxrun K")) == [1] * N_ENGINES


def test_targets_limit_it_to_some_engines(cell: Any) -> None:
    cell("%pxpush a=1")
    cell("%pxclear -t 0 a")
    assert list(cell("%pxcollect 'a' in globals()")) == [False, True, True, True]


def test_a_name_that_is_on_no_engine_is_an_error_and_the_others_go(cell: Any) -> None:
    cell("%pxpush a=1")
    with pytest.raises(PxNameError, match="`nowhere` is on no engine"):
        cell("%pxclear a nowhere")
    assert names_there(cell) == set()


@pytest.mark.parametrize("line", ["--tragets 0", "-t 9"])
def test_a_bad_line_is_a_usage_error_and_clears_nothing(line: str, cell: Any) -> None:
    cell("%pxpush a=1")
    with pytest.raises(PxUsageError):
        cell(f"%pxclear {line}")
    assert names_there(cell) == {"a"}


def test_without_engines_it_is_an_error_of_two_lines(cell: Any, no_cluster: Any, capsys: Any) -> None:
    with pytest.raises(PxClusterError, match=r"no file .*gone"):
        cell("%pxclear")
    assert len(capsys.readouterr().out.splitlines()) == 2
