"""`%pxgather`: the pieces of a scattered name put together again."""

from __future__ import annotations

from typing import Any

from IPython.core.magic import line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import TARGETS, PxMagics, read_line, waits
from pxtools.session.scatter import gather


@magics_class
class PxGather(PxMagics):
    """Pieces from the engines."""

    @no_var_expand
    @line_magic
    @magic_arguments()
    @argument("-o", "--out", help="Bind the result to this name, too (default: none).")
    @waits
    @argument("-t", "--targets", help=TARGETS)
    @argument("name", nargs="?", help="A name on the engines.")
    def pxgather(self, line: str) -> Any:
        """Put the engines' pieces of a name together, in engine order, exactly as `%pxscatter` cut them.

        Pieces (n_e, k) of an array become one of (n, k) again, along the axis on which it was cut.

        Examples
        --------
        >>> %pxscatter squares=np.arange(10.0)
        >>> %pxrun squares **= 2
        >>> everything = %pxgather squares
        """
        args = read_line(self.pxgather, line)
        if not args.name or not args.name.isidentifier():
            raise PxUsageError("name what to gather: `%pxgather A`.")
        value = self.carry_out(args, lambda: gather(self.session, args.name, targets=args.targets))
        if args.out is not None:
            self.session.namespace[args.out] = value
        return value
