"""What a user may set, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """Attributes of `session.settings`; the magics show them as `%config PxTools`.

    Attributes
    ----------
    engines
        Number of engines to start when none are there; 0 means one per core.
    push_limit
        Bytes per host above which nothing is pushed without `-i`.
    collect_limit
        Bytes above which a value stays on its engine until it is read.
    never_push
        Names, or patterns such as ``secret_*``, that never travel by themselves.
    follow_cwd
        Engines of this host follow the notebook's working directory.
    progress
        Show progress of work that lasts over a second.
    """

    engines: int = 0
    push_limit: int = 1_000_000_000
    collect_limit: int = 1_000_000
    never_push: tuple[str, ...] = ()
    follow_cwd: bool = True
    progress: bool = True
