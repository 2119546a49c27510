"""The magics' plain Python twins, with the same words: everything a magic does can be done from a script.

>>> import pxtools
>>> walk = pxtools.sample(density, density=True, initial=starts, draws=10_000)      # doctest: +SKIP
"""

from __future__ import annotations

import atexit
import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from pxtools.engines import waiting
from pxtools.languages.cython_build import CythonFlags
from pxtools.sampling.starts import Box as _Box
from pxtools.session.blocks import call_in_blocks
from pxtools.session.core import Session
from pxtools.session.cython import CythonResult, cython_on
from pxtools.session.doctor import Findings, examine
from pxtools.session.handle import Handle
from pxtools.session.languages import OCTAVE, R, language_cell
from pxtools.session.mapping import map_on
from pxtools.session.run import Cell
from pxtools.session.run import run as _run
from pxtools.session.sampling import sample as _sample
from pxtools.session.scatter import gather as _gather
from pxtools.session.scatter import scatter as _scatter
from pxtools.session.state import clear as _clear
from pxtools.session.state import collect as _collect
from pxtools.session.state import import_ as _import
from pxtools.session.state import push as _push
from pxtools.session.state import who as _who

#: the one reference to the session in use; `%load_ext pxtools` puts the notebook's here
_in_use: list[Session] = []


def current_session() -> Session:
    """Return the session in use: the notebook's, or a new one over `__main__` in a plain script."""
    if not _in_use:
        use(Session(sys.modules["__main__"].__dict__))
    return _in_use[0]


def use(new: Session) -> Session:
    """Make `new` the session in use and return it; it leaves its cluster when the interpreter ends."""
    leave()
    _in_use.append(new)
    atexit.register(new.disconnect)
    return new


def leave() -> None:
    """Leave the session in use; a cluster that it started is stopped."""
    while _in_use:
        old = _in_use.pop()
        atexit.unregister(old.disconnect)
        old.disconnect()


def client() -> Any:
    """Return the real `ipyparallel.Client`."""
    return current_session().client


def cluster(n: int | None = None, **options: Any) -> list[int]:
    """Start local engines (or ``engines="mpi"``, …) in place of the cluster in use; return their numbers."""
    return current_session().start(n, **options)


def connect(**where: Any) -> list[int]:
    """Connect to a running cluster: ``file=``, or ``profile=`` and ``cluster_id=``; return its engines."""
    return current_session().connect(**where)


def imports(source: str, **options: Any) -> list[str]:
    """Run import statements here and on every engine; return the names they bind."""
    return _import(current_session(), source, **options)


def push(*names: str, targets: Any = None, **values: Any) -> int:
    """Send names, or ``name=value``, to the engines; return the bytes that travelled."""
    return _push(current_session(), names, values, targets=targets)


def collect(expression: str, *, how: str | None = None, targets: Any = None) -> Any:
    """Return the value of a name or expression on every engine; see `pxtools.results.PerEngine`."""
    return _collect(current_session(), expression, how=how, targets=targets)


def clear(*names: str, targets: Any = None) -> dict[int, list[str]]:
    """Delete names on the engines, all of them when none is given."""
    return _clear(current_session(), names, targets=targets)


def scatter(name: str, value: Any, **options: Any) -> list[int]:
    """Cut a sequence into one piece per engine; see `pxtools.session.scatter.scatter`."""
    return _scatter(current_session(), name, value, **options)


def formula(outputs: Any, *args: Any, **options: Any) -> Any:
    """Compile matrix formulas, as `pxtools.expr.compile`; matrices may come in column blocks that engines hold.

    Examples
    --------
    >>> twice = formula("y = 2*A*x", assumptions="x: vector", name="twice")
    >>> float(twice(A=[[3.0]], x=[1.0]).y[0])
    6.0
    """
    from pxtools.expr import compile

    made = compile(outputs, *args, **options)
    made.in_blocks = functools.partial(call_in_blocks, current_session())
    return made


def gather(name: str, *, targets: Any = None) -> Any:
    """Put the engines' pieces of a name together as they were cut."""
    return _gather(current_session(), name, targets=targets)


def who(*, targets: Any = None) -> dict[str, dict[int, dict[str, Any]]]:
    """Return what each engine holds: name to engine to type, shape, size."""
    return _who(current_session(), targets=targets)


def run(code: str, *, timeout: float | None = None, **options: Any) -> dict[str, Any]:
    """Run a cell of Python on the engines; return what it assigned, name to `PerEngine`.

    Parameters
    ----------
    code
        The cell. Names that it reads and `__main__` holds are pushed.
    timeout
        Seconds, after which the engines are interrupted.
    **options
        Of `pxtools.session.run.Cell`: inputs, outputs, targets, how, seed, auto.
    """
    finished = _run(current_session(), Cell(code, **options), timeout_s=timeout)
    for _, reply in sorted(finished.replies.items()):
        if reply.stdout:
            print(reply.stdout, end="")
    if finished.error is not None:
        raise finished.error
    return finished.outputs


