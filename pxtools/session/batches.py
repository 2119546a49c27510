"""Items in batches that follow the measured time: long against a message, short against a human."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

#: seconds of work that a batch should hold
BATCH_S = 0.2
#: after so many seconds an engine hands back what it has not begun of a batch: its items take longer than was thought
ENOUGH_S = 2 * BATCH_S
#: the least part of a full batch that is worth a message; and of the last items, so that engines end together
_SMALLEST, _LEAST = 0.1, 0.05
#: seconds for which an engine stays with a batch that was to be shorter
_PATIENCE_S = 0.05
#: bytes of items that a message should not exceed: what is sent can neither be balanced nor freed
BATCH_BYTES = 8_000_000
#: items in the first batches, when nothing is known of them; the very first is smaller: when it is back, and it is
#: known how long an item takes, the other engines are still at work and get their next one before they are done
_FIRST, _VERY_FIRST = 64, 16
#: part of the items left that is cut into one batch for each engine, then of what is left then, and so on
_ROUND = 0.75
#: batches that take longer are not sent ahead when there are few items left
_SHORT_S = 0.05
#: how much larger than the last a batch may be: the first items may not be like the others
_GROWTH = 1024


@dataclass(frozen=True)
class Batch:
    """Consecutive items: the number of the first, and the arguments for each."""

    first: int
    items: list[tuple[Any, ...]]

    def part(self, start: int, stop: int | None = None) -> Batch:
        """Return the items at these places."""
        return Batch(self.first + start, self.items[start:stop])


class Batches:
    """Cuts items into batches of about `BATCH_S`, once it is known how long an item takes.

    Attributes
    ----------
    done
        Items that are back.
    """

    def __init__(
        self, items: Iterator[tuple[Any, ...]], chunksize: int | str, n_engines: int, length: int | None
    ) -> None:
        self._items = items
        #: batches are as large as they were wished, and wait in the notebook, not behind an item that may take long
        self.is_fixed = isinstance(chunksize, int)
        #: of unknown length, the items may be slow to come, or not end
        self._size = chunksize if isinstance(chunksize, int) else 1 if length is None else _FIRST
        self._left_over: list[Batch] = []
        self._bytes_each = 0.0
        self._each_s = 0.0
        self._round: list[int] = []
        self._n_engines = n_engines
        self._length = length
        self._sent = self._n_cut = 0
        self.done = 0
        self._began = time.monotonic()

    def under_way(self, n_engines: int) -> int:
        """Return how many batches should be under way.

        As long as nothing is known one for each engine and, of many items, one behind the very first, which is small.
        """
        if self.is_guess:
            return n_engines + self._are_many
        return self.ahead * n_engines

    @property
    def _are_many(self) -> bool:
        return self._length is not None and self._length > _FIRST * self._n_engines

    @property
    def ahead(self) -> int:
        """Batches for each engine at once: a second one hides the way of messages, but cannot be balanced any more."""
        if self.is_fixed or not self.done:
            return 2 if self.is_guess and self._are_many else 1
        seconds = self._size * self._each_s
        if seconds < _SHORT_S:
            return 2
        return 2 if seconds < ENOUGH_S and (self._length is None or self._n_left >= self._n_engines) else 1

    def enough_s(self, batch: Batch) -> float | None:
        """Return the seconds after which an engine hands back the rest of a batch; None if it does all of it."""
        if self.is_fixed:
            return None
        expected = 2 * len(batch.items) * self._each_s
        return min(max(expected, _PATIENCE_S), ENOUGH_S) if self.done else ENOUGH_S

    @property
    def is_guess(self) -> bool:
        """Whether the next batch is cut without knowing how long an item takes."""
        return not self.is_fixed and not self.done

    def next(self) -> Batch | None:
        """Return the next items; None at the end."""
        size = self._size
        if not self.is_fixed and self._bytes_each:
            size = max(1, min(size, int(BATCH_BYTES / self._bytes_each)))
        if self._length is not None and not self.is_fixed:  # at the end smaller ones, so that engines end together
            size = min(size, max(self._share(size), 1))
            if self._n_cut == 0:
                size = min(size, _VERY_FIRST)
            elif self._n_cut == self._n_engines and self.is_guess:
                size = min(size, _FIRST - _VERY_FIRST)
        self._n_cut += 1
        if self._left_over:
            batch = self._left_over.pop()
            self.give_back(batch.part(size))
            return batch.part(0, size)
        first, items = self._sent, list(itertools.islice(self._items, size))
        self._sent += len(items)
        return Batch(first, items) if items else None

    def _share(self, full: int) -> int:
        """Return the size of one of a round of equal batches, one for each engine."""
        if not self._round:
            each = self._n_left / self._n_engines
            known = 0 if self.is_guess else full  # few items that may take minutes go one by one
            share = max(int(_ROUND * each), int(_SMALLEST * known), 1)
            if share >= each:  # the last round
                share = max(math.ceil(each), int(_LEAST * known))
            self._round = [share] * self._n_engines
        return self._round.pop()

    @property
    def _n_left(self) -> int:
        """How many items are not sent, where their number is known."""
        return (self._length or 0) - self._sent + self._n_left_over

    @property
    def _n_left_over(self) -> int:
        return sum(len(batch.items) for batch in self._left_over)

    def give_back(self, batch: Batch) -> None:
        """Take items back that were not begun."""
        if batch.items:
            self._left_over.append(batch)

    def lightened(self, batch: Batch, n_bytes: int) -> Batch:
        """Return the batch, or as much of it as is not too heavy for one message; the rest will come again."""
        self._bytes_each = n_bytes / len(batch.items)
        if self.is_fixed or n_bytes <= BATCH_BYTES or len(batch.items) == 1:
            return batch
        size = max(1, int(BATCH_BYTES / self._bytes_each))
        self.give_back(batch.part(size))
        return batch.part(0, size)

    def measured(self, n_items: int, seconds: float) -> None:
        """Learn from a batch that is back."""
        if not n_items:
            return
        if not self.done:
            self._round.clear()
        self.done += n_items
        self._each_s = max(seconds / n_items, 1e-7)
        if not self.is_fixed:
            self._size = max(1, round(min(BATCH_S / self._each_s, self._size * _GROWTH)))

    def fraction(self) -> float | None:
        """Return the part that is done; None where nobody knows how much there is."""
        return None if not self._length else self.done / self._length

    def words(self, *, is_over: bool = False) -> str:
        """Return what is done, how fast, and the time that is left."""
        rate = self.done / max(time.monotonic() - self._began, 1e-9)
        left = "" if is_over or not self._length else f" · {(self._length - self.done) / max(rate, 1e-9):.0f} s left"
        return f"{self.done:,}{f'/{self._length:,}' if self._length else ''} items · {rate:,.0f}/s{left}"


def length_of(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """Return how many items there are; None where some iterable cannot tell."""
    try:
        return min(len(iterable) for iterable in iterables)  # type: ignore[arg-type]
    except TypeError:
        return None
