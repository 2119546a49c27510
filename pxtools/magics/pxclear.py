"""`%pxclear`: a clean start on the engines."""

from __future__ import annotations

from typing import Any

from IPython.core.magic import line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.magics.common import TARGETS, PxMagics, read_line, waits
from pxtools.session.state import clear


@magics_class
class PxClear(PxMagics):
    """Names off the engines."""

    @no_var_expand
    @line_magic
    @magic_arguments()
    @waits
    @argument("-t", "--targets", help=TARGETS)
    @argument("names", nargs="*", help="Names to delete; all of the user's when none is given.")
    def pxclear(self, line: str) -> Any:
        """Delete names on the engines; without names, everything that is the user's.

        The notebook's own names are untouched, and sent again when they are needed.

        Examples
        --------
        >>> %pxpush a=1 b=2
        >>> %pxclear a b
        >>> %pxclear
        """
        args = read_line(self.pxclear, line)
        return self.carry_out(args, lambda: clear(self.session, args.names, targets=args.targets), lambda gone: None)
