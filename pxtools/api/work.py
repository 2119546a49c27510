"""Work for engines: cells, maps, samplings, formulas."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pxtools.api.cluster import current_session
from pxtools.sampling.starts import Box as _Box
from pxtools.session.blocks import call_in_blocks
from pxtools.session.mapping import map_on
from pxtools.session.run import Cell
from pxtools.session.run import run as _run
from pxtools.session.sampling import sample as _sample

#: start points in a box, for `sample(initial=...)`
Box = _Box


def run(code: str, *, timeout: float | None = None, **options: Any) -> dict[str, Any]:
    """Run a cell of Python on the engines, as `%%pxrun`.

    Parameters
    ----------
    code : str
        The cell. Names that it reads and `__main__` holds are pushed. It sees `px_rank` and `px_size`.
    timeout : float, optional
        Seconds, after which the engines are interrupted.
    **options
        inputs : dict
            Further names to push: name there to name here.
        outputs : dict
            Further names to collect: name of the result to name there.
        targets
            Engines: a number, a list of numbers, or what follows ``-t``.
        how : {"list", "concat", "stack", "dict", "first", "same"}
            How the engines' values are combined.
        seed : int
            Seeds `px_rng`, `random` and NumPy's global generator, independently on each engine.
        auto : bool
            Push what the cell reads and collect what it assigns (default).

    Returns
    -------
    dict of str to PerEngine
        What the cell assigned, one value per engine. Nothing is bound here.

    Raises
    ------
    Exception
        The engines' own, if all that failed raised the same type; else `PxRemoteError`, whose `failures` has each.
    PxEngineLost, PxTimeout, PxUsageError
        An engine died; the time was over; the options contradict each other or too much would be sent.

    Examples
    --------
    >>> import pxtools
    >>> offset = 10
    >>> pxtools.run("x = offset + px_rank")["x"]
    x on 4 engines
      0: 10
      1: 11
      2: 12
      3: 13
    """
    return finish(Cell(code, **options), timeout)


def finish(cell: Cell, timeout: float | None) -> dict[str, Any]:
    """Run a cell, print what engines printed, raise what they raised, return what came back."""
    finished = _run(current_session(), cell, timeout_s=timeout)
    for _, reply in sorted(finished.replies.items()):
        if reply.stdout:
            print(reply.stdout, end="")
    if finished.error is not None:
        raise finished.error
    return finished.outputs


def map(function: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, **options: Any) -> Any:
    """Call a function with each item, on whichever engine is free, as `%pxmap`.

    Parameters
    ----------
    function : callable
        It takes along all that it uses.
    *iterables
        One per argument, of any length; they are read as engines become free.
    timeout : float, optional
        Seconds for the whole map.
    **options
        ordered : bool
            Keep the items' order (default); else return an iterator over results as they are ready.
        block : bool
            Wait for the end (default); else return a `Handle` at once.
        seed : int
            Gives each item its own `px_rng`, the same on any number of engines.
        retries : int
            How often an item that raises is tried again.
        chunksize : int or "auto"
            Items per message.
        return_exceptions : bool
            Put exceptions among the results.
        targets
            Engines: a number, a list of numbers, or what follows ``-t``.

    Returns
    -------
    list
        ``[function(*items) for items in zip(*iterables)]``.

    Raises
    ------
    Exception
        Of the first item that failed, with the call that repeats it here. What was done is in `last_map`.
    PxTimeout, PxEngineLost, PxUsageError
        The time was over; an item was lost with its engine twice; an option cannot be carried out.

    Examples
    --------
    >>> import pxtools
    >>> pxtools.map(pow, [2, 3, 4], [5, 2, 3])
    [32, 9, 64]
    """
    return map_on(current_session(), function, *iterables, timeout_s=timeout, **options)


def last_map() -> dict[int, Any]:
    """Return what was done of the last map, if it did not end well.

    Returns
    -------
    dict of int to Any
        Results by item number, from 0.

    Examples
    --------
    >>> import pxtools
    >>> pxtools.map(lambda n: 6 / n, [3, 2, 1, 0], targets=0, chunksize=1)    # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ZeroDivisionError: division by zero
    ...
    >>> pxtools.last_map()[0]
    2.0
    """
    return dict(sorted(current_session().unfinished_map.items()))


class Parallel:
    """A function whose `.map` runs on the engines; a call runs here, as the function itself does."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.options = dict(options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here."""
        return self.function(*args, **kwargs)

    def map(self, *iterables: Iterable[Any]) -> Any:
        """Return the results in the items' order; with ``ordered=False`` an iterator over them as they are ready."""
        return map(self.function, *iterables, **self.options)

    def __reduce__(self) -> Any:
        return Parallel, (self.function, self.options)


