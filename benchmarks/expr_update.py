"""The post's pair by every means, in one run: CPU and wall time, on one thread and on all.

    python benchmarks/expr_update.py                     # n, k = 1000, 500; one thread, then all
    python benchmarks/expr_update.py --sizes 1000,500 2000,1000 4000,2000 --blocked

Every rival is timed in the same process, in turns, so that a busy machine is equally unfair to all; the minimum of the
rounds counts: of CPU time on one thread, of wall time on all. Wall times on all threads of a machine that does other
work measure that work: give many `--rounds`. Rates are ratios to a GEMM timed in the same turns. PyTensor, JAX and
SymPy are optional; what is missing is said. `--blocked` adds the post's own method (SymPy's block_collapse, then
PyTensor), which compiles for minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

PAIR = """new_mu    = mu + Sigma*H.T*(H*Sigma*H.T + R).I*(data - H*mu)
new_Sigma = Sigma - Sigma*H.T*(H*Sigma*H.T + R).I*H*Sigma"""
SAID = "mu, data: vector; Sigma, R: positive_definite"
CALM_S = 0.15  # the threads of each rival's BLAS spin for a while after its work, on the cores that the next one needs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1000,500"])
    parser.add_argument("--threads", nargs="+", default=["1", "all"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=100.0, help="begin no round after so many seconds")
    parser.add_argument("--blocked", action="store_true")
    parser.add_argument("--no-rivals", action="store_true", help="NumPy and SciPy only")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        run(args)
        return
    for threads in args.threads:
        count = str(os.cpu_count() or 1) if threads == "all" else threads
        settings = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), count)
        if count == "1":
            settings["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        command = [sys.executable, __file__, "--inside", "--sizes", *args.sizes, "--rounds", str(args.rounds)]
        command += ["--seconds", str(args.seconds)]
        command += ["--threads", count] + ["--blocked"] * args.blocked + ["--no-rivals"] * args.no_rivals
        subprocess.run(command, env={**os.environ, **settings}, check=True)


def run(args: argparse.Namespace) -> None:
    is_one = args.threads[0] == "1"
    print(
        f"== {'one thread, CPU' if is_one else args.threads[0] + ' threads, wall'} time; load {os.getloadavg()[0]:.1f}"
    )
    for size in args.sizes:
        n, k = map(int, size.split(","))
        rounds = args.rounds if n <= 1000 else max(2, args.rounds // 2)
        report(n, k, contenders(n, k, args), is_one, (rounds, args.seconds))


def contenders(n, k, args):
    import numpy as np
    from scipy.linalg import cho_factor, cho_solve
    from scipy.linalg.blas import dgemm

    from pxtools.expr import compile

    rng = np.random.default_rng(0)

    def definite(size):
        root = rng.standard_normal((size, size))
        return root @ root.T / size + np.eye(size)

    mu, data, H = rng.standard_normal(n), rng.standard_normal(k), rng.standard_normal((k, n))
    Sigma, R, noise = definite(n), definite(k), rng.uniform(1, 2, k)
    inputs = {"mu": mu, "Sigma": Sigma, "H": H, "R": R, "data": data}
    inv = np.linalg.inv

    def literal(R=R):
        new_mu = mu + Sigma @ H.T @ inv(H @ Sigma @ H.T + R) @ (data - H @ mu)
        return new_mu, Sigma - Sigma @ H.T @ inv(H @ Sigma @ H.T + R) @ H @ Sigma

    def numpy_solve():
        cross = H @ Sigma
        both = np.linalg.solve(cross @ H.T + R, np.column_stack([cross, data - H @ mu]))
        return mu + cross.T @ both[:, -1], Sigma - cross.T @ both[:, :-1]

    def scipy_cholesky():
        cross = H @ Sigma
        factor = cho_factor(cross @ H.T + R, lower=True)
        return mu + cross.T @ cho_solve(factor, data - H @ mu), Sigma - cross.T @ cho_solve(factor, cross)

    a = np.asfortranarray(rng.standard_normal((min(n, 2000), min(n, 2000))))
    dense = compile(PAIR, assumptions=SAID)
    start = time.process_time()
    plan = dense.plan_for({"n": n, "k": k})
    print(f"   planned in {(time.process_time() - start) * 1e3:.0f} ms CPU: {plan.flops / 1e9:.3f} Gflop")
    diagonal = compile(PAIR, assumptions=SAID + "; R: diagonal")
    found = {
        "dgemm": lambda: dgemm(1.0, a, a),
        "literal NumPy": literal,
        "NumPy solve, shared": numpy_solve,
        "SciPy Cholesky, shared": scipy_cholesky,
        "pxtools": lambda: tuple(dense(**inputs)),
        "literal NumPy, diagonal R": lambda: literal(np.diag(noise)),
        "pxtools, diagonal R": lambda: tuple(diagonal(**{**inputs, "R": noise})),
    }
    if not args.no_rivals:
        rivals = (
            ("PyTensor, assumptions", pytensor_update),
            ("PyTensor with Numba", lambda x: pytensor_update(x, "NUMBA")),
            ("JAX, Cholesky", jax_update),
        )
        for name, make in rivals:
            try:
                found[name] = make(inputs)
            except ImportError as error:
                print(f"   {name}: not run ({error})")
    if args.blocked:
        found["SymPy 2×2 blocks, PyTensor"] = blocked_update(inputs)
    check(found)
    return found


def check(found):
    """Refuse to time anything that is wrong."""
    import numpy as np

    for word in ("", ", diagonal R"):
        truth = found["literal NumPy" + word]()
        for name, work in found.items():
            if name != "dgemm" and name.endswith(", diagonal R") == bool(word):
                gap = max(float(np.abs(np.asarray(x) - y).max()) for x, y in zip(work(), truth, strict=True))
                assert gap < 1e-6, (name, gap)


def pytensor_update(inputs, mode="CVM"):
    import pytensor
    import pytensor.tensor as pt
    from pytensor.assumptions import assume

    mu, data = pt.dvector("mu"), pt.dvector("data")
    Sigma0, H, R0 = pt.dmatrix("Sigma"), pt.dmatrix("H"), pt.dmatrix("R")
    Sigma = assume(Sigma0, positive_definite=True, symmetric=True)
    R = assume(R0, positive_definite=True, symmetric=True)
    inverse = pt.linalg.inv(R + H @ Sigma @ H.T)
    outputs = [mu + Sigma @ H.T @ inverse @ (data - H @ mu), Sigma - Sigma @ H.T @ inverse @ H @ Sigma]
    function = pytensor.function([mu, Sigma0, H, R0, data], outputs, mode=mode, trust_input=True)
    values = [inputs[name] for name in ("mu", "Sigma", "H", "R", "data")]
    return lambda: function(*values)


def jax_update(inputs):
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax.scipy.linalg import cho_solve, solve_triangular

    @jax.jit
    def update(mu, Sigma, H, R, data):
        cross = H @ Sigma
        low = jax.numpy.linalg.cholesky(cross @ H.T + R)
        white = solve_triangular(low, cross, lower=True)
        return mu + cross.T @ cho_solve((low, True), data - H @ mu), Sigma - white.T @ white

    values = [jax.numpy.asarray(inputs[name]) for name in ("mu", "Sigma", "H", "R", "data")]
    return lambda: jax.block_until_ready(update(*values))


def blocked_update(inputs):
    """Compile the post's 2×2 blocks: SymPy collapses the block matrices, PyTensor runs what comes out."""
    import pytensor
    import pytensor.tensor as pt
    import sympy as sp

    n, k = len(inputs["mu"]), len(inputs["data"])
    shapes = {"mu": (n, 1), "Sigma": (n, n), "H": (k, n), "R": (k, k), "data": (k, 1)}
    symbols = {name: sp.MatrixSymbol(name, *shape) for name, shape in shapes.items()}
    mu, Sigma, H, R, data = symbols.values()
    pair = [
        mu + Sigma * H.T * (R + H * Sigma * H.T).I * (data - H * mu),
        Sigma - Sigma * H.T * (R + H * Sigma * H.T).I * H * Sigma,
    ]
    cuts = {n: (n // 2, n - n // 2), k: (k // 2, k - k // 2), 1: (1,)}
    blocks = {x: sp.blockcut(x, cuts[x.shape[0]], cuts[x.shape[1]]) for x in symbols.values()}
    start = time.process_time()
    collapsed = [sp.block_collapse(expr.subs(blocks)) for expr in pair]
    print(f"   SymPy's block_collapse: {time.process_time() - start:.1f} s")
    leaves = {name: pt.dmatrix(name) for name in symbols}
    cache = {}

    def translate(expr):
        if expr not in cache:
            cache[expr] = _translated(expr, translate, leaves, pt)
        return cache[expr]

    function = pytensor.function(list(leaves.values()), [translate(expr) for expr in collapsed])
    values = [inputs[name].reshape(shapes[name]) for name in leaves]

    def run_blocked():
        new_mu, new_Sigma = function(*values)
        return new_mu[:, 0], new_Sigma

    return run_blocked


def _translated(expr, translate, leaves, pt):
    kind = type(expr).__name__
    if kind == "MatrixSymbol":
        return leaves[expr.name]
    if kind == "MatrixSlice":
        (top, bottom, _), (left, right, _) = expr.rowslice, expr.colslice
        return translate(expr.parent)[int(top) : int(bottom), int(left) : int(right)]
    if kind == "MatMul":
        result = None
        for arg in expr.args:
            part = float(arg) if arg.is_number else translate(arg)
            result = part if result is None else (result * part if isinstance(result, float) else result @ part)
        return result
    if kind == "MatAdd":
        return sum(translate(arg) for arg in expr.args[1:]) + translate(expr.args[0])
    if kind == "Transpose":
        return translate(expr.args[0]).T
    if kind in ("Inverse", "MatPow"):
        return pt.linalg.inv(translate(expr.args[0]))
    if kind == "Identity":
        return pt.eye(int(expr.shape[0]))
    if kind == "BlockMatrix":
        rows, cols = expr.blockshape
        joined = [pt.concatenate([translate(expr.blocks[i, j]) for j in range(cols)], axis=1) for i in range(rows)]
        return pt.concatenate(joined, axis=0)
    raise TypeError(kind)


def report(n, k, found, is_one, limits):
    """Print the least CPU time of each (one thread) or the least wall time (all), the other beside it."""
    clocks = (time.process_time, time.perf_counter) if is_one else (time.perf_counter, time.process_time)
    best, other = dict.fromkeys(found, float("inf")), dict.fromkeys(found, float("inf"))
    rounds, seconds = limits
    began = time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - began > seconds:
            break
        for name, work in found.items():
            if not is_one:
                time.sleep(CALM_S)
            start = [clock() for clock in clocks]
            work()
            best[name] = min(best[name], clocks[0]() - start[0])
            other[name] = min(other[name], clocks[1]() - start[1])
    size = min(n, 2000)
    product = 2 * size**3
    gemms = product / best.pop("dgemm"), product / other.pop("dgemm")
    least = 3 * k * n**2 + 2 * k**2 * n + k**3 / 3
    first, second = ("CPU", "wall") if is_one else ("wall", "CPU")
    print(f"n = {n}, k = {k}; dgemm {gemms[0] / 1e9:.1f} Gflop/s; least flops of the dense pair {least / 1e9:.3f} G")
    for name in best:
        base = "literal NumPy, diagonal R" if "diagonal" in name else "literal NumPy"
        line = f"   {name:28s}"
        for clock, seconds, gemm in ((first, best, gemms[0]), (second, other, gemms[1])):
            line += f" {seconds[name] * 1e3:8.1f} ms {clock} {seconds[base] / seconds[name]:5.2f}× the literal"
            line += f" {least / seconds[name] / gemm:6.1%} of dgemm" if "diagonal" not in name else 16 * " "
        print(line.rstrip())
    for rival in best:
        if not rival.startswith(("literal", "pxtools", "SciPy")):
            print(f"   pxtools is {best[rival] / best['pxtools']:.2f}× as fast as {rival}")


if __name__ == "__main__":
    main()
