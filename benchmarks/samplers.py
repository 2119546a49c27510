"""Samplers: what whole calls take, and effective draws per second next to five rivals.

Effective draws per second are those of two cores: the least effective sample size (bulk, over parameters), divided by
half the processor time that all processes of a sampler took, warm-up included, compilation not. pxtools runs the
unchanged Python function on two warm engines, for about a second. emcee (stretch moves; its best mix, differential
evolution and snooker) and zeus run one vectorised ensemble in each of two processes. PyMC and nutpie get the same
density as a model, and so its gradient: four chains on two cores. A `!` marks R-hat above 1.05: such a number means
nothing. Nanoseconds per step are in walker.py.

    make rivals                                                  (once: an environment with them, build/rivals)
    build/rivals/bin/python benchmarks/samplers.py [--only overhead rivals] [--rounds 3]
        [--problems banana funnel] [--rivals emcee nutpie]

Rivals that are not installed are left out, and a line says so. `--problems` takes targets by how their names begin.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before NumPy: two cores are two processes

import bias
import numpy as np
import psutil

from pxtools.sampling import diagnostics

gaussians = bias.three_gaussians


@dataclass(frozen=True)
class Problem:
    """A target for everybody: for us, for ensembles (points by rows), and as a PyMC model's potential."""

    name: str
    size: int
    ours: Callable[..., Any]
    rows: Callable[[np.ndarray], np.ndarray]
    model: Callable[[Any, Any], Any]
    is_density: bool = False
    draws: int = 50_000  # one in two steps
    steps: int = 2_500

    def starts(self, count: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        if self.size == 2 and self.is_density:
            return rng.random((count, 2))
        return (0.5 if self.size == 20 else 3.0) * rng.standard_normal((count, self.size))


CENTRES, WIDTHS = np.array([[0.5, 0.2], [0.7, 0.7], [0.3, 0.7]]), np.array([[0.15, 0.04], [0.05, 0.05], [0.05, 0.07]])
EFFECTS, ERRORS = np.array(bias.EFFECTS), np.array(bias.ERRORS)
COVARIATES = np.random.default_rng(1000).standard_normal((1000, 20))
CHANCES = 1 / (1 + np.exp(-COVARIATES @ np.sin(1.0 + 2.0 * np.arange(20))))
OUTCOMES = (np.random.default_rng(20).random(1000) < CHANCES).astype(float)
COLUMNS, GAIN = np.ascontiguousarray(COVARIATES.T), OUTCOMES @ COVARIATES


def logistic(p):
    value, eta = 0.0, np.zeros(1000)
    for j in range(20):
        value += GAIN[j] * p[j] - 0.5 * p[j] ** 2
        for i in range(1000):
            eta[i] += COLUMNS[j, i] * p[j]
    for i in range(1000):
        value -= max(eta[i], 0.0) + math.log1p(math.exp(-abs(eta[i])))
    return value


def gaussians_rows(p):
    return np.logaddexp.reduce(-0.5 * (((p[:, None] - CENTRES) / WIDTHS) ** 2).sum(2), axis=1)


def gaussians_model(p, pt):
    return pt.logsumexp(-0.5 * (((p - CENTRES) / WIDTHS) ** 2).sum(1))


def normal_rows(p):
    return -0.5 * (p[:, 0] ** 2 + ((p[:, 1:] - 0.9 * p[:, :-1]) ** 2).sum(1) / 0.19)


def normal_model(p, pt):
    return -0.5 * (p[0] ** 2 + ((p[1:] - 0.9 * p[:-1]) ** 2).sum() / 0.19)


def banana_rows(p):
    return -(100 * (p[:, 1] - p[:, 0] ** 2) ** 2 + (1 - p[:, 0]) ** 2) / 20


def banana_model(p, pt):
    return -(100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2) / 20


def funnel_rows(p):
    return -0.5 * (p[:, 0] / 3) ** 2 - 4.5 * p[:, 0] - 0.5 * np.exp(-p[:, 0]) * (p[:, 1:] ** 2).sum(1)


def funnel_model(p, pt):
    return -0.5 * (p[0] / 3) ** 2 - 4.5 * p[0] - 0.5 * pt.exp(-p[0]) * (p[1:] ** 2).sum()


def schools_rows(p):
    z, mu, tau = p[:, :8], p[:, 8:9], np.exp(p[:, 9:])
    prior = -0.5 * (mu[:, 0] / 5) ** 2 - np.log1p((tau[:, 0] / 5) ** 2) + p[:, 9] - 0.5 * (z**2).sum(1)
    return prior - 0.5 * (((EFFECTS - mu - tau * z) / ERRORS) ** 2).sum(1)


def schools_model(p, pt):
    tau = pt.exp(p[9])
    prior = -0.5 * (p[8] / 5) ** 2 - pt.log1p((tau / 5) ** 2) + p[9] - 0.5 * (p[:8] ** 2).sum()
    return prior - 0.5 * (((EFFECTS - p[8] - tau * p[:8]) / ERRORS) ** 2).sum()


def logistic_rows(p):
    return p @ GAIN - np.logaddexp(0.0, p @ COLUMNS).sum(1) - 0.5 * (p**2).sum(1)


def logistic_model(p, pt):
    return (p * GAIN).sum() - pt.softplus(pt.dot(COVARIATES, p)).sum() - 0.5 * (p**2).sum()


PROBLEMS = [
    Problem("three Gaussians", 2, gaussians, gaussians_rows, gaussians_model, is_density=True),
    Problem("normal, 10-D", 10, bias.normal_10, normal_rows, normal_model),
    Problem("banana", 2, bias.banana, banana_rows, banana_model),
    Problem("funnel, 10-D", 10, bias.funnel, funnel_rows, funnel_model),
    Problem("eight schools", 10, bias.eight_schools, schools_rows, schools_model),
    Problem("logistic 1000 x 20", 20, logistic, logistic_rows, logistic_model, draws=10_000, steps=1_000),
]


# --- effective draws per second --------------------------------------------------------------------------------------


def processor_seconds(pids: list[int]) -> float:
    """Return the processor time of these processes and of their children that have ended."""
    total = 0.0
    for pid in pids:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def worth(draws: np.ndarray, seconds: float) -> tuple[float, float]:
    """Return effective draws per second of two cores, and R-hat."""
    return 2 * float(np.min(diagnostics.ess_bulk(draws))) / seconds, float(np.max(diagnostics.rhat(draws)))


def of_pxtools(problem: Problem, rounds: int, session: Any) -> tuple[float, float]:
    from pxtools.session.sampling import sample

    pids = [os.getpid(), *session.client[:].apply_sync(os.getpid)]
    ess, rhats, seconds = 0.0, [], 0.0
    for seed in range(rounds + 1):  # the first one compiles on the engines
        options = {"density": problem.is_density, "initial": problem.starts(8, seed), "tier": "numba"}
        before = processor_seconds(pids)
        samples = sample(session, problem.ours, draws=problem.draws, thin=2, seed=seed, **options)
        if seed:
            seconds += processor_seconds(pids) - before
            ess += float(np.min(diagnostics.ess_bulk(samples.draws)))
            rhats.append(float(np.max(diagnostics.rhat(samples.draws))))
    return 2 * ess / seconds, max(rhats)


def ensemble(rival: str, number: int, seed: int) -> tuple[np.ndarray, float]:
    """Run one ensemble of emcee or zeus in this process; return (walker, draw, parameter) and processor seconds."""
    problem = PROBLEMS[number]
    np.random.seed(seed)  # noqa: NPY002  both use the legacy generator
    starts = problem.starts(max(32, 3 * problem.size), 100 + seed)
    began = time.process_time()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if rival == "zeus":
            import zeus

            sampler = zeus.EnsembleSampler(*starts.shape, problem.rows, vectorize=True, verbose=False)
            steps = problem.steps // 5
            sampler.run_mcmc(starts, steps, progress=False)
        else:
            import emcee

            best = [(emcee.moves.DEMove(), 0.8), (emcee.moves.DESnookerMove(), 0.2)]
            moves, steps = best if rival == "emcee DE" else None, problem.steps
            sampler = emcee.EnsembleSampler(*starts.shape, problem.rows, moves=moves, vectorize=True)
            sampler.run_mcmc(starts, steps, skip_initial_state_check=True)
    seconds = time.process_time() - began
    return sampler.get_chain()[steps // 4 :].swapaxes(0, 1), seconds


def of_ensemble(rival: str, problem: Problem, pool: ProcessPoolExecutor) -> tuple[float, float]:
    runs = [pool.submit(ensemble, rival, PROBLEMS.index(problem), seed) for seed in range(2)]
    both = [run.result() for run in runs]
    return worth(np.concatenate([draws for draws, _ in both]), sum(seconds for _, seconds in both))


def model_of(problem: Problem) -> Any:
    import pymc as pm
    import pytensor.tensor as pt

    with pm.Model() as model:
        p = pm.Flat("p", shape=problem.size, initval=problem.starts(1, 7)[0])
        pm.Potential("log_density", problem.model(p, pt))
    return model


def of_pymc(problem: Problem) -> tuple[float, float]:
    import pymc as pm

    options = {"chains": 4, "cores": 2, "progressbar": False, "compute_convergence_checks": False, "random_seed": 1}
    model, took = model_of(problem), {}
    for tune, draws in ((1, 1), (1_000, 2_000)):  # the first one is what compiling and starting takes
        before = processor_seconds([os.getpid()])
        found = pm.sample(draws=draws, tune=tune, model=model, **options)
        took[draws] = processor_seconds([os.getpid()]) - before
    return worth(found.posterior["p"].values, max(took[2_000] - took[1], 0.01))


def of_nutpie(problem: Problem) -> tuple[float, float]:
    import nutpie

    compiled = nutpie.compile_pymc_model(model_of(problem))
    options = {"chains": 4, "cores": 2, "progress_bar": False, "seed": 1}
    nutpie.sample(compiled, draws=5, tune=5, **options)
    before = processor_seconds([os.getpid()])
    found = nutpie.sample(compiled, draws=5_000, tune=1_000, **options)
    return worth(found.posterior["p"].values, processor_seconds([os.getpid()]) - before)


#: what each rival needs; and those that get a model
MODULES = {"emcee": "emcee", "emcee DE": "emcee", "zeus": "zeus", "PyMC": "pymc", "nutpie": "nutpie"}
MODELS = {"PyMC": of_pymc, "nutpie": of_nutpie}


def effective(rounds: int, session: Any, rivals: list[str], problems: list[Problem]) -> None:
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    columns: dict[str, Callable[[Problem], tuple[float, float]]] = {
        "pxtools": lambda problem: of_pxtools(problem, rounds, session)
    }
    for name in rivals:
        module = MODULES[name]
        if importlib.util.find_spec(module) is None:
            print(f"{module} is not installed: left out (make rivals)")
        elif name in MODELS:
            columns[name] = MODELS[name]
        else:
            columns[name] = lambda problem, name=name: of_ensemble(name, problem, pool)
    print(f"\n{'least ESS per second, 2 cores':30}" + "".join(f"{name:>11} " for name in columns) + "ours / best rival")
    for problem in problems:
        print(f"{problem.name:30}", end="", flush=True)
        found = []
        for run in columns.values():
            rate, rhat = run(problem)
            found.append((rate, rhat))
            print(f"{rate:11,.0f}{'!' if rhat > 1.05 else ' '}", end="", flush=True)
        valid = [rate for rate, rhat in found[1:] if rhat <= 1.05]
        ratio = f"{found[0][0] / max(valid):.2f}" if valid else "no rival is right"
        print(f"{ratio if found[0][1] <= 1.05 else 'ours is not right':>18}", flush=True)
    pool.shutdown()


# --- overhead --------------------------------------------------------------------------------------------------------


def overhead(rounds: int, session: Any) -> None:
    """Wall time of whole calls on warm engines, from the call to the draws in this process."""
    from pxtools.session.sampling import sample

    wide = {"density": True, "bounds": (0, 1)}
    rows = [
        ("rwm, 10 chains x 1,000 steps, Python", {"sampler": "rwm", "chains": 10, "draws": 900, "tier": "python"}),
        ("rwm, 10 chains x 1,000 steps, Numba", {"sampler": "rwm", "chains": 10, "draws": 900, "tier": "numba"}),
        ("auto, 8 chains x 25,000 draws, Numba", {"chains": 8, "draws": 25_000, "tier": "numba"}),
        ("ram, 8 chains x 25,000 draws, Numba", {"sampler": "ram", "chains": 8, "draws": 25_000, "tier": "numba"}),
    ]
    print(f"\n{'whole calls on two warm engines':40}{'ms, best':>10}{'median':>10}{'least ESS':>12}")
    for name, options in rows:
        times = []
        for seed in range(2 * rounds + 2):
            began = time.perf_counter()
            samples = sample(session, gaussians, seed=seed, **wide, **options)
            times.append(1e3 * (time.perf_counter() - began))
        ess = float(np.min(diagnostics.ess_bulk(samples.draws)))
        print(f"{name:40}{min(times[1:]):10.0f}{float(np.median(times[1:])):10.0f}{ess:12,.0f}", flush=True)


PARTS = ["overhead", "rivals"]


def main() -> None:
    import pxtools

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rivals", nargs="*", choices=MODULES, default=list(MODULES), metavar="NAME")
    parser.add_argument("--problems", nargs="*", default=[""], metavar="NAME", help="targets, by how they begin")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="parts to run")
    arguments = parser.parse_args()
    rounds, problems = arguments.rounds, [p for p in PROBLEMS if p.name.startswith(tuple(arguments.problems))]
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    session = pxtools.current_session()
    session.start(2)
    if "overhead" in arguments.only:
        overhead(rounds, session)
    if "rivals" in arguments.only:
        effective(rounds, session, arguments.rivals, problems)
    session.disconnect()


if __name__ == "__main__":
    main()
