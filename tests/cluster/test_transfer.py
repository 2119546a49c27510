"""Large values to engines and back, on a real cluster."""

from __future__ import annotations

import gc
import os
from typing import Any

import numpy as np
import pytest

from pxtools.errors import PxPickleError
from pxtools.remote import sharing
from pxtools.results import is_equal
from pxtools.session import state

BIG = 300_000  # float64: 2.4 MB, far above what stays inside a message


def test_arrays_arrive_writable_aligned_and_private(session: Any, cell: Any, shell: Any) -> None:
    shell.user_ns["a"] = np.arange(float(BIG))
    cell("%pxrun facts = (a.flags.writeable, a.ctypes.data % 64)")
    assert list(shell.user_ns["facts"]) == [(True, 0)] * 4
    cell("%pxrun a[0] = px_rank")
    assert [float(x[0]) for x in shell.user_ns["a"]] == [0.0, 1.0, 2.0, 3.0]


def test_an_engine_that_writes_changes_neither_the_notebook_nor_another_engine(
    session: Any, cell: Any, shell: Any
) -> None:
    shell.user_ns["a"] = a = np.zeros(BIG)
    cell("%%pxrun --no-auto -i a\nif px_rank == 1: a[:] = 5")
    assert a.max() == 0
    assert state.collect(session, "float(a.max())", how="list") == [0, 5, 0, 0]


def test_unchanged_values_are_not_sent_again_and_changes_in_place_are(session: Any, cell: Any, shell: Any) -> None:
    shell.user_ns["a"] = a = np.zeros(BIG)
    cell("%pxrun s = a.sum()")
    sent = session.ledger.bytes_sent
    cell("%pxrun s = a.sum()")
    assert session.ledger.bytes_sent == sent
    a[3] = 2
    cell("%pxrun s = a.sum()")
    assert session.ledger.bytes_sent >= sent + 4 * a.nbytes
    assert [float(x) for x in shell.user_ns["s"]] == [2.0] * 4


@pytest.mark.parametrize("how", ["concat", "stack"])
def test_large_values_come_back_whole(how: str, session: Any, cell: Any) -> None:
    cell(f"%pxrun import numpy as np; big = np.full({BIG}, float(px_rank))")
    value = cell(f"%pxcollect --how {how} big")
    assert value.reshape(4, -1)[:, -1].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert value.flags.writeable


def test_no_file_is_left_after_a_transfer(session: Any, cell: Any, shell: Any) -> None:
    shell.user_ns["a"] = np.zeros(BIG)
    cell("%pxrun b = a + 1")
    cell("%pxcollect --how concat b")
    assert os.listdir(session.wire.folder) == []


def test_without_shared_memory_the_same_arrives_over_the_wire(
    session: Any, cell: Any, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.wire, "_shares_memory", lambda engine_id: False)
    monkeypatch.setattr(sharing, "lend", None)  # whoever calls it, fails
    shell.user_ns["a"] = np.arange(float(BIG))
    cell("%pxrun c = a * 2")
    assert all(np.array_equal(c, shell.user_ns["a"] * 2) for c in shell.user_ns["c"])


def test_mapped_arrays_travel_too(session: Any, cell: Any, shell: Any) -> None:
    shell.user_ns["arrays"] = [np.full(BIG, k) for k in range(6)]
    cell("def total(x): return int(x.sum())")
    assert cell("%pxmap total arrays") == [k * BIG for k in range(6)]


