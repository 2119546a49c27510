"""Many series at once against each other, in one run: `python benchmarks/kalman_fleet.py [--quick] [--no-engines]`.

`--long` measures one long series cut in time instead, `--file 3` a file of three gigabytes.

Times are CPU time, the least of several runs, in nanoseconds a series and step; the rivals' answers are compared with
ours. One thread each. Rivals that are not installed are left out and named.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import argparse
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pxtools.kalman import StateSpaceModel, log_likelihood, simulate
from pxtools.kalman.batch import run_fleet
from pxtools.kalman.uncorrelated import run_sums

warnings.simplefilter("ignore")

MEANS = ("log_likelihood", "filtered_mean")


def constant_velocity() -> StateSpaceModel:
    """Four states, two observations."""
    F = np.eye(4)
    F[0, 2] = F[1, 3] = 1.0
    Q = 0.01 * np.array([[1 / 3, 0, 0.5, 0], [0, 1 / 3, 0, 0.5], [0.5, 0, 1, 0], [0, 0.5, 0, 1]])
    return StateSpaceModel(F, np.eye(2, 4), Q, 0.5 * np.eye(2), initial_mean=np.zeros(4), initial_cov=10 * np.eye(4))


def least(call: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Return the least CPU seconds of several calls, and the last answer."""
    best, answer = np.inf, None
    for _ in range(runs):
        began = time.process_time()
        answer = call()
        best = min(best, time.process_time() - began)
    return best, answer


def row(name: str, seconds: float, n: int, rival_s: float | None = None, note: str = "") -> None:
    ratio = "" if rival_s is None else f"{rival_s / seconds:8.1f}x"
    print(f"{name:<64}{1e9 * seconds / n:10.2f} ns {ratio:>9}  {note}")


def batch(quick: bool) -> None:
    """1,000 series, 1,000 steps, 4 states: means and log-likelihood."""
    n_series, n_steps = (200, 500) if quick else (1_000, 1_000)
    model = constant_velocity()
    whole = np.ascontiguousarray(simulate(model, n_steps, n_draws=n_series, seed=1).observations)
    gaps, rows = whole.copy(), whole.copy()
    rng = np.random.default_rng(2)
    gaps[rng.random(whole.shape) < 0.1] = np.nan
    rows[rng.random(whole.shape[:2]) < 0.1] = np.nan
    size = n_series * n_steps
    print(f"{n_series:,} series x {n_steps:,} steps x 4 states, 2 observed; nanoseconds a series and step")
    for name, y, rival_y in (
        ("complete series: gains once", whole, whole),
        ("own missing rows", rows, rows),
        ("own missing elements", gaps, None),
    ):
        rival_s, answer = simdkalman_run(model, rival_y) if rival_y is not None else (None, None)
        ours_s, ours = least(lambda y=y: run_fleet(model, y, MEANS), 7)
        if rival_s is not None:
            row(f"simdkalman compute, {name}", rival_s, size)
            apart = np.abs(ours.arrays["filtered_mean"] - answer).max()
            row(f"pxtools, {name}", ours_s, size, rival_s, f"means differ {apart:.1e}")
        else:
            row(f"pxtools, {name}", ours_s, size)
    for name, names in (
        ("log-likelihood alone", ("log_likelihood",)),
        ("means and covariances", ("filtered_mean", "filtered_cov")),
        ("smoothed means", ("smoothed_mean",)),
        ("smoothed means and covariances", ("smoothed_mean", "smoothed_cov")),
        ("sums for EM", ("log_likelihood", "statistics")),
    ):
        row(f"pxtools, own missing elements: {name}", least(lambda n=names: run_fleet(model, gaps, n), 3)[0], size)
    from pxtools.kalman.forms import FORMS
    from pxtools.kalman.system import system_of

    # its loop over series alone, without the choice and the bookkeeping for each
    code_s, _ = least(lambda: FORMS["generated"](system_of(model, n_series, n_steps), gaps, False), 3)
    row("generated code over the same, one series after another", code_s, size)
    correlated = model.replace(observation_cov=[[0.5, 0.2], [0.2, 0.5]])
    for name, y in (("rows", rows), ("elements", gaps)):
        seconds = least(lambda y=y: run_sums(correlated, y), 3)[0]
        row(f"pxtools, own missing {name}, correlated noises: sums for EM", seconds, size)
    models = [model.replace(observation_cov=(0.5 + 0.001 * k) * np.eye(2)) for k in range(n_series)]
    row("pxtools, a model for each series", least(lambda: run_fleet(models, gaps, MEANS), 3)[0], size)
    dynamax_run(model, whole, size)


