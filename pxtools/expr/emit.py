"""Steps of a plan, and the writing of them: one method for each operation of the kernel's table.

A `Mat` is a piece of a column-major buffer, read as it lies or transposed. The methods take matrices as the formula
means them and turn transposition, side and triangle into what BLAS is told about the storage.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Mat:
    """A matrix in a buffer: `rows` × `cols` as stored, `trans` when the formula means the transpose."""

    buf: int
    offset: int
    ld: int
    rows: int
    cols: int
    trans: bool = False

    @property
    def T(self) -> Mat:
        return replace(self, trans=not self.trans)

    @property
    def stored(self) -> Mat:
        return replace(self, trans=False)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.cols, self.rows) if self.trans else (self.rows, self.cols)

    def part(self, top: int, left: int, rows: int, cols: int) -> Mat:
        """Return a block, given in the formula's rows and columns."""
        if self.trans:
            return self.T.part(left, top, cols, rows).T
        return replace(self, offset=self.offset + top + left * self.ld, rows=rows, cols=cols)

    @property
    def as_row(self) -> Mat:
        """Return a stored column as a stored row."""
        return Mat(self.buf, self.offset, 1, 1, self.rows)

    @property
    def diagonal(self) -> Mat:
        """Return the diagonal as a row."""
        return replace(self, rows=1, cols=min(self.rows, self.cols), ld=self.ld + 1, trans=False)


@dataclass
class Buffer:
    """Memory of a plan: an input, an output, or temporary."""

    rows: int
    cols: int
    kind: str
    name: str = ""


@dataclass(frozen=True)
class Step:
    """One operation: sizes, flags, operands, positions of its scalars, and what it costs."""

    op: str
    m: int = 0
    n: int = 0
    k: int = 0
    flags: tuple[int, int, int, int] = (0, 0, 0, 0)
    A: Mat | None = None
    B: Mat | None = None
    C: Mat | None = None
    alpha: int = 1
    beta: int = 0
    pivots: int = 0
    result: int = 0
    scratch: tuple[int, int, int] | None = None
    flops: float = 0.0
    #: whether C is read before it is written
    updates: bool = False
    #: what failure of this step means, in words
    blame: str = ""

    @property
    def reads(self) -> set[int]:
        found = {mat.buf for mat in (self.A, self.B) if mat}
        if self.C and (self.updates or self.op in ("tpmqrt",)):
            found.add(self.C.buf)
        return found | ({self.scratch[0]} if self.scratch else set())

    @property
    def writes(self) -> set[int]:
        found = {self.C.buf} if self.C and self.op != "tpmqrt" else set()
        if self.op in ("tpqrt", "tpmqrt"):
            found |= {mat.buf for mat in (self.A, self.B) if mat}
        if self.op in ("sytrf", "getri") and self.B:
            found.add(self.B.buf)
        return found | ({self.scratch[0]} if self.scratch else set())


