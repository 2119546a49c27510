"""`PerEngine` and the ways to combine its values. No cluster."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxtools.errors import PxUsageError
from pxtools.results import HOW, Described, PerEngine, Remote, check_how, combine, human_bytes, is_equal


def per_engine(*values: Any, engines: tuple[int, ...] | None = None) -> PerEngine:
    return PerEngine("x", engines or tuple(range(len(values))), values)


def remote(value: Any, fetched: list[str]) -> Remote:
    def fetch(handles: Sequence[Remote]) -> list[Any]:
        fetched.extend(handle.token for handle in handles)
        return [value for _ in handles]

    return Remote(1, "token", 8_000_000, "ndarray", (1_000_000,), "float64", fetch)


@given(st.lists(st.integers(), min_size=1, max_size=8))
def test_it_is_a_sequence_in_target_order(values: list[int]) -> None:
    x = per_engine(*values)
    assert list(x) == values
    assert len(x) == len(values)
    assert x[-1] == values[-1]
    assert x[1:] == values[1:]
    assert x == values
    assert x.dict() == dict(enumerate(values))
    assert hash(x) == hash(per_engine(*values))


def test_its_lines_fit_half_a_screen() -> None:
    shown = repr(per_engine(np.random.default_rng(1).random((200, 3)), "word " * 50, engines=(0, 1234)))
    assert max(map(len, shown.splitlines())) < 78


def test_it_cannot_be_changed() -> None:
    x = per_engine(1, 2)
    with pytest.raises(TypeError):
        x[0] = 5  # type: ignore[index]
    with pytest.raises(AttributeError, match="%%pxrun"):
        x.name = "y"


def test_comparing_arrays_gives_one_answer() -> None:
    assert per_engine(np.arange(3), np.nan * np.ones(2)) == [np.arange(3), np.nan * np.ones(2)]
    assert per_engine(np.arange(3)) != [np.arange(4)]
    assert per_engine(1, 2) == (1.0, 2.0)
    assert per_engine(1, 2) != [1]


def test_a_remote_value_is_fetched_once_and_only_when_it_is_read() -> None:
    fetched: list[str] = []
    x = per_engine(0, remote("big", fetched))
    assert "8 MB on engine 1" in repr(x)
    assert isinstance(x.slot(1), Remote)
    assert x.first() == 0
    assert fetched == []
    assert [x[1], x[1]] == ["big", "big"]
    assert fetched == ["token"]


def test_pickled_it_brings_all_values() -> None:
    x = pickle.loads(pickle.dumps(per_engine([1], [2])))
    assert (x.name, x.engines, list(x)) == ("x", (0, 1), [[1], [2]])


def test_a_described_value_says_what_it_is() -> None:
    assert (
        repr(Described(2, "Lock", "<unlocked>", "cannot be pickled"))
        == "<Lock on engine 2: <unlocked>; cannot be pickled>"
    )


@pytest.mark.parametrize(
    ("how", "values", "expected"),
    [
        ("list", [1, 2], [1, 2]),
        ("dict", [1, 2], {0: 1, 1: 2}),
        ("first", [1, 2], 1),
        ("same", [float("nan")] * 2, float("nan")),
        ("concat", [[1, 2], [3]], [1, 2, 3]),
        ("concat", [(1,), (2,)], (1, 2)),
        ("concat", [np.zeros((2, 3)), np.ones((1, 3))], np.array([[0.0] * 3] * 2 + [[1.0] * 3])),
        (
            "concat",
            [np.ma.masked_array([1], [True]), np.ma.masked_array([2], [False])],
            np.ma.masked_array([1, 2], [1, 0]),
        ),
        ("stack", [1.5, 2.5], np.array([1.5, 2.5])),
        ("stack", [np.zeros(2), np.ones(2)], np.array([[0.0, 0.0], [1.0, 1.0]])),
        ("stack", [np.ma.masked_array([1], [True])] * 2, np.ma.masked_array([[1], [1]], [[1], [1]])),
    ],
)
def test_every_way_to_combine(how: str, values: list[Any], expected: Any) -> None:
    assert is_equal(combine(per_engine(*values), how, (0, 1), "x"), expected)


@pytest.mark.parametrize(
    ("how", "values"),
    [
        ("concat", [1, 2]),
        ("concat", ["a", "b"]),
        ("concat", [{1: 2}, {3: 4}]),
        ("concat", [np.zeros((1, 2)), np.zeros((1, 3))]),
        ("stack", [np.zeros(2), np.zeros(3)]),
        ("stack", [{}, {}]),
        ("same", [1, 2]),
        ("same", [1, 1.0]),
    ],
)
def test_what_does_not_fit_together_is_a_usage_error_that_offers_the_list(how: str, values: list[Any]) -> None:
    with pytest.raises(PxUsageError, match="--how list"):
        combine(per_engine(*values), how, (0, 1), "x")


def test_an_unknown_way_names_the_nearest() -> None:
    assert all(check_how(how) == how for how in HOW)
    with pytest.raises(PxUsageError, match="Did you mean `concat`"):
        check_how("concatenate")


class Plain:
    """No comparison of its own."""

    def __init__(self, x: Any) -> None:
        self.x = x


@pytest.mark.parametrize(
    "make",
    [
        lambda: float("nan"),
        lambda: complex("nan"),
        lambda: np.float32("nan"),
        lambda: [1, {"a": np.array([np.nan, 1])}],
        lambda: np.array([np.nan, None], dtype=object),
        lambda: np.array([(1, np.nan)], dtype=[("a", int), ("b", float)]),
        lambda: np.array(["NaT"], dtype="M8[s]"),
        lambda: np.ma.masked_array([1.0, np.nan], mask=[1, 0]),
        lambda: Plain([np.arange(3)]),
        lambda: {1, 2},
    ],
)
def test_equal_values_are_the_same_and_nan_is_nan(make: Any) -> None:
    assert is_equal(make(), make())


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 1.0),
        ([1], (1,)),
        (np.zeros(2), np.zeros((2, 1))),
        (np.zeros(2), np.zeros(2, dtype="f4")),
        ({"a": 1}, {"a": 2}),
        (Plain(1), Plain(2)),
        (np.ma.masked_array([1, 2], mask=[1, 0]), np.ma.masked_array([1, 2], mask=[0, 0])),
    ],
)
def test_different_values_are_not_the_same(a: Any, b: Any) -> None:
    assert not is_equal(a, b)


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (8e6, "8 MB"), (3e12, "3e+03 GB")]
)
def test_sizes_read_as_people_write_them(n: float, text: str) -> None:
    assert human_bytes(n) == text
