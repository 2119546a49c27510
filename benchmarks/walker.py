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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pxtools import sampling
from pxtools.kernels import rwm_numpy
from pxtools.kernels.rwm import COMPILED

CX, CY = np.array([0.5, 0.7, 0.3]), np.array([0.2, 0.7, 0.7])
WX, WY = np.array([0.15, 0.05, 0.05]), np.array([0.04, 0.05, 0.07])

CYTHON_SOURCE = """
# cython: language_level=3, cdivision=True
from libc.math cimport exp

def gaussian_cython(double x, double y):
    return (
        exp(-(((0.5 - x) / 0.15) ** 2 + ((0.2 - y) / 0.04) ** 2) / 2)
        + exp(-(((0.7 - x) / 0.05) ** 2 + ((0.7 - y) / 0.05) ** 2) / 2)
        + exp(-(((0.3 - x) / 0.05) ** 2 + ((0.7 - y) / 0.07) ** 2) / 2)
    )
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


def compiled_density() -> Callable[..., Any] | None:
    """Compile the density as a `%%cython` cell would; None without Cython or a C compiler."""
    folder = Path(tempfile.mkdtemp(prefix="pxtools-bench-"))
    (folder / "gaussians.pyx").write_text(CYTHON_SOURCE)
    build = [sys.executable, "-m", "Cython.Build.Cythonize", "-i", "-q", "-3", "gaussians.pyx"]
    done = subprocess.run(build, cwd=folder, capture_output=True, text=True, check=False)
    libraries = list(folder.glob("gaussians.*.so"))
    if done.returncode or not libraries:
        print(f"(no Cython row: {done.stderr.strip().splitlines()[-1:]})")
        return None
    spec = importlib.util.spec_from_file_location("gaussians", libraries[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.gaussian_cython


def run_of(density: Callable[..., Any], n_steps: int) -> Callable[[], Any]:
    """Return a whole pxtools run of one chain: plan, start, chunks, samples (no summary)."""
    target = sampling.resolve_target(density, density=True)
    plan = sampling.make_plan(target, initial=np.array([[0.5, 0.2]]), draws=n_steps, warmup=0, seed=1)
    return lambda: sampling.sample_here(target, plan)


def twin_of(density: Callable[..., Any], n_steps: int) -> Callable[[], Any]:
    """Return a walk of the uncompiled loop."""
    box = np.array([[0.1, 0.1], [-np.inf] * 2, [np.inf] * 2])

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
        ("pxtools, math.exp", 60_000, run_of(gaussian_math, 60_000)),
        ("pxtools' twin loop, math.exp", 20_000, twin_of(gaussian_math, 20_000)),
    ]
    compiled = compiled_density()
    if compiled is not None:
        listed += [
            ("notebook walker, Cython density", 6_000, lambda: notebook_walker(compiled, start, 6_000)),
            ("pxtools' twin loop, Cython density", 20_000, twin_of(compiled, 20_000)),
            ("pxtools, Cython density", 1_000_000, run_of(compiled, 1_000_000)),
        ]
    return listed


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


if __name__ == "__main__":
    main()
