"""`%pxscatter`: a sequence cut into one piece per engine."""

from __future__ import annotations

import argparse
from typing import Any

from IPython.core.magic import line_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import TARGETS, PxMagics, evaluate, names_and_values, read_line, waits
from pxtools.session.scatter import scatter


@magics_class
class PxScatter(PxMagics):
    """Pieces to the engines."""

    @no_var_expand
    @needs_local_scope
    @line_magic
    @magic_arguments()
    @argument("--axis", type=int, default=0, help="Axis along which arrays are cut (default 0).")
    @argument("--flatten", action="store_true", help="One item per engine arrives as the item itself.")
    @waits
    @argument("-t", "--targets", help=TARGETS)
    @argument("rest", nargs=argparse.REMAINDER, help="Names, and name=expression; --flatten and --axis may follow.")
    def pxscatter(self, line: str, local_ns: dict[str, Any] | None = None) -> Any:
        """Cut lists, arrays or DataFrames into consecutive pieces, one per engine, under the same name there.

        `%pxgather` puts them together exactly as they were. Of an array (n, k) each engine gets (n_e, k), with
        `--axis 1` (n, k_e); these lengths differ by one at most.

        Examples
        --------
        >>> A = np.arange(12.0).reshape(6, 2)
        >>> %pxscatter A
        >>> %pxscatter --flatten numbers=range(len(pxtools.client()))
        """
        args = read_line(self.pxscatter, line, names_and_values)
        names, values = names_and_values(args.rest)
        if not names and not values:
            raise PxUsageError("nothing to scatter. Write `%pxscatter A` or `%pxscatter a=range(16)`.")
        known = self.names(local_ns)
        pieces = {name: self.lookup(name, local_ns) for name in names}
        pieces |= {name: evaluate(node, known) for name, node in values.items()}
        options = {"axis": args.axis, "flatten": args.flatten, "targets": args.targets}
        return self.carry_out(
            args,
            lambda: [scatter(self.session, name, value, **options) for name, value in pieces.items()],
            lambda lengths: None,
        )
