"""`%%pxR`: an R cell on every engine."""

from __future__ import annotations

import argparse
from typing import Any

from IPython.core.magic import line_cell_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import HOW_HELP, TARGETS, read_line, waits
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
    @argument(
        "-i", "--input", action="append", help="Names for R: a,b or rname=pyname or module.attribute (default: none)."
    )
    @argument("-o", "--output", action="append", help="Names back from R: a,b or here=rname (default: none).")
    @argument("-n", "--noreturn", action="store_true", help="Do not show the last value.")
    @argument("-w", "--width", type=float, help="Width of pictures, in --units (default 480 px).")
    @argument("-h", "--height", type=float, help="Height of pictures, in --units (default 480 px).")
    @argument("-p", "--pointsize", type=int, help="Size of text in pictures (default 12).")
    @argument("-b", "--bg", help="Background of pictures (default white).")
    @argument("-u", "--units", choices=["px", "in", "cm", "mm"], help="Units of -w and -h (default px).")
    @argument("-r", "--res", type=int, help="Dots per inch of png (default 72).")
    @argument(
        "--type",
        choices=["cairo", "cairo-png", "Xlib", "quartz"],
        help="As in %%R: has no effect, it is cairo by default.",
    )
    @argument("--graphics-device", default="png", help="png (default), svg or jpeg.")
    @argument("--noisolation", dest="isolate", action="store_false", help="Do not isolate SVGs from one another.")
    @argument("-c", "--converter", help="An rpy2 converter on the engines (default: pxtools' rules).")
    @argument("-d", "--display", help="A function on the engines that shows the last value (default: R's print).")
    @argument("--targets", help=TARGETS)
    @argument("--how", help=HOW_HELP)
    @argument(
        "--seed",
        type=int,
        help="L'Ecuyer streams, one per engine (default: PxTools.seed, none).",
    )
    @waits
    @argument("rest", nargs=argparse.REMAINDER, help="R code on the line itself.")
    def pxR(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Handle | None:
        """Run R on every engine.

        The short flags are those of `%%R`. Names given by `-i` are pushed and converted on the engines; `-o` names come
        back as plain Python, NumPy or pandas values, one per engine. R never starts inside the notebook's process.

        An array (n, k) is a matrix of n rows there and comes back as (n, k), a vector of n as (n,), one of length 1
        as a number, a data.frame as a DataFrame.

        Examples
        --------
        >>> points = np.random.default_rng(1).random((100, 2))
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
