"""What compiled code looks up outside itself."""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator

_LOOKS_UP = frozenset({"LOAD_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"})
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


def global_names(code: types.CodeType) -> frozenset[str]:
    """Find the names that a code object, and all code nested in it, may look up as globals.

    Attributes are not among them; a global that is only stored is not either. Builtins are.

    Parameters
    ----------
    code : types.CodeType
        For a function `f`, its `f.__code__`.

    Returns
    -------
    frozenset of str
        The names.

    Examples
    --------
    >>> def area(radius):
    ...     return pi * abs(radius) ** 2
    >>> sorted(global_names(area.__code__))
    ['abs', 'pi']
    """
    return frozenset().union(*map(_own_globals, nested(code)))


def attribute_names(code: types.CodeType) -> frozenset[str]:
    """Find the attributes that a code object, and all code nested in it, may look up on anything."""
    return frozenset(op.argval for part in nested(code) for op in operations(part) if op.opname in _ATTRIBUTES)


def imported_modules(code: types.CodeType) -> frozenset[str]:
    """Find the modules that `import` statements in the code, and in all code nested in it, name absolutely."""
    return frozenset(op.argval for part in nested(code) for op in operations(part) if op.opname == "IMPORT_NAME")


def nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and every function, lambda, comprehension and class body inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from nested(constant)


def operations(code: types.CodeType) -> list[dis.Instruction]:
    """Return the instructions of one code object, nested ones not included."""
    return list(dis.get_instructions(code))


def _own_globals(code: types.CodeType) -> set[str]:
    found: set[str] = set()
    stored: set[str] = set()
    ops = operations(code)
    is_straight = not any(op.opcode in _JUMPS for op in ops)
    for op, following in zip(ops, [*ops[1:], None], strict=True):
        if op.opname == "STORE_NAME":
            stored.add(op.argval)
        elif op.opname == "DELETE_NAME":
            stored.discard(op.argval)
        elif op.opname in _LOOKS_UP:
            found.add(op.argval)
        elif op.opname == "LOAD_NAME":
            # Every class body begins with `__module__ = __name__`, which nobody wrote.
            is_implicit = following is not None and following.argval == "__module__"
            if not is_implicit and not (is_straight and op.argval in stored):
                found.add(op.argval)
    return found
