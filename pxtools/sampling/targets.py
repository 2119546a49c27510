"""What is sampled: a callable, how it is called, and what its parameters are named."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from types import FunctionType
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pxtools.errors import PxUsageError, TargetError
from pxtools.kernels.calls_numpy import result_at
from pxtools.kernels.target_calls import as_values, call_text, checked_number, is_refused, name_of, refuse_value
from pxtools.sampling.blobs import Blobs, has_blobs
from pxtools.sampling.pointers import FromCell, c_arguments, source_of

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Target:
    """A density or log-density with its calling convention.

    Attributes
    ----------
    function : callable
        Returns one real number. On an engine, the same function living there: `target.on(function)`.
    name : str
        What the user calls it.
    names : tuple of str
        Parameter names; empty while the length of a vector target's argument is unknown.
    is_scalar : bool
        Called with one Python float per parameter; otherwise with one float64 vector.
    is_density : bool
        Returns a density; otherwise a log-density.
    is_vectorized : bool
        Called with an (n_points, n_params) array and returns n_points values.
    argument : str
        The name of a vector target's argument, from which `x[0]`, `x[1]`, … are made.
    kind : str
        `numba` for a Python function to be compiled where it runs, `c` for a C function, else empty.
    blob_names : tuple of str
        Names of the extra outputs that a Python function returns in a tuple.
    """

    function: Callable[..., Any]
    name: str
    names: tuple[str, ...] = ()
    is_scalar: bool = False
    is_density: bool = False
    is_vectorized: bool = False
    argument: str = "x"
    kind: str = ""
    blob_names: tuple[str, ...] = ()

    @property
    def walks_by_itself(self) -> bool:
        """It is a function of R, which has a random walk of its own there."""
        return type(self.function).__name__ == "RFunction" and not self.is_vectorized

    @property
    def tier(self) -> str:
        """What the function is made of: `python`, `cython`, `numba`, `C pointer`, `R`, or the name of its type."""
        if self.kind:
            return "C pointer" if self.kind == "c" else self.kind
        kind = type(self.function).__name__
        known = {"function": "python", "method": "python", "cython_function_or_method": "cython", "RFunction": "R"}
        return known.get(kind, kind)

    @cached_property
    def caller(self) -> Callable[..., Any]:
        """What the kernels call at one point: the function, one row at a time of a vectorised one, or a C pointer."""
        if self.kind == "numba":
            from pxtools.sampling.numba_tier import compile_target

            return compile_target(cast(FunctionType, self.function), len(self.names), self.is_scalar)
        if self.kind == "c":
            pointer: Callable[..., Any] = cast(Any, self.function).resolve()
            return pointer
        return _OneRow(self.function) if self.is_vectorized else self.function

    @cached_property
    def rows(self) -> Callable[[NDArray[np.float64]], NDArray[np.float64]] | None:
        """What evaluates many points, (n_points, n_params), in one call; None where there is no such thing."""
        if type(self.function).__name__ == "RFunction":
            return partial(cast(Any, self.function).rows, is_scalar=self.is_scalar, is_vectorized=self.is_vectorized)
        return _Rows(self.function) if self.is_vectorized and not self.kind else None

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def as_python(self) -> Target:
        """Return the same target, called through Python, if that is possible."""
        is_cell = isinstance(self.function, FromCell)
        return replace(self, function=cast(FromCell, self.function).function, kind="") if is_cell else self

    def on(self, function: Callable[..., Any]) -> Target:
        """Return the same target with another function object: the one that lives on this engine."""
        return replace(self, function=function)

    def with_size(self, n_params: int) -> Target:
        """Return the target with a name for each of `n_params` parameters.

        Raises
        ------
        PxUsageError
            The target has another number of parameters.
        """
        if not self.names:
            return replace(self, names=tuple(f"{self.argument}[{i}]" for i in range(n_params)))
        if len(self.names) != n_params:
            named = ", ".join(self.names)
            raise PxUsageError(
                f"`{self.name}` has {len(self.names)} parameter(s) ({named}), a start point {n_params}.\n"
                f"Give --initial points of {len(self.names)} coordinate(s), in that order."
            )
        return self

    def value_at(self, point: ArrayLike) -> float:
        """Return the value at one point; it may be NaN, or minus infinity when it is a log-density.

        Raises
        ------
        TargetError
            No real number, a negative density, or plus infinity.
        Exception
            Whatever the function raises, with a note that names the call.
        """
        return self.evaluate(point)[0]

    def evaluate(self, point: ArrayLike) -> tuple[float, Any]:
        """Return the value at one point as `value_at` does, and the whole result with its extra outputs."""
        coordinates = _coordinates(point)
        result = result_at(self.caller, coordinates, self.is_scalar)
        if has_blobs(result):
            value = self.blobs_of(result, coordinates).split(self.caller, result, coordinates, self.is_scalar)[0]
        else:
            value = checked_number(self.caller, result, coordinates, self.is_scalar)
        if is_refused(value, self.is_density):
            refuse_value(self.caller, value, coordinates, self.is_scalar, self.is_density)
        return value, result

    def blobs_of(self, result: object, point: ArrayLike) -> Blobs:
        """Return how a first result with extra outputs is taken apart.

        Raises
        ------
        TargetError
            It has no density, a blob is no number, text or array, or has the name of a parameter.
        """
        coordinates = _coordinates(point)
        blobs = Blobs.of(
            self.caller, result, coordinates, self.is_scalar, is_density=self.is_density, given=self.blob_names
        )
        taken = [name for name in blobs.names if name in {*self.names, "log_density", "chain", "draw"}]
        if taken:
            raise TargetError(
                f"`{self.name}` returns a blob named `{taken[0]}`, a name that is taken.\nName it otherwise."
            )
        return blobs

    def is_inside(self, value: float) -> bool:
        """Tell whether a point with this value belongs to the support: a chain can be there."""
        return value > 0 if self.is_density else value > -np.inf

    def check(self, point: ArrayLike, chain: int | None = None) -> float:
        """Return the value at a start point, where it must be positive (density) or finite (log-density).

        Raises
        ------
        TargetError
            The value is one that `value_at` refuses, or a chain cannot start there.
        """
        value = self.value_at(point)
        if not self.is_inside(value):
            self.refuse_start(value, point, chain)
        return value

    def refuse_start(self, value: float, point: ArrayLike, chain: int | None = None) -> NoReturn:
        """Raise the `TargetError` for a start point outside the support."""
        call = call_text(self.caller, _coordinates(point), self.is_scalar)
        who = "The chain" if chain is None else f"Chain {chain}"
        need = "a positive density" if self.is_density else "a finite log-density"
        raise TargetError(
            f"{who} cannot start: {call} is {value!r}, and a start point needs {need}.\n"
            f"Give start points inside the support: --initial X, or --bounds around it."
        )


def _coordinates(point: ArrayLike) -> list[float]:
    return [float(coordinate) for coordinate in np.atleast_1d(np.asarray(point, dtype=np.float64))]


class _OneRow:
    """Calls a vectorised function at one point."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.func = function

    def __call__(self, point: NDArray[np.float64]) -> Any:
        result = self.func(point[np.newaxis, :])
        _refuse_blobs(self.func, result)
        values = np.asarray(result)
        return values[0] if values.shape == (1,) else values


