"""Matrix formulas in, BLAS and LAPACK plans out."""

from pxtools.expr.api import compile
from pxtools.expr.assume import read_assumptions
from pxtools.expr.compiled import CompiledFormula
from pxtools.expr.parse import Problem, parse_cell
from pxtools.expr.plan import Plan
from pxtools.expr.tree import FormulaError, NotPositiveDefinite

__all__ = [
    "CompiledFormula",
    "FormulaError",
    "NotPositiveDefinite",
    "Plan",
    "Problem",
    "compile",
    "parse_cell",
    "read_assumptions",
]
