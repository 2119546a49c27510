"""`r:name`: functions of R as targets of `%pxsample` and `%pxmap`."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxRError, PxUsageError, TargetError

pytestmark = pytest.mark.skipif(
    shutil.which("R") is None or importlib.util.find_spec("rpy2") is None, reason="R and rpy2 are not installed"
)

LINE = "--sampler rwm --seed 5 --draws 400 --warmup 20 --chains 4 --thin 3 --step 0.7"


def test_a_density_in_r_gives_the_draws_of_the_same_density_in_python(cell: Any) -> None:
    cell("%%pxR\nbell <- function(x, y) exp(-(x^2 + y^2) / 2)")
    cell("from math import exp\ndef bell(x, y):\n    return exp(-(x**2 + y**2) / 2)")
    in_r = cell(f"%pxsample r:bell --density {LINE}")
    in_python = cell(f"%pxsample bell --density {LINE}")
    assert in_r.names == ("x", "y")
    np.testing.assert_allclose(in_r.draws, in_python.draws, rtol=1e-12)
    np.testing.assert_allclose(in_r.values, in_python.values, rtol=1e-12)
    np.testing.assert_array_equal(in_r.acceptance_rate, in_python.acceptance_rate)


def test_a_log_density_of_a_vector_with_bounds_agrees_too(cell: Any) -> None:
    cell("%%pxR\nlogp <- function(v) -sum(v^2) / 2")
    cell("def logp(v):\n    return -float((v**2).sum()) / 2")
    options = "--bounds [(-1,1),(0,2)] --seed 5 --draws 9000 --warmup 20 --chains 2 --step 0.7 --sampler rwm"
    np.testing.assert_allclose(
        cell(f"%pxsample r:logp {options}").draws, cell(f"%pxsample logp {options}").draws, rtol=1e-12
    )


def test_a_value_that_is_no_density_is_a_target_error_with_the_call(cell: Any) -> None:
    cell("%%pxR\nwrong <- function(x, y) -1 - x^2\nbroken <- function(x, y) stop('boom')")
    with pytest.raises(TargetError, match="r:wrong"):
        cell("%pxsample r:wrong --density --bounds (0,1) --draws 10")
    with pytest.raises(Exception, match="boom"):
        cell("%pxsample r:broken --density --bounds (0,1) --draws 10")


@pytest.mark.parametrize("sampler", ["auto", "ram", "rwm"])
@pytest.mark.parametrize("option", ["", "--vectorized --names x,y"])
def test_every_sampler_sends_r_its_points_together_and_gives_the_draws_of_python(
    cell: Any, sampler: str, option: str
) -> None:
    cell("%%pxR\nlogp <- function(x, y) -(x^2 + y^2) / 2")
    if option:
        cell("%%pxR\nlogp <- function(m) -(m[, 1]^2 + m[, 2]^2) / 2")
    cell("def logp(x, y):\n    return -(x**2 + y**2) / 2\nstarts = [(0, 1), (1, 0), (0, -1), (-1, 0)] * 2")
    options = f"--initial starts --seed 5 --draws 60 --warmup 40 --sampler {sampler} --step 0.7"
    in_r = cell(f"%pxsample r:logp {options} {option}")
    in_python = cell(f"%pxsample logp {options}")
    np.testing.assert_allclose(in_r.draws, in_python.draws, rtol=1e-9)
    assert in_r.n_evaluations == in_python.n_evaluations


@pytest.mark.parametrize("sampler", ["auto", "rwm"])
def test_an_error_in_r_rejects_its_step_and_is_counted(cell: Any, sampler: str) -> None:
    cell("%%pxR\nhalf <- function(x, y) { if (x < -1) stop('too far'); -(x^2 + y^2) / 2 }")
    samples = cell(f"%pxsample r:half --sampler {sampler} --seed 2 --draws 100 --warmup 50 --chains 4 --step 1.5")
    assert samples.n_errors > 0
    assert "too far" in samples.first_error
    assert samples["x"].min() >= -1


def test_map_calls_r_with_whole_batches_and_keeps_the_order(cell: Any) -> None:
    cell("%%pxR\ncalls <- 0\nsquare <- function(n) n^2\nadd <- function(a, b) a + b")
    assert cell("%pxmap r:square range(50)") == [float(n) ** 2 for n in range(50)]
    assert cell("%pxmap r:add [1, 2] [10, 20]") == [11, 22]


def test_an_error_in_r_names_the_item(cell: Any, capsys: Any) -> None:
    cell("%%pxR\npicky <- function(n) if (n == 7) stop('not seven') else n")
    with pytest.raises(PxRError, match="not seven"):
        cell("%pxmap r:picky range(10)")
    assert "[7]" in capsys.readouterr().out


def test_a_function_that_is_not_in_r_is_a_usage_error(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="`r:nobody` is no function in the R of engine"):
        cell("%pxmap r:nobody [1]")
