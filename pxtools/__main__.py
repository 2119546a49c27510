"""`python -m pxtools demo`: see whether everything works on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pxtools._version import __version__


def positive(text: str) -> int:
    """Read a whole number of one or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} engines: give one or more")
    return number


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser("python -m pxtools", description="Engines as part of the notebook.")
    parser.add_argument("--version", action="version", version=f"pxtools {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="run examples/three_gaussians.ipynb in a real Jupyter kernel")
    where = "where the notebook and its picture go (default: build/demo)"
    demo.add_argument("--out", type=Path, default=Path("build/demo"), help=where)
    demo.add_argument("-n", type=positive, metavar="ENGINES", help="engines; one per core by default")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    args = make_parser().parse_args(argv)
    from pxtools import demo

    try:
        return demo.run(args.out, n_engines=args.n)
    except demo.DemoFailed as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