@dataclass
class Emitter:
    """Collects steps, buffers and scalars. Scalars 0 and 1 are the numbers 0 and 1."""

    steps: list[Step] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    scalars: list[float] = field(default_factory=lambda: [0.0, 1.0])
    n_pivots: int = 1
    _constants: dict[float, int] = field(default_factory=lambda: {0.0: 0, 1.0: 1})

    # -- memory --------------------------------------------------------------------------------------------------

    def buffer(self, rows: int, cols: int, kind: str = "temp", name: str = "", trans: bool = False) -> Mat:
        """Return a new matrix of logical shape rows × cols, stored transposed if asked."""
        if trans:
            rows, cols = cols, rows
        self.buffers.append(Buffer(rows, cols, kind, name))
        return Mat(len(self.buffers) - 1, 0, max(rows, 1), rows, cols, trans)

    def constant(self, value: float) -> int:
        if value not in self._constants:
            self._constants[value] = self.slot(value)
        return self._constants[value]

    def slot(self, value: float = 0.0) -> int:
        self.scalars.append(value)
        return len(self.scalars) - 1

    def pivots(self, count: int) -> int:
        self.n_pivots += count
        return self.n_pivots - count

    def put(self, op: str, **fields: object) -> None:
        self.steps.append(Step(op, **fields))  # type: ignore[arg-type]

    # -- products ------------------------------------------------------------------------------------------------

    def gemm(self, a: Mat, b: Mat, c: Mat, alpha: int = 1, beta: int = 0, lower: bool = False) -> None:
        """C = alpha A B + beta C; lower: only the lower triangle of C, as stored."""
        if c.trans:
            a, b, c = b.T, a.T, c.T
        (m, k), n = a.shape, b.shape[1]
        self.put(
            "gemmt" if lower else "gemm",
            m=0 if lower else m,
            n=n,
            k=k,
            flags=(a.trans, b.trans, 0, 0),
            A=a.stored,
            B=b.stored,
            C=c,
            alpha=alpha,
            beta=beta,
            flops=1.0 * n * (n + 1) * k if lower else 2.0 * m * n * k,
            updates=beta != 0,
        )

    def gemmt(self, a: Mat, b: Mat, c: Mat, alpha: int = 1, beta: int = 0) -> None:
        """Lower triangle of C = alpha A B + beta C, as stored."""
        self.gemm(a, b, c, alpha, beta, lower=True)

    def symm(self, s: Mat, b: Mat, c: Mat, right: bool, alpha: int = 1, beta: int = 0) -> None:
        """C = alpha S B + beta C (right: B S) with a symmetric S; B and C must lie the same way."""
        assert b.trans == c.trans
        if c.trans:
            b, c, right = b.T, c.T, not right
        m, n = c.shape
        self.put(
            "symm",
            m=m,
            n=n,
            flags=(right, 0, 0, 0),
            A=s.stored,
            B=b.stored,
            C=c,
            alpha=alpha,
            beta=beta,
            flops=2.0 * m * n * s.rows,
            updates=beta != 0,
        )

    def syrk(self, a: Mat, c: Mat, alpha: int = 1, beta: int = 0) -> None:
        """Lower triangle of C = alpha A A.T + beta C."""
        n, k = a.shape
        self.put(
            "syrk",
            n=n,
            k=k,
            flags=(a.trans, 0, 0, 0),
            A=a.stored,
            C=c.stored,
            alpha=alpha,
            beta=beta,
            flops=1.0 * n * (n + 1) * k,
            updates=beta != 0,
        )

    def triangle(self, op: str, a: Mat, lower: bool, c: Mat, right: bool) -> None:
        """In place: C = A C or C A (op "trmm"), A^-1 C or C A^-1 ("trsm"); `lower` as the formula means A."""
        upper = lower == a.trans
        trans = a.trans
        if c.trans:
            c, right, trans = c.T, not right, not trans
        m, n = c.shape
        self.put(
            op,
            m=m,
            n=n,
            flags=(right, upper, trans, 0),
            A=a.stored,
            C=c,
            updates=True,
            flops=1.0 * m * n * (n if right else m),
        )

    # -- factorizations ------------------------------------------------------------------------------------------

    def potrf(self, c: Mat, blame: str) -> None:
        n = c.rows
        self.put("potrf", n=n, C=c.stored, updates=True, flops=n**3 / 3, blame=blame)

    def getrf(self, c: Mat, pivots: int, blame: str) -> None:
        n = c.rows
        self.put("getrf", n=n, C=c.stored, pivots=pivots, updates=True, flops=2 * n**3 / 3, blame=blame)

    def sytrf(self, c: Mat, pivots: int, blame: str) -> None:
        n = c.rows
        wide = min(n, 64) * n
        self.put(
            "sytrf",
            n=n,
            k=wide,
            C=c.stored,
            B=self.buffer(wide, 1),
            pivots=pivots,
            updates=True,
            flops=n**3 / 3,
            blame=blame,
        )

    def solve(self, op: str, factor: Mat, pivots: int, c: Mat, trans: bool) -> None:
        """In place C = A^-1 C from the factor of `getrf` ("getrs") or `sytrf` ("sytrs"); C must not lie transposed."""
        assert not c.trans
        n, k = c.shape
        self.put(
            op,
            n=n,
            k=k,
            flags=(trans, 0, 0, 0),
            A=factor.stored,
            C=c,
            pivots=pivots,
            updates=True,
            flops=2.0 * n * n * k,
        )

    def invert(self, op: str, c: Mat, pivots: int = 0, upper: bool = False, blame: str = "") -> None:
        """In place: the inverse from a factor ("potri", "getri") or of a triangle ("trtri")."""
        n = c.rows
        flops = {"potri": 2 / 3, "getri": 4 / 3, "trtri": 1 / 3}[op] * n**3
        work = self.buffer(64 * n, 1) if op == "getri" else None
        self.put(
            op,
            n=n,
            k=64 * n,
            flags=(0, upper, 0, 0),
            C=c.stored,
            B=work,
            pivots=pivots,
            updates=True,
            flops=flops,
            blame=blame,
        )

    # -- entries -------------------------------------------------------------------------------------------------

    def axpby(self, a: Mat, c: Mat, alpha: int = 1, beta: int = 0, half: bool = False) -> None:
        """C = alpha A + beta C; half: only the lower triangle of C as stored."""
        if c.trans:
            a, c = a.T, c.T
        m, n = c.shape
        flops = 0.0 if (alpha, beta) == (1, 0) else 2.0 * m * n / (2 if half else 1)
        trans = a.trans
        if trans and a.rows == 1 and a.ld == 1:  # a contiguous vector lies both ways
            a, trans = Mat(a.buf, a.offset, a.cols, a.cols, 1), False
        self.put(
            "axpby",
            m=m,
            n=n,
            flags=(trans, half, 0, 0),
            A=a.stored,
            C=c,
            alpha=alpha,
            beta=beta,
            flops=flops,
            updates=beta != 0,
        )

    def mirror(self, c: Mat) -> None:
        self.put("mirror", n=c.rows, C=c.stored, updates=True)

    def hadamard(self, a: Mat, b: Mat, c: Mat, alpha: int = 1, beta: int = 0) -> None:
        if c.trans:
            a, b, c = a.T, b.T, c.T
        m, n = c.shape
        self.put(
            "hadamard",
            m=m,
            n=n,
            flags=(a.trans, b.trans, 0, 0),
            A=a.stored,
            B=b.stored,
            C=c,
            alpha=alpha,
            beta=beta,
            flops=1.0 * m * n,
            updates=beta != 0,
        )

    def dscale(self, vector: Mat, c: Mat, right: bool, divide: bool = False) -> None:
        """In place C = diag(v) C, or C diag(v); divide: by the inverse."""
        if c.trans:
            c, right = c.T, not right
        m, n = c.shape
        self.put(
            "dscale",
            m=m,
            n=n,
            flags=(right, divide, 0, 0),
            A=vector.stored,
            C=c,
            updates=True,
            flops=1.0 * m * n,
        )

    def fill(self, c: Mat, value: int, beta: int = 0, above: bool = False) -> None:
        self.put(
            "fill",
            m=c.rows,
            n=c.cols,
            flags=(0, above, 0, 0),
            C=c.stored,
            alpha=value,
            beta=beta,
            updates=beta != 0 or above,
        )

    def recip(self, a: Mat, c: Mat, alpha: int = 1) -> None:
        self.put("recip", m=c.rows, A=a.stored, C=c.stored, alpha=alpha, flops=1.0 * c.rows)

    # -- scalars -------------------------------------------------------------------------------------------------

    def dot(self, a: Mat, b: Mat | None, alpha: int = 1) -> int:
        """Sum of A, or of A * B entry by entry; returns where the scalar will be."""
        m, n = a.shape
        result = self.slot()
        self.put(
            "dot",
            m=m,
            n=n,
            flags=(a.trans, b.trans if b else 0, b is None, 0),
            A=a.stored,
            B=(b or a).stored,
            alpha=alpha,
            result=result,
            flops=2.0 * m * n,
        )
        return result

    def logdet(self, row: Mat, alpha: int = 1, pivots: int | None = None, is_det: bool = False) -> int:
        result = self.slot()
        self.put(
            "logdet",
            n=row.cols,
            flags=(pivots is not None, is_det, 0, 0),
            A=row,
            pivots=pivots or 0,
            alpha=alpha,
            result=result,
            flops=1.0 * row.cols,
        )
        return result

    def scalar(self, kind: int, x: int, y: int = 0) -> int:
        result = self.slot()
        self.put("scalar", flags=(kind, 0, 0, 0), alpha=x, beta=y, result=result, flops=1.0)
        return result

    def check(self, a: Mat, kind: int, tolerance: float, blame: str) -> None:
        """Refuse a matrix that is not symmetric (0), not lower (1), not upper (2), as stored."""
        self.put("check", n=a.rows, flags=(kind, 0, 0, 0), A=a.stored, alpha=self.constant(tolerance), blame=blame)

    @property
    def flops(self) -> float:
        return sum(step.flops for step in self.steps)
