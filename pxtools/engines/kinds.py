"""The kinds of engines: ipyparallel's launchers, what their options are called, and how options are read."""

from __future__ import annotations

import ast
import importlib
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ipyparallel.cluster import launcher as launchers
from ipyparallel.traitlets import entry_points

from pxtools.engines.ssh import SSHEngines
from pxtools.errors import PxClusterError, PxUsageError, nearest

#: what a user may type for a launcher's own word
ALIASES = {"hosts": "engines"}

#: variables that a batch system sets inside of a job: mpiexec then reaches other hosts by itself
_ALLOCATIONS = ("SLURM_JOB_ID", "PBS_NODEFILE", "LSB_HOSTS", "PE_HOSTFILE")


@dataclass(frozen=True)
class Kind:
    """One kind of engines.

    Attributes
    ----------
    name
        As typed after ``--engines``.
    launcher
        ipyparallel's class for a set of such engines.
    """

    name: str
    launcher: Any

    @property
    def is_local(self) -> bool:
        """Whether engines are processes that ipyparallel starts one by one on this host."""
        return issubclass(self.launcher, launchers.LocalEngineSetLauncher) and not self.is_ssh

    @property
    def is_ssh(self) -> bool:
        """Whether engines are started through ssh, host by host."""
        return issubclass(self.launcher, launchers.SSHEngineSetLauncher)

    @property
    def is_mpi(self) -> bool:
        """Whether engines share one communicator: they come and go together."""
        return issubclass(self.launcher, launchers.MPILauncher)

    @property
    def is_batch(self) -> bool:
        """Whether engines wait in a queue before they run."""
        return issubclass(self.launcher, launchers.BatchSystemLauncher)

    def reaches_out(self, options: Mapping[str, Any]) -> bool:
        """Return whether engines may be on other hosts, to which a loopback address means nothing."""
        if not self.is_mpi:
            return not self.is_local
        words = " ".join(map(str, [*options.get("mpi_args", ()), *options.get("mpi_cmd", ())]))
        return "host" in words or "machinefile" in words or any(name in os.environ for name in _ALLOCATIONS)


def known_kinds() -> list[str]:
    """Return the names of all engine launchers, also of those that other packages add to ipyparallel."""
    return sorted({entry.name.lower() for entry in entry_points(group="ipyparallel.engine_launchers")})


def find_kind(name: str) -> Kind:
    """Return the kind of a name, or of the dotted path of a launcher class.

    Raises
    ------
    PxClusterError
        Nobody knows it.
    """
    try:
        found = _class_at(name) if "." in name else launchers.find_launcher_class(name, "engine")
    except (KeyError, ImportError, AttributeError):
        known = known_kinds()
        raise PxClusterError(
            f"no engines of the kind `{name}`; there are {', '.join(known)}.{nearest(name, known)}"
        ) from None
    return Kind("ssh", SSHEngines) if found is launchers.SSHEngineSetLauncher else Kind(name.lower(), found)


def _class_at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def kind_of(cluster: Any) -> Kind:
    """Return the kind of the engines of an ipyparallel cluster."""
    cls = cluster.engine_launcher_class
    return Kind("ssh" if cls is SSHEngines else str(launchers.abbreviate_launcher_class(cls)), cls)


def read_options(kind: Kind, given: Iterable[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return a launcher's settings for what was typed after ``-O``.

    Parameters
    ----------
    given
        ``name=value`` texts, or name to value. The names are the settings of ipyparallel's launcher, and ``hosts`` of
        ssh. A list is written as on a command line, a dictionary as ``a=1,b=2``; both also as Python.

    Raises
    ------
    PxUsageError
        The launcher has no such setting, or the value is none for it.
    """
    pairs = given.items() if isinstance(given, Mapping) else [_cut(kind, text) for text in given]
    traits = kind.launcher.class_traits(config=True)
    options: dict[str, Any] = {}
    for word, value in pairs:
        name = ALIASES.get(word, word) if kind.is_ssh else word
        if name not in traits:
            known = sorted(traits)
            raise PxUsageError(
                f"{kind.name} engines have no option `{word}`.{nearest(word, known)}\nThere are: {', '.join(known)}."
            )
        read = _value(word, traits[name], value)
        options[name] = options.get(name, []) + read if isinstance(traits[name], launchers.List) else read
    return _arranged(kind, options)


def _cut(kind: Kind, text: str) -> tuple[str, str]:
    name, is_assignment, value = text.partition("=")
    if not is_assignment:
        raise PxUsageError(f"`-O {text}` gives no value. Write `-O {name}=VALUE`, as in `-O environment=A=1,B=2`.")
    return name.strip(), value.strip()


def _value(word: str, trait: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    try:
        if isinstance(trait, launchers.List):
            return list(ast.literal_eval(text)) if text.startswith(("[", "(")) else shlex.split(text)
        if isinstance(trait, launchers.Dict):
            return _pairs(text)
        if isinstance(trait, launchers.Integer | launchers.Float):
            return trait.from_string(text)
    except (ValueError, SyntaxError) as error:
        raise PxUsageError(f"`-O {word}={text}` cannot be read: {error}.") from None
    return text


def _pairs(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        return dict(ast.literal_eval(text))
    pieces = [piece.partition("=") for piece in text.split(",") if piece.strip()]
    return {name.strip(): value.strip() for name, _, value in pieces}


def _arranged(kind: Kind, options: dict[str, Any]) -> dict[str, Any]:
    """Fill in what follows from other options."""
    if kind.is_ssh:
        # scp takes the same options as ssh, but for the port
        ported = ["-P" if word == "-p" else word for word in options.get("ssh_args", ())]
        options.setdefault("scp_args", ported)
    if kind.name == "slurm" and options.get("options"):
        # ipyparallel leaves them out of its batch script
        extra = shlex.split(options.pop("options"))
        options["submit_command"] = [*options.get("submit_command", ["sbatch"]), *extra]
    return options