def map(function: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, **options: Any) -> Any:
    """Map over the engines, balanced, in order; see `pxtools.session.mapping.map_on`."""
    return map_on(current_session(), function, *iterables, timeout_s=timeout, **options)


def last_map() -> dict[int, Any]:
    """Return what was done of the last map, if it did not end: results by item number."""
    return dict(sorted(current_session().unfinished_map.items()))


def background(work: Callable[..., Any], *args: Any, **options: Any) -> Handle:
    """Call a function that waits for engines, such as `pxtools.collect`, in the background; return its handle.

    Examples
    --------
    >>> handle = background(collect, "x")      # doctest: +SKIP
    >>> handle.result(timeout=10)      # doctest: +SKIP
    """
    _ = current_session().wire
    return Handle(getattr(work, "__name__", "work"), functools.partial(work, *args, **options))


def within(seconds: float) -> AbstractContextManager[Any]:
    """Wait at most so many seconds for engines in all that a block does; then interrupt them.

    Examples
    --------
    >>> with within(5):      # doctest: +SKIP
    ...     push("a")
    """
    return waiting.within(seconds)


#: start points in a box, for `sample(initial=...)`
Box = _Box


def sample(function: Callable[..., Any], *, timeout: float | None = None, **options: Any) -> Any:
    """Sample a density on the engines; see `pxtools.session.sampling.sample`."""
    return _sample(current_session(), function, timeout_s=timeout, **options)


def cython(
    code: str,
    *,
    check: str | None = None,
    bounds: Any = (0.0, 1.0),
    targets: Any = None,
    timeout: float | None = None,
    force: bool = False,
    **flags: Any,
) -> CythonResult:
    """Compile Cython once; bind its names here and on every engine.

    Parameters
    ----------
    code
        A cell of Cython.
    check, bounds
        A Python function to compare with, and the bounds of the random points.
    **flags
        Of `pxtools.languages.cython_build.CythonFlags`: annotate, cplus, compile_args, link_args, lib, include, …

    Examples
    --------
    >>> cython("def twice(double x): return 2 * x").names      # doctest: +SKIP
    ('twice',)
    """
    return cython_on(
        current_session(),
        code,
        CythonFlags(**flags),
        check=check,
        bounds=bounds,
        targets=targets,
        timeout_s=timeout,
        force=force,
    )


def r(code: str, *, timeout: float | None = None, **options: Any) -> dict[str, Any]:
    """Run R on every engine; return what came back, name to `PerEngine`.

    Parameters
    ----------
    code
        A cell of R.
    **options
        Of `pxtools.session.languages.language_cell`: inputs, outputs, targets, how, seed, plot.

    Examples
    --------
    >>> r("m <- mean(x)", inputs={"x": "x"}, outputs={"m": "m"})      # doctest: +SKIP
    """
    return _in_language(R, code, timeout, converter=None, display=None, **options)


def octave(code: str, *, timeout: float | None = None, **options: Any) -> dict[str, Any]:
    """Run Octave on every engine; return what came back, name to `PerEngine`.

    Parameters
    ----------
    code
        A cell of Octave.
    **options
        Of `pxtools.session.languages.language_cell`: inputs, outputs, targets, how, seed, plot.

    Examples
    --------
    >>> octave("m = mean(x);", inputs={"x": "x"}, outputs={"m": "m"})      # doctest: +SKIP
    """
    plot = {"device": "svg", **options.pop("plot", {})}
    return _in_language(OCTAVE, code, timeout, plot=plot, **options)


def doctor(*, targets: Any = None) -> Findings:
    """Return what this process and the engines have, what does not work, and the lines to type."""
    return examine(current_session(), targets=targets)


def _in_language(runner: str, code: str, timeout: float | None, **options: Any) -> dict[str, Any]:
    session = current_session()
    finished = _run(session, language_cell(session, runner, code, **options), timeout_s=timeout)
    for _, reply in sorted(finished.replies.items()):
        if reply.stdout:
            print(reply.stdout, end="")
    if finished.error is not None:
        raise finished.error
    return finished.outputs


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
    **options
        Of `pxtools.session.mapping.map_on`.

    Examples
    --------
    >>> @parallel
    ... def square(n):
    ...     return n * n
    >>> square(3)
    9
    """
    if function is None:
        return lambda f: Parallel(f, options)
    return Parallel(function, options)
