"""`%%pxcython`: a Cython cell, compiled once, on this side and on every engine."""

from __future__ import annotations

import sys
from typing import Any

from IPython.core.magic import cell_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments
from IPython.display import HTML, display

from pxtools.errors import PxUsageError
from pxtools.languages.cython_build import CythonFlags
from pxtools.magics.common import TARGETS, PxMagics, evaluate, expressions, read_line, waits
from pxtools.magics.display import show_replies
from pxtools.session.cython import CythonResult, cython_on


@magics_class
class PxCython(PxMagics):
    """Cython on the engines."""

    @no_var_expand
    @cell_magic
    @magic_arguments()
    @argument(
        "-a",
        "--annotate",
        action="store_const",
        const="default",
        help="Show the source, coloured by its use of Python.",
    )
    @argument(
        "--annotate-fullc", action="store_const", const="fullc", dest="annotate", help="The same with the C code."
    )
    @argument("-+", "--cplus", action="store_true", help="Make C++.")
    @argument("-3", dest="language_level", action="store_const", const=3, help="Python 3 syntax.")
    @argument("-2", dest="language_level", action="store_const", const=2, help="Python 2 syntax.")
    @argument("-f", "--force", action="store_true", help="Compile again.")
    @argument(
        "-c",
        "--compile-args",
        action="append",
        default=[],
        help="For the compiler: -c=-fopenmp; repeatable (default: none).",
    )
    @argument("--link-args", action="append", default=[], help="For the linker; may be repeated (default: none).")
    @argument("-l", "--lib", action="append", default=[], help="A library to link; may be repeated (default: none).")
    @argument("-n", "--name", help="Make the module importable under this name, too (default: none).")
    @argument(
        "-L",
        dest="library_dirs",
        metavar="DIR",
        action="append",
        default=[],
        help="Where libraries are (default: the system's).",
    )
    @argument("-I", "--include", action="append", default=[], help="Where headers are (default: the system's).")
    @argument("-S", "--src", action="append", default=[], help="A source file to compile with it (default: none).")
    @argument("--pgo", action="store_true", help="Compile twice, with the profile of one import.")
    @argument("--verbose", dest="quiet", action="store_false", help="Show the compiler's commands.")
    @argument(
        "--check", metavar="NAME", help="Compare with this Python function; NAME=COMPILED if need be (default: none)."
    )
    @argument(
        "--bounds", default="(0, 1)", help="Of the points of --check: (low, high), or (n_args, 2) (default (0, 1))."
    )
    @argument("--targets", help=TARGETS)
    @waits
    def pxcython(self, line: str, cell: str) -> Any:
        """Compile a Cython cell once and bind its names here and on every engine.

        The short flags are those of `%%cython`. A cell that does not compile changes nothing anywhere. Functions and
        instances of its classes can be mapped, collected and sampled; running a changed cell replaces them. `--check`
        compares at 200 random points, (200, n_args), drawn within `--bounds`.

        Examples
        --------
        >>> def gaussian(x, y):
        ...     return np.exp(-(x*x + y*y) / 2)
        >>> %%pxcython --check gaussian
        ... from libc.math cimport exp
        ... def gaussian_c(double x, double y):
        ...     return exp(-(x*x + y*y) / 2)
        """
        args = read_line(self.pxcython, line)
        if not cell.strip():
            raise PxUsageError("there is nothing to compile. Write Cython below `%%pxcython`.")
        lists: dict[str, Any] = {key: tuple(getattr(args, key)) for key in _LISTS}
        flags = CythonFlags(**lists, **{key: getattr(args, key) for key in _SINGLE})
        bounds = evaluate(expressions(args.bounds)[0], self.names(None))
        options = {"force": args.force, "check": args.check, "bounds": bounds, "targets": args.targets}
        return self.carry_out(args, lambda: cython_on(self.session, cell, flags, **options), self._show)

    def _show(self, result: CythonResult) -> None:
        show_replies(result.replies)
        if result.warnings:
            print(result.warnings, file=sys.stderr)
        if result.annotation:
            display(HTML(result.annotation))
        print(result)


_LISTS = ("compile_args", "link_args", "lib", "library_dirs", "include", "src")
_SINGLE = ("annotate", "cplus", "language_level", "name", "pgo", "quiet")
