"""A formula that can be called, sent and explained."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.expr.blocks import read_blocks
from pxtools.expr.dims import ONE, Dim, Sizes
from pxtools.expr.failure import check_orthogonal, explain_failure
from pxtools.expr.lower import Lowering
from pxtools.expr.parse import Problem
from pxtools.expr.plan import Plan
from pxtools.expr.result import result_type
from pxtools.expr.search import Layout, Search
from pxtools.expr.threads import blas_threads

Array = np.ndarray[Any, Any]
FORMS = ("auto", "cholesky", "sqrt", "information", "sequential")


@dataclass
class _Ready:
    """A plan with what the kernel wants: allocated once for each set of shapes."""

    plan: Plan
    table: Array
    scalars: Array
    spare: list[tuple[Array, Array]] = field(default_factory=list)

    def workspace(self, single: bool) -> tuple[Array, Array]:
        if self.spare:
            return self.spare.pop()
        dtype = np.float32 if single else np.float64
        return np.empty(max(1, self.plan.arena), dtype), np.empty(self.plan.n_pivots, np.int32)


class CompiledFormula:
    """Formulas as one callable; planned once for each set of shapes, at the first call with them.

    Parameters are keyword arguments or positional in the order of `inputs`. The call returns a named tuple of the
    outputs. Matrices may lie in C or Fortran order, vectors may have one or two dimensions (outputs then have as
    many), a matrix said to be diagonal may be given by its diagonal. Results are new arrays; inputs are never changed.

    Raises
    ------
    PxUsageError
        When an input is missing, unknown, complex, or of a shape that does not fit.
    NotPositiveDefinite
        When a matrix is not what was said of it; names the matrix, its asymmetry or the failing minor.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        name: str = "formula",
        form: str = "auto",
        dtype: Any = None,
        blocks: Any = "auto",
        assume: bool = True,
        threads: int | None = None,
    ) -> None:
        if form not in FORMS:
            raise PxUsageError(f"There is no form `{form}`.{nearest(form, FORMS)} Forms: {', '.join(FORMS)}.")
        self.problem, self.name, self.form, self.blocks = problem, name, form, blocks
        if not isinstance(blocks, Mapping):
            read_blocks(blocks, {})
        self.assume, self.threads = assume, threads
        self.dtype = None if dtype is None else _checked_dtype(dtype)
        self.__name__ = name
        self._start()

    def _start(self) -> None:
        self._ready: dict[Any, _Ready] = {}
        self._lock = threading.Lock()
        self._last: _Ready | None = None
        self.result_type = result_type(self.name, tuple(self.problem.outputs))

    def __getstate__(self) -> dict[str, Any]:
        hidden = ("_ready", "_lock", "_last", "result_type")
        plans = {key: ready.plan for key, ready in self._ready.items()}
        return {**{k: v for k, v in self.__dict__.items() if k not in hidden}, "_plans": plans}

    def __setstate__(self, state: dict[str, Any]) -> None:
        plans = state.pop("_plans")
        self.__dict__.update(state)
        self._start()
        for key, plan in plans.items():
            self._last = self._ready[key] = _prepare(plan)

    # -- calling -------------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.problem.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.problem.outputs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arrays, layout, sizes, flat = self._read(self._bind(args, kwargs))
        ready = self._ready_for(layout, sizes)
        return self._execute(ready, arrays, layout, flat)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if len(args) > len(self.inputs):
            raise PxUsageError(f"`{self.name}` takes {len(self.inputs)} inputs: {', '.join(self.inputs)}.")
        given = {**dict(zip(self.inputs, args, strict=False)), **kwargs}
        for name in kwargs:
            if name not in self.problem.inputs:
                raise PxUsageError(
                    f"`{self.name}` has no input `{name}`.{nearest(name, self.inputs)}\n"
                    f"Inputs: {', '.join(self.inputs)}."
                )
        missing = [name for name in self.inputs if name not in given]
        if missing:
            raise PxUsageError(f"`{self.name}` needs {', '.join(f'`{m}`' for m in missing)} as well.")
        return given

    def _read(self, given: dict[str, Any]) -> tuple[dict[str, Any], Layout, Sizes, set[str]]:
        """Check and convert the inputs; learn the sizes; note which came with one dimension."""
        raw = {name: _as_real(name, value) for name, value in given.items()}
        single = self._is_single(raw)
        dtype = np.float32 if single else np.float64
        reader = _InputReader(self.problem, self.assume)
        arrays = {name: reader.read(name, array, dtype) for name, array in raw.items()}
        layout = Layout(frozenset(reader.c_order), frozenset(reader.vectors), single)
        return arrays, layout, reader.sizes, reader.flat_dims()

    def _is_single(self, raw: dict[str, Array]) -> bool:
        if self.dtype is not None:
            return self.dtype == np.float32
        kinds = {array.dtype for array in raw.values() if array.ndim}
        return bool(kinds) and kinds == {np.dtype(np.float32)}

    def _ready_for(self, layout: Layout, sizes: Sizes) -> _Ready:
        shapes = tuple(
            tuple(sizes.value(d) for d in shape) if shape else None for shape in self.problem.inputs.values()
        )
        key = (shapes, layout)
        with self._lock:
            if key not in self._ready:
                self._ready[key] = _prepare(self._plan(sizes, layout))
            self._last = self._ready[key]
            return self._last

    def _plan(self, sizes: Sizes, layout: Layout) -> Plan:
        lowering = Lowering(self.problem, sizes, self.assume)
        outputs = lowering.outputs()
        inputs = {}
        for name, shape in self.problem.inputs.items():
            numbers = None if shape is None else tuple(sizes.value(d) or 0 for d in shape)
            inputs[name] = lowering.graph.symbol(name, numbers)  # type: ignore[arg-type]
        known = {name: sizes.value(Dim.var(name)) or 0 for name in self.problem.dim_names()}
        cuts = read_blocks(self.blocks, known)
        return Search(lowering.graph, outputs, inputs, layout, cuts).best(self.form)

    # -- explaining ----------------------------------------------------------------------------------------------

    def plan_for(self, sizes: Any = None, *, c_order: bool = True, dtype: Any = None) -> Plan:
        """Plan for given sizes without running: `plan_for("n=1000,k=500")`; column sizes that stay open are 1."""
        from pxtools.expr.parse import read_sizes

        found, given = self.problem.sizes.copy(), read_sizes(sizes)
        for name in self.problem.dim_names():
            is_column = (name.startswith("c") and name[1:].isdigit()) or name == "c"
            if name not in given and not is_column:
                raise PxUsageError(f"The size {name} is not known. Give it: `--sizes {name}=1000`.")
            found.learn(Dim.var(name), Dim.of(given.get(name, 1)))
        for name in given:
            if name not in self.problem.dim_names():
                raise PxUsageError(f"There is no size `{name}` here (sizes: {', '.join(self.problem.dim_names())}).")
        names = [n for n, shape in self.problem.inputs.items() if shape is not None]
        diagonal = [n for n in names if self.assume and self.problem.assumptions.has(n, "diagonal")]
        lying = [n for n in names if c_order and n not in diagonal]
        single = (dtype or self.dtype) is not None and np.dtype(dtype or self.dtype) == np.float32
        return self._ready_for(Layout(frozenset(lying), frozenset(diagonal), single), found).plan

    @property
    def plan(self) -> Plan:
        """The plan that was used last, or the one for the sizes that are fixed."""
        if self._last is None:
            return self.plan_for()
        return self._last.plan

    def _plan_of(self, sizes: Any) -> Plan:
        return self.plan if sizes is None else self.plan_for(sizes)

    def explain(self, sizes: Any = None, *, source: str | None = None) -> str:
        """Return the steps with flops and predicted times; `source="python"` or `"c"`: the same work as code."""
        from pxtools.expr import explain
        from pxtools.expr import source as writers

        plan = self._plan_of(sizes)
        if source is None:
            return explain.explain(plan, self.name)
        if source not in writers.WRITERS:
            raise PxUsageError(f"There is no source `{source}`. Choose python or c.")
        return writers.WRITERS[source](plan, self.name)

    def graph(self, sizes: Any = None) -> Any:
        """Return the picture of the plan; notebooks show it as SVG."""
        from pxtools.expr.graph import PlanGraph

        return PlanGraph.of(self._plan_of(sizes))

    def __repr__(self) -> str:
        shapes = self.problem.shape_text
        takes = ", ".join(f"{name}: {shapes(name)}" for name in self.inputs)
        gives = ", ".join(
            f"{n}: {'scalar' if self.problem.outputs[n].shape is None else self._out_shape(n)}" for n in self.outputs
        )
        return f"{self.name}({takes}) -> ({gives})"

    def _out_shape(self, name: str) -> str:
        return "×".join(str(self.problem.sizes.resolve(d)) for d in self.problem.outputs[name].shape or ())

    def _execute(self, ready: _Ready, arrays: dict[str, Any], layout: Layout, flat: set[str]) -> Any:
        from pxtools.kernels import blasplan

        plan = ready.plan
        dtype = np.float32 if layout.single else np.float64
        work, pivots = ready.workspace(layout.single)
        scalars = ready.scalars.copy()
        buffers = [work]
        for buffer in plan.buffers:
            if buffer.kind == "input":
                buffers.append(arrays[buffer.name])
            elif buffer.kind == "output":
                buffers.append(np.empty((buffer.rows, buffer.cols), dtype, order="F"))
        for spec in plan.inputs:
            if spec.scalar >= 0:
                scalars[spec.scalar] = arrays[spec.name]
        with blas_threads(self.threads):
            row, info = blasplan.run_plan(ready.table, buffers, scalars, pivots, layout.single)
        ready.spare.append((work, pivots))
        if row >= 0:
            raise explain_failure(self, plan.steps[row], info, arrays)
        return self.result_type(*(self._output(plan, i, buffers, scalars, flat) for i in range(len(plan.outputs))))

    def _output(self, plan: Plan, index: int, buffers: list[Array], scalars: Array, flat: set[str]) -> Any:
        spec = plan.outputs[index]
        if spec.shape is None:
            return float(scalars[spec.scalar])
        array = buffers[plan.places[spec.buffer]]
        array = array.T if spec.trans else array
        return array[:, 0] if self._is_flat(spec.name, flat) else array

    def _is_flat(self, name: str, flat: set[str]) -> bool:
        shape = self.problem.outputs[name].shape
        if shape is None:
            return False
        cols = self.problem.sizes.resolve(shape[1])
        if cols == ONE:
            return "1" in flat
        return str(cols) in flat


