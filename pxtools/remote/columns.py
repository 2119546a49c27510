"""Column blocks of a large matrix: what an engine does with the block that it holds.

The client sends tables of operations (`pxtools.kernels.blasplan`) and says for each buffer where it is: in the
namespace here, kept from an earlier stage, sent along, or new.
"""

from __future__ import annotations

import importlib

import numpy as np

from pxtools.kernels.threads import blas_threads
from pxtools.remote.engine import Engine, Message, receive, send_back


def look(engine: Engine, message: Message) -> Message:
    """Take in a parcel; return what the block under `name` is.

    Returns
    -------
    dict
        ``shape``, ``dtype``, ``order`` ("C" or "F"), ``largest`` absolute entry; or ``type`` for what is no matrix.
    """
    conflicts = receive(engine, message["parcel"])
    block = engine.namespace[message["name"]]
    if not isinstance(block, np.ndarray) or block.ndim != 2 or block.dtype.kind not in "fiu":
        return {"conflicts": conflicts, "type": type(block).__name__}
    return {
        "conflicts": conflicts,
        "shape": block.shape,
        "dtype": str(block.dtype),
        "order": "C" if block.flags.c_contiguous and not block.flags.f_contiguous else "F",
        "largest": max(abs(float(block.max())), abs(float(block.min()))) if block.size else 0.0,
    }


def run(engine: Engine, message: Message) -> Message:
    """Run a table of operations over buffers that are here.

    Parameters
    ----------
    message
        ``token`` of the work; ``dtype``; ``sent``, arrays by label; ``each``, engine to ``table``, ``scalars``,
        ``arena``, ``order`` of the block and ``buffers``: label to ("held", name), ("kept", label), ("sent", label) or
        ("new", shape, order); ``keep``, ``back``: labels that stay for the next stage, that the answer brings;
        ``bind``: label to name in the namespace; ``limit`` above which what is bound stays here.

    Returns
    -------
    dict
        ``back`` and ``bound``: label to array, name to answer.
    """
    dtype = np.dtype(message["dtype"])
    blasplan = importlib.import_module("pxtools.kernels.blasplan")  # the one thing here that needs SciPy
    mine = message["each"][engine.engine_id]
    kept = engine.tasks.setdefault(message["token"], {})
    here = {"kept": kept, "sent": message["sent"], "held": engine.namespace}
    arrays = {
        label: np.empty(what[0], dtype, order=what[1])
        if how == "new"
        else np.asarray(here[how][what[0]], dtype=dtype, order=mine["order"] if how == "held" else "F")
        for label, (how, *what) in mine["buffers"].items()
    }
    work = np.empty(max(1, mine["arena"]), dtype)
    with blas_threads(None):
        row, info = blasplan.run_plan(
            mine["table"],
            [work, *arrays.values()],
            np.array(mine["scalars"], dtype=float),
            np.zeros(1, np.int32),
            dtype == np.float32,
        )
    if row >= 0:
        raise ArithmeticError(f"operation {row} of a stage failed ({info})")
    kept.update({label: arrays[label] for label in message["keep"]})
    bound = {name: arrays[label] for label, name in message["bind"].items()}
    for name, array in bound.items():
        engine.namespace[name] = array
        engine.in_step(name)
    return {
        "back": {label: arrays[label] for label in message["back"]},
        "bound": send_back(engine, bound, message["limit"]),
    }


def cross(engine: Engine, message: Message) -> Message:
    """Return row `index` of the block under `name`, and its column `column` if that is here (not None)."""
    block = engine.namespace[message["name"]]
    column = message["column"]
    return {"row": block[message["index"]].copy(), "column": None if column is None else block[:, column].copy()}
