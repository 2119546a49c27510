"""Items in batches that follow the measured time: long against a message, short against a human."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

#: seconds of work that a batch should hold
BATCH_S = 0.1
#: the least part of a full batch that is worth a message
_SMALLEST = 0.1
#: how much larger than the last a batch may be: the first items may not be like the others
_GROWTH = 64


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
    ahead
        Batches under way per engine: short ones wait there in advance; long ones must not, or Ctrl-C is slow.
    done
        Items that are back.
    """

    def __init__(
        self, items: Iterator[tuple[Any, ...]], chunksize: int | str, n_engines: int, length: int | None
    ) -> None:
        self._items = items
        self._size = chunksize if isinstance(chunksize, int) else 1
        self._is_fixed = isinstance(chunksize, int)
        self.ahead = 1
        self._n_engines = n_engines
        self._length = length
        self._sent = 0
        self.done = 0
        self._began = time.monotonic()

    def next(self) -> Batch | None:
        """Return the next items; None at the end."""
        size = self._size
        if self._length is not None and not self._is_fixed:  # at the end smaller ones, so that engines end together
            share = (self._length - self._sent) // (2 * self._n_engines)
            size = min(size, max(share, int(size * _SMALLEST), 1))
        first, items = self._sent, list(itertools.islice(self._items, size))
        self._sent += len(items)
        return Batch(first, items) if items else None

    def measured(self, n_items: int, seconds: float) -> None:
        """Learn from a batch that is back."""
        self.done += n_items
        self.ahead = 2 if seconds < 4 * BATCH_S else 1
        if not self._is_fixed and n_items:
            fitting = BATCH_S / max(seconds / n_items, 1e-7)
            self._size = max(1, int(min(fitting, self._size * _GROWTH)))

    def fraction(self) -> float | None:
        """Return the part that is done; None where nobody knows how much there is."""
        return None if not self._length else self.done / self._length

    def words(self) -> str:
        """Return what is done, how fast, and the time that is left."""
        rate = self.done / max(time.monotonic() - self._began, 1e-9)
        left = "" if not self._length else f" · {(self._length - self.done) / max(rate, 1e-9):.0f} s left"
        return f"{self.done:,}{f'/{self._length:,}' if self._length else ''} items · {rate:,.0f}/s{left}"


def length_of(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """Return how many items there are; None where some iterable cannot tell."""
    try:
        return min(len(iterable) for iterable in iterables)  # type: ignore[arg-type]
    except TypeError:
        return None
