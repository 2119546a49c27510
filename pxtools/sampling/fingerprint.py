"""What tells two functions apart: their code, and the values that it uses. Standard library and NumPy only."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Callable
from typing import Any

import numpy as np


def fingerprint(function: object) -> str:
    """Return a text that stays the same in another process for the same code with the same values; empty if unknown."""
    if isinstance(function, functools.partial):
        own = fingerprint(function.func)
        return own and _digest((own, _key(function.args, _type), _key(sorted(function.keywords.items()), _type)))
    function = getattr(function, "__func__", function)
    return _digest(key_of(function, _type)) if isinstance(function, types.FunctionType) else ""


def key_of(thing: Any, other: Callable[[Any], Any]) -> Any:
    """Return what tells two functions, or two values, apart; `other` is asked about kinds of values not known here."""
    return _key(thing, other)


def used_globals(function: types.FunctionType) -> list[str]:
    """Return the names of its globals that a function uses."""
    return [name for name in function.__code__.co_names if name in function.__globals__]


def _digest(key: Any) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()


def _type(thing: Any) -> str:
    return getattr(thing, "__name__", type(thing).__name__)


def _key(thing: Any, other: Callable[[Any], Any], seen: frozenset[int] = frozenset()) -> Any:
    if isinstance(thing, types.FunctionType):
        if id(thing) in seen:
            return "itself"
        seen |= {id(thing)}
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        values = [thing.__globals__[name] for name in used_globals(thing)]
        parts = (_code(thing.__code__), *(_key(part, other, seen) for part in (thing.__defaults__, *values, *cells)))
        return ("function", parts)
    if isinstance(thing, np.ndarray) and thing.dtype != object:
        return (thing.dtype.str, thing.shape, hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest())
    if isinstance(thing, (int, float, str, bytes, bool, complex, type(None), np.generic)):
        return (type(thing).__name__, repr(thing))
    if isinstance(thing, (tuple, list)):
        return (type(thing).__name__, *(_key(part, other, seen) for part in thing))
    if isinstance(thing, dict):
        return ("dict", *((str(name), _key(part, other, seen)) for name, part in thing.items()))
    return other(thing)


def _code(code: types.CodeType) -> Any:
    consts = tuple(_code(const) if isinstance(const, types.CodeType) else repr(const) for const in code.co_consts)
    return (code.co_code, consts, code.co_names)
