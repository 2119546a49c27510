"""Steps per second of the random walk on the three Gaussians of the notebooks: one process, one core.

The rival is the walker of the notebooks, written anew here: a pure Python loop that moves NumPy 2-vectors and evaluates
the density at both points of every step. All run on the same target, in turns, and processor time is counted; each row
shows its best and its median round, because other work on the machine only ever slows a round down.

    python benchmarks/walker.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pxtools import sampling
from pxtools.errors import PxMissing
from pxtools.kernels import rwm_numpy
from pxtools.kernels.rwm import COMPILED
from pxtools.languages.cython_build import CythonFlags, build, module_name
from pxtools.remote import importer
from pxtools.sampling.group import stream
from pxtools.sampling.numba_tier import choose_tier

CX, CY = np.array([0.5, 0.7, 0.3]), np.array([0.2, 0.7, 0.7])
WX, WY = np.array([0.15, 0.05, 0.05]), np.array([0.04, 0.05, 0.07])

#: cells as a user writes them
CYTHON_SOURCE = """
# cython: language_level=3, cdivision=True
from libc.math cimport exp

def gaussian_cython(double x, double y):
    return (
        exp(-(((0.5 - x) / 0.15) ** 2 + ((0.2 - y) / 0.04) ** 2) / 2)
        + exp(-(((0.7 - x) / 0.05) ** 2 + ((0.7 - y) / 0.05) ** 2) / 2)
        + exp(-(((0.3 - x) / 0.05) ** 2 + ((0.7 - y) / 0.07) ** 2) / 2)
    )

def gaussian_view(const double[::1] p):
    return (
        exp(-(((0.5 - p[0]) / 0.15) ** 2 + ((0.2 - p[1]) / 0.04) ** 2) / 2)
        + exp(-(((0.7 - p[0]) / 0.05) ** 2 + ((0.7 - p[1]) / 0.05) ** 2) / 2)
        + exp(-(((0.3 - p[0]) / 0.05) ** 2 + ((0.7 - p[1]) / 0.07) ** 2) / 2)
    )
"""

#: the rival: the whole walk by hand in C, with the same generator, as one file, the density inlined by the compiler
C_SOURCE = r"""
# cython: language_level=3
from cpython.pycapsule cimport PyCapsule_GetPointer

cdef extern from *:
    '''
    #include <math.h>
    #include "numpy/random/bitgen.h"
    static double square(double x) { return x * x; }
    static double density(const double *p) {
        return exp(-(square((0.5 - p[0]) / 0.15) + square((0.2 - p[1]) / 0.04)) / 2)
             + exp(-(square((0.7 - p[0]) / 0.05) + square((0.7 - p[1]) / 0.05)) / 2)
             + exp(-(square((0.3 - p[0]) / 0.05) + square((0.7 - p[1]) / 0.07)) / 2);
    }
    static void walk_in_c(bitgen_t *bits, double *x, long n_steps, double step, double *draws, double *values) {
        double value = density(x), y[2];
        for (long t = 0; t < n_steps; t++) {
            for (int i = 0; i < 2; i++) y[i] = x[i] + step * (2.0 * bits->next_double(bits->state) - 1.0);
            double uniform = bits->next_double(bits->state), new_value = density(y);
            if (uniform * value < new_value) { x[0] = y[0]; x[1] = y[1]; value = new_value; }
            draws[2 * t] = x[0]; draws[2 * t + 1] = x[1]; values[t] = value;
        }
    }
    '''
    ctypedef struct bitgen_t:
        pass
    void walk_in_c(bitgen_t* bits, double* x, long n_steps, double step, double* draws, double* values) nogil

def walk(generator, double[::1] x, double step, double[:, ::1] draws, double[::1] values):
    cdef bitgen_t* bits = <bitgen_t*> PyCapsule_GetPointer(generator.bit_generator.capsule, "BitGenerator")
    walk_in_c(bits, &x[0], draws.shape[0], step, &draws[0, 0], &values[0])
