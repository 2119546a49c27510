"""The magics: one file each. They parse, call a plain function of the session, and show the result."""

from __future__ import annotations

import importlib
from typing import Any

from pxtools import api
from pxtools.magics.common import PxMagics
from pxtools.magics.completion import IDENTIFIER, matcher
from pxtools.magics.display import Progress
from pxtools.magics.settings import PxTools
from pxtools.session.core import Session

#: One module per magic, of the same name. To add one: its file, this line, a test, a section and an example.
MAGICS = (
    "pxcluster",
    "pximport",
    "pxpush",
    "pxcollect",
    "pxscatter",
    "pxgather",
    "pxwho",
    "pxclear",
    "pxrun",
    "pxmap",
    "pxsample",
    "pxcython",
    "pxR",
    "pxoctave",
    "pxdoctor",
    "pxkalman",
    "pxexpr",
)


def load(shell: Any) -> None:
    """Make a session for the shell's namespace and register every magic."""
    session = api.use(Session(shell.user_ns, progress=lambda title: Progress(shell, title)))
    shell.configurables.append(PxTools(session, parent=shell))
    if shell.Completer is not None:
        shell.Completer.custom_matchers.append(matcher(shell, session))
    for name in MAGICS:
        module = importlib.import_module(f"{__name__}.{name}")
        shell.register_magics(_magic_class(module)(shell, session))


def _magic_class(module: Any) -> Any:
    own = (v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__)
    return next(v for v in own if issubclass(v, PxMagics) and v is not PxMagics)


def unload(shell: Any) -> None:
    """Take the magics back and leave the session."""
    for name in MAGICS:
        for table in shell.magics_manager.magics.values():
            table.pop(name, None)
    registry = shell.magics_manager.registry
    for key in [key for key, magics in registry.items() if isinstance(magics, PxMagics)]:
        del registry[key]
    for configurable in shell.configurables:
        if isinstance(configurable, PxTools):
            configurable.leave()
    shell.configurables[:] = [c for c in shell.configurables if not type(c).__module__.startswith("pxtools.")]
    if shell.Completer is not None:
        others = [m for m in shell.Completer.custom_matchers if getattr(m, "matcher_identifier", "") != IDENTIFIER]
        shell.Completer.custom_matchers[:] = others
    api.leave()
