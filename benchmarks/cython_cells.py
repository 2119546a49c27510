"""Cython cells on four engines: `%%pxcython` against `%%px` + `%%cython`, on one cluster, in one real shell.

    python benchmarks/cython_cells.py [-n 4] [--cells 20] [--rounds 10] [--plain-rounds 1]

Each cell redefines one of five functions; after each cell the function is called on every engine, so that a load that
failed, or an older function, is seen. The rounds of `%%pxcython` repeat the same cells. `%%cython` alone, in one
process, is timed as well.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from typing import Any

import ipyparallel as ipp

N_FUNCTIONS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Cython cells on engines.")
    parser.add_argument("-n", type=int, default=4, help="engines")
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of %%pxcython")
    parser.add_argument("--plain-rounds", type=int, default=1, help="rounds of %%px + %%cython")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["IPYTHONDIR"] = os.environ["XDG_CACHE_HOME"] = folder  # `%%cython` keeps its cache below these
        os.environ.pop("PXTOOLS_CLUSTER_FILE", None)
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Run all kinds of cells and print a table."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    import pxtools

    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.run_line_magic("load_ext", "pxtools")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            shell.run_line_magic("pxcluster", f"start -n {args.n}")
            view = pxtools.client()[:]
            view.block = True
            view.activate()
            shell.run_line_magic("load_ext", "cython")
            shell.run_line_magic("px", "%load_ext cython")
            compile_here(shell, "alone_warm_up", -1)
        alone = [compile_here(shell, f"alone{k}", k) for k in range(5)]
        ours = rounds_of_ours(shell, args)
        plain = rounds_of_plain(shell, view, args)
    finally:
        shell.run_line_magic("unload_ext", "pxtools")
    print(f"{args.n} engines, {args.cells} cells that redefine {N_FUNCTIONS} functions")
    print(f"%%cython in one process: median {statistics.median(alone):.2f} s a cell")
    print(f"%%pxcython, {args.rounds} rounds: {words(ours)}")
    print(f"%%px + %%cython, {args.plain_rounds} round(s): {words(plain)}")


def words(found: dict[str, Any]) -> str:
    """Return what happened as one line."""
    return (
        f"{found['failed']}/{found['loads']} engine loads failed, {found['stale']} stale or missing results, "
        f"{found['compiled']} compiles; first time median {statistics.median(found['first']):.2f} s a cell"
        + (f", load {statistics.median(found['load']) * 1000:.0f} ms" if found["load"] else "")
    )


def source(name: str, number: int) -> str:
    """Return a cell that is unlike all others."""
    return f"def {name}(double x):\n    return x + {number}\n"


def compile_here(shell: Any, name: str, number: int) -> float:
    """Return the seconds that `%%cython` takes in this process."""
    began = time.perf_counter()
    shell.run_cell_magic("cython", "", source(name, number))
    return time.perf_counter() - began


def rounds_of_ours(shell: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Run the cells with `%%pxcython`, several rounds."""
    import pxtools

    found: dict[str, Any] = {"loads": 0, "failed": 0, "stale": 0, "compiled": 0, "first": [], "load": []}
    for round_ in range(args.rounds):
        for k in range(args.cells):
            name = f"ours{k % N_FUNCTIONS}"
            began = time.perf_counter()
            result = pxtools.cython(source(name, k))
            if round_ == 0:
                found["first"].append(time.perf_counter() - began)
                found["load"].append(result.seconds_load)
            found["compiled"] += result.was_compiled
            values = list(pxtools.collect(f"{name}(1000)"))
            found["loads"] += args.n
            found["stale"] += sum(value != 1000 + k for value in values) + (shell.user_ns[name](1000) != 1000 + k)
    return found


def rounds_of_plain(shell: Any, view: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Run the cells with `%%px` + `%%cython`."""
    found: dict[str, Any] = {"loads": 0, "failed": 0, "stale": 0, "compiled": 0, "first": [], "load": []}
    for _ in range(args.plain_rounds):
        for k in range(args.cells):
            name = f"plain{k % N_FUNCTIONS}"
            began = time.perf_counter()
            code = f"%%cython\n{source(name, 100 + k)}"
            try:
                errors = run_there(view, code)
                values = run_there(view, f"{name}(1000)")
            except ipp.error.CompositeError as error:  # a half-written library takes its engine along
                dead = sum("EngineError" in str(one) for one in error.elist)
                found["loads"] += args.n
                found["failed"] += dead
                print(f"cell {k} of %%px + %%cython killed {dead} engine(s); the round ends here")
                return found
            finally:
                found["first"].append(time.perf_counter() - began)
                found["compiled"] += args.n
            for error, value in zip(errors, values, strict=True):
                found["loads"] += 1
                found["failed"] += error is not None
                found["stale"] += error is None and value != 1100 + k
    return found


def run_there(view: Any, code: str) -> list[Any]:
    """Run a cell in each engine's shell; return errors of magics, values of expressions."""
    return list(view.apply_sync(_in_shell, code))


def _in_shell(code: str) -> Any:
    from IPython import get_ipython

    shell = get_ipython()
    if not code.startswith("%%"):
        try:
            return eval(code, shell.user_ns)
        except Exception as error:
            return repr(error)
    result = shell.run_cell(code, store_history=False, silent=True)
    error = result.error_before_exec or result.error_in_exec
    return None if error is None else repr(error)


_in_shell.__module__ = "__main__"

if __name__ == "__main__":
    main()
