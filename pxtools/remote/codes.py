"""What compiled code looks up outside itself."""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator

_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "DELETE_GLOBAL", "DELETE_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})


def global_names(code: types.CodeType) -> frozenset[str]:
    """Return the names that `code`, or code nested in it, may look up as globals.

    Examples
    --------
    >>> sorted(global_names((lambda x: np.exp(x) + k).__code__))
    ['k', 'np']
    """
    return frozenset(
        instruction.argval
        for part in nested(code)
        for instruction in dis.get_instructions(part)
        if instruction.opname in _READS
    )


def nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and every function, lambda, comprehension and class body inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from nested(constant)
