"""What each engine holds, as far as the notebook knows: each is sent only what it lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import xxhash

from pxtools.errors import PxUsageError
from pxtools.remote.pickling import pack
from pxtools.results import Remote, human_bytes
from pxtools.session.modules import Sources, users_sources
from pxtools.session.outgoing import Gathering, Item, Parcel, Stamp


class Ledger:
    """What each engine holds, as far as the notebook knows."""

    def __init__(self) -> None:
        self.stamps: dict[int, dict[str, Stamp]] = {}
        #: names on an engine that came from the notebook: deleted there when deleted here
        self.from_notebook: dict[int, set[str]] = {}
        self.texts: dict[int, dict[str, bytes]] = {}
        self.bytes_sent = 0

    def keep_only(self, engines: Iterable[int]) -> None:
        """Forget engines that are gone."""
        alive = set(engines)
        for table in (self.stamps, self.from_notebook, self.texts):
            for engine in set(table) - alive:
                del table[engine]

    def is_in_step(self, engine: int, item: Item) -> bool:
        """Return whether the engine holds, or has changed by itself, what the notebook still has."""
        return self.stamps.get(engine, {}).get(item.name) == item.stamp

    def record(self, engine: int, name: str, stamp: Stamp, *, from_notebook: bool = False) -> None:
        """Note what both sides agree on for a name."""
        self.stamps.setdefault(engine, {})[name] = stamp
        if from_notebook:
            self.from_notebook.setdefault(engine, set()).add(name)

    def forget(self, engine: int, names: Iterable[str] | None = None) -> None:
        """Forget some names of an engine, or all of them."""
        for name in list(self.stamps.get(engine, {})) if names is None else names:
            self.stamps.get(engine, {}).pop(name, None)
            self.from_notebook.get(engine, set()).discard(name)

    def doubt(self, engine: int, parcel: Parcel) -> None:
        """Do not rely on a parcel whose work never answered: what was in it is sent again when it is needed."""
        for name in (*parcel["values"], *parcel["references"], *parcel["imports"]):
            self.stamps.get(engine, {}).pop(name, None)
        for name in parcel["sources"]:
            self.texts.get(engine, {}).pop(name, None)

    def parcels(
        self, gathering: Gathering, engines: Iterable[int], namespace: dict[str, Any], common: Mapping[int, Parcel]
    ) -> dict[int, Parcel]:
        """Return one parcel per engine, holding only what that engine lacks; equal parcels are one object.

        Parameters
        ----------
        common
            Engine to what every parcel holds anyway (directory, path, values to forget).
        """
        sources = users_sources(gathering.modules)
        hashes = {name: _text_hash(text) for name, (text, _, _) in sources.items()}
        made: dict[Any, Parcel] = {}
        plans: dict[int, tuple[Parcel, list[Item], dict[str, bytes], list[str]]] = {}
        for engine in engines:
            wanted = [item for item in gathering.items.values() if not self.is_in_step(engine, item)]
            expected = sorted(gathering.items.keys() - {item.name for item in wanted})
            held = self.texts.get(engine, {})
            texts = [name for name in sources if held.get(name) != hashes[name]]
            gone = sorted(n for n in self.from_notebook.get(engine, ()) if n not in namespace)
            personal = [item for item in wanted if item.per_engine is not None]
            key = (tuple(i.name for i in wanted), tuple(texts), tuple(gone), repr(common[engine]))
            if personal or key not in made:
                parts = {**common[engine], "expects": expected, "delete": gone}
                made[key] = _parcel(engine, wanted, {n: sources[n] for n in texts}, parts, namespace)
            plans[engine] = made[key], wanted, {n: hashes[n] for n in texts}, gone
        for engine, (parcel, wanted, new, gone) in plans.items():  # nothing can go wrong any more
            self._commit(engine, wanted, new, gone, namespace)
            self.bytes_sent += sum(packed.nbytes for packed in parcel["values"].values())
        return {engine: parcel for engine, (parcel, *_) in plans.items()}

    def _commit(
        self, engine: int, wanted: list[Item], texts: dict[str, bytes], gone: list[str], namespace: dict[str, Any]
    ) -> None:
        for item in wanted:
            self.record(engine, item.name, item.stamp, from_notebook=item.name in namespace)
        self.texts.setdefault(engine, {}).update(texts)
        self.forget(engine, gone)


def _parcel(engine: int, wanted: list[Item], sources: Sources, parts: Parcel, namespace: dict[str, Any]) -> Parcel:
    values = {item.name: item.packed for item in wanted if item.packed is not None}
    references: dict[str, str] = {}
    for item in wanted:
        if item.per_engine is None:
            continue
        if engine not in item.per_engine.engines:
            raise PxUsageError(
                f"`{item.name}` has values for {len(item.per_engine)} engines, none for engine {engine}.\n"
                f"Run on those engines only: `-t {','.join(map(str, item.per_engine.engines))}`."
            )
        slot = item.per_engine.slot(engine)
        if isinstance(slot, Remote):
            references[item.name] = slot.token
        else:
            values[item.name] = pack(slot, namespace)
    return {
        **parts,
        "sources": sources,
        "values": values,
        "references": references,
        "imports": {item.name: item.imported for item in wanted if item.imported is not None},
        "submodules": [module for item in wanted for module in item.submodules],
    }


def _text_hash(text: str | bytes) -> bytes:
    return xxhash.xxh3_128(text.encode() if isinstance(text, str) else text).digest()


def check_limit(gathering: Gathering, limit: int, ledger: Ledger, engines: Iterable[int]) -> None:
    """Refuse to send more than `limit` bytes that nobody asked for; what is there already does not count.

    Raises
    ------
    PxUsageError
        Naming the largest value.
    """
    travelling = [i for i in gathering.items.values() if not all(ledger.is_in_step(e, i) for e in engines)]
    automatic = [item for item in travelling if not item.is_explicit]
    total = sum(item.nbytes for item in automatic)
    if total <= limit:
        return
    largest = max(automatic, key=lambda item: item.nbytes)
    raise PxUsageError(
        f"the names read here hold {human_bytes(total)}, more than `push_limit` ({human_bytes(limit)}); "
        f"the largest is `{largest.name}` ({human_bytes(largest.nbytes)}).\n"
        f"Nothing was sent. Send it on purpose with `-i {largest.name}`."
    )
