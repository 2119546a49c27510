"""Kalman filters against each other, in one process, in CPU time.

    make kalman-rivals
    build/kalman-rivals/bin/python benchmarks/kalman.py [--quick] [--only series|fits]

Every row is the least of several runs, in microseconds per step, with the rival's answer beside ours: a fast wrong
answer does not count. Set OPENBLAS_NUM_THREADS=1 (done here before NumPy is imported) so that CPU time is one core's.
Rivals that are not installed are left out and named.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from pxtools.kalman import (
    FreeModel,
    StateSpaceModel,
    arima,
    filter_series,
    fit_model,
    free,
    local_level,
    local_linear_trend,
    log_likelihood,
    seasonal,
    simulate,
)

warnings.simplefilter("ignore")


class Run(NamedTuple):
    """One library's way of doing one case."""

    library: str
    call: Callable[[], Any]
    log_likelihood: Callable[[Any], float | None]
    runs: int


class Case(NamedTuple):
    """A model with its observations, and the ratios to reach against named rivals."""

    name: str
    model: StateSpaceModel
    y: np.ndarray
    smooth: bool
    goals: dict[str, float]


def constant_velocity() -> StateSpaceModel:
    """Four states, two observations."""
    F = np.eye(4)
    F[0, 2] = F[1, 3] = 1.0
    Q = 0.01 * np.array([[1 / 3, 0, 0.5, 0], [0, 1 / 3, 0, 0.5], [0.5, 0, 1, 0], [0, 0.5, 0, 1]])
    return StateSpaceModel(F, np.eye(2, 4), Q, 0.5 * np.eye(2), initial_mean=np.zeros(4), initial_cov=10 * np.eye(4))


def large(n: int = 50, m: int = 20) -> StateSpaceModel:
    """Fifty states, twenty observations, all matrices dense."""
    rng = np.random.default_rng(3)
    A = rng.normal(size=(n, n))
    F = 0.95 * A / np.abs(np.linalg.eigvals(A)).max()
    return StateSpaceModel(
        F,
        rng.normal(size=(m, n)),
        0.1 * np.eye(n),
        np.eye(m),
        initial_mean=np.zeros(n),
        initial_cov=np.eye(n),
    )


def cases(quick: bool) -> Iterator[Case]:
    """Yield the cases of the issue."""
    small, big = constant_velocity(), large()
    level = StateSpaceModel([[1]], [[1]], [[1469.1]], [[15099]], initial_mean=[1000], initial_cov=[[1e6]])
    short = simulate(level, 100, seed=5).observations[0]
    goal = {"statsmodels tolerance=0": 10}
    yield Case("1 state, a short series: filter", level, short, False, goal)
    yield Case("1 state, a short series: filter and smoother", level, short, True, goal)
    y = simulate(small, 2_000 if quick else 10_000, seed=42).observations[0]
    gaps = y.copy()
    gaps[np.random.default_rng(1).random(len(y)) < 0.1] = np.nan
    elements = y.copy()
    elements[np.random.default_rng(2).random(y.shape) < 0.1] = np.nan
    yield Case("4 states, 2 observations: filter", small, y, False, {"statsmodels tolerance=0": 20})
    yield Case("4 states, 2 observations: filter and smoother", small, y, True, {"statsmodels tolerance=0": 12})
    yield Case("  with 10% of the rows missing: filter", small, gaps, False, {})
    yield Case("  with 10% of the rows missing: filter and smoother", small, gaps, True, {})
    yield Case("  with 10% of the elements missing: filter", small, elements, False, {})
    yield Case("  with 10% of the elements missing: filter and smoother", small, elements, True, {})
    rows = simulate(big, 300 if quick else 3_000, seed=4).observations[0]
    yield Case("50 states, 20 observations: filter", big, rows, False, {"statsmodels": 4})
    holes = rows.copy()
    holes[np.random.default_rng(3).random(len(rows)) < 0.1] = np.nan
    yield Case("  with 10% of the rows missing: filter", big, holes, False, {})


def ours(case: Case) -> Iterator[Run]:
    """Yield our own ways."""
    for name, steady in (("pxtools", True), ("pxtools, no steady state", False)):

        def call(steady: bool = steady) -> Any:
            result = filter_series(case.model, case.y, steady=steady)
            return (result, result.smoothed) if case.smooth else (result, None)

        yield Run(name, call, lambda out: out[0].log_likelihood, 9)


def statsmodels_runs(case: Case) -> Iterator[Run]:
    """Yield statsmodels with its steady state switched off, and as it comes."""
    from statsmodels.tsa.statespace.mlemodel import MLEModel

    for name, tolerance in (("statsmodels tolerance=0", 0.0), ("statsmodels", None)):
        ssm = MLEModel(case.y, k_states=case.model.n_states).ssm
        model = case.model
        ssm["transition"], ssm["design"] = model.transition_matrix, model.observation_matrix
        ssm["state_cov"], ssm["obs_cov"] = model.process_cov, model.observation_cov
        ssm["selection"] = np.eye(model.n_states)
        ssm.initialize_known(np.array(model.initial_mean), np.array(model.initial_cov))
        if tolerance is not None:
            ssm.tolerance = tolerance
        yield Run(name, ssm.smooth if case.smooth else ssm.filter, lambda out: out.llf, 3)


