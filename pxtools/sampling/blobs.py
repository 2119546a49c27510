"""Extra outputs of a target: what it returns beside the density, kept for each draw.

A Python target may return `(log_density, blob, ...)`, a named tuple, or a dictionary with the key `log_density` (or
`density`). A dictionary among the blobs names its own. Standard library and NumPy only: engines run this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pxtools.errors import TargetError
from pxtools.kernels.target_calls import call_text, checked_number

#: a draw's blobs, in the order of their names
Blob = tuple[NDArray[Any], ...]


def has_blobs(result: object) -> bool:
    """Tell whether a result is more than a number."""
    return isinstance(result, dict) or (isinstance(result, tuple) and len(result) > 1)


@dataclass(frozen=True)
class Blobs:
    """Takes results apart; every result has to have the names and shapes of the first one.

    Attributes
    ----------
    names : tuple of str
        Of the blobs.
    shapes : tuple of tuples
        Theirs.
    is_density : bool
        Says which key a dictionary needs.
    given : tuple of str
        The names that the user gave to the blobs of a tuple.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    is_density: bool
    given: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        target: Callable[..., Any],
        result: object,
        point: Sequence[float],
        is_scalar: bool,
        *,
        is_density: bool,
        given: tuple[str, ...],
    ) -> Blobs:
        """Return how results like this first one are taken apart.

        Raises
        ------
        TargetError
            It has no density, or something in it is no number, text, or array of such.
        """
        _, held = _parts(target, result, point, is_scalar, is_density, given)
        return cls(tuple(held), tuple(value.shape for value in held.values()), is_density, given)

    def split(
        self, target: Callable[..., Any], result: object, point: Sequence[float], is_scalar: bool
    ) -> tuple[float, Blob]:
        """Return the number and the blobs, which are copies: the target may use its arrays again.

        Raises
        ------
        TargetError
            Other names or shapes than at first.
        """
        number, held = _parts(target, result, point, is_scalar, self.is_density, self.given)
        if tuple(held) != self.names:
            raise TargetError(
                f"{call_text(target, point, is_scalar)} returned the blobs {', '.join(held) or 'none'}, "
                f"the first call {', '.join(self.names)}.\nReturn the same blobs at every point."
            )
        for name, value, shape in zip(self.names, held.values(), self.shapes, strict=True):
            if value.shape != shape:
                raise TargetError(
                    f"{call_text(target, point, is_scalar)} returned the blob `{name}` with shape {value.shape}, "
                    f"the first call {shape}.\nReturn it with the same shape at every point."
                )
        return number, tuple(held.values())

    def stacked(self, kept: Sequence[Sequence[Blob]]) -> dict[str, NDArray[Any]]:
        """Return an array (n_chains, n_kept, *shape) per name."""
        return {
            name: np.array([[blob[k] for blob in chain] for chain in kept]).reshape(
                (len(kept), len(kept[0]), *self.shapes[k])
            )
            for k, name in enumerate(self.names)
        }


def _parts(
    target: Callable[..., Any],
    result: object,
    point: Sequence[float],
    is_scalar: bool,
    is_density: bool,
    given: tuple[str, ...],
) -> tuple[float, dict[str, NDArray[Any]]]:
    if isinstance(result, dict):
        key = "density" if is_density else "log_density"
        if key not in result:
            raise TargetError(
                f"{call_text(target, point, is_scalar)} returned a dictionary without `{key}` "
                f"(its keys: {', '.join(map(str, result)) or 'none'}).\nReturn {{'{key}': ..., 'name of a blob': ...}}."
            )
        number, extras = result[key], {str(k): v for k, v in result.items() if k != key}
    elif isinstance(result, tuple) and result:
        number, extras = result[0], _named(result, given)
    else:
        number, extras = result, {}
    arrays = {name: _array(target, name, value, point, is_scalar) for name, value in extras.items()}
    return checked_number(target, number, point, is_scalar), arrays


def _named(result: tuple[Any, ...], given: tuple[str, ...]) -> dict[str, Any]:
    names = given if len(given) == len(result) - 1 else getattr(result, "_fields", ("",))[1:]
    extras: dict[str, Any] = {}
    for k, value in enumerate(result[1:]):
        if isinstance(value, dict):
            extras |= {str(name): one for name, one in value.items()}
        else:
            extras[names[k] if names else f"blob_{k}"] = value
    return extras


def _array(target: Callable[..., Any], name: str, value: Any, point: Sequence[float], is_scalar: bool) -> NDArray[Any]:
    try:
        array = np.array(value)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind not in "biufcUSmM":
        raise TargetError(
            f"{call_text(target, point, is_scalar)} returned the blob `{name}`, a {type(value).__name__}, "
            f"where a number, a text, or an array of these is needed.\nMake it one of these, or leave it out."
        )
    return array