def simdkalman_run(model: StateSpaceModel, y: np.ndarray) -> tuple[float | None, Any]:
    try:
        import simdkalman
    except ImportError:
        print("simdkalman is not installed: pip install simdkalman")
        return None, None
    F, H, Q, R = (np.array(model.parts[letter][0]) for letter in "FHQR")
    kf = simdkalman.KalmanFilter(F, Q, H, R)

    def call() -> Any:
        start = {"initial_value": np.zeros(4), "initial_covariance": np.array(model.initial_cov)}
        wanted = {"smoothed": False, "filtered": True, "states": True, "observations": False, "likelihoods": True}
        return kf.compute(y, 0, **start, **wanted).filtered.states.mean

    return least(call, 2)


def dynamax_run(model: StateSpaceModel, y: np.ndarray, size: int) -> None:
    try:
        import jax

        jax.config.update("jax_enable_x64", True)
        import jax.numpy as jnp
        from dynamax.linear_gaussian_ssm import LinearGaussianSSM
        from dynamax.linear_gaussian_ssm.inference import lgssm_filter
    except ImportError:
        print("dynamax is not installed: pip install dynamax")
        return
    ssm = LinearGaussianSSM(4, 2)
    F, H, Q, R = (np.array(model.parts[letter][0]) for letter in "FHQR")
    params, _ = ssm.initialize(
        jax.random.PRNGKey(0),
        initial_mean=jnp.zeros(4),
        initial_covariance=jnp.array(model.initial_cov),
        dynamics_weights=jnp.array(F),
        dynamics_covariance=jnp.array(Q),
        emission_weights=jnp.array(H),
        emission_covariance=jnp.array(R),
    )

    def one(values: Any) -> Any:
        posterior = lgssm_filter(params, values)
        return posterior.marginal_loglik, posterior.filtered_means

    run = jax.jit(jax.vmap(one))
    values = jnp.array(y)
    jax.block_until_ready(run(values))
    seconds, answer = least(lambda: jax.block_until_ready(run(values)), 3)
    row("dynamax, jit and vmap, complete series", seconds, size)
    ours_s, ours = least(lambda: run_fleet(model, y, MEANS), 3)
    apart = np.abs(ours.arrays["filtered_mean"] - np.asarray(answer[1])).max()
    row("pxtools, complete series", ours_s, size, seconds, f"means differ {apart:.1e}")


def one_series(quick: bool) -> None:
    """One series of 4 states: the code generated for its model against statsmodels."""
    from pxtools.kalman.forms import FORMS
    from pxtools.kalman.forms.generated import library_of, source_of, structure_of
    from pxtools.kalman.system import system_of

    n_steps = 2_000 if quick else 10_000
    model = constant_velocity()
    y = np.ascontiguousarray(simulate(model, n_steps, seed=42).observations[:1])
    system = system_of(model, 1, n_steps)
    began = time.process_time()
    source_of(structure_of(system))
    written = time.process_time() - began
    began = time.perf_counter()
    library = library_of(structure_of(system))
    words = f"compiled or found in {time.perf_counter() - began:.2f} s" if library is not None else "no compiler here"
    print(f"\none series x {n_steps:,} steps x 4 states, nanoseconds a step; source in {written:.2f} s CPU, {words}")
    try:
        from statsmodels.tsa.statespace.mlemodel import MLEModel
    except ImportError:
        print("statsmodels is not installed: pip install statsmodels")
        return
    rivals = {}
    for name, tolerance in (("statsmodels filter, tolerance 0", 0.0), ("statsmodels filter", None)):
        ssm = MLEModel(y[0], k_states=4).ssm
        ssm["transition"], ssm["design"] = model.transition_matrix, model.observation_matrix
        ssm["state_cov"], ssm["obs_cov"], ssm["selection"] = model.process_cov, model.observation_cov, np.eye(4)
        ssm.initialize_known(np.array(model.initial_mean), np.array(model.initial_cov))
        if tolerance is not None:
            ssm.tolerance = tolerance
        rivals[name], answer = least(ssm.filter, 3)
        row(name, rivals[name], n_steps)
    for name, form in (("pxtools, generated", "generated"), ("pxtools, kernel without steady state", "univariate")):
        ours_s, ours = least(lambda form=form: FORMS[form](system, y, False), 15)
        apart = abs(ours.log_likelihood.sum() / answer.llf - 1)
        row(name, ours_s, n_steps, rivals["statsmodels filter, tolerance 0"], f"log-likelihoods differ {apart:.1e}")


