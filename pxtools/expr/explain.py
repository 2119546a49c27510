"""A plan for readers: the table of steps, the graph as SVG, and the same work as Python or C."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from pxtools.expr.emit import Mat, Step
from pxtools.expr.plan import Plan, op_name

#: rate of each operation relative to GEMM, as measured with OpenBLAS for sizes of some hundreds
RELATIVE_RATE = {
    "gemm": 1.0,
    "symm": 0.95,
    "syrk": 0.9,
    "gemmt": 0.85,
    "trsm": 0.7,
    "trmm": 0.6,
    "potrf": 0.5,
    "getrf": 0.5,
    "getrs": 0.6,
    "potri": 0.4,
    "getri": 0.4,
    "sytrf": 0.2,
    "sytrs": 0.2,
    "tpqrt": 0.3,
    "tpmqrt": 0.5,
    "trtri": 0.4,
}
PIVOTED = ("getrf", "sytrf")


@cache
def machine() -> tuple[float, float]:
    """Return this process's GEMM rate (flop/s) and memory rate (entries/s), measured once in some milliseconds."""
    import numpy as np
    from scipy.linalg.blas import dgemm

    a = np.asfortranarray(np.ones((512, 512)))
    big = np.ones(2_000_000)
    gemm_s = min(_seconds(lambda: dgemm(1.0, a, a)) for _ in range(3))
    copy_s = min(_seconds(big.copy) for _ in range(3))
    return 2 * 512**3 / gemm_s, 2_000_000 / copy_s


def _seconds(work: Any) -> float:
    # the time of this thread, which a busy machine does not lengthen
    start = time.thread_time()
    work()
    return max(time.thread_time() - start, 1e-9)


def predicted_s(step: Step) -> float:
    """Return the expected seconds of a step: by its flops, or by the entries it touches."""
    rate, memory = machine()
    touched = sum(mat.rows * mat.cols for mat in (step.A, step.B, step.C) if mat)
    if op_name(step) in ("gemv", "symv", "trsv"):
        return touched / memory
    return max(step.flops / (rate * RELATIVE_RATE.get(step.op, 0.1)), touched / memory / 2)


@dataclass(frozen=True)
class Labels:
    """Short names for the buffers of a plan: inputs and outputs by name, temporaries numbered by birth."""

    names: dict[int, str]

    @staticmethod
    def of(plan: Plan) -> Labels:
        names: dict[int, str] = {}
        taken = {b.name for b in plan.buffers}
        count = 0
        for step in plan.steps:
            for buf in sorted(step.reads | step.writes):
                if buf in names:
                    continue
                buffer = plan.buffers[buf]
                if buffer.kind == "temp":
                    count += 1
                    while f"t{count}" in taken:
                        count += 1
                    names[buf] = f"t{count}"
                else:
                    names[buf] = buffer.name if buffer.kind == "input" else _free(buffer.name, plan)
        return Labels(names)

    def text(self, plan: Plan, mat: Mat, flag: bool = False) -> str:
        """Return the operand as the formula means it (C-order inputs are stored transposed)."""
        buffer = plan.buffers[mat.buf]
        spec = next((s for s in plan.inputs if s.buffer == mat.buf), None)
        out = next((o for o in plan.outputs if o.buffer == mat.buf), None)
        flipped = bool(spec and spec.c_order) or bool(out and out.trans)
        word = self.names.get(mat.buf, "?")
        if (mat.rows, mat.cols) != (buffer.rows, buffer.cols) or mat.offset:
            top, left = mat.offset % max(buffer.rows, 1), mat.offset // max(buffer.rows, 1)
            if mat.ld == max(buffer.rows, 1) + 1:
                return f"diag({word})"
            rows, cols = (top, mat.rows), (left, mat.cols)
            if flipped:
                rows, cols = cols, rows
            word += f"[{rows[0]}:{sum(rows)}, {cols[0]}:{sum(cols)}]"
        return word + (".T" if flag != flipped and 1 not in (mat.rows, mat.cols) else "")


def _free(name: str, plan: Plan) -> str:
    """An output may have an input's name (`x = A*x`)."""
    return f"{name}_new" if any(spec.name == name for spec in plan.inputs) else name


