"""`%pxclear`: a clean start on the engines."""

from __future__ import annotations

from IPython.core.magic import line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.magics.common import PxMagics, read_line
from pxtools.session.state import clear


@magics_class
class PxClear(PxMagics):
    """Names off the engines."""

    @no_var_expand
    @line_magic
    @magic_arguments()
    @argument("-t", "--targets", help="Engines: 0, 0,2, ::2, all, or the name of a view.")
    @argument("names", nargs="*", help="Names to delete; all of the user's when none is given.")
    def pxclear(self, line: str) -> None:
        """Delete names on the engines; without names, everything that is the user's.

        Examples
        --------
        >>> %pxclear
        >>> %pxclear a b
        """
        args = read_line(self.pxclear, line)
        clear(self.session, args.names, targets=args.targets)
