"""Samples in files: NumPy's `.npz`, and NetCDF through xarray."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.sampling.export import needed, to_xarray

if TYPE_CHECKING:
    from pxtools.sampling.samples import Samples

#: raised when the fields in a saved file change their meaning
FILE_VERSION = 1
#: xarray's names of what writes NetCDF, the best first, with the modules each needs; SciPy (NetCDF 3) is always there
ENGINES = {"h5netcdf": ("h5netcdf", "h5py"), "netcdf4": ("netCDF4",), "scipy": ("scipy",)}
#: how NetCDF 3 and NetCDF 4 files begin
_NETCDF = (b"CDF", b"\x89HDF")
#: blobs in an .npz
_BLOB = "blob:"


def write(samples: Samples, path: Path) -> Path:
    """Write samples to a file, by the ending of its name; a crash leaves the old file or the new one."""
    content = {field.name: getattr(samples, field.name) for field in fields(samples)}
    blobs = content.pop("blobs")
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in content.items() if name not in arrays}
    text = json.dumps({"version": FILE_VERSION, **plain})
    if path.suffix == ".nc":
        return _safely(path, lambda partial: _write_netcdf(samples, arrays, text, partial))
    parts = {"samples": np.array(text), **arrays} | {_BLOB + name: blob for name, blob in blobs.items()}
    return _safely(path, lambda partial: _write_npz(parts, partial))


def read(path: Path) -> dict[str, Any]:
    """Return the fields of the samples in a file.

    Raises
    ------
    FileNotFoundError
        No such file.
    PxUsageError
        The file holds no samples, or those of a later pxtools.
    """
    with open(path, "rb") as file:
        is_netcdf = file.read(4).startswith(_NETCDF)
    try:
        arrays, text = _read_netcdf(path) if is_netcdf else _read_npz(path)
        plain = json.loads(text)
        version = plain.pop("version")
    except (ValueError, KeyError, EOFError, AttributeError, OSError) as error:
        raise PxUsageError(f"{path} holds no samples ({error}).\nGive a file that `samples.save(...)` wrote.") from None
    if version > FILE_VERSION:
        raise PxUsageError(f"{path} was written by a later pxtools.\nUpgrade: pip install -U pxtools.")
    plain["names"], plain["notes"] = tuple(plain["names"]), tuple(plain["notes"])
    return arrays | plain


def _safely(path: Path, save: Callable[[Path], None]) -> Path:
    """Write beside the target and rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write_npz(parts: dict[str, Any], partial: Path) -> None:
    with open(partial, "wb") as file:
        np.savez(file, **parts)


def _read_npz(path: Path) -> tuple[dict[str, Any], str]:
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    text = str(arrays.pop("samples"))
    blobs = {name.removeprefix(_BLOB): arrays.pop(name) for name in list(arrays) if name.startswith(_BLOB)}
    return {**arrays, "blobs": blobs}, text


def _engine() -> str:
    return next(name for name in ENGINES if _is_there(name))


def _is_there(engine: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ENGINES[engine])


def _write_netcdf(samples: Samples, arrays: dict[str, Any], text: str, partial: Path) -> None:
    dataset = to_xarray(samples)
    rest = {name: array for name, array in arrays.items() if name != "draws"}
    dataset = dataset.assign({f"px_{name}": (_dims(name, array.shape), array) for name, array in rest.items()})
    dataset.attrs["pxtools"] = text
    dataset.attrs["pxtools_blobs"] = json.dumps(list(samples.blobs))
    # NetCDF has no booleans and no seed of 128 bits: xarray writes the ones, `text` holds the other
    try:
        dataset.to_netcdf(partial, engine=cast(Any, _engine()))
    except (TypeError, ValueError) as error:
        raise PxUsageError(f"NetCDF does not take it: {error}.\nSave it as .npz.") from None


def _dims(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"px_{name}_{k}" for k in range(len(shape)))


def _read_netcdf(path: Path) -> tuple[dict[str, Any], str]:
    xarray = needed("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries behind, about their own future
        with xarray.open_dataset(path, engine=_reader(path)) as stored:
            text = str(stored.attrs["pxtools"])
            names = json.loads(text)["names"]
            arrays = {
                str(name).removeprefix("px_"): np.array(stored[name].values)
                for name in stored.data_vars
                if str(name).startswith("px_")
            }
            arrays["draws"] = np.stack([stored[name].values for name in names], axis=-1)
            blobs = {name: np.array(stored[name].values) for name in json.loads(stored.attrs["pxtools_blobs"])}
    return {**arrays, "blobs": blobs}, text


def _reader(path: Path) -> str:
    with open(path, "rb") as file:
        is_classic = file.read(3) == b"CDF"
    found = "scipy" if is_classic else next((n for n in ("h5netcdf", "netcdf4") if _is_there(n)), "")
    if not found:
        raise PxUsageError(f"h5netcdf is not installed, and {path} needs it.\nType: pip install 'pxtools[arviz]'")
    return found
