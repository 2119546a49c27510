"""`%pxkalman` through a real shell on a real cluster; the numbers are judged in `tests/kalman`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxClusterError, PxInterrupted, PxNameError, PxUsageError
from tests.cluster.test_faults import press_ctrl_c_when_there
from tests.kalman.data import NILE

CELL = "F = [[1]]; H = [[1]]; Q = [[1469.1]]; R = [[15099]]\ninitial = 'diffuse'"


@pytest.fixture(autouse=True)
def flow(session: Any, cell: Any, shell: Any) -> None:
    shell.user_ns["flow"] = np.array(NILE, dtype=float)
    cell("from pxtools.kalman import local_level\nmodel = local_level(1469.1, observation_var=15099)")


def test_the_cell_form_defines_the_model_and_binds_the_result(cell: Any, shell: Any) -> None:
    result = cell(f"%%pxkalman flow -o level --smooth\n{CELL}")
    assert shell.user_ns["level"] is result
    assert result.smoothed_mean.shape == (100, 1)
    assert "F" not in shell.user_ns


def test_both_forms_give_the_same(cell: Any) -> None:
    by_line = cell("%pxkalman model flow --forecast 3")
    by_cell = cell(f"%%pxkalman flow --forecast 3\n{CELL}")
    assert by_line.log_likelihood == by_cell.log_likelihood
    assert np.array_equal(by_line.forecasts.mean, by_cell.forecasts.mean)


def test_free_numbers_are_fitted(cell: Any) -> None:
    result = cell("%%pxkalman flow\nF = H = 1; Q = free(); R = free()")
    assert result.fit is not None
    assert result.log_likelihood >= cell("%pxkalman model flow").log_likelihood


def test_the_starts_of_a_fit_are_mapped_over_the_engines(cell: Any) -> None:
    one = cell("%%pxkalman flow\nF = H = 1; Q = free(); R = free()")
    many = cell("%%pxkalman flow --starts 3\nF = H = 1; Q = free(); R = free()")
    assert many.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-4)


def test_until_ends_the_climbs_on_the_engines(cell: Any) -> None:
    result = cell('%%pxkalman flow --starts 3 -t all --until "iterations>2"\nF = H = 1; Q = free(); R = free()')
    assert result.fit.n_iterations == 2
    assert "2 iterations" in result.fit.message
    with pytest.raises(PxUsageError, match="Did you mean `gain`"):
        cell('%%pxkalman flow --starts 3 -t all --until "gian<1"\nF = H = 1; Q = free(); R = free()')


def test_ctrl_c_during_a_fit_leaves_the_engines_idle(session: Any, cell: Any, shell: Any, tmp_path: Path) -> None:
    marker = tmp_path / "begun"
    cell(f"""
import math, os, time
from pxtools.kalman import FreeModel, free
home = {os.getpid()}
def slow(q):
    if os.getpid() != home:
        open({str(marker)!r}, "w").close()
        time.sleep(0.3)
    return local_level(math.exp(q), observation_var=15099)
slowly = FreeModel(slow, {{"q": free(7.0)}})  # no polynomial, or a template would do without it
""")
    press_ctrl_c_when_there(marker)
    with pytest.raises(PxInterrupted, match="are idle"):
        cell("%pxkalman slowly flow --starts 8 -t all")
    cell("%pxrun x = px_rank")
    assert list(shell.user_ns["x"]) == [0, 1, 2, 3]
    assert cell("%pxkalman model flow -t 1").log_likelihood == cell("%pxkalman model flow").log_likelihood


@pytest.mark.parametrize("targets", ["1", "0,2", "all"])
def test_many_series_are_split_over_engines_and_come_back_in_order(targets: str, cell: Any, shell: Any) -> None:
    shell.user_ns["batch"] = np.random.default_rng(0).normal(size=(7, 60, 1)).cumsum(1)
    there = cell(f"%pxkalman model batch --smooth --where engines -t {targets}")
    here = cell("%pxkalman model batch --smooth")
    assert np.array_equal(there.filtered_mean, here.filtered_mean)
    assert np.array_equal(there.smoothed_cov, here.smoothed_cov)
    assert np.array_equal(there.log_likelihood, here.log_likelihood)


def test_scattered_series_are_filtered_where_they_lie(cell: Any, shell: Any, session: Any) -> None:
    shell.user_ns["batch"] = np.random.default_rng(0).normal(size=(7, 60, 1)).cumsum(1)
    cell("%pxscatter batch")
    there = cell("%pxkalman model batch --smooth")
    assert [place.engine for place in there.source.places] == session.wire.ids
    assert np.array_equal(there.smoothed_mean, cell("%pxkalman model batch --where here").smoothed_mean)


def test_series_in_a_file_are_read_by_the_engines_and_results_written(cell: Any, shell: Any, tmp_path: Any) -> None:
    batch = np.random.default_rng(0).normal(size=(7, 60, 1)).cumsum(1)
    np.save(tmp_path / "batch.npy", batch)
    shell.user_ns.update(batch=batch, there=str(tmp_path / "batch.npy"))
    result = cell(f"%pxkalman model there -t 0,1 --write {tmp_path / 'out'}")
    assert np.array_equal(np.load(tmp_path / "out" / "filtered_mean.npy"), cell("%pxkalman model batch").filtered_mean)
    assert isinstance(result.filtered_mean, np.memmap)


def test_what_does_not_pay_is_done_here_and_said(cell: Any, shell: Any, session: Any) -> None:
    shell.user_ns["batch"] = np.zeros((7, 60, 1))
    cell("%pxkalman model batch -t all")
    assert any("filtered here" in line for line in session.notices)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%pxkalman model", "%pxkalman model flow"),
        ("%pxkalman model flow --smoth", "--smooth"),
        ("%pxkalman model flow --form nonsense", "univariate"),
        ("%pxkalman flow flow", "StateSpaceModel"),
        ("%pxkalman model flow --where there", "auto, here, engines"),
        ("%pxkalman model flow --write out", "many series"),
        ("%%pxkalman\nF = 1", "%%pxkalman flow"),
        ("%%pxkalman flow\nF = 1; H = 1; Q = 1", "R"),
        ("%%pxkalman flow\nF = 1; H = 1; Q = -1; R = 1", "`Q` [(]process_cov[)]"),
    ],
)
def test_usage_mistakes_say_what_to_type(line: str, words: str, cell: Any) -> None:
    with pytest.raises(PxUsageError, match=words):
        cell(line)


def test_an_unknown_name_is_named(cell: Any) -> None:
    with pytest.raises((PxNameError, NameError), match="folw"):
        cell("%pxkalman model folw")


def test_an_exception_on_one_engine_keeps_its_type(cell: Any, shell: Any) -> None:
    shell.user_ns["bad"] = np.full((4, 10, 1), np.inf)
    with pytest.raises(PxUsageError, match="inf"):
        cell("%pxkalman model bad -t all")


def test_without_engines_it_works_here_and_says_why_not_there(
    session: Any, cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_wire", None)
    monkeypatch.setenv("PXTOOLS_CLUSTER_FILE", "nowhere.json")
    assert np.isfinite(cell("%pxkalman model flow").log_likelihood)
    with pytest.raises(PxClusterError, match=r"nowhere\.json"):
        cell("%pxkalman model flow -t 0")
