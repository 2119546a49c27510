"""One notebook typed twice, for plain ipyparallel and for pxtools: cells, lines, and cells that fail.

Both define the density of three bumps, walk over it on four engines, write the density in Cython, walk again, and draw
the points in R; at the end of both there are the same three pictures. Run `python benchmarks/bootcamp.py` (a minute;
`--count` only counts). A cell of plain ipyparallel that fails is no slip of the text: four engines compile one Cython
cell at the same time in one cache, and disturb one another, each time differently.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

SEPARATOR = "# ---\n"

PLAIN = """\
%matplotlib inline
import ipyparallel as ipp
import matplotlib.pyplot as plt
import numpy as np
# ---
cluster = ipp.Cluster(n=4)
client = cluster.start_and_connect_sync()
view = client[:]
view.block = True
view.activate()
# ---
%%px --local
import numpy as np
from math import exp
# ---
%%px --local
def bump(x, y, cx, cy, wx, wy):
    return exp(-(((x - cx) / wx) ** 2 + ((y - cy) / wy) ** 2) / 2)
def gaussian(x, y):
    return bump(x, y, .5, .2, .15, .04) + bump(x, y, .7, .7, .05, .05) + bump(x, y, .3, .7, .05, .07)
# ---
%%px --local
def walk(density, point, n_steps, rng):
    value, points = density(*point), np.empty((n_steps, 2))
    for k in range(n_steps):
        proposal = point + rng.uniform(-0.1, 0.1, 2)
        new = density(*proposal)
        if rng.random() * value < new:
            point, value = proposal, new
        points[k] = point
    return points
# ---
view.scatter("number", client.ids, flatten=True)
# ---
%%px
rng = np.random.default_rng([1, number])
points = walk(gaussian, rng.random(2), 20_000, rng)
# ---
plt.hist2d(*np.concatenate(view["points"]).T, bins=60);
# ---
%px %load_ext cython
# ---
%%px
%%cython
from libc.math cimport exp
cdef double bump(double x, double y, double cx, double cy, double wx, double wy):
    cdef double u = (x - cx) / wx, v = (y - cy) / wy
    return exp(-(u * u + v * v) / 2)
def gaussian_c(double x, double y):
    return bump(x, y, .5, .2, .15, .04) + bump(x, y, .7, .7, .05, .05) + bump(x, y, .3, .7, .05, .07)
# ---
%%px
points = walk(gaussian_c, rng.random(2), 20_000, rng)
# ---
together = np.concatenate(view["points"])
plt.hist2d(*together.T, bins=60);
# ---
%px %load_ext rpy2.ipython
view.push({"together": together}, targets=0)
# ---
%%px --targets 0
%%R -i together -w 360 -h 330
counts <- table(cut(together[, 1], 60), cut(together[, 2], 60))
image(matrix(counts, 60), axes = FALSE)
# ---
cluster.stop_cluster_sync()
"""

PXTOOLS = """\
%load_ext pxtools
%matplotlib inline
import matplotlib.pyplot as plt
from math import exp
# ---
def bump(x, y, cx, cy, wx, wy):
    return exp(-(((x - cx) / wx) ** 2 + ((y - cy) / wy) ** 2) / 2)
def gaussian(x, y):
    return bump(x, y, .5, .2, .15, .04) + bump(x, y, .7, .7, .05, .05) + bump(x, y, .3, .7, .05, .07)
# ---
%pxsample gaussian --density --sampler rwm --bounds (0,1) --chains 4 --draws 20000 --seed 1 -o walk
plt.hist2d(*walk.points.T, bins=60);
# ---
%%pxcython --check gaussian
from libc.math cimport exp
cdef double bump(double x, double y, double cx, double cy, double wx, double wy):
    cdef double u = (x - cx) / wx, v = (y - cy) / wy
    return exp(-(u * u + v * v) / 2)
def gaussian_c(double x, double y):
    return bump(x, y, .5, .2, .15, .04) + bump(x, y, .7, .7, .05, .05) + bump(x, y, .3, .7, .05, .07)
# ---
%pxsample gaussian_c --density --sampler rwm --bounds (0,1) --chains 4 --draws 20000 --seed 2 -o walk
plt.hist2d(*walk.points.T, bins=60);
# ---
%%pxR -i together=walk.points --targets 0 -w 360 -h 330
counts <- table(cut(together[, 1], 60), cut(together[, 2], 60))
image(matrix(counts, 60), axes = FALSE)
"""


def cells_of(text: str) -> list[str]:
    """Return the cells of a text."""
    return [cell.strip("\n") for cell in text.split(SEPARATOR)]


def counted(text: str) -> tuple[int, int, int]:
    """Return the number of cells, of lines that are not empty, and of characters in these."""
    lines = [line for cell in cells_of(text) for line in cell.splitlines() if line.strip()]
    return len(cells_of(text)), len(lines), sum(map(len, lines))


def executed(text: str) -> tuple[list[str], int, float]:
    """Run the cells in a kernel with an empty cache, all of them; return those that failed, pictures, seconds."""
    import nbformat
    from nbclient import NotebookClient

    from pxtools import demo

    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells_of(text)])
    with demo.private_environment() as environment, tempfile.TemporaryDirectory() as folder:
        environment |= {"XDG_CACHE_HOME": str(Path(folder, "cache")), "RPY2_CFFI_MODE": "ABI"}
        kernel = demo.kernel_manager(environment)
        client = NotebookClient(
            notebook, kernel, timeout=300, allow_errors=True, resources={"metadata": {"path": folder}}
        )
        began = time.perf_counter()
        client.execute(cleanup_kc=True, env=environment)
        took = time.perf_counter() - began
        if kernel.has_kernel:
            kernel.shutdown_kernel()
        demo.end_left_over(environment["IPYTHONDIR"])
    outputs = [(cell.source, output) for cell in notebook.cells for output in cell.outputs]
    failed = {source: output.evalue for source, output in outputs if output.output_type == "error"}
    pictures = sum("image/png" in output.get("data", {}) for _, output in outputs)
    for source, why in failed.items():
        print(f"failed: {source.splitlines()[:2]}: {why.splitlines()[-1] if why else ''}"[:200])
    return list(failed), pictures, took


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", action="store_true", help="Run nothing.")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    print(f"{'':18}{'cells':>7}{'lines':>7}{'characters':>12}")
    for name, text in (("plain ipyparallel", PLAIN), ("pxtools", PXTOOLS)):
        print(f"{name:18}" + "{:7}{:7}{:12,}".format(*counted(text)))
    for k in range(0 if args.count else args.runs):
        for name, text in (("plain ipyparallel", PLAIN), ("pxtools", PXTOOLS)):
            failed, pictures, took = executed(text)
            print(f"run {k + 1}: {name}: {len(failed)} cells failed, {pictures} pictures, {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
