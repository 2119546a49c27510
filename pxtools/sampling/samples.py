"""The result of a run: its draws, where they came from, and what they say."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pxtools.errors import PxUsageError, nearest

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.figure import Figure

    from pxtools.sampling.summary import Summary

#: raised when the fields in a saved file change their meaning
FILE_VERSION = 1


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Draws of a density. Nothing in it can be changed; `np.array(samples)` makes a copy that can.

    Attributes
    ----------
    draws : (n_chains, n_draws, n_params) array
        The points; a rejected step repeats its point.
    values : (n_chains, n_draws) array
        The target's value at each point: a density when `is_density`, else a log-density.
    names : tuple of str
        Parameter names.
    target_name : str
        The function.
    is_density : bool
        What `values` are.
    sampler : str
        How the draws were made.
    warmup, thin : int
        Discarded steps per chain, steps per kept draw.
    step : (n_params,) array
        Half-width of the proposal.
    bounds : (n_params, 2) array
        Hard bounds, infinite where there are none.
    seed : int
        Repeats the run, also when none was given.
    initial : (n_chains, n_params) array
        Where the chains started.
    acceptance_rate : (n_chains,) array
        Share of accepted steps after warm-up.
    n_evaluations : int
        Calls of the target, warm-up included.
    n_nan, first_nan : int, (n_params,) array or None
        How often the target was NaN (such steps are rejected), and where first.
    seconds : float
        Wall time of the run.
    target_tier : str
        What the function was made of where it ran; draws are bit-identical on one platform and tier.
    notes : tuple of str
        What was decided without asking.
    """

    draws: NDArray[np.float64]
    values: NDArray[np.float64]
    names: tuple[str, ...]
    target_name: str
    is_density: bool
    sampler: str
    warmup: int
    thin: int
    step: NDArray[np.float64]
    bounds: NDArray[np.float64]
    seed: int
    initial: NDArray[np.float64]
    acceptance_rate: NDArray[np.float64]
    n_evaluations: int
    n_nan: int = 0
    first_nan: NDArray[np.float64] | None = None
    seconds: float = float("nan")
    target_tier: str = "python"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                frozen = np.ascontiguousarray(value).view()
                frozen.flags.writeable = False
                object.__setattr__(self, field.name, frozen)

    @property
    def n_chains(self) -> int:
        """Number of chains."""
        return self.draws.shape[0]

    @property
    def n_draws(self) -> int:
        """Kept draws per chain."""
        return self.draws.shape[1]

    @property
    def n_params(self) -> int:
        """Number of parameters."""
        return self.draws.shape[2]

    @property
    def points(self) -> NDArray[np.float64]:
        """All draws, chain after chain: (n_chains * n_draws, n_params), a view."""
        return self.draws.reshape(-1, self.n_params)

    @property
    def log_density(self) -> NDArray[np.float64]:
        """The log-density at each draw, (n_chains, n_draws), up to the target's constant."""
        return np.log(self.values) if self.is_density else self.values

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """Return the draws of one parameter, (n_chains, n_draws): `samples["x"]`."""
        if name not in self.names:
            raise PxUsageError(
                f"There is no parameter `{name}`.{nearest(str(name), self.names)}\n"
                f"Parameters: {', '.join(self.names)}. All draws: `samples.draws`, (chain, draw, parameter)."
            )
        return self.draws[:, :, self.names.index(name)]

    def __iter__(self) -> Any:
        raise TypeError(
            "Samples has no one order to iterate in: use `samples.points`, `samples.draws`, or `samples.names`."
        )

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the draws as (n_chains, n_draws, n_params), read-only unless copied."""
        converted = self.draws if dtype is None else self.draws.astype(dtype, copy=False)
        if copy is False and converted is not self.draws:
            raise ValueError(f"draws are float64: {np.dtype(dtype)} needs a copy")
        return converted.copy() if copy and converted is self.draws else converted

    @cached_property
    def _summary(self) -> Summary:
        from pxtools.sampling.summary import summarise

        return summarise(self)

    def summary(self) -> Summary:
        """Return mean, sd, quantiles, MCSE, effective sample sizes, R-hat, and what is wrong with the run."""
        return self._summary

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def plot(self, kind: str = "overview", params: list[str] | None = None) -> Figure:
        """Draw the samples with matplotlib.

        Parameters
        ----------
        kind : str
            `pairs` (2-D histograms of each pair, 1-D on the diagonal), `trace`, or `overview` (both).
        params : list of str, optional
            Parameters to show; by default the first five.

        Raises
        ------
        PxUsageError
            matplotlib is missing, or an unknown kind or parameter.
        """
        from pxtools.sampling.plots import plot

        return plot(self, kind, params)

    def to_arviz(self) -> Any:
        """Return ArviZ' container: InferenceData before ArviZ 1.0, else an xarray DataTree."""
        from pxtools.sampling.export import to_arviz

        return to_arviz(self)

    def to_xarray(self) -> xarray.Dataset:
        """Return an xarray Dataset with one variable (chain, draw) per parameter, and `log_density`."""
        from pxtools.sampling.export import to_xarray

        return to_xarray(self)

    def to_dataframe(self) -> pandas.DataFrame:
        """Return a pandas DataFrame: one row per draw; columns `chain`, `draw`, the parameters, `log_density`."""
        from pxtools.sampling.export import to_dataframe

        return to_dataframe(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one `.npz` file, whole or not at all; returns the path. No pickle inside."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
        plain = {name: value for name, value in content.items() if name not in arrays}
        text = json.dumps({"version": FILE_VERSION, **plain})
        return _write_npz(Path(path), {"samples": np.array(text), **arrays})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Samples:
        """Read a file that `save` wrote.

        Raises
        ------
        FileNotFoundError
            No such file.
        PxUsageError
            The file holds no samples, or those of a later pxtools.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            plain = json.loads(str(arrays.pop("samples")))
        except (ValueError, KeyError, EOFError, AttributeError) as error:
            raise PxUsageError(
                f"{path} holds no samples ({error}).\nGive a file that `samples.save(...)` wrote."
            ) from None
        if plain.pop("version") > FILE_VERSION:
            raise PxUsageError(f"{path} was written by a later pxtools.\nUpgrade: pip install -U pxtools.")
        plain["names"], plain["notes"] = tuple(plain["names"]), tuple(plain["notes"])
        return cls(**arrays, **plain)


load = Samples.load


def _write_npz(path: Path, arrays: dict[str, Any]) -> Path:
    """Write beside the target and rename, so that a crash leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
