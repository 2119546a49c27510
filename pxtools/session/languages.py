"""R and Octave cells on engines: what such a cell takes along and brings back; `run` does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pxtools.errors import PxNameError, nearest
from pxtools.remote.r_target import RFunction
from pxtools.session.core import Session
from pxtools.session.run import Cell

R = "pxtools.remote.r_runner.run"
OCTAVE = "pxtools.remote.octave_runner.run"
DESCRIBE = "pxtools.remote.r_target.describe"

#: a picture's settings, with the names of R's devices
PLOT = {
    "device": "png",
    "width": None,
    "height": None,
    "units": None,
    "res": None,
    "pointsize": None,
    "bg": None,
    "isolate": True,
}


def r_function(session: Session, name: str, targets: Any = None) -> RFunction:
    """Return a function that a `%%pxR` cell defined, to be sampled or mapped.

    Parameters
    ----------
    name
        In R.
    targets
        Engines that will use it; all of them must have it.

    Raises
    ------
    PxUsageError
        An engine's R has no such function.
    """
    engines = session.targets(targets)
    said = session.good(session.wire.call(DESCRIBE, {i: {"name": name} for i in engines}))
    first = next(iter(said.values()))
    return RFunction(name, first["required"], first["optional"])


def language_cell(
    session: Session,
    runner: str,
    code: str,
    *,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    local: Mapping[str, Any] | None = None,
    targets: Any = None,
    how: str | None = None,
    seed: int | None = None,
    plot: Mapping[str, Any] | None = None,
    shows: bool = True,
    **extra: Any,
) -> Cell:
    """Return a cell of another language, to be given to `pxtools.session.run.submit`.

    Parameters
    ----------
    runner
        `R` or `OCTAVE`.
    inputs
        Name in the language to name (``x``, or ``mod.attribute``) in the notebook, or else on the engines.
    outputs
        Name in the notebook to name in the language.
    seed
        Start an independent stream on each engine.
    plot
        See `PLOT`.
    shows
        Show the last value of the cell.

    Raises
    ------
    PxNameError
        An input is in the notebook under a similar name only.
    """
    known = {**session.namespace, **(local or {})}
    firsts = {source.partition(".")[0] for source in (inputs or {}).values()}
    for name in sorted(firsts - known.keys()):
        on_engines = any(name in stamps for stamps in session.ledger.stamps.values())
        hint = nearest(name, (n for n in known if not n.startswith("_")))
        if hint and not on_engines:
            raise PxNameError(f"`-i {name}`: `{name}` is not in the notebook.{hint}\nNothing was sent.")
    wanted = {**PLOT, **{key: value for key, value in (plot or {}).items() if value is not None}}
    return Cell(
        code=code,
        inputs={name: name for name in firsts if name in known},
        outputs=dict(outputs or {}),
        targets=targets,
        how=how,
        seed=seed,
        auto=False,
        runner=runner,
        extra={"arguments": list((inputs or {}).items()), "plot": wanted, "shows": shows, **extra},
    )
