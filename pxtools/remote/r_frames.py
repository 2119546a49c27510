"""Data frames, series and factors between pandas and R, on the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pxtools.errors import PxRError

if TYPE_CHECKING:
    from pxtools.remote.r_values import Converter


def to_r_frame(converter: Converter, value: Any) -> Any:
    """Return a pandas object as R's nearest."""
    import pandas as pd

    if value is pd.NaT or value is pd.NA:
        return converter.ri.BoolSexpVector([converter.ri.NA_Logical])
    if isinstance(value, pd.Timestamp | pd.Timedelta):
        return converter._to(value.to_pydatetime() if isinstance(value, pd.Timestamp) else value.to_pytimedelta())
    if isinstance(value, pd.DataFrame):
        return _data_frame(converter, value)
    if isinstance(value, pd.Series):
        made = _column(converter, value)
        if _has_own_index(value.index):
            _name(converter, made, value.index)
        return made
    if isinstance(value, pd.Index | pd.Categorical | pd.api.extensions.ExtensionArray):
        return _column(converter, pd.Series(value))
    raise PxRError(f"`{converter.name}`: R has nothing like a pandas {type(value).__name__}.")


def _has_own_index(index: Any) -> bool:
    import pandas as pd

    return not (isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1)


def _name(converter: Converter, made: Any, index: Any) -> None:
    if all(isinstance(label, str) for label in index):
        made.do_slot_assign("names", converter.ri.StrSexpVector(list(index)))
    else:
        converter.note("an index that is not text was left in Python")


def _data_frame(converter: Converter, frame: Any) -> Any:
    ri = converter.ri
    made = ri.ListSexpVector([_column(converter, frame.iloc[:, k]) for k in range(frame.shape[1])])
    made.do_slot_assign("names", ri.StrSexpVector([str(label) for label in frame.columns]))
    if not all(isinstance(label, str) for label in frame.columns):
        converter.note("column labels became text")
    rows: Any = ri.IntSexpVector([ri.NA_Integer, -len(frame)])
    if _has_own_index(frame.index):
        if all(isinstance(label, str) for label in frame.index) and frame.index.is_unique:
            rows = ri.StrSexpVector(list(frame.index))
        else:
            converter.note("an index that is not unique text was left in Python; `reset_index()` makes a column of it")
    made.do_slot_assign("row.names", rows)
    made.do_slot_assign("class", ri.StrSexpVector(["data.frame"]))
    return made


def _column(converter: Converter, series: Any) -> Any:
    """Return one column as a vector without dimensions."""
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _factor(converter, series)
    if isinstance(dtype, pd.DatetimeTZDtype):
        seconds = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return converter._times(_seconds(seconds), str(dtype.tz))
    if dtype.kind == "M":
        converter.note("a time without a zone is taken as UTC")
        return converter._times(_seconds(series), "UTC")
    if pd.api.types.is_extension_array_dtype(dtype) and dtype.kind in "biufc":
        missing = series.isna().to_numpy()
        plain = series.fillna(False if dtype.kind == "b" else 0).to_numpy(dtype=dtype.numpy_dtype)
        return converter._bare(plain, missing if missing.any() else None)
    if dtype.kind in "biufcm":
        return converter._bare(series.to_numpy())
    return converter._to_vector([None if pd.isna(item) else item for item in series])


def _seconds(series: Any) -> Any:
    micros = series.to_numpy().astype("datetime64[us]")
    return np.where(np.isnat(micros), np.nan, micros.astype(np.int64) / 1e6)


def _factor(converter: Converter, series: Any) -> Any:
    levels = series.cat.categories
    if not all(isinstance(level, str) for level in levels):
        converter.note("levels of a factor became text")
    codes = series.cat.codes.to_numpy().astype(np.int64)
    made = converter._integers(codes + 1, codes < 0)
    made.do_slot_assign("levels", converter.ri.StrSexpVector([str(level) for level in levels]))
    kinds = ["ordered", "factor"] if series.cat.ordered else ["factor"]
    made.do_slot_assign("class", converter.ri.StrSexpVector(kinds))
    return made


def from_r_frame(converter: Converter, sexp: Any, classes: list[str]) -> Any:
    """Return a data.frame as a DataFrame, a factor as a Categorical."""
    pd = pandas_for(converter.name)
    if "factor" in classes:
        return _categorical(pd, sexp, classes)
    names = [str(name) for name in attribute(sexp, "names") or ()]
    columns = [_series(converter, pd, column) for column in sexp]
    rows = attribute(sexp, "row.names")
    has_labels = isinstance(rows, converter.ri.StrSexpVector)
    frame = pd.DataFrame(dict(enumerate(columns)), index=range(_n_rows(rows, columns)))
    frame.columns = names if names else pd.Index(names, dtype=object)
    return frame.set_axis([str(label) for label in rows]) if has_labels else frame


def _n_rows(rows: Any, columns: list[Any]) -> int:
    return len(columns[0]) if columns else 0


def _series(converter: Converter, pd: Any, column: Any) -> Any:
    ri = converter.ri
    classes = list(attribute(column, "class") or ())
    if "factor" in classes:
        return pd.Series(_categorical(pd, column, classes))
    if isinstance(column, ri.ListSexpVector):
        return pd.Series([converter._from(item) for item in column], dtype=object)
    if isinstance(column, ri.BoolSexpVector):
        values = converter.array_of(column, classes)
        return pd.Series(values, dtype="boolean" if isinstance(values, list) else bool)
    if isinstance(column, ri.IntSexpVector):
        raw = np.array(column.memoryview()).astype(np.int64)
        missing = raw == -(2**31)
        if missing.any() and not classes:
            return pd.Series(pd.array(np.where(missing, 0, raw), dtype="Int64")).mask(missing)
    values = converter.array_of(column, classes)
    if "POSIXct" in classes:
        zone = attribute(column, "tzone")
        text = str(zone[0]) if zone is not None and len(zone) and str(zone[0]) else "UTC"
        return pd.Series(values).dt.tz_localize("UTC").dt.tz_convert(text)
    if "Date" in classes:
        converter.note("dates of a data frame became midnights")
    return pd.Series(values)


def _categorical(pd: Any, sexp: Any, classes: list[str]) -> Any:
    codes = np.array(sexp.memoryview()).astype(np.int64)
    codes = np.where(codes == -(2**31), 0, codes) - 1
    levels = [str(level) for level in attribute(sexp, "levels") or ()]
    return pd.Categorical.from_codes(codes, categories=levels, ordered="ordered" in classes)


def attribute(sexp: Any, name: str) -> Any:
    """Return an attribute of an R object, or None."""
    try:
        found = sexp.do_slot(name)
    except LookupError:
        return None
    return None if type(found).__name__ == "NULLType" else found


def pandas_for(name: str) -> Any:
    """Return pandas, which the value `name` needs."""
    try:
        import pandas as pd
    except ImportError:
        raise PxRError(
            f"`{name}` needs pandas on the engines. Type: `%pip install pandas`, and restart them."
        ) from None
    return pd
