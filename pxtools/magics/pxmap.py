"""`%pxmap`: a balanced map over the engines."""

from __future__ import annotations

import argparse
import ast
from typing import Any

from IPython.core.magic import line_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import TARGETS, PxMagics, evaluate, expressions, read_line, waits
from pxtools.magics.language import name_r_functions, r_functions
from pxtools.session.mapping import map_on

__all__ = ["PxMap", "expressions"]


@magics_class
class PxMap(PxMagics):
    """Maps over the engines."""

    @no_var_expand
    @needs_local_scope
    @line_magic
    @magic_arguments()
    @argument("-o", "--out", help="Bind the results to this name, too (default: none).")
    @argument("--unordered", action="store_true", help="An iterator over results as they are ready.")
    @argument(
        "--chunksize", default="auto", help="Items per message, or auto (default): follows the time an item takes."
    )
    @argument("--retries", type=int, default=0, help="Try an item that raises so many times more (default 0).")
    @waits
    @argument(
        "--seed",
        type=int,
        help="Give each item its own px_rng, the same on any number of engines (default: PxTools.seed, none).",
    )
    @argument("--return-exceptions", action="store_true", help="Put exceptions among the results.")
    @argument("-t", "--targets", help=TARGETS)
    @argument("rest", nargs=argparse.REMAINDER, help="The function, then one iterable for each of its arguments.")
    def pxmap(self, line: str, local_ns: dict[str, Any] | None = None) -> Any:
        """Map a function over items on the engines, with everything that it needs.

        `r:f` is the function `f` that a `%%pxR` cell defined: it is called inside R, a batch of items at a time.

        Returns
        -------
        A list of n_items results in the order of the items, n_items being the length of the shortest iterable.

        Examples
        --------
        >>> def area(width, height):
        ...     return width * height
        >>> %pxmap -o areas area [1, 2, 3] np.linspace(0, 1, 3)
        >>> noisy = %pxmap --seed 1 (lambda n: n + px_rng.normal()) range(10)
        """
        args = read_line(self.pxmap, name_r_functions(line), expressions)
        nodes = expressions(args.rest)
        if len(nodes) < 2:
            raise PxUsageError("give a function and its items: `%pxmap f items`.")
        names = r_functions(self.session, self.names(local_ns), args.targets)
        function, *iterables = [evaluate(node, names) for node in nodes]
        results = map_on(
            self.session,
            function,
            *iterables,
            ordered=not args.unordered,
            chunksize=int(args.chunksize) if args.chunksize.isdecimal() else args.chunksize,
            seed=args.seed,
            return_exceptions=args.return_exceptions,
            retries=args.retries,
            timeout_s=args.timeout,
            block=not args.noblock,
            targets=args.targets,
            local=self.locals_only(local_ns),
            labels=[ast.unparse(node) for node in nodes[1:]],
        )
        if args.out is not None:
            self.session.namespace[args.out] = results
        return results
