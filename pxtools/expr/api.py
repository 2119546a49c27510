"""`compile`: the one door to compiled formulas, from cells, problems or SymPy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pxtools.errors import PxUsageError
from pxtools.expr.assume import read_assumptions
from pxtools.expr.compiled import CompiledFormula
from pxtools.expr.parse import Problem, fix_sizes, parse_cell


def compile(
    outputs: Problem | str | Mapping[str, Any] | Iterable[Any],
    inputs: Iterable[Any] | None = None,
    assumptions: Any = None,
    *,
    name: str = "formula",
    sizes: Any = None,
    blocks: Any = "auto",
    form: str = "auto",
    dtype: Any = None,
    threads: int | None = None,
) -> CompiledFormula:
    """Compile matrix formulas to a plan of BLAS and LAPACK calls.

    Parameters
    ----------
    outputs
        A cell of assignments, a `Problem`, or SymPy matrix expressions: a mapping from names, or a sequence.
    inputs
        For SymPy: the symbols in the order of the arguments.
    assumptions
        What is known of the matrices: `"Sigma, R: positive_definite"`, a mapping, or SymPy's `Q.…(X)`. `False` makes
        a general plan that uses none of it (`--no-assume`).
    name
        Name of the callable, for messages and the type of its results.
    sizes
        `"n=1000,k=500"` or a mapping: fix named sizes.
    blocks
        Blocks in each dimension: `"auto"` (the kernel's own recursion), a number, or a mapping from size to a
        sequence of block sizes such as `{1000: (600, 400)}`.
    form
        "auto" takes the form with the fewest flops; "cholesky", "information", "sequential", "sqrt" ask for one.
    dtype
        float64 or float32; by default float32 where every matrix is.
    threads
        BLAS threads during the call; by default one inside an engine, else what BLAS is set to.

    Returns
    -------
    CompiledFormula
        Callable with the inputs, returns a named tuple; deterministic for given shapes, memory orders and BLAS.

    Raises
    ------
    FormulaError
        When the formulas are not well formed; shape errors point at the place.
    PxUsageError
        When an option is not known.

    Examples
    --------
    >>> import numpy as np
    >>> ridge = compile("beta = (X.T*X + lam*Identity()).I*X.T*y", assumptions="lam: positive; y: vector")
    >>> round(float(ridge(X=np.eye(2), lam=1.0, y=np.array([2.0, 4.0])).beta[1]), 12)
    2.0

    References
    ----------
    Rocklin (2013), Mathematically informed linear algebra codes through term rewriting, PhD thesis.
    Barthels, Psarras, Bientinesi (2021), Linnea: automatic generation of efficient linear algebra programs, ACM TOMS.
    """
    assume = assumptions is not False
    if inputs is not None and isinstance(outputs, (str, Problem)):
        raise PxUsageError("`inputs` is for SymPy expressions; a cell names its own. Did you mean `assumptions=`?")
    if isinstance(outputs, Problem):
        problem = outputs
        if assumptions not in (None, False):
            problem = _with_more(problem, assumptions)
        fix_sizes(problem, sizes)
    elif isinstance(outputs, str):
        problem = parse_cell(outputs, assume=assumptions or None, sizes=sizes)
    else:
        from pxtools.expr.from_sympy import problem_from_sympy

        problem = problem_from_sympy(outputs, inputs, assumptions or None, sizes)
    return CompiledFormula(problem, name=name, form=form, dtype=dtype, blocks=blocks, assume=assume, threads=threads)


def _with_more(problem: Problem, assumptions: Any) -> Problem:
    from dataclasses import replace

    return replace(problem, assumptions=read_assumptions([problem.assumptions, assumptions]))
