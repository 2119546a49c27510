"""Results that are too large for memory: files that many engines fill, and that bear their name only when whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman.checks import Array
from pxtools.kernels.kalman_batch_layout import shape_of

#: the ending of a file that is not whole yet
PART = ".part"


@dataclass(frozen=True)
class Target:
    """A folder, or a Zarr group, with one array for each name.

    Attributes
    ----------
    path : str
        A folder; one that ends in .zarr becomes a Zarr group.
    names : tuple of str
    """

    path: str
    names: tuple[str, ...]

    @property
    def is_zarr(self) -> bool:
        """Whether the arrays are Zarr's."""
        return self.path.endswith(".zarr")

    def place(self, name: str, is_whole: bool = True) -> Path:
        """Return where an array is, or is being written."""
        if self.is_zarr:
            return Path(self.path + ("" if is_whole else PART)) / name
        return Path(self.path) / (f"{name}.npy" + ("" if is_whole else PART))

    def opened(self, name: str) -> Any:
        """Return a whole array, mapped and not read."""
        if self.is_zarr:
            import zarr

            return zarr.open_array(str(self.place(name)), mode="r")
        return np.load(self.place(name), mmap_mode="r")


@contextlib.contextmanager
def being_written(target: Target, sizes: tuple[int, int, int, int], cuts: Sequence[int]) -> Iterator[None]:
    """Reserve the files of a target; give them their names when the work is done, remove them if it fails.

    Parameters
    ----------
    target
    sizes : n_series, n_steps, n_states, n_obs
    cuts : numbers of the series at which pieces begin; those of a Zarr group must be multiples of one chunk

    Raises
    ------
    PxUsageError
        There is no room, or no such place; nothing is left behind.
    """
    n_series, *others = sizes
    made: list[Path] = []
    try:
        try:
            for name in target.names:
                shape = (n_series, *shape_of(name, *others))
                if target.is_zarr:
                    made = [Path(target.path + PART)]
                    _reserve_zarr(target, name, shape, cuts)
                else:
                    made.append(target.place(name, is_whole=False))
                    _reserve_npy(made[-1], shape)
        except OSError as error:
            raise _no_room(target, n_series, others, error) from None
        yield
        if target.is_zarr:
            shutil.rmtree(target.path, ignore_errors=True)
            os.replace(target.path + PART, target.path)
        else:
            for name in target.names:
                os.replace(target.place(name, is_whole=False), target.place(name))
        made = []
    finally:
        for path in made:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


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
        raise PxUsageError("--write to .zarr needs zarr: `pip install zarr`, or write to a folder.") from None
    chunk = int(np.gcd.reduce(np.array([*cuts, shape[0]], dtype=int)))
    if shape[0] > 64 and chunk < 8:
        raise PxUsageError(
            f"The pieces begin at series {', '.join(map(str, list(cuts)[:5]))}: Zarr's chunks would hold {chunk}.\n"
            "Write to a folder instead: `--write results`."
        )
    room = shutil.disk_usage(Path(target.path).absolute().parent).free
    if room < 8 * int(np.prod(shape)):
        raise OSError(28, "No space left on device")
    # one chunk holds whole series of one piece, so that no two engines write to the same
    zarr.create_array(str(target.place(name, is_whole=False)), shape=shape, chunks=(chunk, *shape[1:]), dtype="<f8")


def _no_room(target: Target, n_series: int, others: Sequence[int], error: OSError) -> PxUsageError:
    need = sum(8 * n_series * int(np.prod(shape_of(name, *others))) for name in target.names)
    try:
        free = f"{shutil.disk_usage(_existing(Path(target.path))).free / 1e9:.3g} GB are free"
    except OSError:
        free = "its size is unknown"
    return PxUsageError(
        f"{target.path} cannot take the results, {need / 1e9:.3g} GB ({error.strerror or error}; {free}).\n"
        "Nothing was written. Give `--write` another folder, or ask for fewer outputs."
    )


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def write_part(target: Target, first: int, arrays: Mapping[str, Array]) -> None:
    """Write the results of consecutive series, the first of which is number `first`, into unfinished files."""
    for name in target.names:
        array = arrays[name]
        if target.is_zarr:
            import zarr

            whole = zarr.open_array(str(target.place(name, is_whole=False)), mode="r+")
            whole[first : first + len(array)] = array
            continue
        place = np.lib.format.open_memmap(target.place(name, is_whole=False), mode="r+")
        place[first : first + len(array)] = array
        place.flush()
