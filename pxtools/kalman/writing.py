"""Results that are too large for memory: files that many engines fill, and that bear their name only when whole."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kalman.parquet import ParquetArray, write_parquet

#: the ending of a file that is not whole yet
PART = ".part"

#: most series in one chunk of a Zarr array
ZARR_CHUNK = 64


@dataclass(frozen=True)
class Target:
    """A folder, a Zarr group or a folder of Parquet files, with one array for each name.

    Attributes
    ----------
    path : str
        A folder; one that ends in .zarr becomes a Zarr group, one that ends in .parquet holds a data set for each name.
    names : tuple of str
    """

    path: str
    names: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What is written: "npy", "zarr" or "parquet"."""
        return next((kind for kind in ("zarr", "parquet") if self.path.endswith("." + kind)), "npy")

    def place(self, name: str, is_whole: bool = True) -> Path:
        """Return where an array is, or is being written."""
        if self.kind == "npy":
            return Path(self.path) / (f"{name}.npy" + ("" if is_whole else PART))
        return Path(self.path + ("" if is_whole else PART)) / name

    def opened(self, name: str) -> Any:
        """Return a whole array, mapped and not read."""
        if self.kind == "zarr":
            import zarr

            return zarr.open_array(str(self.place(name)), mode="r")
        if self.kind == "parquet":
            return ParquetArray.of(self.place(name))
        return np.load(self.place(name), mmap_mode="r")


@contextlib.contextmanager
def being_written(target: Target, shapes: Mapping[str, tuple[int, ...]], cuts: Sequence[int]) -> Iterator[None]:
    """Reserve the files of a target; give them their names when the work is done, remove them if it fails.

    Arrays of other names that are in the same place stay as they are.

    Parameters
    ----------
    target
    shapes : of the target's arrays, by name
    cuts : numbers of the series at which pieces begin; those of a Zarr group must be multiples of one chunk

    Raises
    ------
    PxUsageError
        There is no room, or no such place; nothing is left behind.
    """
    try:
        try:
            _check_room(target, shapes)
            for name, shape in shapes.items():
                if target.kind == "npy":
                    _reserve_npy(target.place(name, is_whole=False), shape)
                elif target.kind == "zarr":
                    _reserve_zarr(target, name, shape, cuts)
                else:
                    _reserve_parquet(target, name)
        except OSError as error:
            raise _no_room(target, shapes, error) from None
        yield
        _finish(target)
    finally:
        for name in target.names:
            _remove(target.place(name, is_whole=False))
        if target.kind != "npy":
            _remove(Path(target.path + PART))


def _finish(target: Target) -> None:
    """Give what is whole its name, in place of what bore it before."""
    if target.kind == "zarr":
        import zarr

        zarr.open_group(target.path, mode="a")
    for name in target.names:
        whole = target.place(name)
        whole.parent.mkdir(parents=True, exist_ok=True)
        if whole.is_dir():
            _remove(whole)
        os.replace(target.place(name, is_whole=False), whole)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_room(target: Target, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Zarr and Parquet cannot reserve room; see that there is some."""
    if target.kind != "npy" and shutil.disk_usage(_existing(Path(target.path))).free < _bytes(shapes):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(8 * int(np.prod(shape)) for shape in shapes.values())


def _reserve_npy(path: Path, shape: tuple[int, ...]) -> None:
    """Write the header and reserve the room: a full disk is an error now, not a crash later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
        begins = file.tell()
        file.flush()
        os.posix_fallocate(file.fileno(), 0, begins + 8 * int(np.prod(shape)))


def _reserve_zarr(target: Target, name: str, shape: tuple[int, ...], cuts: Sequence[int]) -> None:
    try:
        import zarr
    except ImportError:
        raise PxUsageError(
            "--write to .zarr needs zarr: `pip install 'pxtools[zarr]'`, or write to a folder."
        ) from None
    common = int(np.gcd.reduce(np.array([*cuts, 0], dtype=int))) or shape[0]
    chunk = max(size for size in range(1, min(common, ZARR_CHUNK) + 1) if common % size == 0)
    if shape[0] > ZARR_CHUNK and chunk < 8:
        raise PxUsageError(
            f"The pieces begin at series {', '.join(map(str, list(cuts)[:5]))}: Zarr's chunks would hold {chunk}.\n"
            "Write to a folder instead: `--write results`."
        )
    # one chunk holds whole series of one piece, so that no two engines write to the same
    zarr.create_array(
        str(target.place(name, is_whole=False)), shape=shape, chunks=(chunk, *shape[1:]), dtype="<f8", overwrite=True
    )


def _reserve_parquet(target: Target, name: str) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise PxUsageError("--write to .parquet needs pyarrow: `pip install 'pxtools[parquet]'`, or write to a folder.")
    _remove(target.place(name, is_whole=False))
    target.place(name, is_whole=False).mkdir(parents=True)


def _no_room(target: Target, shapes: Mapping[str, tuple[int, ...]], error: OSError) -> PxUsageError:
    try:
        free = f"{shutil.disk_usage(_existing(Path(target.path))).free / 1e9:.3g} GB are free"
    except OSError:
        free = "its size is unknown"
    return PxUsageError(
        f"{target.path} cannot take the results, {_bytes(shapes) / 1e9:.3g} GB ({error.strerror or error}; {free}).\n"
        "Nothing was written. Give `--write` another folder, or ask for fewer outputs."
    )


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def write_part(target: Target, first: int, arrays: Mapping[str, Array]) -> None:
    """Write the results of consecutive series, or steps of one, from number `first` on, into unfinished files.

    Raises
    ------
    PxUsageError
        The disk is full, or the place is not there on this host.
    """
    try:
        for name in target.names:
            _write_array(target, name, first, arrays[name])
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise PxUsageError(
            f"{target.path} could not be written: {why}. Nothing is left of these results there.\n"
            "Give `--write` a folder that all engines reach and that has room."
        ) from None


def _write_array(target: Target, name: str, first: int, array: Array) -> None:
    place = target.place(name, is_whole=False)
    if target.kind == "parquet":
        write_parquet(place, first, array)
    elif target.kind == "zarr":
        import zarr

        zarr.open_array(str(place), mode="r+")[first : first + len(array)] = array
    else:
        mapped = np.lib.format.open_memmap(place, mode="r+")
        mapped[first : first + len(array)] = array
        mapped.flush()
