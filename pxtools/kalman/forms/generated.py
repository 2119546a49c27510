"""One element of a row after another, in straight-line C made for the zeros and ones of one model.

SymPy writes the update and the prediction out for the model's structure and finds the pieces in common; a C compiler
makes a library of it in a fraction of a second. Numbers that are not 0 or 1 are arguments, so that one library serves a
model while it is fitted. Libraries are kept by the hash of their source in a private folder of `XDG_CACHE_HOME`.

Engines are sent source and library together: one without SymPy compiles the source, one without a compiler loads the
library if its processor is the same. Without any of them, and for models that change with time or whose observation
noises are correlated, the univariate kernel serves.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pxtools.kalman.checks import Array
from pxtools.kalman.forms import univariate
from pxtools.kalman.model import StateSpaceModel
from pxtools.kalman.system import System, after_diffuse, system_of
from pxtools.kernels.kalman_results import CANCELLED, NO_VARIANCE, Filtered

#: beyond so many states the source grows as fast as the work
MOST_STATES = 12

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")

_TEMPLATE = """#include <math.h>
/* y (steps, m), k the model's numbers, s the state: x, then the lower triangle of P */
long filter(long steps, const double *y, const double *k, double *s, double *pm, double *pc, double *fm, double *fc,
            double *log_lik)
{
    long cancelled = 0;
%(states)s
    for (long t = 0; t < steps; t++, y += %(m)d, pm += %(n)d, fm += %(n)d, pc += %(nn)d, fc += %(nn)d) {
        double squares = 0.0, product = 1.0, count = 0.0, logs = 0.0;
%(store_predicted)s
%(updates)s
        log_lik[t] = -0.5 * (count * 1.8378770664093454836 + logs + log(product) + squares);
%(store_filtered)s
        {
%(prediction)s
        }
    }
%(store_predicted)s
%(keep)s
    return cancelled;
}
"""

_UPDATE = """        if (y[%(i)d] == y[%(i)d]) {
%(row)s
            if (f < %(cancelled)r * reach) cancelled++;
            if (f > %(no_variance)r * reach) {
                const double inverse = 1.0 / f;
                product *= f;
                if (!(product > 1e-100 && product < 1e100)) {
                    logs += log(product);
                    product = 1.0;
                }
                count += 1.0;
                squares += v * v * inverse;
%(update)s
            }
        }"""


class Structure(NamedTuple):
    """Where a model's matrices are zero, one, or a number: `places` are indices of (F, H, Q, R, c, d) in `k`."""

    n: int
    m: int
    entries: tuple[tuple[int, ...], ...]
    """for each matrix its elements: 0, 1, or 2 for a number"""


def run(system: System, y: Array, steady: bool = True) -> Filtered:
    """Filter in code made for the model; in the univariate kernel where there is none."""
    if not is_served(system) or y.shape[2] == 0:
        return univariate.run(system, y, steady)
    library = library_of(structure_of(system))
    if library is None:
        return univariate.run(system, y, steady)
    return after_diffuse(system, y, functools.partial(_through, library))


def is_served(system: System) -> bool:
    """Return whether a model is constant, small, and has uncorrelated observation noises."""
    R = system.R[0]
    is_constant = all(len(part) == 1 for part in system[:6])
    return is_constant and system.F.shape[1] <= MOST_STATES and np.count_nonzero(R) == np.count_nonzero(np.diagonal(R))


def structure_of(system: System) -> Structure:
    """Return where the numbers of a model stand."""
    entries = tuple(
        tuple(0 if value == 0 else 1 if value == 1 else 2 for value in part[0].ravel().tolist()) for part in system[:6]
    )
    return Structure(system.F.shape[1], system.H.shape[1], entries)


def numbers_of(system: System) -> Array:
    """Return the numbers of a model that its code takes as arguments, in their order."""
    every = np.concatenate([part[0].ravel() for part in system[:6]])
    return every[(every != 0) & (every != 1)]


