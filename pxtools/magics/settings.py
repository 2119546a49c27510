"""`%config PxTools`: the session's settings, as IPython shows and sets them."""

from __future__ import annotations

import copy
from typing import Any

from traitlets import Bool, Integer, TraitError, Tuple, Unicode, validate
from traitlets.config import Config, Configurable

from pxtools.session.core import Session
from pxtools.session.settings import Settings


class PxTools(Configurable):
    """Settings of pxtools; `%config PxTools` lists them, `%config PxTools.progress = False` sets one."""

    engines = Integer(Settings.engines, help="Engines to start when none are there; 0 means one per core.").tag(
        config=True
    )
    autostart = Bool(Settings.autostart, help="Start engines when none are there; else say what to type.").tag(
        config=True
    )
    targets = Unicode(Settings.targets, help="Engines of work without -t: all, 0, 0,2, ::2, the name of a view.").tag(
        config=True
    )
    seed = Integer(Settings.seed, allow_none=True, help="Seeds all work without --seed, each piece differently.").tag(
        config=True
    )
    push_limit = Integer(Settings.push_limit, help="Bytes per host above which nothing is pushed without -i.").tag(
        config=True
    )
    collect_limit = Integer(
        Settings.collect_limit, help="Bytes above which a value stays on its engine until read."
    ).tag(config=True)
    never_push = Tuple(help="Names, or patterns such as 'secret_*', that never travel by themselves.").tag(config=True)
    follow_cwd = Bool(Settings.follow_cwd, help="Engines of this host follow the notebook's directory.").tag(
        config=True
    )
    progress = Bool(Settings.progress, help="Show progress of work that lasts over a second.").tag(config=True)
    short_errors = Bool(True, help="Show two to four lines of an error, and the tracebacks on %tb.").tag(config=True)

    def __init__(self, session: Session, parent: Any = None) -> None:
        self._session = session
        self._said_at_load = copy.deepcopy(parent.config.get("PxTools")) if parent is not None else None
        super().__init__(parent=parent)  # which takes what ipython_config.py says of `c.PxTools`
        names = list(self.class_own_traits(config=True))
        for name in names:
            setattr(session.settings, name, getattr(self, name))
        self.observe(self._carry_over, names=names)

    def update_config(self, config: Config) -> None:
        """Take what a line of `%config` sets; the same seed, given again, begins anew, of which no observer is told."""
        super().update_config(config)
        if "seed" in config.get("PxTools", ()):
            self._session.settings.begin_seeds()

    def leave(self) -> None:
        """Put the shell's configuration back, in which `%config` wrote, and what holds for the whole process."""
        self._session.settings.short_errors = True
        if self.parent is not None:
            self.parent.config.pop("PxTools", None)
            if self._said_at_load is not None:
                self.parent.config["PxTools"] = self._said_at_load

    @validate("engines", "push_limit", "collect_limit")
    def _not_negative(self, proposal: Any) -> int:
        if proposal["value"] < 0:
            raise TraitError(f"PxTools.{proposal['trait'].name} is a number of 0 or more.")
        return int(proposal["value"])

    @validate("seed")
    def _a_seed(self, proposal: Any) -> int | None:
        seed: int | None = proposal["value"]
        if seed is not None and seed < 0:
            raise TraitError("PxTools.seed is a number of 0 or more, or None.")
        return seed

    @validate("targets")
    def _not_empty(self, proposal: Any) -> str:
        if not proposal["value"].strip():
            raise TraitError("PxTools.targets is all, 0, 0,2, ::2 or the name of a view.")
        return str(proposal["value"])

    @validate("never_push")
    def _names(self, proposal: Any) -> tuple[str, ...]:
        if not all(isinstance(pattern, str) for pattern in proposal["value"]):
            raise TraitError("PxTools.never_push is a tuple of names or patterns, such as ('secret_*',).")
        return tuple(proposal["value"])

    def _carry_over(self, change: Any) -> None:
        setattr(self._session.settings, change["name"], change["new"])
        if change["name"] == "seed":
            self._session.settings.begin_seeds()