def em_on_engines(quick: bool) -> None:
    """EM over resident series: seconds and bytes an iteration, on one and two engines and here."""
    from pxtools.kalman import local_level
    from pxtools.session.core import Session

    n_series, n_steps = (1_000, 200) if quick else (10_000, 500)
    level = local_level(0.3, observation_var=1.0).replace(initial_mean=[0.0], initial_cov=[[4.0]])
    session = Session({}, notify=lambda line: None)
    session.start(2)
    print(f"\nEM over {n_series:,} resident series x {n_steps} steps, wall time of an iteration")
    try:
        for name, model in (("1 state", level), ("4 states", constant_velocity())):
            y = np.ascontiguousarray(simulate(model, n_steps, n_draws=n_series, seed=3).observations)
            y[np.random.default_rng(4).random(y.shape) < 0.1] = np.nan
            em_of(session, name, model, y)
    finally:
        session.disconnect()


def em_of(session: Any, name: str, model: StateSpaceModel, y: np.ndarray) -> None:
    from pxtools.kalman.fitting.fleet import maximised
    from pxtools.kalman.fleet import Fleet, Here
    from pxtools.session.kalman_fleet import shipped

    chosen = ("process_cov", "observation_cov", "initial_mean", "initial_cov")
    times: dict[str, float] = {}
    for place, targets in (("here", None), ("1 engine", "0"), ("2 engines", "all")):
        source: Any = Here(Fleet(y)) if targets is None else shipped(session, y, targets)
        current = maximised(model, source.statistics(model), chosen)
        before, best = getattr(source, "bytes_moved", 0), np.inf
        n_iterations = 8
        for _ in range(n_iterations):
            began = time.perf_counter()
            current = maximised(current, source.statistics(current), chosen)
            best = min(best, time.perf_counter() - began)
        moved = (getattr(source, "bytes_moved", 0) - before) / n_iterations
        times[place] = best
        print(f"{name}, {place:<12}{1e3 * best:10.1f} ms   {moved:8.0f} bytes moved")
    ratio = times["1 engine"] / times["2 engines"]
    print(f"{name}, 2 engines against 1: {ratio:.2f}x (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")


def long_series(quick: bool) -> None:
    """One series of 4 states cut in time over two engines against the same here: wall time, the least of three."""
    from pxtools.kalman import kalman
    from pxtools.session.core import Session
    from pxtools.session.kalman import filter_on
    from pxtools.session.scatter import scatter

    model = constant_velocity()
    session = Session({}, notify=print)
    session.start(2)

    def there(y: np.ndarray, name: str | None) -> Any:
        return filter_on(session, model, y, name=name, where="engines", targets="all")

    print("\none series of 4 states, 2 observed, here and cut in time over two engines; seconds")
    try:
        for n_steps, gaps in ((100_000, 0.0),) if quick else ((1_000_000, 0.0), (10_000_000, 0.0), (4_000_000, 0.1)):
            rng = np.random.default_rng(5)
            y = rng.normal(size=(n_steps, 2))
            if gaps:
                y[rng.random(y.shape) < gaps] = np.nan
            session.namespace["y"] = y
            scatter(session, "y", y)
            print(f"{n_steps:,} steps{f', {gaps:.0%} of the elements missing' if gaps else ''}")
            for words, name in (("filtered means", "filtered_mean"), ("smoothed means", "smoothed_mean")):
                here_s, here = wall(lambda n=name, y=y: getattr(kalman(model, y), n))
                sent_s, _ = wall(lambda n=name, y=y: getattr(there(y, None), n))
                kept_s, found = wall(lambda n=name, y=y: getattr(there(y, "y"), n))
                apart = np.abs(here - found).max()
                print(f"  {words:<15} here {here_s:5.2f}   sent {sent_s:5.2f} ({here_s / sent_s:.1f}x)", end="   ")
                print(f"scattered before {kept_s:5.2f} ({here_s / kept_s:.1f}x), apart {apart:.0e}")
                del here, found
            here_s, total = wall(lambda y=y: log_likelihood(model, y))
            kept_s, likelihood = wall(lambda y=y: there(y, "y").log_likelihood)
            print(f"  {'log-likelihood':<15} here {here_s:5.2f}", end=" " * 24)
            print(f"scattered before {kept_s:5.2f} ({here_s / kept_s:.1f}x), apart {abs(likelihood / total - 1):.0e}")
    finally:
        session.disconnect()


