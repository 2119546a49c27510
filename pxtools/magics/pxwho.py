"""`%pxwho`: what is on the engines."""

from __future__ import annotations

from typing import Any

from IPython.core.magic import line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.engines.wire import name_engines
from pxtools.magics.common import TARGETS, PxMagics, read_line, waits
from pxtools.magics.display import Table
from pxtools.results import human_bytes
from pxtools.session.state import who


@magics_class
class PxWho(PxMagics):
    """Names on the engines."""

    @no_var_expand
    @line_magic
    @magic_arguments()
    @waits
    @argument("-t", "--targets", help=TARGETS)
    def pxwho(self, line: str) -> Any:
        """List the names on the engines: type, shape, size, whether all hold the same.

        A shape such as `float64[1000, 2]` is that of one engine's array, the size the mean over the engines.

        Examples
        --------
        >>> %pxwho
        """
        args = read_line(self.pxwho, line)
        engines = self.session.targets(args.targets)

        def show(table: dict[str, Any]) -> Table:
            sent = f"{human_bytes(self.session.ledger.bytes_sent)} sent so far"
            if not table:
                sent = f"nothing is there; {sent}"
            header = ("name", "type", "shape", "size", "", "engines", "value")
            return Table(header, [row(name, held, len(engines)) for name, held in table.items()], caption=sent)

        return self.carry_out(args, lambda: who(self.session, targets=engines), show)


def row(name: str, held: dict[int, dict[str, Any]], n_engines: int) -> tuple[str, ...]:
    """Return one line of the table for a name that the engines of `held` have."""
    rows = list(held.values())
    is_same = len({r["hash"] or str(i) for i, r in held.items()}) == 1
    shapes = {(r["dtype"], r["shape"]) for r in rows if r["shape"]}
    dtype, shape = shapes.pop() if len(shapes) == 1 else ("", ())
    return (
        name,
        "/".join(sorted({r["type"] for r in rows})),
        f"{dtype}{list(shape)}" if shape else "",
        human_bytes(sum(r["nbytes"] for r in rows) / len(rows)),
        "same" if is_same else "different",
        "all" if len(held) == n_engines else name_engines(held).partition(" ")[2],
        rows[0]["text"] if is_same else "",
    )
