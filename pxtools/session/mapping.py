"""A load-balanced map: the function travels once, items travel in batches that follow the measured time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pxtools.engines import Reply
from pxtools.errors import PxCancelled, PxEngineLost, PxInterrupted, PxPickleError, PxTimeout, PxUsageError
from pxtools.remote.pickling import Packed
from pxtools.results import Described
from pxtools.session.batches import Batch, Batches, length_of
from pxtools.session.core import ENGINE, Session
from pxtools.session.failures import to_exception
from pxtools.session.handle import Handle
from pxtools.session.pool import Pool

#: an argument that is longer than this is not printed in the call to try
_SHORT = 60


@dataclass(frozen=True)
class Wishes:
    """How a map should go; see `map_on`."""

    seed: int | None = None
    retries: int = 0
    return_exceptions: bool = False
    chunksize: int | str = "auto"
    timeout_s: float | None = None
    labels: Sequence[str] = ("items",)

    def __post_init__(self) -> None:
        if self.chunksize != "auto" and (not isinstance(self.chunksize, int) or self.chunksize < 1):
            raise PxUsageError(f"`--chunksize {self.chunksize}`: give a positive number, or auto.")
        if self.retries < 0:
            raise PxUsageError(f"`--retries {self.retries}`: give 0, 1, 2, ….")


def map_on(
    session: Session,
    function: Callable[..., Any],
    *iterables: Iterable[Any],
    ordered: bool = True,
    block: bool = True,
    targets: Any = None,
    local: Mapping[str, Any] | None = None,
    **wishes: Any,
) -> Any:
    """Return ``[function(*items) for items in zip(*iterables)]``, computed on the engines.

    Parameters
    ----------
    function
        Any callable; its globals, helpers and modules travel with it.
    iterables
        One per argument, of any length: they are read as engines become free. They may be endless as long as one
        ends, or with ``ordered=False``.
    ordered
        Keep the order of the items; else return an iterator over results as they are ready. Engines work ahead of its
        reader by a batch each.
    block
        Wait for the end; else return a `Handle` at once.
    chunksize
        Items per message; ``auto`` lets it follow the measured time per item.
    seed
        Gives each item its own `px_rng`, the same on any number of engines, and at each try.
    retries
        How often an item that raises is tried again, on another engine if there is one. Items that were lost with
        their engine are run again as often, and at least once.
    return_exceptions
        Put an exception in the result instead of raising it.
    timeout_s
        For the whole map.
    labels
        What the user calls the iterables: an error names the call that failed.

    Raises
    ------
    Exception
        Of the first item that failed, with a note naming the item. What was done by then is in
        `Session.unfinished_map`, by item number, and so it is after `PxTimeout`, `PxEngineLost` and Ctrl-C.
    """
    wanted = Wishes(**wishes)
    if not callable(function):
        raise PxUsageError(f"{function!r} cannot be called; give a function and its items: `%pxmap f items`.")
    wanted = replace(wanted, seed=session.settings.seed_for(wanted.seed))
    work = _Map(session, function, iterables, wanted)

    def results() -> Any:
        work.start(session.targets(targets), local)
        return work.in_order() if ordered else Stream(work) if block else list(Stream(work))

    return results() if block else Handle(work.title, results, partial=work.so_far)


class Stream:
    """The results of a map as they are ready, each once: an iterator.

    The engines are at work from the beginning. Closing it, or forgetting it, stops them.
    """

    def __init__(self, work: _Map) -> None:
        self._work = work
        self._results = work.as_ready()
        next(self._results)  # sends the first batches

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        return next(self._results)

    def close(self) -> None:
        """Stop the map."""
        self._results.close()

    def __repr__(self) -> str:
        return f"<{self._work.title}, results as they are ready: {self._work.batches.words()}>"


@dataclass
class _Map:
    """One map under way."""

    session: Session
    function: Callable[..., Any]
    iterables: tuple[Iterable[Any], ...]
    wishes: Wishes
    results: dict[int, Any] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)

    def start(self, engines: list[int], local: Mapping[str, Any] | None) -> None:
        """Send the function."""
        self.session.unfinished_map = self.results
        self.display = self.session.progress(self.title)
        task, self.gathering = self.session.gatherer(local).pack_value(self.function)
        retries = max(1, self.wishes.retries)
        self.pool = Pool(self.session, task, self.gathering, engines, self.wishes.timeout_s, retries=retries)
        items = zip(*self.iterables, strict=False)
        self.batches = Batches(items, self.wishes.chunksize, len(engines), length_of(self.iterables))

    @property
    def title(self) -> str:
        """The map in two words."""
        return f"map {_name(self.function)}"

    def so_far(self) -> dict[int, Any]:
        """Return results by item number."""
        return dict(sorted(self.results.copy().items()))

    def in_order(self) -> list[Any]:
        """Carry the map out; return results in the order of the items."""
        try:
            # not a loop here: a Ctrl-C in its body would not pass through the generator, which says what was kept
            deque(self._answers(), maxlen=0)
        except (PxTimeout, PxCancelled, PxEngineLost, PxInterrupted) as error:
            error.args = ("\n".join([str(error), *self._kept()]),)
            raise
        self.session.unfinished_map = {}
        return [self.results[number] for number in sorted(self.results)]

    def as_ready(self) -> Generator[Any]:
        """Yield None once the first batches are sent; then each result when it is ready."""
        answers = self._answers()
        try:
            next(answers)
            yield None
            for first, values in answers:
                for number in range(first, first + len(values)):
                    del self.results[number]
                yield from values
        finally:
            answers.close()

    def _answers(self) -> Generator[tuple[int, list[Any]]]:
        """Yield the number of the first item and the results of each batch that is back; nothing at first."""
        try:
            with self.pool as pool:
                self._fill()
                yield 0, []
                for batch, reply in pool.completed():
                    values = self._take(batch, reply)
                    self._fill()
                    self.display.update(self.batches.words(), self.batches.fraction())
                    yield batch.first, values
        finally:
            self.display.close(self.batches.words(is_over=True), self.batches.fraction())

    def _fill(self) -> None:
        """Keep the engines busy, and not much more: what is sent cannot be balanced any more."""
        self.pool.ahead = self.batches.ahead
        n_engines = len(self.pool.targets)
        while self.pool.n_pending < self.batches.under_way(n_engines):
            batch = self.batches.next()
            if batch is None:
                return
            self._submit(batch)

    def _submit(self, batch: Batch, *, tries: int = 0, avoid: int = -1) -> None:
        packed, used = self.session.gatherer().pack_value(batch.items)
        lighter = self.batches.lightened(batch, packed.nbytes)
        if lighter is not batch:
            self._submit(lighter, tries=tries, avoid=avoid)
            return
        if used.items or used.modules:  # functions and instances among the items bring what they use
            push = self.session.deliver(ENGINE + "push", used, self.pool.targets, lambda parcel: {"parcel": parcel})
            self.session.good(push)
        is_last_try = tries >= self.wishes.retries
        message = {
            "items": packed,
            "first": batch.first,
            "seed": self.wishes.seed,
            "return_exceptions": self.wishes.return_exceptions and is_last_try,
            "enough_s": self.batches.enough_s(batch),
            "is_guess": self.batches.is_guess,
        }
        self.pool.submit(batch, "map_items", message, avoid=avoid, weight=len(batch.items))

    def _take(self, batch: Batch, reply: Reply) -> list[Any]:
        """Keep the results of a batch; an item that raised is tried again, or raises here."""
        answer = reply.answer or {}
        if reply.failure is not None:
            raise self._error(batch, reply.failure, reply.engine_id, None)
        values = self._read(batch, answer["results"])
        self.results.update(enumerate(values, start=batch.first))
        self.batches.measured(len(values), answer["seconds"])
        if "failed" in answer:
            self._try_again(batch, len(values), answer, reply.engine_id)
        else:
            self.batches.give_back(batch.part(len(values)))
        return values

    def _read(self, batch: Batch, packed: Packed) -> list[Any]:
        """Return the results of a batch; all of them, or an error that names the items."""
        values = self.session.unpack(packed, -1)
        if isinstance(values, Described):
            last = batch.first + len(batch.items) - 1
            which = f"item {last}" if last == batch.first else f"items {batch.first}-{last}"
            why = [f"a result of {which} {values.why}.", *self._kept()]
            raise PxPickleError("\n".join([*why, f"Have `{_name(self.function)}` return something plainer."]))
        return list(values)

    def _try_again(self, batch: Batch, n_done: int, answer: Mapping[str, Any], engine: int) -> None:
        number = answer["failed"]
        place = number - batch.first
        tries = self.tries[number] = self.tries.get(number, 0) + 1
        if tries > self.wishes.retries:
            raise self._error(batch, answer["failure"], engine, number)
        self._submit(batch.part(place, place + 1), tries=tries, avoid=engine)
        for rest in (batch.part(n_done, place), batch.part(place + 1)):
            if rest.items:
                self._submit(rest)

    def _error(self, batch: Batch, failure: dict[str, Any], engine: int, number: int | None) -> BaseException:
        hints: list[str] = []
        if number is not None:
            after = f" It was tried {self.tries[number]} times." if self.wishes.retries else ""
            hints = [*self._kept(), f"Try it here: `{self._call(batch, number)}`.{after}"]
        failures = {engine: failure}
        problems = self.gathering.problems
        return to_exception(failures, 1, problems, namespace=self.session.namespace, hints=hints)

    def _kept(self) -> list[str]:
        return [f"What is done is kept: `pxtools.last_map()` ({len(self.results):,})."] if self.results else []

    def _call(self, batch: Batch, number: int) -> str:
        """Return the call for one item as the user would write it."""
        labels = self.wishes.labels
        if len(labels) != len(self.iterables):
            labels = [f"items{k}" for k in range(len(self.iterables))]
        arguments = batch.items[number - batch.first]
        texts = map(_argument, self.iterables, labels, arguments, [number] * len(labels))
        return f"{_name(self.function)}({', '.join(texts)})"


def _argument(iterable: Iterable[Any], label: str, value: Any, number: int) -> str:
    """Return an expression for an item: its place, or itself where there are no places (a set, a generator)."""
    if isinstance(iterable, Sequence) or hasattr(iterable, "dtype"):
        return f"{label}[{number}]"
    text = repr(value)
    return text if len(text) <= _SHORT and not text.startswith("<") else f"list({label})[{number}]"


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__
