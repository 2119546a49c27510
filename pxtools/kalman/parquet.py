"""Results of many series as Parquet: one file for the series that an engine did in one go, a row for each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pxtools.kalman.checks import Array

#: what is no number of the result: which series, which step
KEYS = ("series", "step")

#: where a file says what shape one series has
SHAPE = b"pxtools_shape"


def write_parquet(folder: Path, first: int, array: Array) -> None:
    """Write consecutive series, the first of which is number `first`, as one file of a data set.

    A row holds the number of the series, that of the step, and the step's values in columns `v0`, `v1`, … or, of
    matrices, `v0_0`, `v0_1`, …
    """
    import pyarrow
    from pyarrow import parquet

    n_series, n_steps, *own = array.shape
    rows = array.reshape(n_series * n_steps, -1)
    columns = {
        "series": np.repeat(np.arange(first, first + n_series), n_steps),
        "step": np.tile(np.arange(n_steps), n_series),
    }
    for k, place in enumerate(np.ndindex(*own)):
        columns["v" + "_".join(map(str, place or (0,)))] = np.ascontiguousarray(rows[:, k])
    table = pyarrow.table(columns)
    table = table.replace_schema_metadata({SHAPE: ",".join(map(str, array.shape[1:]))})
    # numbers of full precision hardly repeat: dictionaries and compression cost time and save nothing
    parquet.write_table(table, folder / f"{first:012d}.parquet", use_dictionary=list(KEYS), compression="none")


@dataclass(frozen=True)
class ParquetArray:
    """An array `(n_series, …)` in the files of a data set, read when it is indexed.

    `array[17]` and `array[10:20]` read the files that hold those series; `np.asarray(array)` reads all.
    """

    files: tuple[tuple[int, Path], ...]
    """the number of the first series, and the file"""
    shape: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path) -> ParquetArray:
        """Return the array of a folder; its numbers are not read."""
        from pyarrow import parquet

        files = tuple((int(path.stem), path) for path in sorted(folder.glob("*.parquet")))
        last = parquet.ParquetFile(files[-1][1])
        own = tuple(int(size) for size in last.schema_arrow.metadata[SHAPE].decode().split(","))
        return cls(files, (files[-1][0] + last.metadata.num_rows // own[0], *own))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> Any:
        first, *others = which if isinstance(which, tuple) else (which,)
        if isinstance(first, slice) and first.step in (None, 1):
            start, stop, _ = first.indices(len(self))
            found = np.concatenate([np.empty((0, *self.shape[1:])), *self._read(start, stop)])
        elif isinstance(first, (int, np.integer)):
            number = range(len(self))[first]
            (found,) = next(self._read(number, number + 1))
        else:
            return np.asarray(self)[which]
        return found[(slice(None), *others)] if isinstance(first, slice) else found[tuple(others)]

    def _read(self, start: int, stop: int) -> Iterator[Array]:
        """Yield these series, file by file."""
        from pyarrow import parquet

        ends = [first for first, _ in self.files[1:]] + [len(self)]
        for (first, path), end in zip(self.files, ends, strict=True):
            if first >= stop or end <= start:
                continue
            table = parquet.read_table(path)
            columns = [table[name].to_numpy() for name in table.column_names if name not in KEYS]
            part = np.stack(columns, axis=1).reshape(end - first, *self.shape[1:])
            yield part[max(0, start - first) : stop - first]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype=dtype)