def step_text(plan: Plan, labels: Labels, step: Step) -> str:  # noqa: C901  one branch for each operation
    """Return one line of mathematics for a step."""
    f1, f2, f3, _ = step.flags

    def show(mat: Mat | None, flag: Any = False) -> str:
        return labels.text(plan, mat, bool(flag)) if mat else ""

    alpha, beta = _number(plan, step.alpha), _number(plan, step.beta)
    plus = "" if step.beta == 0 else f" + {'' if beta == '1' else beta + '*'}{show(step.C)}"
    times = "" if alpha == "1" else ("-" if alpha == "-1" else f"{alpha}*")
    a, b, c = show(step.A, f1), show(step.B, f2), show(step.C)
    match step.op:
        case "gemm" | "gemmt":
            return f"{c} = {times}{a}*{b}{plus}"
        case "symm":
            pair = (show(step.B), show(step.A)) if f1 else (show(step.A), show(step.B))
            return f"{c} = {times}{pair[0]}*{pair[1]}{plus}"
        case "syrk":
            return f"{c} = {times}{a}*{show(step.A, not f1)}{plus}"
        case "trsm" | "trmm":
            word = f"{show(step.A, f3)}{'.I' if step.op == 'trsm' else ''}"
            return f"{c} = {c}*{word}" if f1 else f"{c} = {word}*{c}"
        case "potrf":
            return f"{c} = chol({c})"
        case "getrf" | "sytrf":
            return f"{c} = {'lu' if step.op == 'getrf' else 'ldl'}({c})"
        case "getrs" | "sytrs":
            return f"{c} = solve({show(step.A, f1)}, {c})"
        case "potri" | "getri" | "trtri":
            return f"{c} = {c}.I"
        case "axpby":
            return f"{c} = {times}{a}{plus}"
        case "hadamard":
            return f"{c} = {times}hadamard({a}, {b}){plus}"
        case "dscale":
            word = f"diag({show(step.A)})" + (".I" if f2 else "")
            return f"{c} = {c}*{word}" if f1 else f"{c} = {word}*{c}"
        case "fill":
            return f"{c}{' above the diagonal' if f2 else ''} = {alpha}{plus}"
        case "recip":
            return f"{c} = {alpha}/{show(step.A)}"
        case "dot":
            return f"s{step.result} = {times}sum({a})" if f3 else f"s{step.result} = {times}sum({a} * {b})"
        case "logdet":
            return f"s{step.result} = {times}{'prod' if f2 else 'sum log'} {show(step.A)}"
        case "scalar":
            from pxtools.kernels.blasplan import SCALAR_KINDS

            kind = SCALAR_KINDS[f1]
            inner = f"{alpha}, {beta}" if kind in ("add", "mul", "pow") else alpha
            return f"s{step.result} = {kind}({inner})"
        case "check":
            return f"is {a} {('symmetric', 'triangular', 'triangular')[f1]}?"
        case "mirror":
            return f"upper triangle of {c}"
        case "tpqrt":
            return f"qr of [{show(step.A)}; {show(step.B)}]"
        case "tpmqrt":
            return f"[{show(step.A)}; {show(step.B)}] by the reflectors of {c}"
    return step.op


def _number(plan: Plan, position: int) -> str:
    spec = next((s for s in plan.inputs if s.scalar == position), None)
    if spec:
        return spec.name
    if any(step.result == position for step in plan.steps if step.op in ("dot", "logdet", "scalar")):
        return f"s{position}"
    return f"{plan.scalars[position]:g}"


def _mflop(flops: float, digits: int) -> str:
    """Return millions as people write them: `0.25`, `1,000`, never `1e+03`."""
    value = flops / 1e6
    return f"{value:.{digits}g}" if value < 1000 - 0.5 else f"{value:,.0f}"


def explain(plan: Plan, name: str = "formula") -> str:
    """Return the plan as a table of steps with flops and predicted times."""
    labels = Labels.of(plan)
    shapes = ", ".join(f"{s.name} {'scalar' if s.shape is None else '×'.join(map(str, s.shape))}" for s in plan.inputs)
    rows = []
    for number, step in enumerate(plan.steps, 1):
        rows.append(
            (
                str(number),
                op_name(step),
                step_text(plan, labels, step),
                _mflop(step.flops, 3),
                f"{predicted_s(step) * 1e3:.3g}",
            )
        )
    head = ("", "operation", "what it does", "Mflop", "ms")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(5)]
    lines = [f"{name}: {shapes}"]
    for row in (head, *rows):
        cells = [c.rjust(w) if i in (0, 3, 4) else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    total = sum(map(predicted_s, plan.steps))
    lines.append(
        f"{_mflop(plan.flops, 4)} Mflop, about {total * 1e3:.3g} ms here; {plan.arena:,} numbers of workspace; "
        f"form: {plan.form}"
    )
    others = {form: flops for form, flops in plan.considered if form != plan.form}
    if others:
        lines.append("not taken: " + ", ".join(f"{form} {_mflop(flops, 4)} Mflop" for form, flops in others.items()))
    return "\n".join(lines)
