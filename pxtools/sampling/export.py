"""Samples as other libraries' containers; each library is imported where it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pxtools.errors import PxUsageError

if TYPE_CHECKING:
    import pandas
    import xarray

    from pxtools.sampling.samples import Samples

#: what provides a library: the line to type
_INSTALL = {"arviz": "pxtools[arviz]", "xarray": "pxtools[arviz]", "matplotlib": "pxtools[plot]", "pandas": "pandas"}


def needed(library: str, module: str | None = None) -> Any:
    """Import a library, or a module in it.

    Raises
    ------
    PxUsageError
        It is not installed; the message has the line to type.
    """
    try:
        return importlib.import_module(module or library)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != library:
            raise
        raise PxUsageError(
            f"{library} is not installed, and this needs it.\nType: pip install '{_INSTALL[library]}'"
        ) from None


def _stats(samples: Samples) -> dict[str, Any]:
    with np.errstate(divide="ignore"):
        return {"lp": samples.log_density}


def _blob_dims(samples: Samples) -> dict[str, tuple[str, ...]]:
    """Return the dimensions of each extra output: (chain, draw, and one of its own for each further axis)."""
    return {
        name: ("chain", "draw", *(f"{name}_dim_{k}" for k in range(blob.ndim - 2)))
        for name, blob in samples.blobs.items()
    }


def to_arviz(samples: Samples) -> Any:
    """Return InferenceData (ArviZ before 1.0) or a DataTree (since), with `posterior` and `sample_stats`.

    Extra outputs of the target are variables of `posterior`, as deterministic ones are elsewhere; texts are left out.
    """
    arviz = needed("arviz")
    numbers = [name for name, blob in samples.blobs.items() if blob.dtype.kind in "biuf"]
    posterior = {name: samples[name] for name in (*samples.names, *numbers)}
    groups = {"posterior": posterior, "sample_stats": _stats(samples)}
    if int(arviz.__version__.partition(".")[0]) < 1:
        return arviz.from_dict(**groups)
    return arviz.from_dict(groups)


def to_xarray(samples: Samples) -> xarray.Dataset:
    """Return a Dataset with one variable (chain, draw) per parameter, `log_density`, and one per extra output."""
    library = needed("xarray")
    columns = {name: samples[name] for name in samples.names} | {"log_density": _stats(samples)["lp"]}
    blobs = {name: (dims, samples.blobs[name]) for name, dims in _blob_dims(samples).items()}
    dataset: xarray.Dataset = library.Dataset(
        {name: (("chain", "draw"), column) for name, column in columns.items()} | blobs,
        coords={"chain": np.arange(samples.n_chains), "draw": np.arange(samples.n_draws)},
        attrs={"target": samples.target_name, "sampler": samples.sampler, "seed": str(samples.seed)},
    )
    return dataset


def to_dataframe(samples: Samples) -> pandas.DataFrame:
    """Return one row per draw: `chain`, `draw`, the parameters, `log_density`, and the extra outputs.

    An output that is an array has a column for each of its numbers: `model[0]`, `model[1]`, `matrix[0,1]`.
    """
    library = needed("pandas")
    columns: dict[str, Any] = {
        "chain": np.repeat(np.arange(samples.n_chains), samples.n_draws),
        "draw": np.tile(np.arange(samples.n_draws), samples.n_chains),
    }
    columns |= {name: samples[name].ravel() for name in samples.names}
    columns["log_density"] = _stats(samples)["lp"].ravel()
    for name, blob in samples.blobs.items():
        flat = blob.reshape(-1, *blob.shape[2:])
        for index in np.ndindex(*blob.shape[2:]):
            columns[f"{name}[{','.join(map(str, index))}]" if index else name] = flat[(slice(None), *index)]
    frame: pandas.DataFrame = library.DataFrame(columns)
    return frame
