"""`%pxcollect`: one value per engine, combined as asked."""

from __future__ import annotations

import argparse
from typing import Any

from IPython.core.magic import line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import HOW_HELP, TARGETS, PxMagics, expression, read_line, waits
from pxtools.session.state import collect


@magics_class
class PxCollect(PxMagics):
    """Values from the engines."""

    @no_var_expand
    @line_magic
    @magic_arguments()
    @argument("-o", "--out", help="Bind the result to this name, too (default: none).")
    @argument("--how", help=HOW_HELP)
    @waits
    @argument("-t", "--targets", help=TARGETS)
    @argument("rest", nargs=argparse.REMAINDER, help="A name or an expression, evaluated on the engines.")
    def pxcollect(self, line: str) -> Any:
        """Return the value of a name or expression on every engine.

        Large values stay on the engines until they are used.

        Returns
        -------
        A `PerEngine` value of length n_engines. Of arrays (n, ...) on each engine `--how concat` makes one of
        (n_engines * n, ...), `--how stack` one of (n_engines, n, ...).

        Examples
        --------
        >>> %pxrun points = np.full((10, 2), px_rank)
        >>> everywhere = %pxcollect points
        >>> %pxcollect --how concat -o first points[:, 0]
        """
        args = read_line(self.pxcollect, line, expression)
        if not args.rest:
            raise PxUsageError("nothing to collect. Write `%pxcollect NAME`.")
        if args.out is not None and not args.out.isidentifier():
            raise PxUsageError(f"`-o {args.out}`: give a name.")
        value = self.carry_out(args, lambda: collect(self.session, args.rest, how=args.how, targets=args.targets))
        if args.out is not None:
            self.session.namespace[args.out] = value
        return value
