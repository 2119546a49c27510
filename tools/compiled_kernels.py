"""Say which kernels are not compiled: `python tools/compiled_kernels.py [FOLDER]`; exit 1 when there are any.

Without FOLDER the installed pxtools is examined and its compiled kernels are imported (a wheel's test).
"""

import importlib
import sys
from pathlib import Path


def uncompiled(folder):
    """Return the names of the kernels in `folder` that have a source and no compiled library."""
    compiled = {library.name.split(".")[0] for library in folder.glob("*.so")}
    return sorted({source.stem for source in folder.glob("*.pyx")} - compiled)


def import_installed():
    """Import every kernel of the installed pxtools; return their folder."""
    kernels = importlib.import_module("pxtools.kernels")
    folder = Path(kernels.__file__).parent
    for source in sorted(folder.glob("*.pyx")):
        importlib.import_module(f"pxtools.kernels.{source.stem}")
    return folder


def main():
    """Report on the folder given, or on the installed package."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else import_installed()
    missing = uncompiled(folder)
    if missing:
        sys.exit(f"not compiled: {', '.join(missing)} (in {folder}); their NumPy twins serve")
    print(f"compiled: {', '.join(sorted(s.stem for s in folder.glob('*.pyx'))) or 'no kernels yet'}")


if __name__ == "__main__":
    main()
