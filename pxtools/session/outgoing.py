"""What travels to the engines: find it, pack it, and leave out what is there already.

`Gatherer` walks from the names that are wanted to everything these rely on. What engines hold already is the
business of `ledger`.
"""

from __future__ import annotations

import builtins
import fnmatch
import os
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import xxhash

from pxtools.errors import PxNameError, PxPickleError, nearest
from pxtools.remote.pickling import Packed, home_of_generator_method, pack, raw
from pxtools.results import PerEngine
from pxtools.session.settings import Settings

Stamp = Any
Parcel = dict[str, Any]

#: names that IPython makes, and the cell's own
_HOUSEKEEPING = frozenset(
    "In Out exit quit get_ipython _ __ ___ _i _ii _iii _ih _oh _dh px_rank px_size px_rng".split()
)
#: modules whose objects stay here: connections, locks, pictures, widgets
_STAYING = frozenset(
    "ipyparallel zmq socket ssl _thread threading asyncio multiprocessing ipywidgets tqdm IPython ipykernel".split()
)


@dataclass(frozen=True)
class Item:
    """One name that should be on the engines.

    Attributes
    ----------
    stamp
        Equal stamps mean equal content: a content hash, the id of a `PerEngine`, or the place it is imported from.
    why
        In words, for `--explain`.
    submodules
        Of an imported package, those that were imported here and that the work may use.
    """

    name: str
    stamp: Stamp
    why: str
    packed: Packed | None = None
    imported: tuple[str, str] | None = None
    per_engine: PerEngine | None = None
    modules: frozenset[str] = frozenset()
    submodules: tuple[str, ...] = ()
    is_explicit: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes that would travel, per engine."""
        return self.packed.nbytes if self.packed else 0


@dataclass
class Gathering:
    """Everything that a piece of work needs from the notebook.

    Attributes
    ----------
    items
        Name on the engines to what is sent.
    problems
        Name to the reason why it cannot travel; an error only if the engines really need it.
    notices
        Lines for the user.
    more_modules
        Modules that no item holds, but the work imports.
    attributes
        Attributes that the work may look up: they tell which submodules of a package it uses.
    """

    items: dict[str, Item] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    more_modules: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)

    @property
    def modules(self) -> set[str]:
        """Every module that must be importable there."""
        return self.more_modules.union(*(item.modules for item in self.items.values()))


class Gatherer:
    """Walks from wanted names to all that they rely on.

    Parameters
    ----------
    namespace
        The notebook.
    local
        The locals of the function that called the magic; looked up first.
    """

    def __init__(self, namespace: dict[str, Any], settings: Settings, local: Mapping[str, Any] | None = None) -> None:
        self.namespace = namespace
        self.local = local or {}
        self.settings = settings

    def gather(
        self,
        automatic: Iterable[str],
        explicit: Mapping[str, str] | None = None,
        *,
        needs: Iterable[str] = (),
        attributes: Iterable[str] = (),
    ) -> Gathering:
        """Return items for the names and for everything they use.

        Parameters
        ----------
        automatic
            Names that a cell reads: those the notebook does not hold are passed over.
        explicit
            Name there to name here, as given by ``-i``.
        needs
            Names that a function looks up: never among the locals of the caller.
        attributes
            See `Gathering`.

        Raises
        ------
        PxNameError
            An explicit name does not exist here.
        PxPickleError
            An explicit value cannot travel.
        """
        gathering = Gathering(attributes=set(attributes))
        waiting: list[tuple[str, Any, str, bool]] = []
        for there, here in (explicit or {}).items():
            waiting.append((there, self._explicit(here), "asked for with -i", True))
        read = (name for name in sorted(automatic) if self._is_here(name))
        waiting += [(name, self._find(name), "read by the cell", False) for name in read]
        waiting += self._needed(needs, "the function")
        while waiting:
            name, value, why, is_explicit = waiting.pop(0)
            if name not in gathering.items and name not in gathering.problems:
                waiting += self._needed(self._take(gathering, name, value, why, is_explicit), name)
        _add_submodules(gathering)
        return gathering

    def _needed(self, names: Iterable[str], by: str) -> list[tuple[str, Any, str, bool]]:
        here = (name for name in sorted(names) if self._is_here(name, in_globals=True))
        return [(name, self.namespace[name], f"used by {by}", False) for name in here]

    def pack_value(self, value: Any) -> tuple[Packed, Gathering]:
        """Pack a value that has no name; return it and what it relies on."""
        try:
            packed = pack(value, self.namespace)
        except Exception as error:
            raise PxPickleError(f"{_describe(value)} cannot travel: {error}") from error
        gathering = self.gather((), needs=packed.needs, attributes=packed.attributes)
        gathering.more_modules |= packed.modules
        return packed, gathering

    def _find(self, name: str) -> Any:
        return self.local[name] if name in self.local else self.namespace[name]

    def _is_here(self, name: str, *, in_globals: bool = False) -> bool:
        """Return whether the notebook holds this name as its own: IPython's names and builtins are not."""
        if name in _HOUSEKEEPING or (name[:1] == "_" and name[1:].lstrip("i").isdigit()) or name.startswith("__"):
            return False
        if not in_globals and name in self.local:
            return True
        if name not in self.namespace:
            return False
        value = self.namespace[name]
        if name == "open" and getattr(value, "__globals__", {}).get("__name__") == "IPython.core.interactiveshell":
            return False  # IPython's own guard around the builtin
        return not (hasattr(builtins, name) and value is getattr(builtins, name))

    def _explicit(self, name: str) -> Any:
        if name in self.local or name in self.namespace:
            return self._find(name)
        hint = nearest(name, [*self.local, *self.namespace])
        raise PxNameError(f"`{name}` is not in the notebook.{hint}\nNothing was sent.")

    def _take(self, gathering: Gathering, name: str, value: Any, why: str, is_explicit: bool) -> frozenset[str]:
        """Add one item; return the names that it relies on."""
        reason = self._stays(name, value, is_explicit)
        if reason is None:
            try:
                item = make_item(name, value, why, self.namespace, is_explicit)
            except Exception as error:
                reason = f"cannot be pickled: {_first_line(error)}"
            else:
                gathering.items[name] = item
                gathering.attributes |= item.packed.attributes if item.packed else frozenset()
                if type(value).__module__ == "numpy.random._generator":
                    gathering.notices.append(
                        f"`{name}` is one generator copied to every engine: all draw the same numbers. "
                        f"With `--seed N` each engine has its own `px_rng`."
                    )
                return item.packed.needs if item.packed else frozenset()
        if is_explicit:
            raise PxPickleError(f"`{name}` ({_describe(value)}) cannot travel: {reason}.\nNothing was sent.")
        gathering.problems[name] = reason
        return frozenset()

    def _stays(self, name: str, value: Any, is_explicit: bool) -> str | None:
        """Return why a value never travels by itself, or None."""
        if not is_explicit and any(fnmatch.fnmatchcase(name, p) for p in self.settings.never_push):
            return "its name matches the `never_push` setting"
        if isinstance(value, types.ModuleType):
            return None
        home = getattr(type(value), "__module__", "") or ""
        if home.partition(".")[0] in _STAYING or home.startswith(("pxtools.session", "pxtools.engines")):
            return f"a {type(value).__name__} belongs to this process"
        if home.startswith(("matplotlib.figure", "matplotlib.axes")):
            return "figures stay in the notebook"
        return None


