"""Execute the example notebooks and keep their outputs: `python tools/run_examples.py [NAME...]`.

For those who change an example, or what it shows. Outputs are those of four engines, unless the notebook starts
so many itself.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat

from pxtools import demo

ROOT = Path(__file__).resolve().parent.parent
N_ENGINES = 4


def refresh(path: Path, folder: Path) -> None:
    """Replace the outputs of one notebook."""
    nbformat.write(demo.execute(path, folder / path.name, n_engines=N_ENGINES), path)
    print(f"executed {path.relative_to(ROOT)}", flush=True)


def main(names: list[str]) -> None:
    """Execute the named examples, or all."""
    if os.geteuid() == 0:  # Open MPI wants to be told twice that root means it
        os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    examples = ROOT / "examples"
    paths = [examples / f"{name}.ipynb" for name in names] or sorted(examples.glob("*.ipynb"))
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            refresh(path, Path(folder))
        picture = Path(folder) / "three_gaussians.png"
        if picture.exists():
            shutil.copy(picture, ROOT / "docs")
            print("copied the picture to docs/")


if __name__ == "__main__":
    main(sys.argv[1:])
