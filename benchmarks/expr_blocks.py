"""The Kalman update of a matrix in column blocks on local engines, against the plan in one piece here.

    python benchmarks/expr_blocks.py                        # n, k = 2000, 500 on 2 engines
    python benchmarks/expr_blocks.py --sizes 4000,1000 --engines 4

Least wall time of several rounds, in turns, in one run; engines use one thread each, the plan here all. What an engine
holds is what NumPy has allocated there (tracemalloc) at the peak of an update; what travels is counted in messages, a
message to all engines once.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import pxtools
from pxtools.remote import sharing
from pxtools.results import human_bytes

PAIR = """new_mu    = mu + Sigma*H.T*(H*Sigma*H.T + R).I*(data - H*mu)
new_Sigma = Sigma - Sigma*H.T*(H*Sigma*H.T + R).I*H*Sigma"""
SAID = "mu, data: vector; Sigma, R: positive_definite"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["2000,500"])
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    pxtools.cluster(args.engines)
    update = pxtools.formula(PAIR, assumptions=SAID, name="update", form="cholesky")
    for size in args.sizes:
        report(update, *map(int, size.split(",")), args.rounds)


def report(update, n: int, k: int, rounds: int) -> None:
    rng = np.random.default_rng(0)
    noise = rng.random((n, n)) / n
    inputs = {"mu": rng.random(n), "H": rng.standard_normal((k, n)) / np.sqrt(n), "data": rng.random(k)}
    inputs |= {"Sigma": noise + noise.T + 2 * np.eye(n), "R": np.diag(rng.uniform(1, 2, k))}
    pxtools.scatter("Sigma", inputs["Sigma"], axis=1)
    spread = {**inputs, "Sigma": pxtools.collect("Sigma")}
    whole, blocks = update(**inputs), update(**spread)
    gathered = pxtools.gather("new_Sigma")
    assert np.abs(gathered - whole.new_Sigma).max() < 1e-12
    assert np.array_equal(gathered, gathered.T)
    times = np.array([[seconds(update, inputs), seconds(update, spread)] for _ in range(rounds)])
    here, there = 1e3 * times.min(axis=0)
    p = len(blocks.new_Sigma)
    print(f"n = {n}, k = {k} on {p} engines: in blocks {there:.0f} ms, in one piece here {here:.0f} ms")
    peak, sent = memory_and_messages(update, spread)
    print(f"   the whole {human_bytes(8 * n * n)}, a block {human_bytes(8 * n * n // p)}")
    print(f"   an update allocates at most {human_bytes(peak)} on an engine, and sends {human_bytes(sent)}")


def seconds(update, inputs) -> float:
    start = time.perf_counter()
    update(**inputs)
    return time.perf_counter() - start


def memory_and_messages(update, inputs) -> tuple[int, int]:
    """Return the largest peak of an engine's allocations, and the bytes that went to the engines."""
    sent: list[int] = []
    dump = sharing.dump

    def counting(message):
        stream, large = dump(message)
        sent.append(len(stream) + sum(buffer.raw().nbytes for buffer in large))
        return stream, large

    pxtools.run("import tracemalloc; tracemalloc.start()")
    sharing.dump = counting
    try:
        update(**inputs)
    finally:
        sharing.dump = dump
    peaks = pxtools.collect("tracemalloc.get_traced_memory()[1]", how="list")
    pxtools.run("tracemalloc.stop()")
    return max(peaks), sum(sent)


if __name__ == "__main__":
    main()