def kinds(n: int) -> dict[str, Any]:
    """Values of every kind that has trouble travelling elsewhere, of about `n` numbers."""
    rng = np.random.default_rng(0)
    floats = rng.random(n)
    values: dict[str, Any] = {
        "nested": {"list": [floats, {"tuple": (floats + 1, "text", None, {1, 2})}], 3: b"bytes" * n},
        "strings": np.array(["a", "bcd", "é"] * (n // 3)),
        "list of strings": [str(k) for k in range(n)],
        "dates": np.arange(n).astype("datetime64[s]"),
        "durations": np.arange(n).astype("timedelta64[ms]"),
        "structured": np.array([(1, 2.5), (3, np.nan)] * (n // 2), dtype=[("a", "i4"), ("b", ">f8")]),
        "0-d": np.array(2.5),
        "empty": np.empty((0, 3), dtype="f4"),
        "masked": np.ma.masked_less(floats, 0.5),
        "objects": np.array([{"a": 1}, None, "x"] * (n // 3), dtype=object),
        "big-endian": floats.astype(">f8"),
        "Fortran order": np.asfortranarray(floats.reshape(4, -1)),
        "strided": floats[::3],
        "complex": floats * 1j,
        "half": floats.astype("f2"),
        "bools": floats > 0.5,
    }
    scipy_sparse = pytest.importorskip("scipy.sparse")
    values["sparse"] = scipy_sparse.random(n // 10, 10, density=0.3, format="csr", random_state=1)
    try:
        import pandas as pd
    except ImportError:
        return values
    frame = pd.DataFrame({"x": floats, "s": ["a", "b"] * (n // 2), "c": pd.Categorical(["u", "v"] * (n // 2))})
    return {**values, "frame": frame, "series": frame["x"].rename("other")}


@pytest.mark.parametrize("n", [12, 120_000], ids=["small", "large"])
@pytest.mark.parametrize("way", ["shared", "wire"])
def test_every_kind_of_value_goes_and_comes_back_as_it_was(
    n: int, way: str, session: Any, cell: Any, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "wire":
        monkeypatch.setattr(session.wire, "_shares_memory", lambda engine_id: False)
    shell.user_ns["values"] = values = kinds(n)
    cell("%pxrun -t 0 back = {name: (value, type(value).__name__) for name, value in values.items()}")
    (back,) = shell.user_ns["back"]
    assert back.keys() == values.keys()
    for name, (value, there) in back.items():
        assert there == type(values[name]).__name__, name
        if name == "sparse":
            assert (value != values[name]).nnz == 0
            continue
        assert is_equal(value, values[name]), name
        assert getattr(value, "dtype", None) is None or value.dtype == values[name].dtype, name
    assert back["Fortran order"][0].flags.f_contiguous
    assert not back["Fortran order"][0].flags.c_contiguous


def test_two_names_of_one_array_stay_one(cell: Any, shell: Any) -> None:
    a = np.zeros(BIG)
    shell.user_ns.update(pair=[a, a], np=np)
    assert cell("%pxrun pair[0] is pair[1]").same()
    cell("%pxrun -t 0 both = [big := np.ones(200_000), big]")
    (both,) = shell.user_ns["both"]
    assert both[0] is both[1]


@pytest.mark.parametrize("make", ["threading.Lock()", "(n for n in [1])"])
def test_what_cannot_travel_is_an_error_that_says_why(make: str, cell: Any, shell: Any) -> None:
    cell(f"import threading\nstays = {make}")
    with pytest.raises(PxPickleError, match=r"`stays` .* cannot travel"):
        cell("%pxpush stays")


def test_large_values_over_the_wire_go_as_one_message_through_the_tree(
    session: Any, cell: Any, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()
    cell("%pxrun None")  # engines drop what earlier tests left there: from here on all get the same message
    monkeypatch.setattr(session.wire, "_shares_memory", lambda engine_id: False)
    sent: list[list[int]] = []
    usual = session.wire._apply_to_all

    def spy(engines: list[int], *rest: Any) -> Any:
        sent.append(engines)
        return usual(engines, *rest)

    monkeypatch.setattr(session.wire, "_apply_to_all", spy)
    shell.user_ns["a"] = a = np.arange(600_000.0)
    cell("%pxrun print('there'); t = float(a.sum()) + px_rank")
    assert sent == [[0, 1, 2, 3]]
    assert list(shell.user_ns["t"]) == [a.sum() + rank for rank in range(4)]
    a[0] = 1
    with pytest.raises(ZeroDivisionError):
        cell("%pxrun 1 / (px_rank * int(a[0]))")
    assert len(sent) == 2
    assert session.client.wait(timeout=10)  # nothing that nobody answers is waited for
