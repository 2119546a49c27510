"""The named tuple that a formula returns; it pickles, though its class is made while running."""

from __future__ import annotations

import collections
from functools import cache
from typing import Any


@cache
def result_type(name: str, fields: tuple[str, ...]) -> Any:
    """Return the class for a formula's outputs; the same one for the same name and outputs."""
    title = f"{name}_result"
    base: type = collections.namedtuple(title, fields)  # type: ignore[misc]

    def reduce(result: Any) -> Any:
        return _rebuild, (name, fields, tuple(result))

    return type(title, (base,), {"__slots__": (), "__reduce__": reduce, "__module__": __name__})


def _rebuild(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return result_type(name, fields)(*values)