def _through(library: Any, system: System, y: Array) -> Filtered:
    n_series, n_steps, m = y.shape
    n = system.F.shape[1]
    lower = np.tril_indices(n)
    k = np.ascontiguousarray(np.append(numbers_of(system), 0.0))
    y = np.ascontiguousarray(y)
    pm, fm = np.empty((n_series, n_steps + 1, n)), np.empty((n_series, n_steps, n))
    pc, fc = np.empty((n_series, n_steps + 1, n, n)), np.empty((n_series, n_steps, n, n))
    log_lik, cancelled = np.empty((n_series, n_steps)), 0
    for s in range(n_series):
        state = np.concatenate([system.x[s], system.P[s][lower]])
        arrays = (y[s], k, state, pm[s], pc[s], fm[s], fc[s], log_lik[s])
        cancelled += library.filter(n_steps, *(array.ctypes.data for array in arrays))
    none = np.zeros((n_series, 0, n, n))
    used = np.zeros((n_series, 0, m), dtype=np.uint8)
    return Filtered(pm, pc, fm, fc, log_lik, none, none.copy(), used, np.zeros((n_series, n, n)), int(cancelled))


# --- source ---------------------------------------------------------------------------------------------------------


#: what was written, here or where it was sent from
_sources: dict[Structure, str] = {}


def source_of(structure: Structure) -> str:
    """Return C for all models of a structure.

    Raises
    ------
    ImportError
        SymPy is not installed.
    """
    if structure not in _sources:
        _sources[structure] = _written(structure)
    return _sources[structure]


def _written(structure: Structure) -> str:
    import sympy as sp

    n, m, _ = structure
    F, H, Q, R, c, d = _symbols(structure, sp)
    x = [sp.Symbol(f"x{i}") for i in range(n)]
    P = sp.Matrix(n, n, lambda i, j: sp.Symbol(f"P{max(i, j)}_{min(i, j)}"))
    lower = [(i, j) for i in range(n) for j in range(i + 1)]
    v, inverse = sp.symbols("v inverse")
    updates = []
    for i in range(m):
        h = H[i, :]
        M = [sum((P[j, q] * h[q] for q in range(n)), sp.Integer(0)) for j in range(n)]
        row = [
            ("v", sp.Symbol(f"y[{i}]") - d[i] - sum(h[q] * x[q] for q in range(n))),
            *((f"M{j}", M[j]) for j in range(n)),
            ("f", R[i, i] + sum(h[q] * sp.Symbol(f"M{q}") for q in range(n))),
            ("reach", R[i, i] + sum(h[q] ** 2 * P[q, q] for q in range(n))),
        ]
        Ms = [sp.Integer(0) if M[j] == 0 else sp.Symbol(f"M{j}") for j in range(n)]
        gains = [sp.Symbol(f"g{j}") for j in range(n)]
        after = [(f"g{j}", Ms[j] * inverse) for j in range(n)]
        changed = [(str(x[j]), x[j] + gains[j] * v) for j in range(n)]
        changed += [(str(P[a, b]), P[a, b] - gains[a] * Ms[b]) for a, b in lower]
        updates.append(
            _UPDATE
            % {
                "i": i,
                "row": _lines(row, sp, 12),
                "update": _lines(after, sp, 16) + "\n" + _lines(changed, sp, 16, declares=False),
                "cancelled": float(CANCELLED),
                "no_variance": float(NO_VARIANCE),
            }
        )
    moved = F * sp.Matrix(x) + sp.Matrix(c)
    spread = F * P * F.T
    names = [f"n{k}" for k in range(n + len(lower))]
    values = [moved[i] for i in range(n)] + [sp.expand(spread[a, b]) + Q[a, b] for a, b in lower]
    own = [str(x[i]) for i in range(n)] + [str(P[a, b]) for a, b in lower]
    pieces, reduced = sp.cse(values, symbols=sp.numbered_symbols("t"), order="none")
    prediction = _lines([(str(a), b) for a, b in pieces], sp, 12)
    prediction += "\n" + _lines(list(zip(names, reduced, strict=True)), sp, 12)
    prediction += "\n" + "\n".join(f"            {a} = {b};" for a, b in zip(own, names, strict=True))
    return _TEMPLATE % {
        "n": n,
        "m": m,
        "nn": n * n,
        "states": "\n".join(f"    double {name} = s[{k}];" for k, name in enumerate(own)),
        "store_predicted": _stores("pm", "pc", n),
        "store_filtered": _stores("fm", "fc", n),
        "updates": "\n".join(updates),
        "prediction": prediction,
        "keep": "\n".join(f"    s[{k}] = {name};" for k, name in enumerate(own)),
    }


