"""Buffers lent through shared memory, without a cluster."""

from __future__ import annotations

import errno
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pxtools.remote import sharing
from pxtools.remote.pickling import pack, unpack


@pytest.fixture
def folder() -> Iterator[str]:
    path = sharing.make_folder()
    yield path
    for left in os.listdir(path):
        os.unlink(os.path.join(path, left))
    os.rmdir(path)


def through(value: Any, folder: str | None, n_readers: int = 1) -> list[Any]:
    data, lents = sharing.encode({"packed": pack(value, {})}, folder, n_readers)
    return [unpack(sharing.decode(data, lent)["packed"], {}, {}) for lent in lents]


VALUES = {
    "float64": np.arange(20_000.0),
    "Fortran order": np.asfortranarray(np.arange(20_000.0).reshape(100, 200)),
    "complex": np.arange(20_000) * 1j,
    "big-endian": np.arange(20_000, dtype=">i8"),
    "datetime64": np.arange(20_000).astype("datetime64[s]"),
    "structured": np.zeros(20_000, dtype=[("a", "i4"), ("b", "f8")]),
    "masked": np.ma.masked_greater(np.arange(20_000.0), 5),
    "object": np.array([{"a": 1}, None, "x"] * 1000, dtype=object),
    "bool": np.arange(200_000) % 3 == 0,
    "empty": np.empty((0, 3)),
    "0-d": np.array(5.0),
    "a slice": np.arange(60_000.0)[::3],
    "text": [f"a long string {i}" for i in range(20_000)],
    "nested": {"x": {"y": [np.arange(20_000.0), np.arange(10)]}, "z": b"0" * 100_000},
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        masks = np.array_equal(np.ma.getmaskarray(a), np.ma.getmaskarray(b))
        return (
            type(a) is type(b) and a.dtype == b.dtype and masks and np.array_equal(np.ma.getdata(a), np.ma.getdata(b))
        )
    return bool(a == b)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("way", ["shared", "inside"])
def test_values_arrive_as_they_were(name: str, way: str, folder: str) -> None:
    (back,) = through(VALUES[name], folder if way == "shared" else None)
    assert same(VALUES[name], back)
    assert os.listdir(folder) == []


def test_fortran_order_is_kept(folder: str) -> None:
    (back,) = through(VALUES["Fortran order"], folder)
    assert back.flags.f_contiguous
    assert not back.flags.c_contiguous


def test_two_names_of_one_array_stay_one_array(folder: str) -> None:
    array = np.arange(20_000.0)
    ((a, b),) = through([array, array], folder)
    assert np.shares_memory(a, b)


def test_each_reader_gets_private_writable_aligned_memory(folder: str) -> None:
    source = np.arange(20_000.0)
    first, second = through([np.arange(9.0), source], folder, n_readers=2)
    first[1][:] = -1
    assert second[1][1] == 1
    assert source[1] == 1
    assert first[1].ctypes.data % 64 == 0


def test_small_messages_make_no_file(folder: str) -> None:
    data, lents = sharing.encode({"x": np.arange(10)}, folder)
    assert lents == [None]
    assert sharing.decode(data, None)["x"].tolist() == list(range(10))


def test_a_link_that_nobody_opened_is_removed(folder: str) -> None:
    _, lents = sharing.encode({"packed": pack(VALUES["float64"], {})}, folder, 2)
    assert len(os.listdir(folder)) == 2
    for lent in lents:
        sharing.give_back(lent)
    assert os.listdir(folder) == []


def test_files_and_folder_are_private_to_the_user(folder: str) -> None:
    _, (lent,) = sharing.encode({"packed": pack(VALUES["float64"], {})}, folder)
    assert lent is not None
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(lent[0]).st_mode) == 0o600
    sharing.give_back(lent)


def test_full_shared_memory_falls_back_to_a_disk(folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sharing.tempfile, "gettempdir", lambda: str(tmp_path))
    usual = os.posix_fallocate

    def full(handle: int, offset: int, size: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").startswith(folder):
            raise OSError(errno.ENOSPC, "no space left")
        usual(handle, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    data, (lent,) = sharing.encode({"packed": pack(VALUES["float64"], {})}, folder)
    assert lent is not None
    assert lent[0].startswith(str(tmp_path))
    assert same(VALUES["float64"], unpack(sharing.decode(data, lent)["packed"], {}, {}))
    assert os.listdir(folder) == []


def test_when_nothing_can_be_shared_the_bytes_go_inside(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "posix_fallocate", full)
    data, lents = sharing.encode({"packed": pack(VALUES["float64"], {})}, folder, 3)
    assert lents == [None, None, None]
    assert same(VALUES["float64"], unpack(pickle.loads(data)["packed"], {}, {}))
    assert os.listdir(folder) == []
