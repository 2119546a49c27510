"""What engines hold: imports, names, pieces of sequences."""

from __future__ import annotations

from typing import Any

from pxtools.api.cluster import current_session
from pxtools.session import scatter as _pieces
from pxtools.session import state as _state


def imports(source: str, *, targets: Any = None) -> list[str]:
    """Run import statements here and on engines, as `%pximport`.

    Parameters
    ----------
    source : str
        Import statements, also inside ``try``, ``if`` and ``with``. A module that engines cannot import is sent.
    targets
        Engines: a number, a list of numbers, or what follows ``-t``.

    Returns
    -------
    list of str
        The names that they bind.

    Raises
    ------
    ImportError
        Of the module that is missing; the message names where.
    PxUsageError
        There is something else than imports in it.

    Examples
    --------
    >>> import pxtools
    >>> pxtools.imports("import numpy as np")
    ['np']
    """
    return _state.import_(current_session(), source, targets=targets)


def push(*names: str, targets: Any = None, **values: Any) -> int:
    """Send names to the engines, or values under names of their own, as `%pxpush`.

    Parameters
    ----------
    *names : str
        Names of `__main__`; functions and classes take along what they use.
    targets
        Engines: a number, a list of numbers, or what follows ``-t``.
    **values
        ``name=value``, for the engines only.

    Returns
    -------
    int
        Bytes that travelled; what did not change is not sent again.

    Raises
    ------
    PxNameError, PxPickleError
        A name is not here, or its value cannot travel. Nothing was sent.

    Examples
    --------
    >>> import pxtools
    >>> limits = [0.0, 1.0]
    >>> pxtools.push("limits", CONSTANT=5) > 0
    True
    >>> pxtools.push("limits")
    0
    """
    return _state.push(current_session(), names, values, targets=targets)


def collect(expression: str, *, how: str | None = None, targets: Any = None) -> Any:
    """Evaluate a name or an expression on every engine and return the values, as `%pxcollect`.

    Parameters
    ----------
    expression : str
        In the engines' names.
    how : {"list", "concat", "stack", "dict", "first", "same"}, optional
        How the values are combined. ``concat`` joins arrays of shapes (n, …) to (n_engines·n, …), ``stack`` gives
        (n_engines, n, …), ``same`` the one value that all hold.
    targets
        Engines: a number, a list of numbers, or what follows ``-t``.

    Returns
    -------
    PerEngine or Any
        One value per engine, in the order of the targets; combined when `how` says so.

    Raises
    ------
    PxNameError
        Not every engine knows the name.
    PxUsageError
        It is no expression, or the values do not fit together as `how` asks.
    StaleValue
        Later, when a large value is read that has changed on its engine.

    Examples
    --------
    >>> import pxtools
    >>> _ = pxtools.run("mine = [px_rank, 10 * px_rank]")
    >>> pxtools.collect("sum(mine)")
    sum(mine) on 4 engines
      0: 0
      1: 11
      2: 22
      3: 33
    >>> pxtools.collect("mine", how="concat")
    [0, 0, 1, 10, 2, 20, 3, 30]
    """
    return _state.collect(current_session(), expression, how=how, targets=targets)


def clear(*names: str, targets: Any = None) -> dict[int, list[str]]:
    """Delete names on the engines, all of yours when none is given, as `%pxclear`; those here stay.

    Parameters
    ----------
    *names : str
        What to delete.
    targets
        Engines: a number, a list of numbers, or what follows ``-t``.

    Returns
    -------
    dict of int to list of str
        What was deleted, by engine.

    Raises
    ------
    PxNameError
        A name is on no engine; the others were deleted.

    Examples
    --------
    >>> import pxtools
    >>> _ = pxtools.push(unwanted=1)
    >>> pxtools.clear("unwanted", targets=[0, 1])
    {0: ['unwanted'], 1: ['unwanted']}
    """
    return _state.clear(current_session(), names, targets=targets)


def scatter(name: str, value: Any, *, axis: int = 0, flatten: bool = False, targets: Any = None) -> list[int]:
    """Cut a sequence into consecutive pieces of nearly equal length, one per engine, as `%pxscatter`.

    Parameters
    ----------
    name : str
        Of the pieces, there.
    value : list, tuple, range, array, DataFrame or Series
        What is cut.
    axis : int
        Along which an array is cut.
    flatten : bool
        Each engine gets its single item itself, not a piece of length one.
    targets
        Engines: a number, a list of numbers, or what follows ``-t``.

    Returns
    -------
    list of int
        Lengths of the pieces, in the order of the engines.

    Raises
    ------
    PxUsageError
        The value cannot be cut, has no such axis, or has not one item per engine for `flatten`.

    Examples
    --------
    >>> import pxtools
    >>> pxtools.scatter("numbers", range(10))
    [2, 3, 2, 3]
    """
    return _pieces.scatter(current_session(), name, value, axis=axis, flatten=flatten, targets=targets)


def gather(name: str, *, targets: Any = None) -> Any:
    """Put the engines' pieces of a name together as they were cut, as `%pxgather`.

    Parameters
    ----------
    name : str
        Of the pieces. Of pieces that were never scattered, arrays are joined along their first axis, lists end to end.
    targets
        Engines; those of the scatter when left out.

    Returns
    -------
    list, tuple, array, DataFrame or Series
        As `scatter` got it, with what engines have done to the pieces.

    Raises
    ------
    PxNameError
        The name is on no engine.

    Examples
    --------
    >>> import pxtools
    >>> _ = pxtools.scatter("halves", [2, 4, 6, 8, 10])
    >>> _ = pxtools.run("halves = [n // 2 for n in halves]")
    >>> pxtools.gather("halves")
    [1, 2, 3, 4, 5]
    """
    return _pieces.gather(current_session(), name, targets=targets)


def who(*, targets: Any = None) -> dict[str, dict[int, dict[str, Any]]]:
    """Return what each engine holds, as `%pxwho` shows it.

    Parameters
    ----------
    targets
        Engines: a number, a list of numbers, or what follows ``-t``.

    Returns
    -------
    dict
        Name to engine to a dict with ``type``, ``shape``, ``dtype``, ``nbytes`` (bytes), ``hash`` and ``text``.

    Examples
    --------
    >>> import pxtools
    >>> _ = pxtools.push(weights=[1.0, 2.0])
    >>> pxtools.who()["weights"][0]["type"]
    'list'
    """
    return _state.who(current_session(), targets=targets)
