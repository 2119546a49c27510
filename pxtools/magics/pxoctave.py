"""`%%pxoctave`: an Octave cell on every engine."""

from __future__ import annotations

import argparse
from typing import Any

from IPython.core.magic import line_cell_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import HOW_HELP, TARGETS, read_line, waits
from pxtools.magics.language import LanguageMagics, dotted_names
from pxtools.session.handle import Handle
from pxtools.session.languages import OCTAVE, language_cell


@magics_class
class PxOctave(LanguageMagics):
    """Octave on the engines."""

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    @magic_arguments()
    @argument("-i", "--input", action="append", help="Names for Octave: a,b or there=here (default: none).")
    @argument("-o", "--output", action="append", help="Names back from Octave: a,b or here=there (default: none).")
    @argument("-s", "--size", help="Size of pictures: 400,300 (default: 640,480).")
    @argument("-f", "--format", default="svg", help="Pictures as svg (default), png or jpg.")
    @argument("-w", "--width", type=int, help="Width of pictures in pixels (default 640).")
    @argument("-h", "--height", type=int, help="Height of pictures in pixels (default 480).")
    @argument("-r", "--resolution", type=int, help="Dots per inch (default 150).")
    @argument("-t", "--temp_dir", "--temp-dir", help="As in %%octave: has no effect, whatever the default.")
    @argument("--targets", help=TARGETS)
    @argument("--how", help=HOW_HELP)
    @argument(
        "--seed", type=int, help="Independent streams, one per engine, reproducible (default: PxTools.seed, none)."
    )
    @waits
    @argument("rest", nargs=argparse.REMAINDER, help="Octave code on the line itself.")
    def pxoctave(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Handle | None:
        """Run Octave on every engine.

        The short flags are those of `%%octave`. Names given by `-i` are pushed; `-o` names come back as plain Python
        and NumPy values, one per engine. Figures are shown in the order of engines.

        An array (n, k) stays (n, k); a vector (n,) becomes a row, (1, n).

        Examples
        --------
        >>> points = np.random.default_rng(1).random((100, 2))
        >>> %%pxoctave -i points -o centre
        ... centre = mean(points);
        ... plot(points(:, 1), points(:, 2), '.')
        """
        args = read_line(self.pxoctave, line)
        code = "\n".join(part for part in (args.rest, cell) if part)
        if not code.strip():
            raise PxUsageError("there is nothing to run. Write Octave code below `%%pxoctave`.")
        width, height = _size(args)
        local = self.locals_only(local_ns)
        asked = language_cell(
            self.session,
            OCTAVE,
            code,
            inputs=dotted_names(args.input),
            outputs=dotted_names(args.output),
            local=local,
            targets=args.targets,
            how=args.how,
            seed=args.seed,
            plot={"device": args.format, "width": width, "height": height, "res": args.resolution},
        )
        return self.run(asked, args, local)


def _size(args: Any) -> tuple[int | None, int | None]:
    if not args.size:
        return args.width, args.height
    try:
        width, height = (int(part) for part in args.size.split(","))
    except ValueError:
        raise PxUsageError(f"-s {args.size}: give width and height in pixels: `-s 400,300`.") from None
    return width, height
