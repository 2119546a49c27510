"""What comes back from engines: one value each, and the ways to make one of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from pxtools.errors import PxUsageError, nearest

HOW = ("list", "concat", "stack", "dict", "first", "same")

_uids = itertools.count(1)


@dataclass(frozen=True)
class Described:
    """Stands for a value that cannot leave its engine: what it is and why it stayed."""

    engine: int
    type: str
    text: str
    why: str

    def __repr__(self) -> str:
        return f"<{self.type} on engine {self.engine}: {self.text}; {self.why}>"


@dataclass
class Remote:
    """A large value that stays on its engine until it is read."""

    engine: int
    token: str
    nbytes: int
    type: str
    shape: tuple[int, ...]
    dtype: str
    fetch: Callable[[Sequence[Remote]], list[Any]]

    def __repr__(self) -> str:
        shape = f" {self.dtype}{list(self.shape)}" if self.shape else ""
        return f"<{self.type}{shape}, {human_bytes(self.nbytes)} on engine {self.engine}>"


class PerEngine(Sequence[Any]):
    """One value per engine, in target order; never combined unless you say how.

    Large values stay on their engines until they are read.

    Attributes
    ----------
    name
        The name that the engines know it by.
    engines
        Engine number of each value.

    Examples
    --------
    >>> x = PerEngine("x", (0, 1), [[1, 2], [3]])
    >>> x.concat()
    [1, 2, 3]
    >>> x[1]
    [3]
    """

    __slots__ = ("_slots", "engines", "name", "uid")

    name: str
    engines: tuple[int, ...]
    uid: int
    _slots: list[Any]

    def __init__(self, name: str, engines: Sequence[int], slots: Sequence[Any]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "engines", tuple(engines))
        object.__setattr__(self, "_slots", list(slots))
        object.__setattr__(self, "uid", next(_uids))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a PerEngine value cannot be changed; run `%%pxrun` to change {self.name} there")

    def __len__(self) -> int:
        return len(self._slots)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            self._load(chosen)
            return self._slots[index]
        self._load([range(len(self))[index]])
        return self._slots[index]

    def __iter__(self) -> Iterator[Any]:
        self._load(range(len(self)))
        return iter(list(self._slots))

    def _load(self, indices: Sequence[int]) -> None:
        """Fetch those of the values that are still on their engines, all at once."""
        away = [i for i in indices if isinstance(self._slots[i], Remote)]
        if away:
            values = self._slots[away[0]].fetch([self._slots[i] for i in away])
            for i, value in zip(away, values, strict=True):
                self._slots[i] = value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PerEngine | list | tuple):
            return len(self) == len(other) and all(map(_is_equal_item, self, other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> Any:
        return PerEngine, (self.name, self.engines, list(self))

    def __repr__(self) -> str:
        rows = [f"  {engine}: {_one_line(slot)}" for engine, slot in zip(self.engines, self._slots, strict=True)]
        return "\n".join([f"{self.name} on {len(self)} engine{'s' if len(self) != 1 else ''}", *rows])

    def slot(self, engine: int) -> Any:
        """Return an engine's value without fetching it: `Remote` and `Described` stand for values not here."""
        return self._slots[self.engines.index(engine)]

    def concat(self) -> Any:
        """Join arrays along their first axis, lists end to end, DataFrames by rows."""
        return combine(self, "concat", self.engines, self.name)

    def stack(self) -> Any:
        """Return one array with a new first axis: the engine."""
        return combine(self, "stack", self.engines, self.name)

    def first(self) -> Any:
        """Return the first engine's value."""
        return self[0]

    def same(self) -> Any:
        """Return the one value that all engines have; an error if they differ."""
        return combine(self, "same", self.engines, self.name)

    def dict(self) -> dict[int, Any]:
        """Return the values by engine number."""
        return dict(zip(self.engines, self, strict=True))


def check_how(how: str) -> str:
    """Return `how` if it is a way to combine values.

    Raises
    ------
    PxUsageError
    """
    if how not in HOW:
        raise PxUsageError(f"`--how {how}` is not known: {', '.join(HOW)}.{nearest(how, HOW)}")
    return how


