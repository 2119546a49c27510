"""A load-balanced map: the function travels once, items travel in batches that follow the measured time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pxtools.engines import Reply
from pxtools.errors import PxUsageError
from pxtools.remote.pickling import unpack
from pxtools.session.core import ENGINE, Session
from pxtools.session.failures import to_exception
from pxtools.session.outgoing import Gathering
from pxtools.session.pool import Pool

#: seconds of work that a batch should hold: long against a message, short against a human
BATCH_S = 0.1
#: the least part of a full batch that is worth a message
_SMALLEST = 0.1
#: how much larger than the last a batch may be: the first items may not be like the others
_GROWTH = 64


def map_on(
    session: Session,
    function: Callable[..., Any],
    *iterables: Iterable[Any],
    ordered: bool = True,
    chunksize: int | str = "auto",
    seed: int | None = None,
    return_exceptions: bool = False,
    timeout_s: float | None = None,
    targets: Any = None,
    local: Mapping[str, Any] | None = None,
    labels: Sequence[str] = ("items",),
) -> list[Any]:
    """Return ``[function(*items) for items in zip(*iterables)]``, computed on the engines.

    Parameters
    ----------
    function
        Any callable; its globals, helpers and modules travel with it.
    iterables
        One per argument; may be endless iterators as long as one ends.
    ordered
        Keep the order of the items; else results come as they are ready.
    chunksize
        Items per message; ``auto`` lets it follow the measured time per item.
    seed
        Gives each item its own `px_rng`, the same on any number of engines.
    return_exceptions
        Put an exception in the result instead of raising it.
    timeout_s
        For the whole map.
    labels
        What the user calls the iterables: an error names the call that failed.

    Raises
    ------
    Exception
        Of the first item that failed, with a note naming the item; the others' results are lost.
    """
    if chunksize != "auto" and (not isinstance(chunksize, int) or chunksize < 1):
        raise PxUsageError(f"`--chunksize {chunksize}`: give a positive number, or auto.")
    if not callable(function):
        raise PxUsageError(f"{function!r} cannot be called; give a function and its items: `%pxmap f items`.")
    task, gathering = session.gatherer(local).pack_value(function)
    engines = session.targets(targets)
    batches = _Batches(zip(*iterables, strict=False), chunksize, len(engines), _length(iterables))
    settings = {"seed": seed, "return_exceptions": return_exceptions}
    results: dict[int, list[Any]] = {}
    display = session.progress(f"map {_name(function)}") if session.progress else None
    try:
        with Pool(session, task, gathering, engines, timeout_s) as pool:
            _fill(session, pool, batches, settings)
            for first, reply in pool.completed():
                results[first] = _results(session, reply, gathering, _Call(function, labels, len(iterables)))
                batches.measured(len(results[first]), (reply.answer or {})["seconds"])
                _fill(session, pool, batches, settings)
                if display is not None:
                    display.update(batches.words(), batches.fraction())
    finally:
        if display is not None:
            display.close()
    order = sorted(results) if ordered else list(results)
    return list(itertools.chain.from_iterable(results[first] for first in order))


def _fill(session: Session, pool: Pool, batches: _Batches, settings: dict[str, Any]) -> None:
    while pool.n_pending < batches.ahead * len(pool.targets):
        batch = batches.next()
        if not batch:
            return
        packed, used = session.gatherer().pack_value([item for _, item in batch])
        if used.items or used.modules:  # functions and instances among the items bring what they use
            session.good(session.deliver(ENGINE + "push", used, pool.targets, lambda parcel: {"parcel": parcel}))
        pool.submit(batch[0][0], "map_items", {"items": packed, "first": batch[0][0], **settings})


@dataclass(frozen=True)
class _Call:
    """How the user would write the call for one item."""

    function: Any
    labels: Sequence[str]
    n_arguments: int

    def text(self, number: int) -> str:
        labels = self.labels if len(self.labels) == self.n_arguments else [f"items{k}" for k in range(self.n_arguments)]
        return f"{_name(self.function)}({', '.join(f'{label}[{number}]' for label in labels)})"


def _results(session: Session, reply: Reply, gathering: Gathering, call: _Call) -> list[Any]:
    answer = reply.answer or {}
    failure = reply.failure or answer.get("failure")
    if failure is not None:
        hints = [f"Try it here: `{call.text(answer['failed'])}`."] if "failed" in answer else []
        failures = {reply.engine_id: failure}
        raise to_exception(failures, 1, gathering.problems, namespace=session.namespace, hints=hints)
    values: list[Any] = unpack(answer["results"], session.namespace, session.files, keeps_classes=True)
    return values


class _Batches:
    """Cuts items into batches of about `BATCH_S`, once it is known how long an item takes."""

    def __init__(
        self, items: Iterator[tuple[Any, ...]], chunksize: int | str, n_engines: int, length: int | None
    ) -> None:
        self._items = enumerate(items)
        self._size = chunksize if isinstance(chunksize, int) else 1
        self._is_fixed = isinstance(chunksize, int)
        #: batches under way per engine: short ones wait there in advance; long ones must not, or Ctrl-C is slow
        self.ahead = 1
        self._n_engines = n_engines
        self._length = length
        self._sent = 0
        self.done = 0
        self._began = time.monotonic()

    def next(self) -> list[tuple[int, tuple[Any, ...]]]:
        """Return the next (number, arguments) pairs; an empty list at the end."""
        size = self._size
        if self._length is not None and not self._is_fixed:  # at the end smaller ones, so that engines end together
            share = (self._length - self._sent) // (2 * self._n_engines)
            size = min(size, max(share, int(size * _SMALLEST), 1))
        batch = list(itertools.islice(self._items, size))
        self._sent += len(batch)
        return batch

    def measured(self, n_items: int, seconds: float) -> None:
        """Learn from a batch that is back."""
        self.done += n_items
        self.ahead = 2 if seconds < 4 * BATCH_S else 1
        if not self._is_fixed and n_items:
            fitting = BATCH_S / max(seconds / n_items, 1e-7)
            self._size = max(1, int(min(fitting, self._size * _GROWTH)))

    def fraction(self) -> float | None:
        return None if not self._length else self.done / self._length

    def words(self) -> str:
        rate = self.done / max(time.monotonic() - self._began, 1e-9)
        left = "" if not self._length else f" · {(self._length - self.done) / max(rate, 1e-9):.0f} s left"
        return f"{self.done:,}{f'/{self._length:,}' if self._length else ''} items · {rate:,.0f}/s{left}"


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    try:
        return min(len(iterable) for iterable in iterables)  # type: ignore[arg-type]
    except TypeError:
        return None


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__
