"""Values between Python and Octave, on the engine; the rules are the table in `pxtools.languages.conversions`."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from pxtools.errors import PxOctaveError

_EXACT_MAX = 2**53
#: text with other characters arrives cut off, in both directions
_LAST_CHARACTER = 127


class Converter:
    """Converts values of one cell to what oct2py takes and from what it gives.

    Attributes
    ----------
    notes
        Lines for the user, such as ``x: integers became double``.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.name = ""

    def note(self, text: str) -> None:
        """Say once what was changed in the value at hand."""
        line = f"{self.name}: {text}"
        if line not in self.notes:
            self.notes.append(line)

    def to_octave(self, value: Any, name: str) -> Any:
        """Return `value` as oct2py takes it.

        Raises
        ------
        PxOctaveError
            Octave has nothing that holds it.
        """
        self.name = name
        return self._to(value)

    def _to(self, value: Any) -> Any:
        if value is None:
            return np.zeros((0, 0))
        if isinstance(value, bool | np.bool_):
            return np.array([[bool(value)]])
        if isinstance(value, str):
            return self._to_text(value)
        if isinstance(value, complex):
            return value
        if isinstance(value, numbers.Real) and not isinstance(value, np.floating):
            self._check(value, f"float({self.name})")
            return float(value)
        if isinstance(value, Mapping):
            return self._to_struct(value)
        if type(value).__name__ == "DataFrame":
            return {str(label): self._to_column(value[label]) for label in value.columns}
        if isinstance(value, list | tuple | range):
            return self._to_row(list(value))
        if isinstance(value, np.ma.MaskedArray):
            raise PxOctaveError(f"`{self.name}`: Octave has no masked arrays. Send `{self.name}.filled(np.nan)`.")
        if hasattr(value, "__array__") and not isinstance(value, type):
            return self._to_matrix(np.asarray(value))
        hint = " It has no order: send `sorted(...)`." if isinstance(value, set | frozenset) else ""
        raise PxOctaveError(f"`{self.name}`: Octave has nothing like a Python {type(value).__name__}.{hint}")

    def _check(self, value: Any, remedy: str) -> None:
        if isinstance(value, int | np.integer) and abs(int(value)) > _EXACT_MAX:
            raise PxOctaveError(
                f"`{self.name}`: {value} has more digits than Octave's doubles hold.\nSend it rounded: `{remedy}`."
            )

    def _to_text(self, text: str) -> str:
        odd = next((character for character in text if ord(character) > _LAST_CHARACTER), None)
        if odd is not None:
            raise PxOctaveError(
                f"`{self.name}`: {odd!r} does not reach Octave whole, whose text is bytes.\n"
                f"Send ASCII text, or the numbers of its characters."
            )
        return str(text)

    def _inside(self, value: Any) -> Any:
        """Return a value that goes into a struct or a cell array."""
        made = self._to(value)
        if isinstance(made, np.ndarray) and made.dtype.kind == "b":
            self.note("bools inside a struct or cell array come back as 0 and 1")
        return made

    def _to_struct(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        odd = next((key for key in value if not (isinstance(key, str) and key.isidentifier() and key.isascii())), None)
        if odd is not None:
            raise PxOctaveError(
                f"`{self.name}`: Octave's fields are text like names, this dict has the key {odd!r}.\n"
                f"Send a dict whose keys are names."
            )
        return {key: self._inside(item) for key, item in value.items()}

    def _to_column(self, series: Any) -> Any:
        """Make a column of numbers, else a cell array; what is missing is NaN, or an empty matrix among texts."""
        missing, kind = series.isna().to_numpy(), series.dtype.kind
        if kind in "biuf" and missing.any():
            return self._to_matrix(series.to_numpy(dtype=np.float64, na_value=np.nan).reshape(-1, 1))
        if kind == "b":
            self.note("bools inside a struct or cell array come back as 0 and 1")
        if kind in "biufcmM":
            return self._to_matrix(series.to_numpy().reshape(-1, 1))
        return [self._to(None if gone else item) for item, gone in zip(series.tolist(), missing, strict=True)]

    def _to_row(self, items: list[Any]) -> Any:
        """Make a row of numbers, else a cell array."""
        kinds = {type(item) for item in items}
        if (items and kinds <= {int, float, complex}) or kinds == {bool}:
            for item in items:
                self._check(item, f"[float(i) for i in {self.name}]")
            return self._to_matrix(np.array(items))
        return [self._inside(item) for item in items]

    def _to_matrix(self, array: Any) -> Any:
        kind = array.dtype.kind
        if array.ndim == 0:
            return self._to(array.item())
        if array.ndim == 1:
            array = array.reshape(1, -1)
        if kind in "iu":
            if array.size:
                self._check(max(array.max(), -array.min(), key=int), f"{self.name}.astype(float)")
            self.note("integers became double")
            return array.astype(np.float64)
        if kind == "f" and array.dtype.itemsize != 8:
            self.note(f"{array.dtype} became double")
            return array.astype(np.float64)
        if kind in "UO" and array.shape[0] == 1:
            return [self._to(item) for item in array[0].tolist()]
        if kind not in "bfc":
            raise PxOctaveError(f"`{self.name}`: Octave has nothing like an array of {array.dtype}.")
        return array

    def from_octave(self, value: Any, name: str, kind: str) -> Any:
        """Return what oct2py gives as plain Python and NumPy.

        Parameters
        ----------
        kind
            Octave's class of it.

        Raises
        ------
        PxOctaveError
            It is a function handle or an object.
        """
        self.name = name
        plain = self._from(value)
        if kind == "logical":
            array = np.asarray(plain).astype(bool)
            return array.item() if array.ndim == 0 or (array.size == 1 and not isinstance(value, np.ndarray)) else array
        if kind == "struct" and isinstance(plain, list) and len(plain) == 1 and plain[0] is None:
            return {}  # a struct without fields
        return plain

    def _from(self, value: Any) -> Any:
        kind = type(value).__name__
        if kind in ("Cell", "StructArray"):
            array = np.asarray(value, dtype=object) if kind == "Cell" else value
            items = [self._from(item) for item in (array.reshape(-1) if kind == "Cell" else list(array.reshape(-1)))]
            if kind == "Cell" and array.ndim == 2 and min(array.shape) > 1:
                columns = array.shape[1]
                return [items[k : k + columns] for k in range(0, len(items), columns)]
            return items
        if isinstance(value, Mapping):
            return {str(key): self._from(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._from(item) for item in value] if value else np.zeros((0, 0))
        if isinstance(value, np.ndarray):
            return np.ascontiguousarray(value)
        if isinstance(value, str | bool | float | complex | int):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if value is None:
            return None
        raise PxOctaveError(
            f"`{self.name}` is an Octave {kind}, which Python cannot hold.\nTake numbers out of it in the cell."
        )
