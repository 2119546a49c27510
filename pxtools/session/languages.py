"""R and Octave cells on engines: what such a cell takes along and brings back; `run` does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pxtools.errors import PxNameError, PxTimeout, nearest
from pxtools.remote.r_target import RFunction
from pxtools.session.core import Session
from pxtools.session.run import Cell

R = "pxtools.remote.r_runner.run"
OCTAVE = "pxtools.remote.octave_runner.run"
DESCRIBE = "pxtools.remote.r_target.describe"

#: runner to what takes the state out of an engine, and what gives it to another
HELD = {
    R: ("R", "pxtools.remote.held.save_r", "pxtools.remote.held.give_r"),
    OCTAVE: ("Octave", "pxtools.remote.held.save_octave", "pxtools.remote.held.give_octave"),
}
#: larger values are not given to new engines
HELD_BYTES = 1_000_000
#: engines that are not done with telling after this time are not waited for
_TELL_S = 10.0

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
    session.memory = session.memory or Memory(session)
    session.memory.used.add(runner)
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


class Memory:
    """Gives new engines the functions and values that R and Octave hold alike on all the others.

    Attributes
    ----------
    used
        Runners whose cells were run in this session.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.used: set[str] = set()
        self._taken: dict[str, dict[str, Any]] = {}

    def take(self, wire: Any, engines: list[int]) -> None:
        """Ask those of the engines that are not at work what they hold, before they end or others come."""
        busy = wire.busy(engines)
        idle = [i for i in engines if i not in busy]
        asked = {"limit": HELD_BYTES}
        for runner in self.used:
            try:
                replies = wire.call(HELD[runner][1], dict.fromkeys(idle, asked), _TELL_S)
            except PxTimeout:
                continue
            failed = next((reply.failure for reply in replies.values() if reply.failure), None)
            if failed is not None:
                self.session.notify(f"what {HELD[runner][0]} holds is not saved: {failed['message']}")
            answers = [reply.answer for reply in replies.values() if reply.answer and reply.answer["held"]]
            if answers:
                self._taken[runner] = _alike(answers)

    def give(self, wire: Any, new: list[int]) -> None:
        """Give what was taken to new engines, and say in one line what they did not get."""
        taken, self._taken = self._taken, {}
        for runner, state in taken.items():
            language, _, give = HELD[runner]
            self.session.good(wire.call(give, dict.fromkeys(new, state)))
            if state["left"]:
                self.session.notify(
                    f"{language} on new engines lacks {', '.join(state['left'][:6])}: larger than 1 MB, or not the "
                    f"same on all engines. Run the cells again that make them."
                )


def _alike(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what all engines hold with the same content, and the names of the rest."""
    first = answers[0]["held"]
    names = dict.fromkeys(name for answer in answers for name in (*answer["held"], *answer["left"]))
    keys = {name: {answer["held"].get(name, ("",))[0] for answer in answers} for name in names}
    same = {name: first[name][1] for name, found in keys.items() if len(found) == 1 and found != {""}}
    return {"held": same, "packages": answers[0]["packages"], "left": [name for name in names if name not in same]}
