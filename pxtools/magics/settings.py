"""`%config PxTools`: the session's settings, as IPython shows and sets them."""

from __future__ import annotations

from typing import Any

from traitlets import Bool, Integer, TraitError, Tuple, validate
from traitlets.config import Configurable

from pxtools.session.core import Session


class PxTools(Configurable):
    """Settings of pxtools; `%config PxTools` lists them, `%config PxTools.progress = False` sets one."""

    engines = Integer(0, help="Engines to start when none are there; 0 means one per core.").tag(config=True)
    push_limit = Integer(0, help="Bytes per host above which nothing is pushed without -i.").tag(config=True)
    collect_limit = Integer(0, help="Bytes above which a value stays on its engine until read.").tag(config=True)
    never_push = Tuple(help="Names, or patterns such as 'secret_*', that never travel by themselves.").tag(config=True)
    follow_cwd = Bool(True, help="Engines of this host follow the notebook's directory.").tag(config=True)
    progress = Bool(True, help="Show progress of work that lasts over a second.").tag(config=True)

    def __init__(self, session: Session, parent: Any = None) -> None:
        self._session = session
        values = {name: getattr(session.settings, name) for name in self.class_own_traits(config=True)}
        super().__init__(parent=parent, **values)
        self.observe(self._carry_over, names=list(values))

    @validate("engines", "push_limit", "collect_limit")
    def _not_negative(self, proposal: Any) -> int:
        if proposal["value"] < 0:
            raise TraitError(f"PxTools.{proposal['trait'].name} is a number of 0 or more.")
        return int(proposal["value"])

    @validate("never_push")
    def _names(self, proposal: Any) -> tuple[str, ...]:
        if not all(isinstance(pattern, str) for pattern in proposal["value"]):
            raise TraitError("PxTools.never_push is a tuple of names or patterns, such as ('secret_*',).")
        return tuple(proposal["value"])

    def _carry_over(self, change: Any) -> None:
        setattr(self._session.settings, change["name"], change["new"])