def make_item(name: str, value: Any, why: str, namespace: dict[str, Any], is_explicit: bool = False) -> Item:
    """Pack one named value.

    Raises
    ------
    Exception
        Whatever its pickling raises.
    """
    if isinstance(value, PerEngine):
        return Item(name, ("per engine", value.uid), why, per_engine=value, is_explicit=is_explicit)
    if isinstance(value, types.ModuleType) and sys.modules.get(value.__name__) is value:
        place = (value.__name__, "")
        return Item(name, place, why, imported=place, modules=frozenset([value.__name__]), is_explicit=is_explicit)
    generator_home = home_of_generator_method(value)
    if generator_home is not None:
        place = (generator_home.__name__, value.__name__)
        return Item(name, place, why, imported=place, is_explicit=is_explicit)
    packed = pack(value, namespace)
    return Item(name, content_hash(packed), why, packed, modules=packed.modules, is_explicit=is_explicit)


def _add_submodules(gathering: Gathering) -> None:
    """Let a package bring those of its submodules that are loaded here and may be used there (`xml.dom`)."""
    for name, item in gathering.items.items():
        if item.imported is None or item.imported[1]:
            continue
        prefix = item.imported[0] + "."
        loaded = [module for module in list(sys.modules) if module.startswith(prefix)]
        used = tuple(sorted(m for m in loaded if gathering.attributes.issuperset(m[len(prefix) :].split("."))))
        if used:
            stamp = (*item.stamp, used)
            gathering.items[name] = replace(item, stamp=stamp, submodules=used, modules=item.modules.union(used))


def content_hash(packed: Packed) -> bytes:
    """Return the xxh3 hash of everything that would travel: 0.6 times the cost of copying it."""
    state = xxhash.xxh3_128(packed.data)
    for buffer in packed.buffers:
        state.update(raw(buffer))
    return state.digest()


def same_host_path() -> tuple[str, ...]:
    """Return the places where this process looks for modules."""
    return tuple(os.path.abspath(entry or ".") for entry in sys.path if os.path.isdir(entry or "."))


def _describe(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
