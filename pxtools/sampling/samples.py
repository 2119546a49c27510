"""The result of a run: its draws, where they came from, and what they say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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

    from pxtools.sampling.modes import Mode
    from pxtools.sampling.summary import Summary


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
    n_errors, first_error : int, str or None
        How often the target raised (such steps are rejected), and the first traceback.
    seconds, engine_seconds : float
        Wall time of the run; time spent walking, summed over engines.
    target_tier : str
        What the function was made of where it ran; draws are bit-identical on one platform and tier.
    notes : tuple of str
        What was decided without asking.
    blobs : mapping of str to (n_chains, n_draws, ...) array
        The target's extra outputs at each draw; a rejected step repeats those of its point.
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
    n_errors: int = 0
    first_error: str | None = None
    seconds: float = float("nan")
    engine_seconds: float = float("nan")
    target_tier: str = "python"
    notes: tuple[str, ...] = ()
    blobs: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, one.name, _frozen(value))
        frozen = {name: _frozen(np.asarray(blob)) for name, blob in self.blobs.items()}
        object.__setattr__(self, "blobs", Frozen(frozen))

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

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the draws of one parameter, (n_chains, n_draws), or of one blob: `samples["x"]`."""
        if name in self.blobs:
            return self.blobs[name]
        if name not in self.names:
            blobs = f" Blobs: {', '.join(self.blobs)}." if self.blobs else ""
            raise PxUsageError(
                f"There is no parameter `{name}`.{nearest(str(name), (*self.names, *self.blobs))}\n"
                f"Parameters: {', '.join(self.names)}.{blobs} All draws: `samples.draws`, (chain, draw, parameter)."
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

    @cached_property
    def _modes(self) -> list[Mode]:
        from pxtools.sampling.modes import find_modes

        return find_modes(self.draws)

    def modes(self) -> list[Mode]:
        """Return the modes found, heaviest first, each with its share of the mass and the error of that."""
        return list(self._modes)

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def plot(self, kind: str = "overview", params: list[str] | None = None) -> Figure:
        """Draw the samples with matplotlib.

        Parameters
        ----------
        kind : str
            `pairs` (2-D histograms of each pair, 1-D on the diagonal), `trace`, `overview` (both), `rank` (how each
            chain's draws rank among all), or `ess` (effective sample sizes as draws come in).
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
        """Write everything to one file, whole or not at all; returns the path.

        The name decides: `.nc` is NetCDF, which other programs read (it takes xarray); anything else NumPy's `.npz`,
        without a pickle inside.

        Raises
        ------
        PxUsageError
            NetCDF without xarray, or a blob that NetCDF has no type for.
        """
        from pxtools.sampling.files import write

        return write(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Samples:
        """Read a file that `save` wrote, of either kind.

        Raises
        ------
        FileNotFoundError
            No such file.
        PxUsageError
            The file holds no samples, or those of a later pxtools.
        """
        from pxtools.sampling.files import read

        return cls(**read(Path(path)))


class Frozen(dict[str, NDArray[Any]]):
    """Blobs by name; cannot be changed."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("blobs cannot be changed; `dict(samples.blobs)` makes a copy that can")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __reduce__(self) -> Any:
        return Frozen, (dict(self),)


def _frozen(value: NDArray[Any]) -> NDArray[Any]:
    frozen = np.ascontiguousarray(value).view() if value.ndim else value.view()
    frozen.flags.writeable = False
    return frozen


load = Samples.load
