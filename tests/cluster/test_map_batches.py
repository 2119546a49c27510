"""How items are cut into batches; no cluster is needed for that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxtools.session.batches import _PATIENCE_S, BATCH_BYTES, BATCH_S, ENOUGH_S, Batch, Batches


def items(n: int) -> Iterator[tuple[int]]:
    return ((k,) for k in range(n))


def batches(n: int, chunksize: int | str = "auto", n_engines: int = 4, *, is_known: bool = True) -> Batches:
    return Batches(items(n), chunksize, n_engines, n if is_known else None)


@given(
    n=st.integers(0, 3_000),
    chunksize=st.one_of(st.just("auto"), st.integers(1, 50)),
    n_engines=st.integers(1, 8),
    is_known=st.booleans(),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_each_item_comes_once_whatever_is_handed_back(
    n: int, chunksize: int | str, n_engines: int, is_known: bool, data: Any
) -> None:
    cut = batches(n, chunksize, n_engines, is_known=is_known)
    done: list[int] = []
    while (batch := cut.next()) is not None:
        batch = cut.lightened(batch, data.draw(st.integers(1, 3 * BATCH_BYTES)))
        assert [number for (number,) in batch.items] == list(range(batch.first, batch.first + len(batch.items)))
        n_done = len(batch.items) if cut.enough_s(batch) is None else data.draw(st.integers(1, len(batch.items)))
        done += [number for (number,) in batch.items[:n_done]]
        cut.measured(n_done, data.draw(st.floats(1e-6, 1.0)))
        cut.give_back(batch.part(n_done))
    assert sorted(done) == list(range(n))


def test_items_of_a_second_travel_alone_once_that_is_known() -> None:
    cut = batches(100)
    first = cut.next()
    assert first is not None
    assert len(first.items) > 1  # a guess, of which the engine hands back what it has no time for
    cut.measured(1, 1.0)
    cut.give_back(first.part(1))
    assert [cut.next() for _ in range(2)] == [Batch(1, [(1,)]), Batch(2, [(2,)])]


@pytest.mark.parametrize(("n", "sizes"), [(2, [1, 1]), (4, [1] * 4), (8, [1] * 4), (12, [2] * 4)])
def test_few_items_that_may_take_minutes_are_spread_over_all_engines(n: int, sizes: list[int]) -> None:
    cut = batches(n)
    assert cut.under_way(4) == 4
    assert [len(batch.items) for _ in sizes if (batch := cut.next()) is not None] == sizes


def test_items_of_a_millisecond_travel_by_the_fifth_of_a_second_and_less_at_the_end() -> None:
    cut = batches(2_000)
    sizes = [len(cut.next().items)]  # type: ignore[union-attr]
    cut.measured(sizes[0], 1e-3 * sizes[0])
    while (batch := cut.next()) is not None:
        sizes.append(len(batch.items))
        cut.measured(sizes[-1], 1e-3 * sizes[-1])
    assert sizes[1] == round(BATCH_S / 1e-3)
    assert sizes[1:-1] == sorted(sizes[1:-1], reverse=True)
    assert 0.05 * sizes[1] <= sizes[-2] <= 0.1 * sizes[1]


def test_engines_get_batches_of_one_size_in_each_round_and_in_the_last_one_so_that_they_end_together() -> None:
    cut = batches(1_000)
    first = cut.next()
    cut.measured(len(first.items), 1e-3 * len(first.items))  # type: ignore[union-attr]
    sizes = []
    while (batch := cut.next()) is not None:
        sizes.append(len(batch.items))
    rounds = [sizes[k : k + 4] for k in range(0, len(sizes), 4)]
    assert len(rounds) < 5
    assert all(len({*sizes}) == 1 for sizes in rounds[:-1])
    assert max(rounds[-1]) - min(rounds[-1]) < 4
    assert len(rounds[-1]) == 4


@pytest.mark.parametrize(
    ("each_s", "n_sent", "ahead"),
    [
        (1e-3, 0, 2),
        (1e-3, 900, 2),  # a batch at the end takes 20 ms
        (0.1, 0, 2),
        (0.1, 998, 1),  # the next engine that is done shall have it
        (1.0, 0, 1),
    ],
)
def test_a_second_batch_goes_ahead_only_if_it_is_no_loss_to_have_it_wait(
    each_s: float, n_sent: int, ahead: int
) -> None:
    cut = batches(1_000)
    assert (cut.ahead, cut.under_way(4)) == (2, 5)  # behind the very first batch, which is small
    while cut._sent < n_sent or not cut._sent:
        sent = len(cut.next().items)  # type: ignore[union-attr]
        cut.measured(sent, sent * each_s)
    assert cut.ahead == ahead


def test_an_engine_stays_with_a_batch_for_twice_as_long_as_it_should_take() -> None:
    cut = batches(1_000)
    first = cut.next()
    assert cut.enough_s(first) == ENOUGH_S  # type: ignore[arg-type]
    cut.measured(len(first.items), 1e-3 * len(first.items))  # type: ignore[union-attr]
    assert cut.enough_s(Batch(0, [()] * 100)) == pytest.approx(0.2)
    assert cut.enough_s(Batch(0, [()])) == _PATIENCE_S
    assert cut.enough_s(Batch(0, [()] * 1_000)) == ENOUGH_S


@pytest.mark.parametrize("n_bytes", [BATCH_BYTES // 2, 2 * BATCH_BYTES])
def test_heavy_items_are_cut_by_their_bytes(n_bytes: int) -> None:
    cut = batches(1_000)
    first = cut.next()
    assert first is not None
    sent = cut.lightened(first, n_bytes * len(first.items))
    assert len(sent.items) == max(1, BATCH_BYTES // n_bytes)
    cut.measured(len(sent.items), 1e-6)
    assert len(cut.next().items) == len(sent.items)  # type: ignore[union-attr]


def test_items_of_unknown_number_are_read_one_by_one_at_first() -> None:
    assert batches(100, is_known=False).next() == Batch(0, [(0,)])


def test_a_chunksize_is_kept() -> None:
    cut = batches(10, 4)
    for size in 4, 4, 2:
        batch = cut.next()
        assert batch is not None
        assert cut.lightened(batch, 100 * BATCH_BYTES) is batch
        assert len(batch.items) == size
        cut.measured(size, 50.0)
    assert cut.next() is None
