"""`%pximport`: imports here and on every engine, with their aliases."""

from __future__ import annotations

from IPython.core.magic import line_cell_magic, magics_class, no_var_expand

from pxtools.errors import PxUsageError
from pxtools.magics.common import PxMagics
from pxtools.session.state import import_


@magics_class
class PxImport(PxMagics):
    """Imports on both sides."""

    @no_var_expand
    @line_cell_magic
    def pximport(self, line: str, cell: str | None = None) -> None:
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
        line = line.strip()
        if cell is not None and line:
            raise PxUsageError("`%%pximport` takes no options; write the imports below it.")
        if cell is None and not line:
            raise PxUsageError("nothing to import. Write `%pximport numpy as np`.")
        source = cell if cell is not None else line if line.startswith(("import ", "from ")) else f"import {line}"
        import_(self.session, source)
