"""The magics' plain Python twins, with the same words: everything a magic does can be done from a script.

Names that these functions read and bind are those of `__main__`: of the script, or of the notebook.

Examples
--------
>>> import pxtools
>>> offset = 10
>>> pxtools.run("x = offset + px_rank")["x"].stack()
array([10, 11, 12, 13])
"""

from __future__ import annotations

from pxtools.api.cluster import (
    background,
    client,
    cluster,
    connect,
    current_session,
    doctor,
    leave,
    use,
    within,
)
from pxtools.api.languages import cython, octave, r
from pxtools.api.state import clear, collect, gather, imports, push, scatter, who
from pxtools.api.work import Box, formula, last_map, map, parallel, run, sample

__all__ = [
    "Box",
    "background",
    "clear",
    "client",
    "cluster",
    "collect",
    "connect",
    "current_session",
    "cython",
    "doctor",
    "formula",
    "gather",
    "imports",
    "last_map",
    "leave",
    "map",
    "octave",
    "parallel",
    "push",
    "r",
    "run",
    "sample",
    "scatter",
    "use",
    "who",
    "within",
]
