"""What a user may set, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from pxtools.errors import ShortTraceback


@dataclass
class Settings:
    """Attributes of `session.settings`; the magics show them as `%config PxTools`.

    Attributes
    ----------
    engines
        Number of engines to start when none are there; 0 means one per core.
    autostart
        Start engines when none are there; else say what to type.
    targets
        Engines of work that names none with ``-t``: ``all``, or what may stand there.
    seed
        Seeds all work that is given no ``--seed``, each piece differently: see `seed_for`.
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
    short_errors
        IPython shows two to four lines of an error first; else the tracebacks at once. There is one such setting in a
        process, as there is one IPython.
    """

    engines: int = 0
    autostart: bool = True
    targets: str = "all"
    seed: int | None = None
    push_limit: int = 1_000_000_000
    collect_limit: int = 2_000_000
    never_push: tuple[str, ...] = ()
    follow_cwd: bool = True
    progress: bool = True
    _n_seeds: int = field(default=0, init=False, repr=False, compare=False)

    def seed_for(self, asked: int | None) -> int | None:
        """Return the seed of a piece of work: the one asked for, or else the next one made of the setting.

        A notebook that is run from its top gives the same numbers again, and no two of its cells draw the same ones.
        The seed has 31 bits, as R and Octave take it.
        """
        if asked is not None or self.seed is None:
            return asked
        from numpy.random import SeedSequence

        self._n_seeds += 1
        return int(SeedSequence(self.seed, spawn_key=(self._n_seeds,)).generate_state(1)[0] >> 1)

    def begin_seeds(self) -> None:
        """Make the seeds from the first on: the setting was given (again)."""
        self._n_seeds = 0

    @property
    def short_errors(self) -> bool:
        """Whether the first showing of an error leaves the frames out."""
        return ShortTraceback.is_short_at_first

    @short_errors.setter
    def short_errors(self, is_short: bool) -> None:
        ShortTraceback.is_short_at_first = is_short
