"""`%pxmap`: a balanced map over the engines."""

from __future__ import annotations

import argparse
import ast
from typing import Any

from IPython.core.magic import line_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import PxMagics, evaluate, read_line
from pxtools.session.mapping import map_on


@magics_class
class PxMap(PxMagics):
    """Maps over the engines."""

    @no_var_expand
    @needs_local_scope
    @line_magic
    @magic_arguments()
    @argument("-o", "--out", help="Bind the results to this name, too.")
    @argument("--unordered", action="store_true", help="Results in the order in which they are ready.")
    @argument("--chunksize", default="auto", help="Items per message, or auto: follows the time an item takes.")
    @argument("--timeout", type=float, help="Interrupt the engines after so many seconds.")
    @argument("--seed", type=int, help="Give each item its own px_rng, the same on any number of engines.")
    @argument("--return-exceptions", action="store_true", help="Put exceptions among the results.")
    @argument("-t", "--targets", help="Engines: 0, 0,2, ::2, all, or the name of a view.")
    @argument("rest", nargs=argparse.REMAINDER, help="The function, then one iterable for each of its arguments.")
    def pxmap(self, line: str, local_ns: dict[str, Any] | None = None) -> Any:
        """Map a function over items on the engines, with everything that it needs.

        Examples
        --------
        >>> squares = %pxmap square range(10)
        >>> %pxmap -o areas area widths heights
        """
        args = read_line(self.pxmap, line, expressions)
        nodes = expressions(args.rest)
        function, *iterables = [evaluate(node, self.names(local_ns)) for node in nodes]
        if not iterables:
            raise PxUsageError("give a function and its items: `%pxmap f items`.")
        results = map_on(
            self.session,
            function,
            *iterables,
            ordered=not args.unordered,
            chunksize=int(args.chunksize) if args.chunksize.isdecimal() else args.chunksize,
            seed=args.seed,
            return_exceptions=args.return_exceptions,
            timeout_s=args.timeout,
            targets=args.targets,
            local=self.locals_only(local_ns),
            labels=[ast.unparse(node) for node in nodes[1:]],
        )
        if args.out is not None:
            self.session.namespace[args.out] = results
        return results


def expressions(text: str) -> list[ast.expr]:
    """Read expressions that stand one after another: ``f range(10) [1, 2]``.

    Raises
    ------
    PxUsageError
    """
    found: list[ast.expr] = []
    words = text.split(" ")
    while words:
        for n in range(1, len(words) + 1):  # the shortest run of words that is an expression
            piece = " ".join(words[:n]).strip().rstrip(",")
            if not piece:
                continue
            try:
                found.append(ast.parse(piece, mode="eval").body)
            except SyntaxError:
                continue
            words = words[n:]
            break
        else:
            rest = " ".join(words).strip()
            if rest:
                raise PxUsageError(f"`{rest}` is no expression. Write `%pxmap f items`.")
            break
    if not found:
        raise PxUsageError("nothing to map. Write `%pxmap f items`.")
    return found
