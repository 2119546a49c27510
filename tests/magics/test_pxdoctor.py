"""`%pxdoctor` through a real shell on a real cluster."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from pxtools.errors import PxClusterError, PxUsageError


def test_versions_here_and_there_are_side_by_side(cell: Any) -> None:
    table = cell("%pxdoctor")
    assert ("", "Python", platform.python_version(), "everywhere") in table.rows
    assert {row[1] for row in table.rows} >= {"NumPy", "Cython", "C compiler", "R", "rpy2", "Octave", "BLAS", "cores"}


def test_a_difference_is_marked_and_a_lack_has_the_line_to_type(cell: Any, session: Any) -> None:
    cell("%pxrun import os; os.environ['RPY2_CFFI_MODE'] = f'mode {px_rank // 2}'")
    cell("%pxrun os.environ['PATH_KEPT'] = os.environ['PATH']")
    cell("%pxrun -t 3 os.environ['PATH'] = '/nowhere'")
    try:
        table = cell("%pxdoctor")
    finally:
        cell("%pxrun os.environ['PATH'] = os.environ.pop('PATH_KEPT'); os.environ.pop('RPY2_CFFI_MODE')")
    rows = [row for row in table.rows if row[1] == "RPY2_CFFI_MODE"]
    assert rows == [("≠", "RPY2_CFFI_MODE", "mode 0", "engines 0-1"), ("≠", "RPY2_CFFI_MODE", "mode 1", "engines 2-3")]
    assert "%%pxR does not work (engine 3): R is not installed.  Type: apt-get install r-base-core" in table.caption


def test_an_unknown_option_or_word_is_a_usage_error(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="--targets"):
        cell("%pxdoctor --tragets 0")
    with pytest.raises(PxUsageError, match="takes no `all`"):
        cell("%pxdoctor all")


def test_without_a_cluster_the_error_says_so(cell: Any, no_cluster: Any) -> None:
    with pytest.raises((PxClusterError, FileNotFoundError)):
        cell("%pxdoctor")


def test_the_plain_twin_does_the_same(cell: Any) -> None:
    import pxtools

    assert pxtools.doctor().rows["Python"][0] == ("here", platform.python_version())
