"""Samplers: nanoseconds per step next to a C loop, and effective draws per second next to emcee and zeus.

Speed per core counts processor time of one process; the C loop is written and compiled here, with the same walk on the
same target. Effective draws count wall time on two engines for pxtools (warm, warm-up of the chains included), and of
one process for the rivals, whose vectorised ensembles have their best moves; their rate is therefore shown doubled,
as if two processes cost nothing.

    python benchmarks/samplers.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import ctypes
import math
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pxtools import sampling
from pxtools.sampling import diagnostics
from pxtools.sampling.numba_tier import choose_tier

C_SOURCE = """
#include <math.h>
#include <stdint.h>
static uint64_t s[4] = {1, 2, 3, 4};
static inline uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
static inline double uniform(void) {
    uint64_t result = s[0] + s[3], t = s[1] << 17;
    s[2] ^= s[0]; s[3] ^= s[1]; s[1] ^= s[2]; s[0] ^= s[3]; s[2] ^= t; s[3] = rotl(s[3], 45);
    return (result >> 11) * 0x1p-53;
}
static double term(double x, double y, double a, double b, double u, double v) {
    double p = (a - x) / u, q = (b - y) / v;
    return exp(-(p * p + q * q) / 2);
}
static double density(double x, double y) {
    return term(x, y, .5, .2, .15, .04) + term(x, y, .7, .7, .05, .05) + term(x, y, .3, .7, .05, .07);
}
void walk(double* x, long n, double* out) {
    double old = density(x[0], x[1]);
    for (long t = 0; t < n; t++) {
        double a = x[0] + .1 * (2 * uniform() - 1), b = x[1] + .1 * (2 * uniform() - 1), u = uniform();
        double new = density(a, b);
        if (u * old < new) { x[0] = a; x[1] = b; old = new; }
        out[2 * t] = x[0]; out[2 * t + 1] = x[1];
    }
}
"""


def gaussians(x, y):
    return (
        math.exp(-(((0.5 - x) / 0.15) ** 2 + ((0.2 - y) / 0.04) ** 2) / 2)
        + math.exp(-(((0.7 - x) / 0.05) ** 2 + ((0.7 - y) / 0.05) ** 2) / 2)
        + math.exp(-(((0.3 - x) / 0.05) ** 2 + ((0.7 - y) / 0.07) ** 2) / 2)
    )


def gaussians_vec(p):
    x, y = p[:, 0], p[:, 1]
    with np.errstate(divide="ignore"):
        return np.log(
            np.exp(-(((0.5 - x) / 0.15) ** 2 + ((0.2 - y) / 0.04) ** 2) / 2)
            + np.exp(-(((0.7 - x) / 0.05) ** 2 + ((0.7 - y) / 0.05) ** 2) / 2)
            + np.exp(-(((0.3 - x) / 0.05) ** 2 + ((0.7 - y) / 0.07) ** 2) / 2)
        )


def normal10(p):
    total = p[0] ** 2
    for i in range(1, 10):
        total += (p[i] - 0.9 * p[i - 1]) ** 2 / 0.19
    return -0.5 * total


def normal10_vec(p):
    return -0.5 * (p[:, 0] ** 2 + ((p[:, 1:] - 0.9 * p[:, :-1]) ** 2).sum(1) / 0.19)


def banana(x, y):
    return -(100 * (y - x * x) ** 2 + (1 - x) ** 2) / 20


def banana_vec(p):
    return -(100 * (p[:, 1] - p[:, 0] ** 2) ** 2 + (1 - p[:, 0]) ** 2) / 20


def processor_time(work: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def c_loop() -> Callable[[int], None]:
    folder = Path(tempfile.mkdtemp(prefix="pxtools-bench-"))
    (folder / "walk.c").write_text(C_SOURCE)
    build = ["cc", "-O3", "-march=native", "-shared", "-fPIC", "walk.c", "-o", "walk.so", "-lm"]
    subprocess.run(build, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "walk.so"))

    def walk(n: int) -> None:
        x, out = np.array([0.5, 0.2]), np.empty((n, 2))
        library.walk(x.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(n), out.ctypes.data_as(ctypes.c_void_p))

    return walk


def walker(tier: str, sampler: str, n: int) -> Callable[[], Any]:
    target = sampling.resolve_target(gaussians, density=True)
    options = {"initial": np.array([[0.5, 0.2]]), "draws": n, "warmup": 0, "seed": 1}
    plan = sampling.make_plan(target, sampler=sampler, **options)
    target, _ = choose_tier(target, plan, tier)
    target.caller  # noqa: B018  compiles, once
    state = sampling.start_groups(plan)[0]
    return lambda: sampling.advance(target, state, n)


def speed(rounds: int) -> None:
    n, few = 1_000_000, 100_000
    in_c = c_loop()
    floor = processor_time(lambda: in_c(n), rounds) / n
    rows = [("C loop, hand-written", floor)]
    rows.append(("pxtools rwm, Numba target", processor_time(walker("numba", "rwm", n), rounds) / n))
    rows.append(("pxtools auto, Numba target", processor_time(walker("numba", "auto", n), rounds) / n))
    bare = processor_time(lambda: [gaussians(0.5, 0.2) for _ in range(few)], rounds) / few
    rows.append(("bare Python calls", bare))
    rows.append(("pxtools rwm, Python target", processor_time(walker("python", "rwm", few), rounds) / few))
    print(f"{'per step, one core':34}{'ns':>8}{'/ C':>8}{'/ bare':>8}")
    for name, seconds in rows:
        print(f"{name:34}{seconds * 1e9:8.0f}{seconds / floor:8.2f}{seconds / bare:8.2f}")


def least_ess(draws: np.ndarray) -> tuple[float, float]:
    return float(np.min(diagnostics.ess_bulk(draws))), float(np.max(diagnostics.rhat(draws)))


def ours(session: Any, function: Any, starts: np.ndarray, density: bool, rounds: int) -> tuple[float, float]:
    from pxtools.session.sampling import sample

    best, worst = 0.0, 0.0
    for seed in range(rounds + 1):  # the first one compiles on the engines
        options = {"density": density, "initial": starts, "tier": "numba", "draws": 50_000, "seed": seed}
        samples = sample(session, function, **options)
        ess, rhat = least_ess(samples.draws)
        if seed:
            best, worst = max(best, ess / samples.seconds), max(worst, rhat)
    return best, worst


def of_emcee(function: Any, starts: np.ndarray, n: int) -> tuple[float, float]:
    import emcee

    moves = [(emcee.moves.DEMove(), 0.8), (emcee.moves.DESnookerMove(), 0.2)]
    began = time.perf_counter()
    sampler = emcee.EnsembleSampler(*starts.shape, function, moves=moves, vectorize=True)
    sampler.run_mcmc(starts, n, skip_initial_state_check=True)
    took = time.perf_counter() - began
    ess, rhat = least_ess(sampler.get_chain()[n // 4 :].swapaxes(0, 1))
    return 2 * ess / took, rhat


def of_zeus(function: Any, starts: np.ndarray, n: int) -> tuple[float, float]:
    import zeus

    began = time.perf_counter()
    sampler = zeus.EnsembleSampler(*starts.shape, function, vectorize=True, verbose=False)
    sampler.run_mcmc(starts, n // 5, progress=False)
    took = time.perf_counter() - began
    ess, rhat = least_ess(sampler.get_chain()[n // 20 :].swapaxes(0, 1))
    return 2 * ess / took, rhat


def effective(rounds: int) -> None:
    import pxtools

    session = pxtools.current_session()
    session.start(2)
    rng = np.random.default_rng(0)
    targets = [
        ("three Gaussians", gaussians, gaussians_vec, True, lambda n: rng.random((n, 2))),
        ("normal, 10-D", normal10, normal10_vec, False, lambda n: 3 * rng.standard_normal((n, 10))),
        ("banana", banana, banana_vec, False, lambda n: 3 * rng.standard_normal((n, 2))),
    ]
    print(f"\n{'least ESS per second, wall':28}{'pxtools':>12}{'emcee DE':>12}{'zeus':>12}   (!: R-hat above 1.05)")
    for name, function, vectorised, density, starts in targets:
        row = [ours(session, function, starts(8), density, rounds)]
        for rival in (of_emcee, of_zeus):
            try:
                row.append(rival(vectorised, starts(32), 4_000))
            except ImportError:
                row.append((math.nan, math.nan))
        print(f"{name:28}" + "".join(f"{rate:11,.0f}{'!' if rhat > 1.05 else ' '}" for rate, rhat in row), flush=True)
    session.disconnect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    speed(rounds)
    effective(rounds)


if __name__ == "__main__":
    main()
