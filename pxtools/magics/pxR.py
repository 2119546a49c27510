"""`%%pxR`: an R cell on every engine."""

from __future__ import annotations

import argparse
from typing import Any

from IPython.core.magic import line_cell_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import read_line, waits
from pxtools.magics.language import LanguageMagics, dotted_names
from pxtools.session.handle import Handle
from pxtools.session.languages import R, language_cell


@magics_class
class PxR(LanguageMagics):
    """R on the engines."""

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    @magic_arguments()
    @argument("-i", "--input", action="append", help="Names for R: a,b or rname=pyname or module.attribute.")
    @argument("-o", "--output", action="append", help="Names back from R: a,b or here=rname.")
    @argument("-n", "--noreturn", action="store_true", help="Do not show the last value.")
    @argument("-w", "--width", type=float, help="Width of pictures, in --units.")
    @argument("-h", "--height", type=float, help="Height of pictures, in --units.")
    @argument("-p", "--pointsize", type=int, help="Size of text in pictures.")
    @argument("-b", "--bg", help="Background of pictures.")
    @argument("-u", "--units", choices=["px", "in", "cm", "mm"], help="Units of -w and -h (default px).")
    @argument("-r", "--res", type=int, help="Dots per inch of png (default 72).")
    @argument("--type", choices=["cairo", "cairo-png", "Xlib", "quartz"], help="As in %%R: has no effect, it is cairo.")
    @argument("--graphics-device", default="png", help="png, svg or jpeg.")
    @argument("--noisolation", dest="isolate", action="store_false", help="Do not isolate SVGs from one another.")
    @argument("-c", "--converter", help="An rpy2 converter on the engines, in place of pxtools' rules.")
    @argument("-d", "--display", help="A function on the engines that shows the last value.")
    @argument("--targets", help="Engines: 0, 0,2, ::2, all, or the name of a view.")
    @argument("--how", help="Combine what comes back: list, concat, stack, dict, first or same.")
    @argument("--seed", type=int, help="Independent L'Ecuyer streams, one per engine, reproducible.")
    @waits
    @argument("rest", nargs=argparse.REMAINDER, help="R code on the line itself.")
    def pxR(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Handle | None:
        """Run R on every engine.

        The short flags are those of `%%R`. Names given by `-i` are pushed and converted on the engines; `-o` names come
        back as plain Python, NumPy or pandas values, one per engine. R never starts inside the notebook's process.

        Examples
        --------
        >>> %%pxR -i points -o centre --seed 1
        ... plot(points)
        ... centre <- colMeans(points)
        """
        args = read_line(self.pxR, line)
        code = "\n".join(part for part in (args.rest, cell) if part)
        if not code.strip():
            raise PxUsageError("there is nothing to run. Write R code below `%%pxR`.")
        local = self.locals_only(local_ns)
        asked = language_cell(
            self.session,
            R,
            code,
            inputs=dotted_names(args.input),
            outputs=dotted_names(args.output),
            local=local,
            targets=args.targets,
            how=args.how,
            seed=args.seed,
            plot={
                "device": args.graphics_device,
                **{
                    key: getattr(args, key) for key in ("width", "height", "units", "res", "pointsize", "bg", "isolate")
                },
            },
            shows=not args.noreturn,
            converter=args.converter,
            display=args.display,
        )
        return self.run(asked, args, local)
