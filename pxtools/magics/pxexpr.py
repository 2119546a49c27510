"""`%%pxexpr`: matrix formulas compiled to plans of BLAS and LAPACK calls."""

from __future__ import annotations

import functools
from typing import Any

from IPython.core.magic import cell_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments
from IPython.display import display

from pxtools.errors import PxUsageError
from pxtools.magics.common import PxMagics, read_line, waits
from pxtools.session.blocks import call_in_blocks
from pxtools.session.state import push


@magics_class
class PxExpr(PxMagics):
    """Formulas."""

    @no_var_expand
    @cell_magic
    @magic_arguments()
    @argument(
        "--assume",
        help='What is known: "Sigma, R: positive_definite; H: k x n", or a name that holds it (default: nothing).',
    )
    @argument("--no-assume", action="store_true", help="Use none of it: a general plan.")
    @argument("--sizes", help="Fix named sizes: n=1000,k=500 (default: as they come).")
    @argument("--blocks", default="auto", help="Blocks in each dimension: auto (default) or a number.")
    @argument("--form", default="auto", help="auto (default), cholesky, sqrt, information or sequential.")
    @argument("--dtype", help="float64 (default) or float32.")
    @waits
    @argument("--explain", action="store_true", help="Show the steps with flops and times, and the graph.")
    @argument("--source", choices=("python", "c"), help="With --explain: the same work as code (default: none).")
    @argument("name", help="The function that is made.")
    def pxexpr(self, line: str, cell: str) -> Any:
        """Compile matrix formulas to a function, here and on every engine.

        The cell holds assignments in SymPy's matrix language (`*` is the matrix product, `.T`, `.I`). Names that are
        read first are the function's inputs, assigned names its outputs; it returns them as a named tuple. A large
        matrix may lie in column blocks on the engines: give its `PerEngine` value.

        Shapes follow from the formulas. Below, mu is (n, c), Sigma (n, n), H (k, n), R (k, k), data (k, c); a vector
        (n,) may stand where a column may.

        Examples
        --------
        >>> %%pxexpr update --assume "Sigma, R: positive_definite"
        ... new_mu    = mu + Sigma*H.T*(H*Sigma*H.T + R).I*(data - H*mu)
        ... new_Sigma = Sigma - Sigma*H.T*(H*Sigma*H.T + R).I*H*Sigma
        >>> update(mu=np.zeros(3), Sigma=np.eye(3), H=np.ones((1, 3)), R=np.eye(1), data=np.ones(1)).new_mu
        """
        from pxtools import expr

        args = read_line(self.pxexpr, line)
        if not args.name.isidentifier():
            raise PxUsageError(f"`{args.name}` is no name for a function. Write `%%pxexpr update`, formulas below.")
        if args.source and not args.explain:
            raise PxUsageError("`--source` belongs to `--explain`: `%%pxexpr update --explain --source python`.")
        assumed = self.session.namespace.get(args.assume, args.assume)
        problem = expr.parse_cell(cell, assume=assumed, sizes=args.sizes)
        formula = expr.compile(
            problem,
            assumptions=False if args.no_assume else None,
            name=args.name,
            blocks=int(args.blocks) if args.blocks.isdigit() else args.blocks,
            form=args.form,
            dtype=args.dtype,
        )
        formula.in_blocks = functools.partial(call_in_blocks, self.session)
        self.session.namespace[args.name] = formula

        def show(n_bytes: int) -> Any:
            if not args.explain:
                return formula
            print(formula.explain(source=args.source))
            display(formula.graph())
            return None

        if not self.session.is_connected:
            return show(0)
        return self.carry_out(args, lambda: push(self.session, [args.name]), show)
