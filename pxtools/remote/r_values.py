"""Values between Python and R, on the engine: `to_r` and `from_r`, with a note for every change and no silent one.

The rules are the table in `pxtools.languages.conversions`. rpy2's own converters are not used: what they return depends
on the packages that an engine has, they turn mixed lists into text and drop None.
"""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pxtools.errors import PxRError
from pxtools.remote.r_frames import attribute, from_r_frame, pandas_for, to_r_frame

_INT_MAX = 2**31 - 1
_EXACT_MAX = 2**53
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UNITS = {"secs": 1.0, "mins": 60.0, "hours": 3600.0, "days": 86400.0, "weeks": 604800.0}


class Converter:
    """Converts values of one cell and keeps the notes on what was changed.

    Attributes
    ----------
    notes
        Lines for the user, such as ``x: float32 became double``.
    """

    def __init__(self) -> None:
        import rpy2.rinterface

        self.ri: Any = rpy2.rinterface
        self.notes: list[str] = []
        self.name = ""

    def note(self, text: str) -> None:
        """Say once what was changed in the value at hand."""
        line = f"{self.name}: {text}"
        if line not in self.notes:
            self.notes.append(line)

    # --- Python to R

    def to_r(self, value: Any, name: str) -> Any:
        """Return `value` as an R object.

        Raises
        ------
        PxRError
            R has nothing that holds it.
        """
        self.name = name
        return self._to(value)

    def _to(self, value: Any) -> Any:
        if value is None:
            return self.ri.NULL
        if type(value).__module__.partition(".")[0] == "pandas":
            return self._to_pandas(value)
        if isinstance(value, bool | str | bytes | complex | numbers.Real | np.generic):
            return self._to_scalar(value)
        if isinstance(value, datetime.datetime | datetime.date | datetime.timedelta):
            return self._to_time(value)
        if isinstance(value, np.ndarray):
            return self._to_array(value)
        if isinstance(value, Mapping):
            return self._to_named_list(value)
        if isinstance(value, list | tuple | range):
            return self._to_vector(list(value))
        if hasattr(value, "__array__"):
            return self._to_array(np.asarray(value))
        hint = " It has no order: send `sorted(...)`." if isinstance(value, set | frozenset) else ""
        raise PxRError(f"`{self.name}`: R has nothing like a Python {type(value).__name__}.{hint}")

    def _to_scalar(self, value: Any) -> Any:
        if isinstance(value, np.generic) and not isinstance(value, str | bytes):
            return self._bare(np.asarray(value).reshape(1))
        if isinstance(value, str):
            return self.ri.StrSexpVector([str(value)])
        if isinstance(value, bytes):
            return self.ri.ByteSexpVector(value)
        if isinstance(value, bool | float | complex):
            return self._bare(np.array([value]))
        if isinstance(value, int):
            if abs(value) > _EXACT_MAX:
                raise PxRError(
                    f"`{self.name}`: {value} has more digits than R's numbers hold.\n"
                    f"Send it as text, `str({self.name})`, or rounded, `float({self.name})`."
                )
            return self._bare(np.array([value], dtype=np.int64))
        raise PxRError(f"`{self.name}`: R has nothing like a {type(value).__name__}. Send `float(...)` of it.")

    def _to_time(self, value: Any) -> Any:
        if isinstance(value, datetime.datetime):
            zone = str(value.tzinfo) if value.tzinfo is not None else "UTC"
            if value.tzinfo is None:
                self.note("a time without a zone is taken as UTC")
            aware = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
            return self._times(np.array([(aware - _EPOCH).total_seconds()]), zone)
        if isinstance(value, datetime.date):
            return self._classed(np.array([float((value - datetime.date(1970, 1, 1)).days)]), "Date")
        made = self._classed(np.array([value.total_seconds()]), "difftime")
        made.do_slot_assign("units", self.ri.StrSexpVector(["secs"]))
        return made

    def _times(self, seconds: Any, zone: str) -> Any:
        made = self._classed(seconds, "POSIXct", "POSIXt")
        made.do_slot_assign("tzone", self.ri.StrSexpVector([zone]))
        return made

    def _classed(self, numbers_: Any, *kinds: str) -> Any:
        made = self._bare(np.asarray(numbers_, dtype=np.float64))
        made.do_slot_assign("class", self.ri.StrSexpVector(kinds))
        return made

    def _to_named_list(self, value: Mapping[Any, Any]) -> Any:
        keys = list(value)
        odd = next((key for key in keys if not isinstance(key, str)), None)
        if odd is not None:
            raise PxRError(
                f"`{self.name}`: R's names are text, this dict has the key {odd!r}.\nSend a dict with str keys."
            )
        made = self.ri.ListSexpVector([self._to(item) for item in value.values()])
        made.do_slot_assign("names", self.ri.StrSexpVector(keys))
        return made

    def _to_vector(self, items: list[Any]) -> Any:
        """Make an atomic vector of items of one kind, with NA for None; else a list."""
        given = [item for item in items if item is not None]
        kinds = {_kind(item) for item in given}
        if kinds == {"text"}:
            return self.ri.StrSexpVector([self.ri.NA_Character if item is None else item for item in items])
        is_big = any(isinstance(item, int) and abs(item) > _EXACT_MAX for item in given)
        if not given or is_big or kinds not in ({"bool"}, {"number"}, {"complex"}, {"number", "complex"}):
            return self.ri.ListSexpVector([self._to(item) for item in items])
        missing = np.array([item is None for item in items])
        filled = [given[0] if item is None else item for item in items]
        return self._bare(np.array(filled), missing if missing.any() else None)

    def _to_array(self, array: Any) -> Any:
        if array.ndim == 0:
            return self._to(array.item() if array.dtype.kind != "M" else array.reshape(1)[0])
        if array.dtype.names:
            return self._to_pandas(pandas_for(self.name).DataFrame.from_records(array))
        missing = np.ma.getmaskarray(array).ravel(order="F") if np.ma.isMaskedArray(array) else None
        flat = np.ma.getdata(array).ravel(order="F")
        made = self._to_vector(flat.tolist()) if array.dtype.kind == "O" else self._bare(flat, missing)
        if array.ndim > 1 or array.size == 1 or array.dtype.kind == "U":
            made.do_slot_assign("dim", self.ri.IntSexpVector(list(array.shape)))
        return made

    def _bare(self, flat: Any, missing: Any = None) -> Any:
        """Make an R vector of a flat array of one kind, with NA where `missing`."""
        makers: dict[str, Callable[[Any, Any], Any]] = {
            "b": self._logicals,
            "i": self._integers,
            "u": self._integers,
            "f": self._doubles,
            "c": self._complexes,
            "U": self._texts,
            "M": self._instants,
            "m": self._durations,
        }
        if flat.dtype.kind not in makers:
            raise PxRError(f"`{self.name}`: R has nothing like an array of {flat.dtype}.")
        return makers[flat.dtype.kind](flat, missing)

    def _logicals(self, flat: Any, missing: Any) -> Any:
        return self.ri.BoolSexpVector.from_memoryview(_memory(_with_na(flat.astype(np.int32), missing)))

    def _integers(self, flat: Any, missing: Any) -> Any:
        low, high = (int(flat.min()), int(flat.max())) if flat.size else (0, 0)
        if max(-low, high) <= _INT_MAX:
            return self.ri.IntSexpVector.from_memoryview(_memory(_with_na(flat.astype(np.int32), missing)))
        if max(-low, high) > _EXACT_MAX:
            worst = high if high > _EXACT_MAX else low
            raise PxRError(
                f"`{self.name}`: {worst} has more digits than R's numbers hold.\n"
                f"Send it as text, `{self.name}.astype(str)`, or rounded, `{self.name}.astype(float)`."
            )
        self.note("integers beyond 32 bits became double, exactly")
        return self._doubles(flat.astype(np.float64), missing)

    def _doubles(self, flat: Any, missing: Any) -> Any:
        if flat.dtype.itemsize != 8:
            self.note(f"{flat.dtype} became double")
        made = self.ri.FloatSexpVector.from_memoryview(_memory(np.ascontiguousarray(flat, dtype=np.float64)))
        for index in np.flatnonzero(missing) if missing is not None else ():
            made[int(index)] = self.ri.NA_Real
        return made

    def _complexes(self, flat: Any, missing: Any) -> Any:
        if missing is not None:
            raise PxRError(f"`{self.name}`: missing complex values do not come through. Send real and imaginary parts.")
        if flat.dtype.itemsize != 16:
            self.note(f"{flat.dtype} became complex of doubles")
        return self.ri.ComplexSexpVector(flat.astype(np.complex128).tolist())

    def _texts(self, flat: Any, missing: Any) -> Any:
        masked = missing if missing is not None else np.zeros(flat.size, dtype=bool)
        pairs = zip(flat.tolist(), masked, strict=True)
        return self.ri.StrSexpVector([self.ri.NA_Character if is_missing else text for text, is_missing in pairs])

    def _instants(self, flat: Any, missing: Any) -> Any:
        unit = np.datetime_data(flat.dtype)[0]
        nat = np.isnat(flat)
        if unit in ("D", "W", "M", "Y"):
            days = flat.astype("datetime64[D]").astype(np.int64).astype(np.float64)
            return self._classed(np.where(nat, np.nan, days), "Date")
        if unit in ("ns", "ps", "fs", "as"):
            self.note("R's times are doubles: exact to a microsecond")
        seconds = flat.astype("datetime64[us]").astype(np.int64) / 1e6
        return self._times(np.where(nat, np.nan, seconds), "UTC")

    def _durations(self, flat: Any, missing: Any) -> Any:
        seconds = flat.astype("timedelta64[us]").astype(np.int64) / 1e6
        made = self._classed(np.where(np.isnat(flat), np.nan, seconds), "difftime")
        made.do_slot_assign("units", self.ri.StrSexpVector(["secs"]))
        return made

    def _to_pandas(self, value: Any) -> Any:
        return to_r_frame(self, value)

    # --- R to Python

    def from_r(self, sexp: Any, name: str) -> Any:
        """Return an R object as plain Python, NumPy or pandas.

        Raises
        ------
        PxRError
            It is a model, a function, or something else that only R has.
        """
        self.name = name
        return self._from(sexp)

    def _from(self, sexp: Any) -> Any:
        ri = self.ri
        if sexp is ri.NULL or isinstance(sexp, type(ri.NULL)):
            return None
        kinds = attribute(sexp, "class")
        classes = list(kinds) if kinds is not None else []
        if {"data.frame", "factor"} & set(classes):
            return from_r_frame(self, sexp, classes)
        if isinstance(sexp, ri.ListSexpVector) and not classes:
            return self._from_list(sexp)
        if not isinstance(sexp, _atomic(ri)):
            what = (
                f"an R object of class {classes[0]}"
                if classes
                else f"an R {sexp.typeof.name.lower().removesuffix('sxp')}"
            )
            raise PxRError(
                f"`{self.name}` is {what}, which Python cannot hold.\n"
                f"Take numbers out of it in the cell: `coefs <- coef({self.name})` and `-o coefs`."
            )
        return self._from_atomic(sexp, classes)

    def _from_list(self, sexp: Any) -> Any:
        names = attribute(sexp, "names")
        items = [self._from(item) for item in sexp]
        if names is None:
            return items
        if len(set(names)) < len(items) or any(not name for name in names):
            self.note("a list with missing or repeated names came as a list of pairs")
            return list(zip(names, items, strict=True))
        return dict(zip(map(str, names), items, strict=True))

    def _from_atomic(self, sexp: Any, classes: list[str]) -> Any:
        array = self.array_of(sexp, classes)
        shape = attribute(sexp, "dim")
        if shape is not None:
            if attribute(sexp, "dimnames") is not None:
                self.note("row and column names were left in R")
            flat = np.array(array, dtype=object) if isinstance(array, list) else array
            shaped = flat.reshape(tuple(shape), order="F")
            is_text = isinstance(array, list) and all(isinstance(item, str) for item in array)
            return shaped.astype(str) if is_text and array else np.ascontiguousarray(shaped)
        if isinstance(sexp, self.ri.ByteSexpVector):
            return array
        names = attribute(sexp, "names")
        if names is not None:
            return pandas_for(self.name).Series(array, index=list(names))
        return _scalar(array[0], array, sexp) if len(array) == 1 else array

    def array_of(self, sexp: Any, classes: Sequence[str]) -> Any:
        """Return the contents of an atomic vector as a flat array; text, and logicals with NA, as a list."""
        ri = self.ri
        if isinstance(sexp, ri.ByteSexpVector):
            return bytes(sexp)
        if isinstance(sexp, ri.StrSexpVector):
            return [None if item is ri.NA_Character else str(item) for item in sexp]
        if isinstance(sexp, ri.ComplexSexpVector):
            return np.array(list(sexp), dtype=np.complex128)
        raw = np.array(sexp.memoryview()).ravel(order="F")  # a matrix has two dimensions in memory, too
        if isinstance(sexp, ri.BoolSexpVector):
            missing = raw == -_INT_MAX - 1
            return (
                [None if na else bool(v) for v, na in zip(raw, missing, strict=True)]
                if missing.any()
                else raw.astype(bool)
            )
        if isinstance(sexp, ri.IntSexpVector):
            missing = raw == -_INT_MAX - 1
            raw = raw.astype(np.int64)
            if missing.any():
                self.note("NA among integers became NaN, the numbers float64")
                raw = np.where(missing, np.nan, raw)
        return self._meaning(raw, sexp, classes)

    def _meaning(self, raw: Any, sexp: Any, classes: Sequence[str]) -> Any:
        """Give numbers the meaning of their R class: dates, times, durations, 64-bit integers."""
        if "integer64" in classes:
            return raw.view(np.int64)
        if not {"Date", "POSIXct", "difftime"} & set(classes):
            if classes and "table" not in classes:
                self.note(f"the class {classes[0]} was left in R")
            return raw
        raw = raw.astype(np.float64)
        missing = np.isnan(raw)
        clean = np.where(missing, 0.0, raw)
        if "Date" in classes:
            times = np.floor(clean).astype(np.int64).astype("datetime64[D]")
        elif "POSIXct" in classes:
            times = np.round(clean * 1e6).astype(np.int64).astype("datetime64[us]")
        else:
            unit = str((attribute(sexp, "units") or ["secs"])[0])
            times = np.round(clean * _UNITS[unit] * 1e6).astype(np.int64).astype("timedelta64[us]")
        times[missing] = "NaT"
        return times


