"""`%pxpush`: names and values to the engines."""

from __future__ import annotations

import argparse
from typing import Any

from IPython.core.magic import line_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import TARGETS, PxMagics, evaluate, names_and_values, read_line, waits
from pxtools.session.state import push


@magics_class
class PxPush(PxMagics):
    """Names to the engines."""

    @no_var_expand
    @needs_local_scope
    @line_magic
    @magic_arguments()
    @waits
    @argument("-t", "--targets", help=TARGETS)
    @argument("rest", nargs=argparse.REMAINDER, help="Names, and name=expression.")
    def pxpush(self, line: str, local_ns: dict[str, Any] | None = None) -> Any:
        """Send names of the notebook to the engines, functions and classes with all that they use.

        Only what changed travels. `name=expression` sets the engines' value and keeps it until the notebook rebinds
        that name. A value of any shape arrives whole on every engine; `%pxscatter` sends pieces.

        Examples
        --------
        >>> a, b = 3.0, np.arange(4)
        >>> %pxpush a b
        >>> %pxpush CONSTANT=5 grid=np.linspace(0, 1, 101)
        """
        args = read_line(self.pxpush, line, names_and_values)
        names, values = names_and_values(args.rest)
        if not names and not values:
            raise PxUsageError("nothing to push. Write `%pxpush a b x=1+2`.")
        known = self.names(local_ns)
        given = {name: evaluate(node, known) for name, node in values.items()}
        local = self.locals_only(local_ns)
        return self.carry_out(
            args, lambda: push(self.session, names, given, targets=args.targets, local=local), lambda n_bytes: None
        )
