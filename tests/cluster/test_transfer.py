"""Large values to engines and back, on a real cluster."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from pxtools.remote import sharing
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
