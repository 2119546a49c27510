"""Series that lie somewhere: under a name on an engine, or in a file that whoever needs them reads.

A long series that is cut in time has steps in the place of series.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array

#: what of a file is read at a time
CHUNK_BYTES = 256_000_000

#: endings of the files that are understood
ENDINGS = (".npy", ".zarr", ".parquet")


@dataclass(frozen=True)
class Piece:
    """Consecutive series of a fleet.

    Attributes
    ----------
    kind : str
        "name", of a namespace; "kept", under a token; or "file".
    where : str
        The name, token or path.
    start, stop : int
        Which series of the fleet these are.
    """

    kind: str
    where: str
    start: int
    stop: int

    def parts(self) -> Iterator[Piece]:
        """Cut what lies in a file so that a part fits into memory."""
        if self.kind != "file":
            yield self
            return
        _, n_steps, n_obs = series_shape(self.where)
        step = max(1, CHUNK_BYTES // (8 * n_steps * n_obs))
        for start in range(self.start, self.stop, step):
            yield replace(self, start=start, stop=min(start + step, self.stop))

    def read(self) -> Array:
        """Return the series of a file, (n_series, n_steps, n_obs)."""
        return read_series(self.where, self.start, self.stop)


def is_series_path(value: Any) -> bool:
    """Return whether a value names a file of series."""
    return isinstance(value, Path) or (isinstance(value, str) and value.endswith(ENDINGS))


def series_shape(path: str) -> tuple[int, int, int]:
    """Return (n_series, n_steps, n_obs) of a file without reading its numbers.

    Raises
    ------
    PxUsageError
        The file is not there, is of no kind that is understood, or holds no series.
    """
    if not Path(path).exists():
        raise PxUsageError(f"there is no file {path}.")
    if path.endswith(".parquet"):
        table = _parquet(path)
        shape: tuple[int, ...] = (table.metadata.num_columns, table.metadata.num_rows, 1)
    elif path.endswith((".npy", ".zarr")):
        shape = tuple(_opened(path).shape)
    else:
        raise PxUsageError(f"{path} is no file of series; give one that ends in {', '.join(ENDINGS)}.")
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or 0 in shape:
        raise PxUsageError(f"{path} holds an array of shape {shape}; series are (n_series, n_steps, n_obs).")
    return shape[0], shape[1], shape[2]


def read_series(path: str, start: int, stop: int) -> Array:
    """Return some series of a file; those of a .npy file are mapped, not read.

    A Zarr or .npy array is (n_series, n_steps, n_obs), or (n_series, n_steps) for one observed value; a Parquet table
    has one series a column, null where missing.
    """
    if path.endswith(".parquet"):
        table = _parquet(path)
        names = table.schema_arrow.names[start:stop]
        columns = [column.to_numpy().astype(np.float64) for column in table.read(columns=names).columns]
        return np.ascontiguousarray(np.stack(columns)[:, :, None])
    values = _opened(path)[start:stop]
    values = np.asarray(values) if not isinstance(values, np.memmap) else values
    values = values[:, :, None] if values.ndim == 2 else values
    return np.ascontiguousarray(values, dtype=np.float64)


def steps_shape(path: str, n_obs: int) -> tuple[int, int] | None:
    """Return (n_steps, n_obs) of a .npy or .zarr file that holds one series; None of one that holds many.

    One series has one axis, or two of which the second is as long as the model has observed values.
    """
    if not path.endswith((".npy", ".zarr")) or not Path(path).exists():
        return None
    shape = tuple(_opened(path).shape)
    is_one = shape[1:] == (n_obs,) or (len(shape) == 1 and n_obs == 1)
    return (int(shape[0]), n_obs) if is_one and shape[0] else None


def read_steps(path: str, start: int, stop: int) -> Array:
    """Return some steps of a file that holds one series, (n_steps, n_obs)."""
    return as_steps(_opened(path)[start:stop])


def as_steps(values: Any) -> Array:
    """Return steps of one series as the kernels take them, (n_steps, n_obs)."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array


def _opened(path: str) -> Any:
    if path.endswith(".npy"):
        return np.load(path, mmap_mode="r")
    try:
        import zarr
    except ImportError:
        raise _lacks(path, "zarr", "zarr") from None
    return zarr.open_array(path, mode="r")


def _parquet(path: str) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise _lacks(path, "pyarrow", "parquet") from None
    return parquet.ParquetFile(path)


def _lacks(path: str, package: str, extra: str) -> PxUsageError:
    return PxUsageError(f"{path} needs {package}, which is not installed here: `pip install 'pxtools[{extra}]'`.")