class _Rows:
    """Calls a vectorised function at many points, and checks that it returns a real number for each."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        result = self.function(points)
        _refuse_blobs(self.function, result)
        return as_values(self.function, np.asarray(result), len(points))


def _refuse_blobs(function: Callable[..., Any], result: object) -> None:
    if has_blobs(result):
        raise TargetError(
            f"{name_of(function)} returned a {type(result).__name__}: extra outputs are for functions of one point.\n"
            f"Return one array of (n_points,), or leave --vectorized out."
        )


def resolve_target(
    function: Callable[..., Any],
    *,
    density: bool = False,
    scalar: bool | None = None,
    vectorized: bool = False,
    names: Sequence[str] | None = None,
    blobs: Sequence[str] | None = None,
) -> Target:
    """Find out how a function is called: one required positional parameter means a vector, more mean floats.

    Parameters
    ----------
    function : callable
        A Python function, a function compiled by Cython, any callable; or a C function `double f(const double*, int)`
        as a Cython capsule, a Numba cfunc, or a LowLevelCallable. A function of a `%%pxcython` cell whose arguments are
        C doubles, or one vector of them, is called as the C function that it has beside it.
    density : bool
        It returns a density, not a log-density.
    scalar : bool, optional
        Call it with one float per parameter (True) or with one vector (False), whatever its signature says.
    vectorized : bool
        It takes an (n_points, n_params) array and returns n_points values.
    names : sequence of str, optional
        Parameter names in place of the signature's.
    blobs : sequence of str, optional
        Names of the extra outputs of a function that returns a tuple `(log_density, blob, ...)`.

    Returns
    -------
    Target

    Raises
    ------
    PxUsageError
        Not callable; no readable signature and not told how to call it; names that do not fit.

    Examples
    --------
    >>> from pxtools.sampling import resolve_target
    >>> resolve_target(lambda x, y: -(x**2 + y**2) / 2).names
    ('x', 'y')
    """
    source = source_of(function)
    if source is not None:
        given = tuple(names or ())
        return Target(cast(Any, source), source.__name__, given, is_density=density, kind="c")
    if not callable(function):
        raise PxUsageError(
            f"The target is no function but {type(function).__name__} ({function!r:.60}).\n"
            f"Name a function that returns a log-density, or a density with --density."
        )
    if vectorized and scalar:
        raise PxUsageError(
            "--scalar and --vectorized contradict each other.\nUse one: floats, or an (n_points, n_params) array."
        )
    name, given = name_of(function), tuple(names or ())
    if len(set(given)) != len(given):
        raise PxUsageError(f"--names repeats a name: {', '.join(given)}.\nGive each parameter a name of its own.")
    typed = None if vectorized else c_arguments(function)
    scalar = typed[0] if typed is not None and scalar is None else scalar
    required, optional = _parameters(function, name, is_known=vectorized or scalar is not None)
    is_scalar = False if vectorized else len(required) >= 2 if scalar is None else scalar
    if is_scalar:
        given = _scalar_names(name, given, required, optional)
    elif scalar is None and not vectorized and not required:
        raise PxUsageError(
            f"`{name}` has no required parameter, so which ones to sample is open.\n"
            f"Type --scalar --names {','.join(optional) or 'x,y'}"
            f" to call it with floats."
        )
    argument = required[0] if required else "x"
    made = Target(function, name, given, is_scalar, density, vectorized, argument, blob_names=tuple(blobs or ()))
    is_other_form = typed is None or typed[0] != is_scalar or (is_scalar and not typed[1] <= len(given) <= typed[2])
    if blobs or is_other_form:
        return made
    return replace(made, function=cast(Any, FromCell(function)), kind="c")


def _parameters(function: Callable[..., Any], name: str, is_known: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the required and of the optional positional parameters."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        if is_known:
            return (), ()
        raise PxUsageError(
            f"`{name}` does not tell its parameters (it is compiled without a signature).\n"
            f"Type --scalar --names x,y to call it with floats, or --no-scalar to call it with one vector."
        ) from None
    unmet = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if unmet:
        raise PxUsageError(
            f"`{name}` needs the keyword argument(s) {', '.join(unmet)}, which sampling does not give.\n"
            f"Fix them first: `functools.partial({name}, {unmet[0]}=...)`."
        )
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    required = tuple(p.name for p in positional if p.default is p.empty)
    return required, tuple(p.name for p in positional if p.default is not p.empty)


def _scalar_names(
    name: str, given: tuple[str, ...], required: tuple[str, ...], optional: tuple[str, ...]
) -> tuple[str, ...]:
    if not given and not required:
        raise PxUsageError(f"`{name}` does not tell its parameters.\nName those to sample: --names x,y.")
    is_open = not required and not optional  # no signature, or *args
    if given and not is_open and not len(required) <= len(given) <= len(required) + len(optional):
        raise PxUsageError(
            f"--names gives {len(given)} name(s), `{name}` takes {len(required)} ({', '.join(required)}).\n"
            f"Give one name per parameter, or leave --names out."
        )
    return given or required
