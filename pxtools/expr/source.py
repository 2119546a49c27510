"""The same work as a plan does, as Python with NumPy and SciPy, or as C with CBLAS and LAPACKE.

In Python a symmetric matrix is kept whole, so the steps that only fill triangles vanish. In C the calls are those that
the plan makes, one for one.
"""

from __future__ import annotations

from collections.abc import Callable

from pxtools.expr.emit import Mat, Step
from pxtools.expr.explain import Labels, step_text
from pxtools.expr.plan import Plan
from pxtools.kernels.blasplan import SCALAR_KINDS


class _Python:
    """Writes one Python function."""

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan, self.name, self.labels = plan, name, Labels.of(plan)
        self.written: set[int] = set()
        self.results = {s.result for s in plan.steps if s.op in ("dot", "logdet", "scalar")}
        self.flipped = {s.buffer for s in plan.inputs if s.c_order} | {o.buffer for o in plan.outputs if o.trans}

    def source(self) -> str:
        lines = [
            "import numpy as np",
            "from scipy.linalg import cholesky, ldl, solve_triangular, lu_factor, lu_solve",
            "",
        ]
        lines.append(f"def {self.name}({', '.join(spec.name for spec in self.plan.inputs)}):")
        for spec in self.plan.inputs:
            if spec.shape is not None:
                tall = "(-1, 1)" if spec.is_vector else f"(len({spec.name}), -1)"
                lines.append(f"    {spec.name} = np.asarray({spec.name}, dtype=float).reshape{tall}")
        for step in self.plan.steps:
            lines += [f"    {line}" for line in self.step(step)]
        results = [self.scalar(o.scalar) if o.shape is None else self.labels.names[o.buffer] for o in self.plan.outputs]
        return "\n".join([*lines, f"    return {', '.join(results)}", ""])

    def scalar(self, position: int) -> str:
        spec = next((s for s in self.plan.inputs if s.scalar == position), None)
        if spec:
            return spec.name
        return f"s{position}" if position in self.results else repr(float(self.plan.scalars[position]))

    def read(self, mat: Mat | None, trans: int = 0) -> str:
        assert mat is not None
        buffer = self.plan.buffers[mat.buf]
        word, flip = self.labels.names[mat.buf], mat.buf in self.flipped
        size = max(buffer.rows, 1)
        if mat.ld == size + 1 and mat.rows == 1:
            start = mat.offset % size
            word = f"np.diagonal({word})[{start}:{start + mat.cols}].reshape(1, -1)"
            return f"{word}.T" if trans else word
        if self._is_row_of_column(mat):
            word = f"{word}.reshape(-1, 1)[{mat.offset}:{mat.offset + mat.cols}].T"
            return f"{word}.T" if trans else word
        if (mat.rows, mat.cols) != (buffer.rows, buffer.cols):
            top, left = mat.offset % size, mat.offset // size
            parts = [f"{top}:{top + mat.rows}", f"{left}:{left + mat.cols}"]
            word += f"[{', '.join(reversed(parts) if flip else parts)}]"
        return word + (".T" if bool(trans) != flip else "")

    def _is_row_of_column(self, mat: Mat) -> bool:
        return mat.rows == 1 and mat.ld == 1 and self.plan.buffers[mat.buf].cols == 1 and mat.cols > 1

    def write(self, mat: Mat | None, value: str) -> list[str]:
        assert mat is not None
        buffer, name = self.plan.buffers[mat.buf], self.labels.names[mat.buf]
        flip = mat.buf in self.flipped
        whole = (mat.rows, mat.cols) == (buffer.rows, buffer.cols)
        lines = []
        if not whole and mat.buf not in self.written:
            shape = (buffer.cols, buffer.rows) if flip else (buffer.rows, buffer.cols)
            lines.append(f"{name} = np.zeros({shape})")
        self.written.add(mat.buf)
        if whole:
            return [*lines, f"{name} = ({value}).T" if flip else f"{name} = {value}"]
        if mat.ld == max(buffer.rows, 1) + 1 and mat.rows == 1:
            return [*lines, f"np.fill_diagonal({name}, {value})"]
        target = self.read(mat)
        return [*lines, f"{target[:-2]} = ({value}).T" if target.endswith(".T") else f"{target} = {value}"]

    def combined(self, step: Step, value: str) -> list[str]:
        alpha, beta = self.scalar(step.alpha), self.scalar(step.beta)
        value = value if step.alpha == 1 else f"{alpha} * ({value})"
        if step.beta:
            value += f" + {self.read(step.C)}" if step.beta == 1 else f" + {beta} * {self.read(step.C)}"
        return self.write(step.C, value)

    def step(self, step: Step) -> list[str]:  # noqa: C901  one branch for each operation
        f1, f2 = step.flags[:2]
        c = step.C
        match step.op:
            case "check" | "mirror":
                return []
            case "gemm" | "gemmt":
                return self.combined(step, f"{self.read(step.A, f1)} @ {self.read(step.B, f2)}")
            case "symm":
                pair = (self.read(step.B), self.read(step.A))
                return self.combined(step, " @ ".join(pair if f1 else reversed(pair)))
            case "syrk":
                return self.combined(step, f"{self.read(step.A, f1)} @ {self.read(step.A, not f1)}")
            case "axpby":
                value = self.read(step.A, f1)
                return self.combined(step, value if step.alpha != 1 or step.beta else f"{value}.copy()")
            case "hadamard":
                return self.combined(step, f"{self.read(step.A, f1)} * {self.read(step.B, f2)}")
            case "trsm" | "trmm":
                return self.write(c, self._triangle(step))
            case "potrf":
                return self.write(c, f"cholesky({self.read(c)}, lower=True)")
            case "getrf":
                return [f"lu{step.pivots} = lu_factor({self.read(c)})", *self.write(c, f"lu{step.pivots}[0]")]
            case "getrs":
                return self.write(c, f"lu_solve(lu{step.pivots}, {self.read(c)}, trans={int(f1)})")
            case "sytrf":
                return [f"sym{step.pivots} = {self.read(c)}"]
            case "sytrs":
                return self.write(c, f"np.linalg.solve(sym{step.pivots}, {self.read(c)})")
            case "potri":
                return self.write(c, f"np.linalg.inv(np.tril({self.read(c)}) @ np.tril({self.read(c)}).T)")
            case "getri":
                return self.write(c, f"lu_solve(lu{step.pivots}, np.eye({step.n}))")
            case "trtri":
                eye = f"np.eye({step.n})"
                return self.write(c, f"solve_triangular({self.read(c)}, {eye}, lower={not f2})")
            case "dscale":
                sign = "/" if f2 else "*"
                return self.write(c, f"{self.read(c)} {sign} {self.read(step.A, f1)}")
            case "fill":
                if f2:
                    return self.write(c, f"np.tril({self.read(c)})")
                assert c is not None
                rest = f" + {self.scalar(step.beta)} * {self.read(c)}" if step.beta else ""
                return self.write(c, f"np.full(({c.rows}, {c.cols}), {self.scalar(step.alpha)}){rest}")
            case "recip":
                return self.write(c, f"{self.scalar(step.alpha)} / {self.read(step.A)}")
            case "tpqrt":
                stack = f"np.vstack([np.triu({self.read(step.A)}), {self.read(step.B)}])"
                return [
                    f"q, r = np.linalg.qr({stack}, mode='complete')",
                    *self.write(step.A, f"r[:{step.n}]"),
                ]
            case "tpmqrt":
                lines = [f"both = q.T @ np.vstack([{self.read(step.A)}, {self.read(step.B)}])"]
                return lines + self.write(step.A, f"both[:{step.k}]") + self.write(step.B, f"both[{step.k}:]")
        return [self._number(step)]

    def _triangle(self, step: Step) -> str:
        right, upper, trans, _ = step.flags
        triangle = f"np.{'triu' if upper else 'tril'}({self.read(step.A)}){'.T' if trans else ''}"
        c = self.read(step.C)
        if step.op == "trmm":
            return f"{c} @ {triangle}" if right else f"{triangle} @ {c}"
        lower = bool(upper) == bool(trans)
        if right:
            return f"solve_triangular(({triangle}).T, ({c}).T, lower={not lower}).T"
        return f"solve_triangular({triangle}, {c}, lower={lower})"

    def _number(self, step: Step) -> str:
        f1, f2, f3, _ = step.flags
        x, y = self.scalar(step.alpha), self.scalar(step.beta)
        if step.op == "dot":
            inner = self.read(step.A, f1) + ("" if f3 else f" * {self.read(step.B, f2)}")
            return f"s{step.result} = {x} * np.sum({inner})"
        if step.op == "logdet":
            row = self.read(step.A)
            sign = f" * (-1) ** np.sum(lu{step.pivots}[1] != np.arange({step.n}))" if f1 else ""
            inner = f"np.prod({row}){sign}" if f2 else f"np.sum(np.log(np.abs({row})))"
            return f"s{step.result} = {x} * {inner}"
        word = {"add": f"{x} + {y}", "mul": f"{x} * {y}", "pow": f"{x} ** {y}"}
        kind = SCALAR_KINDS[f1]
        return f"s{step.result} = {word.get(kind, f'np.{kind}({x})')}"


