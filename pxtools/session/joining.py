"""Engines that are new, or were frozen, get what the others hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pxtools.engines import Wire
from pxtools.results import PerEngine
from pxtools.session.outgoing import Gathering, make_item

if TYPE_CHECKING:
    from pxtools.session.core import Session

_ENGINE = "pxtools.remote.engine."


def welcome(session: Session, wire: Wire, names: Iterable[str] = ()) -> None:
    """Bring engines that are new here, or were frozen, to the state that the others have, or had (`names`)."""
    new = wire.prepare()
    wire.connection.count()
    names = set(names).union(*session.ledger.from_notebook.values())  # also of engines that have just gone
    session.ledger.keep_only(wire.alive)
    if new and session.memory is not None:
        session.memory.give(wire, new)
    if not new or not (names or session.imports or session.overrides):
        return
    names -= session.overrides.keys()
    names = {n for n in names if not isinstance(session.namespace.get(n), PerEngine)}  # theirs alone
    gathering = session.gatherer().gather(names)
    parcels = session.parcels(gathering, new)
    for parcel in parcels.values():
        parcel["values"] = {**parcel["values"], **session.overrides}
    session.good(wire.call(_ENGINE + "push", {i: {"parcel": parcels[i]} for i in new}))
    for name in session.overrides:
        keep_until_rebound(session, name, new)
    if session.imports:
        source = "\n".join(session.imports)
        empty = session.parcels(Gathering(), new)
        messages = {i: {"parcel": empty[i], "source": source} for i in new}
        session.good(wire.call(_ENGINE + "execute_imports", messages))


def remember(session: Session, wire: Wire) -> None:
    """Take from R and Octave what new engines are to get."""
    if session.memory is not None:
        session.memory.take(wire, [i for i in wire.ids if i in wire.engines])


def replace_all(session: Session, wire: Wire, n: int) -> list[int]:
    """Stop engines that share one communicator, start `n` in their place, under the same numbers."""
    names = set().union(*session.ledger.from_notebook.values())
    remember(session, wire)
    wire.connection.start_anew(n)
    wire.engines.clear()
    session.ledger.keep_only(())
    welcome(session, wire, names)
    return wire.ids


def keep_until_rebound(session: Session, name: str, engines: list[int]) -> None:
    """Note the notebook's own value of `name` as in step, so that the engines' differing one is kept."""
    stamp: Any = None
    if name in session.namespace:
        try:
            stamp = make_item(name, session.namespace[name], "", session.namespace).stamp
        except Exception:
            stamp = None  # cannot travel anyway
    for engine in engines:
        session.ledger.record(engine, name, stamp)