def parallel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Give a function a `.map` over the engines: ``@pxtools.parallel`` or ``@pxtools.parallel(ordered=False)``.

    Parameters
    ----------
    function : callable, optional
        What is decorated.
    **options
        Of `map`.

    Returns
    -------
    Parallel
        Called, it is the function; `.map(items)` is `pxtools.map`.

    Examples
    --------
    >>> import pxtools
    >>> @pxtools.parallel
    ... def square(n):
    ...     return n * n
    >>> square(3)
    9
    >>> square.map(range(4))
    [0, 1, 4, 9]
    """
    if function is None:
        return lambda f: Parallel(f, options)
    return Parallel(function, options)


def sample(function: Callable[..., Any], *, timeout: float | None = None, **options: Any) -> Any:
    """Sample a density with many chains over the engines, as `%pxsample`.

    Parameters
    ----------
    function : callable
        Of one float per parameter, or of one vector (n_params,); it returns a log-density.
    timeout : float, optional
        Seconds after which the draws so far are returned.
    **options
        density : bool
            The function returns a density, not its logarithm.
        draws, warmup, thin : int
            Kept draws per chain (1,000), steps before them, steps per kept draw (1).
        chains : int
            At least eight by default, four per engine.
        initial : (n_chains, n_params) or (n_params,) array, callable, Box, dict or Samples
            Start points.
        bounds : (low, high), (n_params, 2) array, or dict of name to (low, high)
            Hard bounds.
        sampler : {"auto", "ram", "rwm"}
            See docs/sampling.md.
        seed : int
            The draws depend on it, not on the number of engines.
        until : str
            Stop when this is met: ``"rhat<1.01 ess>1000"``.
        checkpoint, resume
            A file to keep the run's state in; go on from it.
        block : bool
            Wait for the end (default); else return a `Sampling` at once.

        and those of `pxtools.session.sampling.sample` and `pxtools.sampling.make_plan`.

    Returns
    -------
    Samples
        `draws` (n_chains, n_draws, n_params), `points` (n_chains·n_draws, n_params), `summary()`, `plot()`, ….

    Raises
    ------
    PxUsageError
        An option cannot be carried out; before anything runs.
    TargetError
        The function returned something that is no density; the message names the point.
    PxTimeout
        The time was over before there were draws.

    References
    ----------
    ter Braak, C. J. F., and Vrugt, J. A. (2008), Statistics and Computing 18, 435-446 (`auto`); Vihola, M. (2012),
    Statistics and Computing 22, 997-1008 (`ram`).

    Examples
    --------
    >>> import pxtools
    >>> def log_density(x, y):
    ...     return -(x**2 + y**2) / 2
    >>> walk = pxtools.sample(log_density, bounds=(-6, 6), chains=8, draws=500, seed=1)
    >>> walk.draws.shape, walk.names
    ((8, 500, 2), ('x', 'y'))
    >>> bool(abs(walk.points.mean()) < 0.2)
    True
    """
    return _sample(current_session(), function, timeout_s=timeout, **options)


def formula(outputs: Any, *args: Any, **options: Any) -> Any:
    """Compile matrix formulas, as `%%pxexpr`; matrices may come in column blocks that engines hold.

    Parameters
    ----------
    outputs : str, or SymPy matrix expressions
        A cell of assignments, or expressions.
    *args, **options
        Of `pxtools.expr.compile`: inputs, assumptions, name, sizes, blocks, form, dtype, threads.

    Returns
    -------
    CompiledFormula
        A function of the formula's inputs that returns a named tuple of its outputs; `.explain()` shows its plan.

    Raises
    ------
    FormulaError
        A shape or a word does not fit; the message points into the formula.
    NotPositiveDefinite
        When it is called: a matrix is not what was said of it.

    Examples
    --------
    >>> import pxtools
    >>> twice = pxtools.formula("y = 2*A*x", assumptions="x: vector", name="twice")
    >>> float(twice(A=[[3.0]], x=[1.0]).y[0])
    6.0
    """
    from pxtools.expr import compile

    made = compile(outputs, *args, **options)
    made.in_blocks = functools.partial(call_in_blocks, current_session())
    return made
