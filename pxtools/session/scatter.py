"""Scatter and gather: a sequence cut into one piece per engine, and put together again as it was."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pxtools.errors import PxUsageError
from pxtools.results import PerEngine
from pxtools.session.core import ENGINE, Session
from pxtools.session.joining import keep_until_rebound
from pxtools.session.outgoing import Gathering, make_item
from pxtools.session.state import collect


@dataclass(frozen=True)
class Cut:
    """How a value was cut, so that `gather` can undo it.

    Attributes
    ----------
    kind
        ``list``, ``tuple``, ``array`` or ``frame``.
    axis
        Of an array.
    is_flat
        Each engine holds the one item of its piece, not a piece of one item.
    engines
        In the order of the pieces; only those that got something.
    rows
        A DataFrame or Series that was cut into single items, one for each engine: they do not know its types and index.
    """

    kind: str
    axis: int
    is_flat: bool
    engines: tuple[int, ...]
    rows: Any = None


def scatter(
    session: Session, name: str, value: Any, *, axis: int = 0, flatten: bool = False, targets: Any = None
) -> list[int]:
    """Cut a value into consecutive pieces of nearly equal length, one per engine, under `name` there.

    Parameters
    ----------
    value
        A list, tuple, range, array (along `axis`), DataFrame or Series (by rows).
    flatten
        An engine whose piece is a single item gets the item itself; needs exactly one item per engine.
    targets
        See `Session.targets`.

    Returns
    -------
    list of int
        Length of each engine's piece.

    Raises
    ------
    PxUsageError
        The value cannot be cut, has no such axis, or does not have one item per engine for `flatten`.
    """
    engines = session.targets(targets)
    kind, length = _kind(name, value, axis)
    if flatten and length != len(engines):
        raise PxUsageError(
            f"`{name}` has {length} items for {len(engines)} engines; --flatten needs one for each.\n"
            f"Leave out --flatten, or scatter to {length} engines with -t."
        )
    bounds = [length * k // len(engines) for k in range(len(engines) + 1)]
    pieces = [_piece(kind, value, axis, a, b) for a, b in itertools.pairwise(bounds)]
    if flatten:
        pieces = [_only(kind, piece, axis) for piece in pieces]
    held = PerEngine(name, engines, pieces)
    gathering = Gathering(items={name: make_item(name, held, "scattered", session.namespace)})
    session.good(session.deliver(ENGINE + "push", gathering, engines, lambda parcel: {"parcel": parcel}))
    keep_until_rebound(session, name, engines)
    session.cuts[name] = Cut(kind, axis, flatten, tuple(engines), value if flatten and kind == "frame" else None)
    return [b - a for a, b in itertools.pairwise(bounds)]


def _kind(name: str, value: Any, axis: int) -> tuple[str, int]:
    if hasattr(value, "iloc"):
        return "frame", len(value)
    if hasattr(value, "ndim") and hasattr(value, "dtype"):
        if not -value.ndim <= axis < value.ndim:
            raise PxUsageError(f"`{name}` has {value.ndim} axes, none with number {axis}. Give another `--axis`.")
        return "array", value.shape[axis]
    if isinstance(value, list | range):
        return "list", len(value)
    if isinstance(value, tuple):
        return "tuple", len(value)
    raise PxUsageError(
        f"`{name}` is a {type(value).__name__}, which cannot be cut into pieces.\n"
        f"Scatter a list, an array or a DataFrame: `%pxscatter {name}=list({name})`."
    )


def _piece(kind: str, value: Any, axis: int, start: int, stop: int) -> Any:
    if kind == "frame":
        return value.iloc[start:stop]
    if kind == "array":
        import numpy as np

        index = [slice(None)] * value.ndim
        index[axis] = slice(start, stop)
        return np.ascontiguousarray(value[tuple(index)]) if type(value) is np.ndarray else value[tuple(index)]
    return list(value[start:stop]) if kind == "list" else value[start:stop]


def _only(kind: str, piece: Any, axis: int) -> Any:
    if kind == "frame":
        return piece.iloc[0]
    return piece.take(0, axis=axis) if kind == "array" else piece[0]


def gather(session: Session, name: str, *, targets: Any = None) -> Any:
    """Put the engines' pieces of `name` together, in the order of the engines, as `scatter` cut them.

    A name that was never scattered is joined as its type suggests: lists and tuples end to end, arrays along their
    first axis, DataFrames by rows, single items into a list.

    Raises
    ------
    PxNameError
        The name is on no engine.
    """
    cut = session.cuts.get(name)
    engines = targets if targets is not None else list(cut.engines) if cut is not None else None
    pieces = list(collect(session, name, targets=engines, advice="%pxscatter"))
    if cut is None:
        return _join(_kind_of_pieces(pieces), pieces, 0)
    if cut.is_flat:
        return _join_items(cut, pieces)
    return _join(cut.kind, pieces, cut.axis)


def _kind_of_pieces(pieces: Sequence[Any]) -> str:
    first = pieces[0]
    if hasattr(first, "iloc"):
        return "frame"
    if getattr(first, "ndim", 0):
        return "array"
    return "list" if isinstance(first, list) else "tuple" if isinstance(first, tuple) else "items"


def _join(kind: str, pieces: list[Any], axis: int) -> Any:
    if kind == "items":
        return pieces
    if kind == "frame":
        import pandas as pd

        return pd.concat(pieces)
    if kind == "array":
        import numpy as np

        concatenate = np.ma.concatenate if any(map(np.ma.isMaskedArray, pieces)) else np.concatenate
        return concatenate(pieces, axis=axis)
    joined = [item for piece in pieces for item in piece]
    return tuple(joined) if kind == "tuple" else joined


def _join_items(cut: Cut, items: list[Any]) -> Any:
    if cut.kind == "array":
        import numpy as np

        return np.stack(items, axis=cut.axis)
    if cut.kind == "frame":
        return _join_rows(cut.rows, items)
    return tuple(items) if cut.kind == "tuple" else items


def _join_rows(rows: Any, items: list[Any]) -> Any:
    """Put single items together as rows: with the index they had, and the types, where what came back has these."""
    import pandas as pd

    if not isinstance(items[0], pd.Series):
        made = pd.Series(items, index=rows.index, name=getattr(rows, "name", None))
        return _retyped(made, rows.dtype) if isinstance(rows, pd.Series) else made
    table = pd.DataFrame(items).set_axis(rows.index, axis=0)
    for column in table.columns.intersection(getattr(rows, "columns", ())):
        table[column] = _retyped(table[column], rows[column].dtype)
    return table


def _retyped(column: Any, dtype: Any) -> Any:
    """Return a column with this type if that changes no value; a row of several types has one that holds them all."""
    try:
        made = column.astype(dtype)
    except (TypeError, ValueError):
        return column
    return made if ((made == column) | (made.isna() & column.isna())).all() else column