def combine(values: PerEngine | Sequence[Any], how: str, engines: Sequence[int], name: str) -> Any:
    """Make one value of one per engine.

    Parameters
    ----------
    how
        ``list``, ``concat``, ``stack``, ``dict``, ``first`` or ``same``.
    engines, name
        For the words of an error.

    Raises
    ------
    PxUsageError
        The values do not fit together that way.
    """
    check_how(how)
    if how == "first":
        return values[0]
    if how == "dict":
        return dict(zip(engines, values, strict=True))
    held = list(values)
    if how == "list":
        return held
    if how == "same":
        return _same(held, engines, name)
    try:
        return _concat(held) if how == "concat" else _stack(held)
    except (ValueError, TypeError) as error:
        raise PxUsageError(
            f"`{name}` cannot be combined with `--how {how}`: {error}\nTake it as it is: `--how list`."
        ) from None


def _concat(values: list[Any]) -> Any:
    first = values[0]
    if all(type(v) is type(first) for v in values) and type(first) in (list, tuple):
        return type(first)(itertools.chain.from_iterable(values))
    if type(first).__module__.partition(".")[0] == "pandas":
        import pandas as pd

        return pd.concat(values)
    import numpy as np

    if not all(np.ndim(v) for v in values):
        raise TypeError("single numbers have nothing to join; `--how stack` makes an array of them")
    if np.ma.isMaskedArray(first):
        return np.ma.concatenate(values)
    return np.concatenate(values)


def _stack(values: list[Any]) -> Any:
    import numpy as np

    stacked = np.ma.stack(values) if np.ma.isMaskedArray(values[0]) else np.stack(values)
    if stacked.dtype == object:
        raise TypeError(f"{type(values[0]).__name__} is not a number or an array")
    return stacked


def _same(values: list[Any], engines: Sequence[int], name: str) -> Any:
    different = [e for e, v in zip(engines, values, strict=True) if not is_equal(v, values[0])]
    if different:
        raise PxUsageError(
            f"`{name}` is not the same everywhere: engines {', '.join(map(str, different))} differ from "
            f"engine {engines[0]}.\nTake it as it is: `--how list`."
        )
    return values[0]


def is_equal(a: Any, b: Any) -> bool:
    """Return whether two values are the same; NaN equals NaN, arrays need equal type and shape."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(is_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(is_equal, a, b))
    if type(a).__module__.partition(".")[0] == "pandas":
        return bool(a.equals(b)) if hasattr(a, "equals") else bool(a == b)
    if hasattr(a, "dtype") and hasattr(a, "shape"):
        return a.dtype == b.dtype and a.shape == b.shape and _is_equal_array(a, b)
    try:
        if a == b or (a != a and b != b):
            return True
    except Exception:  # a comparison that does not know arrays
        return False
    has_no_own = "__eq__" not in {name for kind in type(a).__mro__[:-1] for name in vars(kind)}
    return has_no_own and bool(getattr(a, "__dict__", None)) and is_equal(vars(a), vars(b))


def _is_equal_array(a: Any, b: Any) -> bool:
    import numpy as np

    if np.ma.isMaskedArray(a):
        same_mask = np.array_equal(np.ma.getmaskarray(a), np.ma.getmaskarray(b))
        return same_mask and _is_equal_array(np.ma.filled(a, 0), np.ma.filled(b, 0))
    if a.dtype.names:
        return all(_is_equal_array(a[name], b[name]) for name in a.dtype.names)
    if a.dtype.kind == "O":
        return all(map(is_equal, np.asarray(a).flat, np.asarray(b).flat))
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fcmM"))


def _is_equal_item(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except ValueError:  # arrays of several elements
        return is_equal(a, b)


def human_bytes(n: float) -> str:
    """Return a size as people write it: `512 B`, `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.3g} {unit}"
        n /= 1000
    raise AssertionError


def _one_line(value: Any, width: int = 68) -> str:
    """Return the start of a value's repr, short enough for half a screen with what stands before it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= width else text[: width - 1] + "…"
