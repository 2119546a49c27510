"""Long rows of independent noise: compiled plans against the BLAS kernel, per step, in one process and run.

    python benchmarks/kalman_dense.py

Least CPU time of several rounds, in turns, on one thread. "chosen" is what `%pxkalman` takes for 1,000 steps.
"""

from __future__ import annotations

import time

import numpy as np
from threadpoolctl import threadpool_limits

from pxtools.kalman.forms import dense
from pxtools.kernels import kalman

SIZES = [(16, 200), (50, 100), (50, 500), (100, 400), (200, 200), (200, 1000), (400, 200), (400, 400)]
RIVALS = (kalman.cholesky_filter, dense.filter_rows)


def main() -> None:
    print("states  obs   kernel ms  plans ms   ratio  chosen")
    for n, k in SIZES:
        arguments = system(n, k, n_steps=4)
        wanted, found = (run(*arguments, steady=False) for run in RIVALS)
        assert np.allclose(wanted.filtered_cov, found.filtered_cov, rtol=1e-9, atol=1e-11)
        assert np.allclose(wanted.log_likelihood, found.log_likelihood, rtol=1e-10)
        times = np.array([[seconds(run, arguments) for run in RIVALS] for _ in range(7)])
        kernel, plans = 1e3 * times.min(axis=0) / 4
        long = np.broadcast_to(arguments[0][:, :1], (1, 1000, k))
        chosen = "plans" if dense.pays(long, arguments[1], arguments[4], is_constant=False) else "kernel"
        print(f"{n:6d} {k:5d} {kernel:10.3f} {plans:9.3f} {kernel / plans:7.2f}  {chosen}")


def seconds(run, arguments) -> float:
    start = time.process_time()
    run(*arguments, steady=False)
    return time.process_time() - start


def system(n: int, k: int, n_steps: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    F, H = rng.standard_normal((1, n, n)) / np.sqrt(n) / 1.5, rng.standard_normal((1, k, n)) / np.sqrt(n)
    Q, R = np.eye(n)[None], np.diag(rng.uniform(1, 2, k))[None]
    y, none = rng.standard_normal((1, n_steps, k)), np.zeros((1, n, n))
    return y, F, H, Q, R, np.zeros((1, n)), np.zeros((1, k)), np.zeros((1, n)), 3 * np.eye(n)[None], none


if __name__ == "__main__":
    with threadpool_limits(1, user_api="blas"):
        main()
