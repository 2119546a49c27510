"""`%pximport`: imports here and on every engine, with their aliases."""

from __future__ import annotations

import argparse
from typing import Any

from IPython.core.magic import line_cell_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import PxMagics, read_line, waits
from pxtools.session.state import import_


@magics_class
class PxImport(PxMagics):
    """Imports on both sides."""

    @no_var_expand
    @line_cell_magic
    @magic_arguments()
    @waits
    @argument("rest", nargs=argparse.REMAINDER, help="%%pximport only: what to import.")
    def pximport(self, line: str, cell: str | None = None) -> Any:
        """Import here and on every engine; aliases, `from`, `*`, and try/except fallbacks work.

        A module of your own that engines cannot import is sent along, and again when its file has changed.

        Examples
        --------
        >>> %pximport numpy as np, scipy.linalg as la
        >>> %pximport from numpy import linalg as la
        >>> %%pximport
        ... try:
        ...     import tomllib
        ... except ImportError:
        ...     import tomli as tomllib
        """
        args = read_line(self.pximport, line)
        line = args.rest
        if cell is not None and line:
            raise PxUsageError(f"`{line}` is no option of %%pximport; write the imports below it.")
        if cell is None and not line:
            raise PxUsageError("nothing to import. Write `%pximport numpy as np`.")
        source = cell if cell is not None else line if line.startswith(("import ", "from ")) else f"import {line}"
        return self.carry_out(args, lambda: import_(self.session, source), lambda names: None)