def python_source(plan: Plan, name: str) -> str:
    """Return a Python function that does what the plan does."""
    return _Python(plan, name).source()


# -- C -----------------------------------------------------------------------------------------------------------------

TRANS = ("CblasNoTrans", "CblasTrans")
SIDE = ("CblasLeft", "CblasRight")
UPLO = ("CblasLower", "CblasUpper")


#: BLAS has no such call; CBLAS libraries have one under several names, or none
GEMMT = """
/* lower triangle of C = alpha op(A) op(B) + beta C: what is below a diagonal block at once, the block by columns */
static void lower_gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int n, int k, double alpha, const double *a, int lda,
                       const double *b, int ldb, double beta, double *c, int ldc)
{
    long row = ta == CblasNoTrans ? 1 : lda, col = tb == CblasNoTrans ? ldb : 1;
    for (int j = 0; j < n; j += 64) {
        int end = n - j < 64 ? n : j + 64;
        cblas_dgemm(CblasColMajor, ta, tb, n - end, end - j, k, alpha, a + end * row, lda, b + j * col, ldb, beta,
                    c + end + (long)j * ldc, ldc);
        for (int i = j; i < end; i++)
            cblas_dgemm(CblasColMajor, ta, tb, end - i, 1, k, alpha, a + i * row, lda, b + i * col, ldb, beta,
                        c + i + (long)i * ldc, ldc);
    }
}
"""


