"""`%pxscatter` and `%pxgather` through a real shell on a real cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxUsageError


@pytest.mark.parametrize("items", ["list(range(16))", "list(range(5))", "(1, 2, 3)", "[]", "['a', None, 3.5, {}, 1]"])
def test_gather_restores_what_scatter_cut(items: str, cell: Any) -> None:
    value = cell(f"a = {items}; a")
    cell("%pxscatter a")
    assert cell("%pxgather a") == value


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_arrays_are_cut_along_any_axis(axis: int, cell: Any, shell: Any) -> None:
    shell.user_ns["A"] = A = np.arange(30.0).reshape(5, 6)
    cell(f"%pxscatter --axis {axis} A")
    shapes = cell("%pxcollect --how list A.shape")
    assert sum(shape[axis] for shape in shapes) == A.shape[axis]
    assert np.array_equal(cell("%pxgather A"), A)


def test_data_frames_are_cut_by_rows_and_keep_their_index(cell: Any, shell: Any) -> None:
    pd = pytest.importorskip("pandas", reason="pandas comes with the arviz extra")
    shell.user_ns["frame"] = frame = pd.DataFrame({"a": range(7), "b": list("abcdefg")}, index=list("tuvwxyz"))
    cell("%pxscatter frame")
    assert cell("%pxcollect --how list len(frame)") == [1, 2, 2, 2]
    pd.testing.assert_frame_equal(cell("%pxgather frame"), frame)


def test_rows_that_went_to_one_engine_each_keep_their_types_and_index(cell: Any, shell: Any) -> None:
    pd = pytest.importorskip("pandas", reason="pandas comes with the arviz extra")
    dates = pd.date_range("2020-01-01", periods=4)
    columns = {"n": [1, 2, 3, 4], "x": [0.5, np.nan, 2.0, 3.0], "s": list("abcd"), "t": dates}
    shell.user_ns["frame"] = frame = pd.DataFrame(columns, index=pd.Index(list("wxyz"), name="key"))
    cell("%pxscatter --flatten frame")
    pd.testing.assert_frame_equal(cell("%pxgather frame"), frame)
    for name in frame:
        shell.user_ns["column"] = frame[name]
        cell("%pxscatter --flatten column")
        pd.testing.assert_series_equal(cell("%pxgather column"), frame[name])
    cell("%pxscatter --flatten frame\n%pxrun --no-auto frame = frame.n / 2")
    assert list(cell("%pxgather frame")) == [0.5, 1.0, 1.5, 2.0]


def test_flatten_gives_each_engine_its_item(cell: Any) -> None:
    cell("%pxscatter ids=[10, 20, 30, 40] --flatten")
    assert cell("%pxcollect --how list ids") == [10, 20, 30, 40]
    assert cell("%pxgather ids") == [10, 20, 30, 40]


def test_without_flatten_each_engine_gets_a_piece_of_one_item(cell: Any) -> None:
    cell("%pxscatter ids=[10, 20, 30, 40]")
    assert cell("%pxcollect --how list ids") == [[10], [20], [30], [40]]


def test_a_name_that_cells_made_is_gathered_by_its_type(cell: Any) -> None:
    cell("%pxscatter a=range(16)")
    cell("%pxrun --no-auto asum = sum(a)")
    assert cell("%pxgather asum") == [6, 22, 38, 54]


def test_a_cell_that_reads_the_name_sees_the_pieces(cell: Any) -> None:
    cell("b = list(range(8))")
    cell("%pxscatter b")
    assert list(cell("%pxrun len(b)")) == [2, 2, 2, 2]


def test_a_parallel_matrix_product_equals_the_local_one(cell: Any, shell: Any) -> None:
    rng = np.random.default_rng(0)
    shell.user_ns.update(A=rng.integers(1, 10, (16, 4)), B=rng.integers(1, 10, (4, 16)))
    cell("%pxscatter A")
    cell("%pxrun C = A @ B")
    assert np.array_equal(shell.user_ns["C"].concat(), shell.user_ns["A"] @ shell.user_ns["B"])


def test_what_cannot_be_cut_is_a_usage_error_that_says_what_can(cell: Any) -> None:
    with pytest.raises(PxUsageError, match="cannot be cut"):
        cell("%pxscatter x=5")
    with pytest.raises(PxUsageError, match="needs one for each"):
        cell("%pxscatter --flatten x=[1, 2]")
    with pytest.raises(PxUsageError, match="--axis"):
        cell("import numpy as np\n%pxscatter --axis 2 x=np.ones(3)")
    with pytest.raises(PxUsageError, match="--flatten"):
        cell("%pxscatter --flattn x=[1]")


def test_an_exception_on_one_engine_keeps_its_type(cell: Any) -> None:
    cell("%pxscatter v=[1, 2, 0, 4] --flatten")
    with pytest.raises(ZeroDivisionError):
        cell("%pxrun 1 / v")