def filterpy_runs(case: Case) -> Iterator[Run]:
    """Yield filterpy, which drops a row with any element missing."""
    from filterpy.kalman import KalmanFilter

    model = case.model

    def call() -> Any:
        kf = KalmanFilter(dim_x=model.n_states, dim_z=model.n_obs)
        kf.F, kf.H, kf.Q, kf.R = (np.array(model.parts[letter][0]) for letter in "FHQR")
        kf.x, kf.P = np.zeros((model.n_states, 1)), np.array(model.initial_cov)
        total = 0.0
        for row in case.y:
            here = not np.isnan(row).any()
            kf.update(row[:, None] if here else None)
            total += kf.log_likelihood if here else 0.0
            kf.predict()
        return total

    if not case.smooth:
        yield Run("filterpy", call, float, 1)


def pykalman_runs(case: Case) -> Iterator[Run]:
    """Yield pykalman, which drops a row with any element missing."""
    from pykalman import KalmanFilter

    model = case.model
    kf = KalmanFilter(
        *(np.array(model.parts[letter][0]) for letter in "FHQR"),
        initial_state_mean=np.array(model.initial_mean),
        initial_state_covariance=np.array(model.initial_cov),
    )
    y = np.ma.masked_invalid(case.y)
    yield Run("pykalman", lambda: (kf.smooth if case.smooth else kf.filter)(y), lambda out: None, 1)


def simdkalman_runs(case: Case) -> Iterator[Run]:
    """Yield simdkalman, whose log-likelihood lacks its 2 pi."""
    import simdkalman

    model = case.model
    kf = simdkalman.KalmanFilter(
        model.transition_matrix, model.process_cov, model.observation_matrix, model.observation_cov
    )
    start = {"initial_value": np.array(model.initial_mean), "initial_covariance": np.array(model.initial_cov)}
    options = {"filtered": True, "smoothed": case.smooth, "log_likelihood": True}
    yield Run("simdkalman", lambda: kf.compute(case.y[None], 0, **options, **start), lambda out: None, 1)


def dynamax_runs(case: Case) -> Iterator[Run]:
    """Yield dynamax, compiled beforehand; it has no missing values."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from dynamax.linear_gaussian_ssm import LinearGaussianSSM, lgssm_filter, lgssm_smoother

    model = case.model
    if np.isnan(case.y).any():
        return
    shell = LinearGaussianSSM(model.n_states, model.n_obs)
    params, _ = shell.initialize(
        jax.random.PRNGKey(0),
        initial_mean=jnp.array(model.initial_mean),
        initial_covariance=jnp.array(model.initial_cov),
        dynamics_weights=jnp.array(model.transition_matrix),
        dynamics_covariance=jnp.array(model.process_cov),
        emission_weights=jnp.array(model.observation_matrix),
        emission_covariance=jnp.array(model.observation_cov),
    )
    compiled = jax.jit(lgssm_smoother if case.smooth else lgssm_filter)
    y = jnp.array(case.y)
    jax.block_until_ready(compiled(params, y))
    yield Run(
        "dynamax",
        lambda: jax.block_until_ready(compiled(params, y)),
        lambda out: float(out.marginal_loglik),
        3,
    )


RIVALS = (statsmodels_runs, filterpy_runs, pykalman_runs, simdkalman_runs, dynamax_runs)


def least_cpu_time(run: Run, n_steps: int) -> tuple[float, Any]:
    """Return the least CPU time in seconds, of more runs for short series, and the last answer."""
    best, out = np.inf, None
    for _ in range(run.runs * (1 + 1000 // n_steps)):
        start = time.process_time()
        out = run.call()
        best = min(best, time.process_time() - start)
    return best, out


def report(case: Case, absent: set[str]) -> bool:
    """Print one case, return whether all its goals are reached."""
    print(f"\n{case.name} ({len(case.y)} steps)")
    runs = list(ours(case))
    for rival in RIVALS:
        try:
            runs += rival(case)
        except ImportError as error:
            absent.add(str(error.name))
    base, reached = 0.0, True
    for run in runs:
        seconds, out = least_cpu_time(run, len(case.y))
        base = base or seconds
        value = run.log_likelihood(out)
        told = f"{value:18.6f}" if value is not None else " " * 18
        ratio, goal = seconds / base, case.goals.get(run.library)
        verdict = "" if goal is None else f"   goal {goal:g}x: {'reached' if ratio >= goal else 'MISSED'}"
        reached = reached and (goal is None or ratio >= goal)
        print(f"  {run.library:<28}{1e6 * seconds / len(case.y):10.3f} us/step {ratio:9.1f}x{told}{verdict}")
    return reached


#: the ratio to statsmodels' time that a fit is to reach
FIT_GOAL = 10


class Fitting(NamedTuple):
    """A model with free parameters, the series, and statsmodels' model of it."""

    name: str
    model: FreeModel
    y: np.ndarray
    theirs: Any