class _C:
    """Writes one C function: inputs and outputs as pointers to column-major storage, one arena, pivots."""

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan, self.name, self.labels = plan, name, Labels.of(plan)

    def source(self) -> str:
        plan = self.plan
        inputs = [f"double {s.name}" if s.shape is None else f"const double *{s.name}" for s in plan.inputs]
        outputs = [
            f"double *{self.labels.names.get(o.buffer, o.name)}" if o.shape else f"double *{o.name}"
            for o in plan.outputs
        ]
        scalars = ", ".join(f"{value!r}" for value in plan.scalars)
        lines = [
            "#include <math.h>",
            "#include <cblas.h>",
            "#include <lapacke.h>",
            "",
            *(GEMMT.splitlines()[1:] if any(step.op == "gemmt" for step in plan.steps) else ()),
            "/* matrices are column-major; those marked T are the transposes of what the formula means */",
            (
                f"int {self.name}({', '.join([*inputs, *outputs])}, double *work /* {plan.arena} */, "
                f"int *pivots /* {plan.n_pivots} */)"
            ),
            "{",
            f"    double s[] = {{{scalars}}};",
            "    int info = 0;",
            "    LAPACKE_set_nancheck(0); /* triangles that no call reads may hold anything */",
        ]
        lines += [f"    s[{spec.scalar}] = {spec.name};" for spec in plan.inputs if spec.shape is None]
        for step in plan.steps:
            lines.append(f"    /* {step_text(plan, self.labels, step)} */")
            lines += [f"    {line}" for line in self.step(step)]
        lines += [f"    *{o.name} = s[{o.scalar}];" for o in plan.outputs if o.shape is None]
        return "\n".join([*lines, "    return info;", "}", ""])

    def at(self, mat: Mat | None) -> str:
        assert mat is not None
        if self.plan.buffers[mat.buf].kind == "temp":
            return f"work + {self.plan.places[mat.buf] + mat.offset}"
        name = self.labels.names.get(mat.buf, self.plan.buffers[mat.buf].name)
        name = f"(double *){name}" if self.plan.buffers[mat.buf].kind == "input" else name
        return f"{name} + {mat.offset}" if mat.offset else name

    def step(self, step: Step) -> list[str]:
        f1, f2, f3 = (int(f) for f in step.flags[:3])
        a, b, c = (f"{self.at(m)}, {m.ld}" if m else "" for m in (step.A, step.B, step.C))
        m, n, k, al, be = step.m, step.n, step.k, f"s[{step.alpha}]", f"s[{step.beta}]"
        col, piv = "CblasColMajor", f"pivots + {step.pivots}"
        calls: dict[str, Callable[[], str]] = {
            "gemm": lambda: f"cblas_dgemm({col}, {TRANS[f1]}, {TRANS[f2]}, {m}, {n}, {k}, {al}, {a}, {b}, {be}, {c});",
            "gemmt": lambda: f"lower_gemm({TRANS[f1]}, {TRANS[f2]}, {n}, {k}, {al}, {a}, {b}, {be}, {c});",
            "symm": lambda: f"cblas_dsymm({col}, {SIDE[f1]}, CblasLower, {m}, {n}, {al}, {a}, {b}, {be}, {c});",
            "syrk": lambda: f"cblas_dsyrk({col}, CblasLower, {TRANS[f1]}, {n}, {k}, {al}, {a}, {be}, {c});",
            "trsm": lambda: (
                f"cblas_dtrsm({col}, {SIDE[f1]}, {UPLO[f2]}, {TRANS[f3]}, CblasNonUnit, {m}, {n}, 1.0, {a}, {c});"
            ),
            "trmm": lambda: (
                f"cblas_dtrmm({col}, {SIDE[f1]}, {UPLO[f2]}, {TRANS[f3]}, CblasNonUnit, {m}, {n}, 1.0, {a}, {c});"
            ),
            "potrf": lambda: f"LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', {n}, {c})",
            "potri": lambda: f"LAPACKE_dpotri(LAPACK_COL_MAJOR, 'L', {n}, {c})",
            "trtri": lambda: f"LAPACKE_dtrtri(LAPACK_COL_MAJOR, '{'LU'[f2]}', 'N', {n}, {c})",
            "getrf": lambda: f"LAPACKE_dgetrf(LAPACK_COL_MAJOR, {n}, {n}, {c}, {piv})",
            "getri": lambda: f"LAPACKE_dgetri(LAPACK_COL_MAJOR, {n}, {c}, {piv})",
            "getrs": lambda: f"LAPACKE_dgetrs(LAPACK_COL_MAJOR, '{'NT'[f1]}', {n}, {k}, {a}, {piv}, {c})",
            "sytrf": lambda: f"LAPACKE_dsytrf(LAPACK_COL_MAJOR, 'L', {n}, {c}, {piv})",
            "sytrs": lambda: f"LAPACKE_dsytrs(LAPACK_COL_MAJOR, 'L', {n}, {k}, {a}, {piv}, {c})",
            "tpqrt": lambda: f"LAPACKE_dtpqrt(LAPACK_COL_MAJOR, {m}, {n}, 0, {f1}, {a}, {b}, {self._room(step)}, {f1})",
            "tpmqrt": lambda: (
                f"LAPACKE_dtpmqrt(LAPACK_COL_MAJOR, 'L', 'T', {m}, {n}, {k}, 0, {f1}, {c}, "
                f"{self._room(step)}, {f1}, {a}, {b})"
            ),
        }
        if step.op in calls:
            call = calls[step.op]()
            return [call] if call.endswith(";") else [f"if ((info = {call})) return info;"]
        return self._loops(step)

    def _room(self, step: Step) -> str:
        assert step.scratch is not None
        return f"work + {self.plan.places[step.scratch[0]] + step.scratch[1]}"

    def entry(self, mat: Mat | None, trans: int, i: str = "i", j: str = "j") -> str:
        assert mat is not None
        first, second = (j, i) if trans else (i, j)
        return f"({self.at(mat)})[{first} + {second} * {mat.ld}L]"

    def _loops(self, step: Step) -> list[str]:
        f1, f2, f3, _ = (int(f) for f in step.flags)
        al, be = f"s[{step.alpha}]", f"s[{step.beta}]"
        c = self.entry(step.C, 0) if step.C else ""
        rest = f" + {be} * {c}" if step.beta else ""
        loop = f"for (long j = 0; j < {step.n}; j++) for (long i = {{0}}; i < {{1}}; i++) "
        whole = loop.format(0, step.m)
        match step.op:
            case "axpby":
                head = loop.format("j" if f2 else 0, step.m)
                return [f"{head}{c} = {al} * {self.entry(step.A, f1)}{rest};"]
            case "hadamard":
                return [f"{whole}{c} = {al} * {self.entry(step.A, f1)} * {self.entry(step.B, f2)}{rest};"]
            case "fill":
                head = loop.format(0, f"(j < {step.m} ? j : {step.m})" if f2 else step.m)
                return [f"{head}{c} = {al}{rest};"]
            case "mirror":
                return [f"{loop.format('j + 1', step.n)}{self.entry(step.C, 1)} = {c};"]
            case "dscale":
                vector = f"({self.at(step.A)})[{'j' if f1 else 'i'}]"
                return [f"{whole}{c} {'/' if f2 else '*'}= {vector};"]
            case "recip":
                return [f"for (long i = 0; i < {step.m}; i++) ({self.at(step.C)})[i] = {al} / ({self.at(step.A)})[i];"]
            case "dot":
                inner = self.entry(step.A, f1) + ("" if f3 else f" * {self.entry(step.B, f2)}")
                return [f"{{ double sum = 0; {whole}sum += {inner}; s[{step.result}] = {al} * sum; }}"]
            case "logdet":
                item = self.entry(step.A, 0, "0", "j")
                swap = f"if (pivots[{step.pivots} + j] != j + 1) sign = -sign; " if f1 else ""
                body = f"prod *= {item}; total += log(fabs({item})); if ({item} < 0) sign = -sign; {swap}"
                if f2:
                    value = f"prod * {'swaps' if f1 else '1.0'}"
                    swaps = f"if (pivots[{step.pivots} + j] != j + 1) swaps = -swaps; " if f1 else ""
                    return [
                        (
                            f"{{ double prod = 1, swaps = 1; for (long j = 0; j < {step.n}; j++) {{ prod *= {item}; "
                            f"{swaps}}} s[{step.result}] = {al} * {value}; }}"
                        )
                    ]
                return [
                    (
                        f"{{ double total = 0, prod = 1; int sign = 1; for (long j = 0; j < {step.n}; j++) {{ {body}}} "
                        f"s[{step.result}] = {al} * (sign < 0 ? NAN : total); }}"
                    )
                ]
            case "scalar":
                x, y = f"s[{step.alpha}]", f"s[{step.beta}]"
                kind = SCALAR_KINDS[f1]
                value = {"add": f"{x} + {y}", "mul": f"{x} * {y}", "pow": f"pow({x}, {y})"}.get(kind, f"{kind}({x})")
                return [f"s[{step.result}] = {value};"]
            case "check":
                return [f"/* {step.blame} is taken as it was said to be */"]
        raise AssertionError(step.op)


def c_source(plan: Plan, name: str) -> str:
    """Return a C function that makes the plan's calls."""
    return _C(plan, name).source()


WRITERS = {"python": python_source, "c": c_source}