def wall(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the least seconds of three calls, and the last answer."""
    best, answer = np.inf, None
    for _ in range(3):
        del answer
        began = time.perf_counter()
        answer = call()
        best = min(best, time.perf_counter() - began)
    return best, answer


def large_file(gigabytes: float) -> None:
    """Filter a .npy file that is larger than what a process should hold; say how much memory was used for it."""
    import tempfile

    from pxtools.kalman import local_level
    from pxtools.session.core import Session
    from pxtools.session.kalman import filter_on

    n_steps = 1_000
    n_series = int(gigabytes * 1e9 / (8 * n_steps))
    model = local_level(0.3, observation_var=1.0).replace(initial_mean=[0.0], initial_cov=[[4.0]])
    rng = np.random.default_rng(6)
    session = Session({}, notify=print)
    session.start(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "readings.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=(n_series, n_steps, 1))
        for at in range(0, n_series, 10_000):
            part = rng.normal(size=(min(10_000, n_series - at), n_steps, 1))
            part[rng.random(part.shape) < 0.1] = np.nan
            array[at : at + 10_000] = part
        del array, part
        print(f"\n{path.stat().st_size / 1e9:.2f} GB, {n_series:,} series x {n_steps} steps, two engines")
        pids = {"client": os.getpid(), **{f"engine {i}": session.wire.engines[i]["pid"] for i in session.wire.ids}}
        try:
            with PeakMemory(pids) as peak:
                began = time.perf_counter()
                result = filter_on(
                    session, model, path, targets="all", write=str(Path(folder) / "results"), smooth=True
                )
                seconds = time.perf_counter() - began
            written = sum(file.stat().st_size for file in (Path(folder) / "results").iterdir())
            print(f"smoothed, {written / 1e9:.2f} GB written in {seconds:.1f} s, {n_series / seconds:,.0f} series/s")
            print("memory of its own, beside the mapped files: " + peak.words())
            number = n_series - 1
            apart = np.abs(result.smoothed_mean[number] - result[number].smoothed_mean).max()
            print(f"the last series is as it is by itself: differs {apart:.0e}")
        finally:
            session.disconnect()


class PeakMemory:
    """Watch the anonymous memory of processes; pages of mapped files are the kernel's to take back."""

    def __init__(self, pids: dict[str, int]) -> None:
        self.pids, self.least, self.most = pids, {name: self._now(pid) for name, pid in pids.items()}, {}
        self.is_over = threading.Event()
        self.watch = threading.Thread(target=self._watch)

    def _now(self, pid: int) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) * 1024

    def _watch(self) -> None:
        while not self.is_over.wait(0.05):
            for name, pid in self.pids.items():
                self.most[name] = max(self.most.get(name, 0), self._now(pid))

    def __enter__(self) -> "PeakMemory":
        self.watch.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.is_over.set()
        self.watch.join()

    def words(self) -> str:
        return ", ".join(
            f"{name} {self.most[name] / 1e6:.0f} MB ({self.least[name] / 1e6:.0f} before)" for name in self.pids
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--no-engines", action="store_true", help="leave out what needs engines")
    parser.add_argument("--long", action="store_true", help="only: one long series cut in time over two engines")
    parser.add_argument("--file", type=float, metavar="GB", help="only: a .npy file of so many GB, in TMPDIR")
    args = parser.parse_args()
    if args.file:
        large_file(args.file)
        return
    if args.long:
        long_series(args.quick)
        return
    one_series(args.quick)
    batch(args.quick)
    if not args.no_engines:
        em_on_engines(args.quick)


if __name__ == "__main__":
    main()