def _scalar(value: Any, array: Any, sexp: Any) -> Any:
    """Return a vector of length one as a Python scalar: R has no others."""
    if not isinstance(array, np.ndarray):
        return value
    if array.dtype.kind == "M" and not np.isnat(value):
        if np.datetime_data(array.dtype)[0] == "D":
            return value.item()
        return value.item().replace(tzinfo=datetime.UTC).astimezone(_zone(sexp))
    return None if array.dtype.kind in "mM" and np.isnat(value) else value.item()


def _zone(sexp: Any) -> datetime.tzinfo | None:
    import zoneinfo

    zone = attribute(sexp, "tzone")
    text = str(zone[0]) if zone is not None and len(zone) else ""
    if text in ("UTC", "GMT"):
        return datetime.UTC
    try:
        return zoneinfo.ZoneInfo(text) if text else datetime.UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return datetime.UTC


def _with_na(integers: Any, missing: Any) -> Any:
    if missing is not None:
        integers[missing] = -_INT_MAX - 1
    return np.ascontiguousarray(integers)


def _memory(array: Any) -> memoryview:
    return memoryview(array)


def _kind(item: Any) -> str:
    if isinstance(item, bool | np.bool_):
        return "bool"
    if isinstance(item, str):
        return "text"
    if isinstance(item, int | float | np.integer | np.floating):
        return "number"
    return "complex" if isinstance(item, complex | np.complexfloating) else "other"


def _atomic(ri: Any) -> tuple[type, ...]:
    return (
        ri.FloatSexpVector,
        ri.IntSexpVector,
        ri.BoolSexpVector,
        ri.StrSexpVector,
        ri.ComplexSexpVector,
        ri.ByteSexpVector,
    )
