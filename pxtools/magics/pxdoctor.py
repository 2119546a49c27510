"""`%pxdoctor`: what works here and on the engines, what does not, and the line to type."""

from __future__ import annotations

from typing import Any

from IPython.core.magic import line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import TARGETS, PxMagics, read_line, waits
from pxtools.magics.display import Table
from pxtools.session.doctor import Findings, examine


@magics_class
class PxDoctor(PxMagics):
    """A look at everything that languages need."""

    @no_var_expand
    @line_magic
    @magic_arguments()
    @waits
    @argument("-t", "--targets", help=TARGETS)
    @argument("rest", nargs="*", help="Nothing.")
    def pxdoctor(self, line: str) -> Any:
        """Show versions, compilers, languages and thread settings, here and on the engines.

        What differs is marked with `≠`. For each thing that does not work there is the reason and the line to type.

        Examples
        --------
        >>> %pxdoctor
        """
        args = read_line(self.pxdoctor, line)
        if args.rest:
            raise PxUsageError(f"%pxdoctor takes no `{args.rest[0]}`. `%pxdoctor?` shows its options.")
        return self.carry_out(args, lambda: examine(self.session, targets=args.targets), as_table)


def as_table(findings: Findings) -> Table:
    """Return the findings to be shown."""
    rows = []
    for fact, groups in findings.rows.items():
        mark = "≠" if findings.different(fact) else ""
        values = {value for _, value in groups}
        if len(values) == 1:
            rows.append(
                (mark, fact, next(iter(values)) or "-", "everywhere" if groups[0][0] == "here" else groups[0][0])
            )
            if len(groups) == 1:
                rows[-1] = (mark, fact, groups[0][1] or "-", groups[0][0])
            continue
        rows += [(mark, fact, value or "-", where) for where, value in groups]
    return Table(("", "what", "found", "where"), rows, caption="\n".join(findings.lines()) or "everything works")