def _symbols(structure: Structure, sp: Any) -> list[Any]:
    n, m, entries = structure
    shapes = ((n, n), (m, n), (n, n), (m, m), (n, 1), (m, 1))
    taken, matrices = 0, []
    for (rows, columns), own in zip(shapes, entries, strict=True):
        cells = []
        for kind in own:
            cells.append(sp.Integer(kind) if kind < 2 else sp.Symbol(f"k[{taken}]"))
            taken += kind == 2
        matrices.append(sp.Matrix(rows, columns, cells))
    return matrices


def _lines(pairs: list[tuple[str, Any]], sp: Any, indent: int, declares: bool = True) -> str:
    start = " " * indent + ("const double " if declares else "")
    return "\n".join(f"{start}{name} = {sp.ccode(value)};" for name, value in pairs if declares or str(value) != name)


def _stores(mean: str, cov: str, n: int) -> str:
    lines = [f"        {mean}[{i}] = x{i};" for i in range(n)]
    lines += [f"        {cov}[{i * n + j}] = P{max(i, j)}_{min(i, j)};" for i in range(n) for j in range(n)]
    return "\n".join(lines)


# --- libraries ------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def library_of(structure: Structure) -> Any:
    """Return the library of a structure, compiled if it is not kept; None without SymPy, a compiler or a place."""
    try:
        return _loaded(source_of(structure))
    except (ImportError, OSError, subprocess.SubprocessError):
        return None


class Made(NamedTuple):
    """The code for a structure, as it is sent to engines."""

    structure: Structure
    source: str
    processor: str
    """where the library runs"""
    library: bytes | None


def made_for(models: StateSpaceModel | Iterable[StateSpaceModel]) -> tuple[Made, ...]:
    """Return the code for these models; none for those that it does not serve, none at all without SymPy."""
    every = (models,) if isinstance(models, StateSpaceModel) else models
    systems = (system_of(model, 1, 1) for model in every if model.n_steps is None)
    structures = dict.fromkeys(structure_of(system) for system in systems if is_served(system))
    found = []
    for structure in structures:
        try:
            source = source_of(structure)
            path = _place(source) if library_of(structure) is not None else None
            found.append(Made(structure, source, _processor(), path.read_bytes() if path is not None else None))
        except (ImportError, OSError):
            continue
    return tuple(found)


def take(made: Made) -> None:
    """Take over code that was made elsewhere, where it is not known yet."""
    if made.structure in _sources:
        return
    _sources[made.structure] = made.source
    library_of.cache_clear()
    with contextlib.suppress(OSError):
        path = _place(made.source)
        if made.library is None or made.processor != _processor() or path.exists():
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(made.library)
        os.replace(file.name, path)


def compiler() -> str | None:
    """Return the C compiler: the one that `CC` names, or the system's."""
    for name in (*(os.environ.get("CC") or "").split()[-1:], "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


def cache_folder() -> Path:
    """Return the folder that libraries are kept in, which nobody else may write to.

    Raises
    ------
    OSError
        It cannot be made, or belongs to somebody else.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "pxtools" / "kalman"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    about = folder.stat()
    if about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} can be changed by other users; code is not loaded from there.")
    return folder


def _place(source: str) -> Path:
    key = "\n".join([source, *FLAGS, platform.machine(), _processor()])
    return cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"


def _loaded(source: str) -> Any:
    path = _place(source)
    if not path.exists():
        made_by = compiler()
        if made_by is None:
            return None
        with tempfile.TemporaryDirectory(dir=path.parent) as room:
            text, made = Path(room) / "filter.c", Path(room) / "filter.so"
            text.write_text(source)
            command = [made_by, *FLAGS, "-o", str(made), str(text), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            os.replace(made, path)
    library = ctypes.CDLL(str(path))
    library.filter.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 8
    library.filter.restype = ctypes.c_long
    return library


@functools.cache
def _processor() -> str:
    """Return what the code may be specific to: a cache on a shared disk serves many hosts."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()