"""


def gaussian_math(x, y):
    return (
        math.exp(-(((0.5 - x) / 0.15) ** 2 + ((0.2 - y) / 0.04) ** 2) / 2)
        + math.exp(-(((0.7 - x) / 0.05) ** 2 + ((0.7 - y) / 0.05) ** 2) / 2)
        + math.exp(-(((0.3 - x) / 0.05) ** 2 + ((0.7 - y) / 0.07) ** 2) / 2)
    )


def gaussian_scalar_np(x, y):
    return (
        np.exp(-(((0.5 - x) / 0.15) ** 2 + ((0.2 - y) / 0.04) ** 2) / 2)
        + np.exp(-(((0.7 - x) / 0.05) ** 2 + ((0.7 - y) / 0.05) ** 2) / 2)
        + np.exp(-(((0.3 - x) / 0.05) ** 2 + ((0.7 - y) / 0.07) ** 2) / 2)
    )


def gaussian_arrays(x, y):
    return np.exp(-(((CX - x) / WX) ** 2 + ((CY - y) / WY) ** 2) / 2).sum()


def gaussian_vector(p):
    return gaussian_math(p[0], p[1])


def notebook_walker(density: Callable[..., Any], start: np.ndarray, n_steps: int, step: float = 0.1) -> np.ndarray:
    """Walk as the notebooks do: a NumPy point, its proposal, and the density of both at every step."""
    rng = np.random.default_rng(1)
    point, points = start, np.empty((n_steps, len(start)))
    for t in range(n_steps):
        proposal = point + rng.uniform(-step, step, len(point))
        if rng.random() < density(*proposal) / density(*point):
            point = proposal
        points[t] = point
    return points


def compiled(source: str) -> Any:
    """Compile a cell as `%%pxcython` does and import it; None without Cython or a C compiler."""
    try:
        name = module_name(source, CythonFlags())
        return importer.load(name, build(name, source, CythonFlags()).binary, source)
    except PxMissing as error:
        print(f"(no compiled rows: {error})")
        return None


def run_of(density: Callable[..., Any], n_steps: int, tier: str = "python") -> Callable[[], Any]:
    """Return a whole pxtools run of one chain: plan, start, chunks, samples (no summary)."""
    target = sampling.resolve_target(density, density=True)
    plan = sampling.make_plan(
        target, initial=np.array([[0.5, 0.2]]), draws=n_steps, warmup=0, seed=1, sampler="rwm", step=0.1
    )
    target, notes = choose_tier(target, plan, tier)
    assert not notes, notes
    return lambda: sampling.sample_here(target, plan)


def calls_of(density: Callable[..., Any], n_steps: int) -> Callable[[], Any]:
    """Return the bare calls: a Python loop that only calls the density, at points of its walk."""
    rng = np.random.default_rng(1)
    points = (np.array([0.5, 0.2]) + rng.uniform(-0.1, 0.1, (n_steps, 2))).tolist()

    def call() -> None:
        for x, y in points:
            density(x, y)

    return call


def c_walk(walk: Callable[..., None], n_steps: int) -> Callable[[], Any]:
    """Return the walk of the C loop; its draws are those of pxtools, which is checked here."""

    def run() -> np.ndarray:
        draws = np.empty((n_steps, 2))
        walk(stream(1, 0), np.array([0.5, 0.2]), 0.1, draws, np.empty(n_steps))
        return draws

    return run


def twin_of(density: Callable[..., Any], n_steps: int) -> Callable[[], Any]:
    """Return a walk of the uncompiled loop."""
    box = np.array([[0.1, 0.1], [-np.inf] * 2, [np.inf] * 2, [0.0, 0.0]])

    def walk() -> None:
        rwm_numpy.walk(
            density,
            np.array([0.5, 0.2]),
            density(0.5, 0.2),
            n_steps,
            np.random.default_rng(1),
            box=box,
            is_density=True,
            is_scalar=True,
            first_kept=1,
            thin=1,
            draws=np.empty((n_steps, 2)),
            values=np.empty(n_steps),
            counts=np.zeros(3, dtype=np.int64),
            first_nan=np.empty(2),
        )

    return walk


def rows() -> list[tuple[str, int, Callable[[], Any]]]:
    """Name, steps, and what to time."""
    start = np.array([0.5, 0.2])
    listed = [
        ("notebook walker, np.exp on numbers", 4_000, lambda: notebook_walker(gaussian_scalar_np, start, 4_000)),
        ("notebook walker, math.exp", 6_000, lambda: notebook_walker(gaussian_math, start, 6_000)),
        ("pxtools, np.exp on 3-vectors", 10_000, run_of(gaussian_arrays, 10_000)),
        ("pxtools, np.exp on numbers", 40_000, run_of(gaussian_scalar_np, 40_000)),
        ("pxtools, vector argument, math.exp", 20_000, run_of(gaussian_vector, 20_000)),
        (PYTHON, 60_000, run_of(gaussian_math, 60_000)),
        (CALLS, 60_000, calls_of(gaussian_math, 60_000)),
        ("pxtools' twin loop, math.exp", 20_000, twin_of(gaussian_math, 20_000)),
    ]
    density, by_hand = compiled(CYTHON_SOURCE), compiled(C_SOURCE)
    if density is not None and by_hand is not None:
        typed, view = density.gaussian_cython, density.gaussian_view
        assert np.array_equal(run_of(typed, 1000, "auto")().draws[0], c_walk(by_hand.walk, 1000)())
        listed += [
            ("notebook walker, Cython density", 6_000, lambda: notebook_walker(typed, start, 6_000)),
            ("pxtools' twin loop, Cython density", 20_000, twin_of(typed, 20_000)),
            (CALLABLE, 1_000_000, run_of(typed, 1_000_000)),
            (TYPED, 1_000_000, run_of(typed, 1_000_000, "auto")),
            (VIEW, 1_000_000, run_of(view, 1_000_000, "auto")),
            (BY_HAND, 1_000_000, c_walk(by_hand.walk, 1_000_000)),
        ]
        if importlib.util.find_spec("numba") is not None:
            listed.append((NUMBA, 1_000_000, run_of(gaussian_math, 1_000_000, "numba")))
    return listed


BY_HAND = "the walk by hand in C"
CALLS, PYTHON = "bare calls, math.exp", "pxtools, math.exp"
TYPED, VIEW = "pxtools, typed Cython, C pointer", "pxtools, memoryview, C pointer"
NUMBA, CALLABLE = "pxtools, Numba", "pxtools, Cython called through Python"
#: row, what it is compared with, and the most that it may take of it
CLAIMS = (
    (TYPED, BY_HAND, 1.5),
    (VIEW, BY_HAND, 1.5),
    (NUMBA, BY_HAND, 1.5),
    (CALLABLE, BY_HAND, 2.0),
    (PYTHON, CALLS, 1.2),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    listed, times = rows(), {}
    for _ in range(parser.parse_args().rounds):
        for name, n_steps, work in listed:
            began = time.process_time()
            work()
            times.setdefault(name, []).append((time.process_time() - began) / n_steps)
    rival = min(times[listed[0][0]])
    print(
        f"Python {platform.python_version()}, NumPy {np.__version__}, loop {'compiled' if COMPILED else 'NOT compiled'}"
    )
    print(f"{'':38}{'ns/step':>10}{'median':>10}{'steps/s':>14}{'ratio':>9}")
    for name, _, _ in listed:
        best, median = min(times[name]), statistics.median(times[name])
        print(f"{name:38}{best * 1e9:10.0f}{median * 1e9:10.0f}{1 / best:14,.0f}{rival / best:9.1f}")
    for row, rival_row, most in CLAIMS:
        if row in times and rival_row in times:
            ratio = min(times[row]) / min(times[rival_row])
            print(f"{row}: {ratio:.2f} times {rival_row} ({'within' if ratio <= most else 'NOT within'} {most:g})")


if __name__ == "__main__":
    main()