def fittings(quick: bool) -> Iterator[Fitting]:
    """Yield random walks with noise, a trend with a season, an autoregression, the airline model."""
    from statsmodels.tsa.api import SARIMAX, UnobservedComponents

    variance = free(positive=True)
    level = FreeModel(
        lambda level_var, noise_var: local_level(level_var, observation_var=noise_var),
        {"level_var": variance, "noise_var": variance},
    )
    for n_steps in (100, 1_000, 2_000 if quick else 10_000):
        y = simulate(local_level(1.0, observation_var=10.0), n_steps, seed=6).observations[0][:, 0]
        theirs = UnobservedComponents(y, "llevel", use_exact_diffuse=True)
        yield Fitting(f"random walk with noise, {n_steps} steps", level, y, theirs)
    months = simulate(local_linear_trend(0.1, 0.01, observation_var=1.0) + seasonal(12, 0.1), 240, seed=2)
    y = months.observations[0][:, 0]
    structural = FreeModel(
        lambda a, b, c, d: local_linear_trend(a, b, observation_var=d) + seasonal(12, c),
        dict.fromkeys("abcd", variance),
    )
    theirs = UnobservedComponents(y, "lltrend", seasonal=12, use_exact_diffuse=True)
    yield Fitting("trend and season of 12 months, 240 steps", structural, y, theirs)
    y = simulate(arima([0.6, 0.2]), 1_000, seed=3).observations[0][:, 0]
    auto = FreeModel(
        lambda a, b, var: arima([a, b], var=var),
        {"a": free(0.1, lower=-2, upper=2), "b": free(0.0, lower=-1, upper=1), "var": variance},
    )
    yield Fitting("AR(2), 1,000 steps", auto, y, SARIMAX(y, order=(2, 0, 0)))
    options = {"d": 1, "period": 12, "seasonal_d": 1}
    y = simulate(arima([], [-0.4], seasonal_ma=[-0.6], **options), 160, seed=7).observations[0][16:, 0]
    between = {"lower": -1, "upper": 1}
    airline = FreeModel(
        lambda q, Q, var: arima([], [q], var, seasonal_ma=[Q], **options),
        {"q": free(-0.3, **between), "Q": free(-0.3, **between), "var": variance},
    )
    theirs = SARIMAX(y, order=(0, 1, 1), seasonal_order=(0, 1, 1, 12), use_exact_diffuse=True)
    yield Fitting("airline model, 144 steps", airline, y, theirs)


def report_fits(quick: bool) -> bool:
    """Print the CPU time of maximum likelihood fits, statsmodels' beside ours, and of a log-likelihood alone."""
    from statsmodels.tsa.api import UnobservedComponents

    reached = True
    print("\nfits by maximum likelihood, with standard errors")
    for case in fittings(quick):
        runs = (
            Run("pxtools", lambda case=case: fit_model(case.model, case.y), lambda fit: fit.log_likelihood, 9),
            Run("statsmodels", lambda case=case: case.theirs.fit(disp=0, maxiter=200), lambda fit: fit.llf, 3),
        )
        (ours_s, fit), (theirs_s, theirs) = (least_cpu_time(run, 2_000) for run in runs)
        ratio = theirs_s / ours_s
        verdict = f"   goal {FIT_GOAL:g}x: {'reached' if ratio >= FIT_GOAL else 'MISSED'}"
        reached = reached and ratio >= FIT_GOAL
        print(f"  {case.name}")
        print(f"    pxtools     {1e3 * ours_s:9.2f} ms {'':9} {fit.log_likelihood:18.6f}{verdict}")
        print(f"    statsmodels {1e3 * theirs_s:9.2f} ms {ratio:8.1f}x {theirs.llf:18.6f}")
    level = local_level(1469.1, observation_var=15099.0)
    y = simulate(level, 100, seed=6).observations[0][:, 0]
    theirs = UnobservedComponents(y, "llevel", use_exact_diffuse=True)
    runs = (
        Run("pxtools", lambda: log_likelihood(level, y), float, 200),
        Run("statsmodels", lambda: theirs.loglike([15099.0, 1469.1]), float, 200),
    )
    (ours_s, ours), (theirs_s, llf) = (least_cpu_time(run, 2_000) for run in runs)
    print("\nlog-likelihood of a reused model of one state, 100 steps")
    print(f"    pxtools     {1e6 * ours_s:9.1f} us {'':9} {ours:18.6f}")
    print(f"    statsmodels {1e6 * theirs_s:9.1f} us {theirs_s / ours_s:8.1f}x {llf:18.6f}")
    return reached


def main() -> int:
    """Run all cases; the exit code is 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter series")
    parser.add_argument("--only", choices=("series", "fits"), help="one half of the run")
    options = parser.parse_args()
    absent: set[str] = set()
    reached = [report(case, absent) for case in cases(options.quick)] if options.only != "fits" else []
    if options.only != "series":
        reached.append(report_fits(options.quick))
    if absent:
        print(f"\nnot installed, hence left out: {', '.join(sorted(absent))}")
    return 0 if all(reached) else 1


if __name__ == "__main__":
    raise SystemExit(main())