def _prepare(plan: Plan) -> _Ready:
    return _Ready(plan, plan.table(), np.array(plan.scalars))


def _checked_dtype(dtype: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(dtype)
    if found not in (np.float32, np.float64):
        raise PxUsageError(f"The dtype must be float64 or float32, and this is {found}.")
    return found


def _as_real(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise PxUsageError(f"`{name}` must hold real numbers, and its dtype is {array.dtype}.")
    if array.ndim > 2:
        raise PxUsageError(f"`{name}` must be a matrix or a vector, and it has {array.ndim} dimensions.")
    return array


@dataclass
class _InputReader:
    """Learns the sizes from the inputs, one after another."""

    problem: Problem
    assume: bool
    c_order: set[str] = field(default_factory=set)
    vectors: set[str] = field(default_factory=set)
    one_dim: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sizes = self.problem.sizes.copy()
        self.told: dict[str, str] = {}

    def read(self, name: str, array: Array, dtype: Any) -> Any:
        shape = self.problem.inputs[name]
        if shape is None:
            if array.size != 1:
                raise PxUsageError(f"`{name}` is a number in the formulas, and it came with shape {array.shape}.")
            return float(array.reshape(()))
        if self.assume and self.problem.assumptions.has(name, "diagonal"):
            return self._diagonal(name, array, shape, dtype)
        if array.ndim < 2:
            self.one_dim.append(name)
            array = array.reshape(-1, 1)
        self._learn(name, shape, (array.shape[0], array.shape[1]))
        if self.assume and self.problem.assumptions.has(name, "orthogonal"):
            check_orthogonal(name, array)
        if array.flags.f_contiguous:
            return np.asarray(array, dtype=dtype, order="F")
        self.c_order.add(name)
        return np.ascontiguousarray(array, dtype=dtype)

    def _diagonal(self, name: str, array: Array, shape: tuple[Dim, Dim], dtype: Any) -> Array:
        """Keep a diagonal matrix as its diagonal, whichever way it was given."""
        from pxtools.expr.tree import NotPositiveDefinite

        self.vectors.add(name)
        if array.ndim == 2:
            self._learn(name, shape, (array.shape[0], array.shape[1]))
            off = np.count_nonzero(array) - np.count_nonzero(array.diagonal())
            if off:
                raise NotPositiveDefinite(
                    f"`{name}` is said to be diagonal, and {off} entries off its diagonal are not zero."
                )
            array = array.diagonal()
        vector = np.ascontiguousarray(array, dtype=dtype).reshape(-1)
        self._learn(name, shape, (len(vector), len(vector)))
        if self.problem.assumptions.has(name, "pd") and not np.all(vector > 0):
            worst = int(np.argmin(vector))
            raise NotPositiveDefinite(
                f"`{name}` is said to be positive definite, and its diagonal entry {worst} is {vector[worst]:g}."
            )
        return vector

    def _learn(self, name: str, shape: tuple[Dim, Dim], found: tuple[int, int]) -> None:
        for axis in (0, 1):
            if not self.sizes.learn(shape[axis], Dim.of(found[axis])):
                dim = self.problem.sizes.resolve(shape[axis])
                known = self.sizes.value(dim)
                by = next((f" (from `{self.told[n]}`)" for n, _ in dim.terms if n in self.told), "")
                want = f"{dim} = {known}{by}" if not dim.is_known else str(dim)
                raise PxUsageError(
                    f"`{name}` came with shape {found[0]}×{found[1]}, and its "
                    f"{('rows', 'columns')[axis]} must be {want}.\n"
                    f"In the formulas it is {self.problem.shape_text(name)}."
                )
            for dim_name, _ in self.problem.sizes.resolve(shape[axis]).terms:
                self.told.setdefault(dim_name, name)

    def flat_dims(self) -> set[str]:
        """Return the column sizes that only inputs with one dimension have: outputs lose that dimension too."""
        flat: set[str] = set()
        kept: set[str] = set()
        for name, shape in self.problem.inputs.items():
            if shape is not None:
                cols = str(self.problem.sizes.resolve(shape[1]))
                (flat if name in self.one_dim else kept).add(cols)
        return flat - kept
