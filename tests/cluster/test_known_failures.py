"""What fails, or surprises, with plain ipyparallel, and works here. On a real cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

N_ENGINES = 4

RANDOM_WALKER = """
def random_walker(func, n_steps=1000, start=[0,0], burn_in=100):
    points = []
    point = start
    for i in arange(n_steps):
        # Our jumping distribution is the [-0.1,0.1] Uniform distribution around the current point
        new_point = point + (rand(2)-0.5)/5.
        accept = func(*new_point) / func(*point)
        if accept >= 1 or rand() <= accept:
            point = new_point
        if i > burn_in: points.append(point)
    return asarray(points)
"""

GAUSSIAN = """
c_x1 = 0.5; c_y1 = 0.2; w_x1 = 0.15; w_y1 = 0.04
c_x2 = 0.7; c_y2 = 0.7; w_x2 = 0.05; w_y2 = 0.05
c_x3 = 0.3; c_y3 = 0.7; w_x3 = 0.05; w_y3 = 0.07
def gaussian(x, y):
    return \\
        exp( -( ((c_x1 - x)/w_x1)**2. + ((c_y1 - y)/w_y1)**2. )/2 ) + \\
        exp( -( ((c_x2 - x)/w_x2)**2. + ((c_y2 - y)/w_y2)**2. )/2 ) + \\
        exp( -( ((c_x3 - x)/w_x3)**2. + ((c_y3 - y)/w_y3)**2. )/2 )
"""


def test_an_alias_is_there_after_an_import(cell: Any) -> None:
    cell("%pximport numpy as np, os.path as osp")
    cell("%pximport from numpy import linalg as la")
    assert (
        list(cell("%pxcollect (np.__name__, osp.__name__, la.__name__)"))
        == [("numpy", "posixpath", "numpy.linalg")] * N_ENGINES
    )


def test_a_constant_is_there_in_a_mapped_function(cell: Any) -> None:
    cell("CONSTANT = 5\ndef f(x): return CONSTANT * x")
    assert cell("%pxmap f range(4)") == [0, 5, 10, 15]
    cell("CONSTANT = 6")
    assert cell("%pxmap f range(4)") == [0, 6, 12, 18]


def test_a_variable_is_collected_from_every_engine(cell: Any, session: Any, shell: Any) -> None:
    session.client[:].execute("import os; my_var = os.getpid()", block=True)
    cell("my_var = %pxcollect my_var")
    assert len(set(shell.user_ns["my_var"])) == N_ENGINES


@pytest.mark.parametrize(
    "definition",
    [
        "import numpy as np\ndef make(a):\n    return lambda: a.shape\nf = make(np.ones(10))",
        "import numpy as np\ndef f(a=np.ones(10)): return a.shape",
    ],
)
def test_closures_over_arrays_and_defaults_that_are_arrays_travel(definition: str, cell: Any) -> None:
    cell(definition)
    assert list(cell("%pxrun f()")) == [(10,)] * N_ENGINES


def test_small_arrays_can_be_written_to_on_engines_and_here(cell: Any, shell: Any) -> None:
    cell("import numpy as np\nx = np.zeros(10)")
    cell("%pxrun x[0] = 1")
    x = shell.user_ns["x"][0]
    x[1] = 2
    assert x[:2].tolist() == [1, 2]
    assert x.flags.aligned


def test_top_level_await_ends(cell: Any) -> None:
    assert (
        list(cell("%%pxrun\nimport asyncio\nawait asyncio.sleep(0.01)\nawait asyncio.sleep(0, 'done')")) == ["done"] * 4
    )
    assert list(cell("%pxrun 1")) == [1] * N_ENGINES


def test_the_px_magics_of_ipyparallel_are_unchanged(cell: Any, shell: Any, capsys: Any) -> None:
    from ipyparallel.client.magics import ParallelMagics

    magics = shell.magics_manager.magics
    for name, kind in [("px", "line"), ("px", "cell"), ("pxconfig", "line"), ("pxresult", "line"), ("autopx", "line")]:
        assert isinstance(magics[kind][name].__self__, ParallelMagics)
    cell("%px a = 5")
    cell("%%px --targets 0\nb = a + 1")
    assert list(cell("%pxcollect a")) == [5] * N_ENGINES
    assert list(cell("%pxcollect -t 0 b")) == [6]
    capsys.readouterr()
    cell("%px print('from px')")
    assert "from px" in capsys.readouterr().out


def test_names_set_by_px_are_seen_by_pxrun(cell: Any) -> None:
    cell("%px theirs = 3")
    assert list(cell("%pxrun theirs + 1")) == [4] * N_ENGINES


@pytest.mark.parametrize(
    "imports",
    [
        "from pylab import *",
        "from numpy import exp, arange, asarray\nfrom numpy.random import random\n"
        "def rand(*shape): return random(shape) if shape else random()",
        "from numpy import *\nfrom numpy.random import rand",
    ],
    ids=["pylab", "random", "rand"],
)
def test_the_bootcamps_random_walker_finds_different_points_on_every_engine(
    imports: str, cell: Any, shell: Any
) -> None:
    if "pylab" in imports:
        pytest.importorskip("pylab")
    cell(imports)
    cell(GAUSSIAN)
    cell(RANDOM_WALKER)
    cell("%%pxrun\npoints = random_walker(gaussian, 300, start=rand(2))")
    points = shell.user_ns["points"]
    assert points.stack().shape == (N_ENGINES, 199, 2)
    assert len({float(p[-1, 0]) for p in points}) == N_ENGINES
    assert np.isfinite(points.concat()).all()
