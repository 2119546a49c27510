"""The named tuple that a formula returns; it pickles, though its class is made while running."""

from __future__ import annotations

from collections import namedtuple
from functools import cache
from typing import Any


@cache
def result_type(name: str, fields: tuple[str, ...]) -> Any:
    """Return the class for a formula's outputs; the same one for the same name and outputs."""
    made: Any = namedtuple(f"{name}_result", fields, module=__name__)  # type: ignore[misc]
    made.__reduce__ = lambda self: (_rebuild, (name, fields, tuple(self)))
    return made


def _rebuild(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return result_type(name, fields)(*values)
