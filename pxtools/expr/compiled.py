"""A formula that can be called, sent and explained."""

from __future__ import annotations

import inspect
import keyword
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.expr.blocks import read_blocks
from pxtools.expr.dims import Dim, Sizes
from pxtools.expr.failure import explain_failure
from pxtools.expr.inputs import InputReader, as_real, convert
from pxtools.expr.lower import Lowering
from pxtools.expr.parse import Problem
from pxtools.expr.plan import OutputSpec, Plan
from pxtools.expr.result import result_type
from pxtools.expr.search import Layout, Search
from pxtools.kernels.threads import blas_threads
from pxtools.results import PerEngine

Array = np.ndarray[Any, Any]
FORMS = ("auto", "cholesky", "sqrt", "information", "sequential")
#: letters of a repr that show in one line on half a screen
_LINE = 79
#: plans kept for one formula; the oldest goes when shapes keep changing
KEPT_PLANS = 64


class Ready:
    """A plan with what the kernel wants: allocated once for each set of shapes."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.table, self.scalars = plan, plan.table(), np.array(plan.scalars)
        self.slots = [(b.kind, b.name, (b.rows, b.cols)) for b in plan.buffers if b.kind != "temp"]
        self.numbers = [(spec.scalar, spec.name) for spec in plan.inputs if spec.scalar >= 0]
        self.spare: list[tuple[Array, Array]] = []

    def workspace(self, dtype: Any) -> tuple[Array, Array]:
        """Return arena and pivots; several threads get one each."""
        try:
            return self.spare.pop()
        except IndexError:
            return np.empty(max(1, self.plan.arena), dtype), np.empty(self.plan.n_pivots, np.int32)


@dataclass(frozen=True)
class _Call:
    """What is known of calls whose inputs have the same shapes, types and memory orders."""

    layout: Layout
    ready: Ready
    is_flat: tuple[bool, ...]


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

    #: what runs a plan's table of operations, where it is not the CPU's `pxtools.kernels.blasplan.run_plan`
    run_table: Callable[..., tuple[int, int]] | None = None
    #: what calls the formula when a matrix comes in blocks on engines; given by the session that it belongs to
    in_blocks: Callable[[CompiledFormula, dict[str, Any]], Any] | None = None

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
        for word in (name, *problem.outputs):
            if not word.isidentifier() or keyword.iskeyword(word) or (word != name and word.startswith("_")):
                raise PxUsageError(f"`{word}` cannot name a formula or an output: a plain Python name is needed.")
        self.problem, self.name, self.form, self.blocks = problem, name, form, blocks
        if not isinstance(blocks, Mapping):
            read_blocks(blocks, {})
        self.assume, self.threads = assume, threads
        self.dtype = None if dtype is None else _checked_dtype(dtype)
        self.__name__ = name
        self._start()

    def _start(self) -> None:
        self._ready: dict[Any, Ready] = {}
        self._calls: dict[Any, _Call] = {}
        self._lock = threading.Lock()
        self._last: Ready | None = None
        self.result_type = result_type(self.name, tuple(self.problem.outputs))

    @property
    def __signature__(self) -> inspect.Signature:
        """The inputs by name, for `help` and completion."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = [name for name in self.inputs if not keyword.iskeyword(name)]
        return inspect.Signature([inspect.Parameter(name, kind) for name in names])

    def __getstate__(self) -> dict[str, Any]:
        hidden = ("_ready", "_calls", "_lock", "_last", "result_type", "in_blocks")
        plans = {key: ready.plan for key, ready in self._ready.items()}
        return {**{k: v for k, v in self.__dict__.items() if k not in hidden}, "_plans": plans}

    def __setstate__(self, state: dict[str, Any]) -> None:
        plans = state.pop("_plans")
        self.__dict__.update(state)
        self._start()
        for key, plan in plans.items():
            self._last = self._ready[key] = Ready(plan)

    # -- calling -------------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.problem.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.problem.outputs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = self._bind(args, kwargs)
        if any(isinstance(value, PerEngine) for value in given.values()):
            return self._call_in_blocks(given)
        raw = {name: as_real(name, given[name]) for name in self.problem.inputs}
        signature = tuple([(x.shape, x.dtype.char, x.flags.f_contiguous) for x in raw.values()])
        call = self._calls.get(signature)
        if call is None:
            call = self._calls[signature] = self._new_call(raw)
        dtype = np.float32 if call.layout.single else np.float64
        arrays = {name: convert(self.problem, name, x, call.layout, dtype) for name, x in raw.items()}
        return self._execute(call, arrays, dtype)

    def _call_in_blocks(self, given: dict[str, Any]) -> Any:
        if self.in_blocks is None:
            raise PxUsageError(
                f"A matrix in blocks on engines was given, and `{self.name}` knows no engines.\n"
                f"Make it with `%%pxexpr {self.name}` or `pxtools.formula(...)`."
            )
        return self.in_blocks(self, given)

    def _new_call(self, raw: dict[str, Array]) -> _Call:
        """Learn the sizes and plan for them."""
        reader = InputReader(self.problem, self.assume)
        for name, array in raw.items():
            reader.read(name, array)
        layout = Layout(frozenset(reader.c_order), frozenset(reader.vectors), self._is_single(raw), self.assume)
        return _Call(layout, self._ready_for(layout, reader.sizes), reader.flat_outputs())

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

    def _is_single(self, raw: dict[str, Array]) -> bool:
        if self.dtype is not None:
            return self.dtype == np.float32
        kinds = {array.dtype for array in raw.values() if array.ndim}
        return bool(kinds) and kinds == {np.dtype(np.float32)}

    def _ready_for(self, layout: Layout, sizes: Sizes) -> Ready:
        shapes = tuple(
            tuple(sizes.value(d) for d in shape) if shape else None for shape in self.problem.inputs.values()
        )
        key = (shapes, layout)
        with self._lock:
            if key not in self._ready:
                if len(self._ready) >= KEPT_PLANS:
                    self._calls.clear()
                    self._ready.pop(next(iter(self._ready)))
                self._ready[key] = Ready(self._plan(sizes, layout))
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
        return self._ready_for(Layout(frozenset(lying), frozenset(diagonal), single, self.assume), found).plan

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
        call, result = f"{self.name}({takes})", f"-> ({gives})"
        return f"{call} {result}" if len(call) + len(result) < _LINE else f"{call}\n    {result}"

    def _out_shape(self, name: str) -> str:
        return "×".join(str(self.problem.sizes.resolve(d)) for d in self.problem.outputs[name].shape or ())

    def _execute(self, call: _Call, arrays: dict[str, Any], dtype: Any) -> Any:
        values = self.run(call.ready, arrays, dtype)
        return self.result_type(
            *[
                value[:, 0] if is_flat and not isinstance(value, float) else value
                for value, is_flat in zip(values, call.is_flat, strict=True)
            ]
        )

    def run(self, ready: Ready, arrays: dict[str, Any], dtype: Any) -> list[Any]:
        """Run a plan on inputs that lie as it wants them; return its outputs, matrices with two dimensions."""
        from pxtools.kernels import blasplan

        plan = ready.plan
        work, pivots = ready.workspace(dtype)
        buffers = [work]
        for kind, name, shape in ready.slots:
            buffers.append(arrays[name] if kind == "input" else np.empty(shape, dtype, order="F"))
        scalars = ready.scalars.copy()
        for position, name in ready.numbers:
            scalars[position] = arrays[name]
        with blas_threads(self.threads):
            run_table = self.run_table or blasplan.run_plan
            row, info = run_table(ready.table, buffers, scalars, pivots, np.dtype(dtype) == np.float32)
        ready.spare.append((work, pivots))
        if row >= 0:
            raise explain_failure(self, plan.steps[row], info, arrays)
        return [_output(spec, plan, buffers, scalars) for spec in plan.outputs]


def _output(spec: OutputSpec, plan: Plan, buffers: list[Array], scalars: Array) -> Any:
    if spec.shape is None:
        return float(scalars[spec.scalar])
    array = buffers[plan.places[spec.buffer]]
    return array.T if spec.trans else array


def _checked_dtype(dtype: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(dtype)
    if found not in (np.float32, np.float64):
        raise PxUsageError(f"The dtype must be float64 or float32, and this is {found}.")
    return found
