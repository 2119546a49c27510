"""Compile a user's unchanged Python function with Numba, and trust it only where it agrees with Python.

Numba is imported where it is asked for: engines run this.
"""

from __future__ import annotations

import dis
import importlib.util
import math
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import PxUsageError
from pxtools.kernels.calls_numpy import result_at
from pxtools.kernels.target_calls import checked_number
from pxtools.sampling.blobs import has_blobs
from pxtools.sampling.fingerprint import key_of, used_globals
from pxtools.sampling.group import stream
from pxtools.sampling.plan import SamplePlan
from pxtools.sampling.pointers import CTarget, import_numba, interrupt_waits, why_python
from pxtools.sampling.targets import Target

#: fewer evaluations than this are done before Numba has compiled on every engine
WORTH_EVALUATIONS = 1_000_000
#: points at which Numba and Python are compared, and the least of them that must be inside the support
POINTS, LEAST_POINTS = 40, 10
#: they agree to this share
TOLERANCE = 1e-9
BLOBS = "it returns extra outputs, which are for Python"
#: instructions and methods that may change a vector argument: such a function gets a copy
_CHANGES = {"STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"}
_CHANGING_METHODS = {"sort", "fill", "partition", "put", "shuffle", "resize", "itemset"}

_compiled: dict[Any, CTarget] = {}


def choose_tier(target: Target, plan: SamplePlan, tier: str = "auto") -> tuple[Target, list[str]]:
    """Return the target to run, and what to tell the user.

    Parameters
    ----------
    target : Target
        As resolved.
    plan : SamplePlan
        Says how much work there is and where chains start. It alone decides, never a clock: the same call gives the
        same tier.
    tier : str
        `auto` (Numba where it is installed, compiles and agrees, and the work is worth it), `python`, or `numba`.

    Raises
    ------
    PxUsageError
        An unknown tier, or `numba` was asked for and is impossible.
    """
    if tier not in ("auto", "python", "numba"):
        raise PxUsageError(f"There is no tier `{tier}`.\nType --tier auto | python | numba.")
    if target.kind == "c":
        target = target.as_python() if tier == "python" else target
    why = why_python(target.function)
    if why:
        return target, [f"`{target.name}` is called through Python: {why}."]
    is_plain = isinstance(target.function, types.FunctionType) and not target.is_vectorized
    is_wanted = tier == "numba" or (tier == "auto" and plan.n_chains * plan.n_steps >= WORTH_EVALUATIONS)
    if not is_wanted or (not is_plain and tier == "auto"):
        return target, []
    reason = None if is_plain else "it is no plain Python function of one point"
    if reason is None and importlib.util.find_spec("numba") is None:
        if tier == "auto":
            return target, []
        reason = "numba is not installed (pip install 'pxtools[numba]')"
    if reason is None:
        compiled = replace(target, kind="numba")
        reason = _disagreement(target, compiled, plan)
        if reason is None:
            return compiled, []
    if tier == "numba":
        raise PxUsageError(f"Numba cannot be used for `{target.name}`: {reason}.\nLeave --tier numba out.")
    return target, [f"`{target.name}` runs as Python: {reason}."]


def _disagreement(target: Target, compiled: Target, plan: SamplePlan) -> str | None:
    """Compare at random points around the starts; return why Numba is not to be trusted, or None.

    It is compiled first: most functions that are slow do not compile, and so are not called here at all.
    """
    points = _points(plan)
    try:
        compiled.caller  # noqa: B018  compiles
    except Exception as error:
        if _value(target, points[0]) is None:
            return BLOBS
        first = str(error).strip().splitlines() or [type(error).__name__]
        return f"Numba does not compile it ({first[0][:120]})"
    n_inside = 0
    for point in points:
        mine = _value(target, point)
        if mine is None:
            return BLOBS
        its = compiled.caller(*point) if target.is_scalar else compiled.caller(np.array(point))
        if math.isfinite(mine) != math.isfinite(its) or (
            math.isfinite(mine) and abs(mine - its) > TOLERANCE * max(1e-300, abs(mine))
        ):
            return f"Numba gives {its!r} where Python gives {mine!r}, at {point}"
        n_inside += math.isfinite(mine)
    return None if n_inside >= LEAST_POINTS else f"only {n_inside} of {POINTS} points to compare at are in its support"


def _value(target: Target, point: list[float]) -> float | None:
    """Return what Python gives, NaN for an exception; None for extra outputs."""
    try:
        result = result_at(target.function, point, target.is_scalar)
        return None if has_blobs(result) else checked_number(target.function, result, point, target.is_scalar)
    except Exception:
        return math.nan


def _points(plan: SamplePlan) -> list[list[float]]:
    generator = stream(plan.seed, 2**31)
    if plan.random_start is not None:
        return [plan.random_start.draw(generator).tolist() for _ in range(POINTS)]
    rows = plan.initial[np.arange(POINTS) % len(plan.initial)]
    noise: NDArray[np.float64] = 0.1 * plan.step * generator.standard_normal(rows.shape)
    noise[: len(plan.initial)] = 0
    points: list[list[float]] = (rows + noise).clip(plan.lower, plan.upper).tolist()
    return points


def compile_target(function: types.FunctionType, n_params: int, is_scalar: bool) -> CTarget:
    """Return the function as machine code; the same source with the same globals is compiled once.

    Raises
    ------
    TypeError
        It raises exceptions on purpose, which machine code called from C cannot.
    Exception
        Whatever Numba says.
    """
    key = (n_params, is_scalar, key_of(function, id))
    if key not in _compiled:
        _compiled[key] = _compile(function, n_params, is_scalar)
    return _compiled[key]


def _compile(function: types.FunctionType, n_params: int, is_scalar: bool) -> CTarget:
    numba = import_numba()
    jit = numba.njit(error_model="numpy")
    fast = _jitted(jit, function, {})
    numbers = ", ".join(f"p[{i}]" for i in range(n_params))
    argument = numbers if is_scalar else "carray(p, (n,)).copy()" if _changes(function) else "carray(p, (n,))"
    names = {"target": fast, "carray": numba.carray}
    exec(f"def call(p, n):\n    return float(target({argument}))", names)
    kinds = numba.types
    signature = kinds.float64(kinds.CPointer(kinds.float64), kinds.intc)
    with interrupt_waits():
        compiled = numba.cfunc(signature, error_model="numpy")(names["call"])
    return CTarget(compiled.address, function.__name__, is_scalar, keep=(compiled, fast))


def _jitted(jit: Callable[..., Any], function: types.FunctionType, done: dict[int, Any]) -> Any:
    """Compile a function and, before it, those of its globals that are functions."""
    if id(function) in done:
        raise TypeError(f"`{function.__name__}` calls itself")
    done[id(function)] = None
    if any(step.opname == "RAISE_VARARGS" for step in dis.get_instructions(function)):
        raise TypeError(f"`{function.__name__}` raises exceptions on purpose")
    scope = dict(function.__globals__)
    for name in used_globals(function):
        if isinstance(scope.get(name), types.FunctionType):
            scope[name] = _jitted(jit, scope[name], dict(done))
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    return jit(copy)


def _changes(function: types.FunctionType) -> bool:
    """Tell whether the function, or one that it uses, may write to its argument."""
    for step in dis.get_instructions(function):
        if step.opname in _CHANGES or (step.opname == "BINARY_OP" and step.argrepr.endswith("=")):
            return True
    if _CHANGING_METHODS & set(function.__code__.co_names):
        return True
    helpers = [function.__globals__[name] for name in used_globals(function)]
    return any(isinstance(helper, types.FunctionType) and _changes(helper) for helper in helpers)
