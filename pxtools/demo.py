"""Execute a notebook in a real Jupyter kernel of its own, and look whether it left something behind."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

NAME = "three_gaussians"
NEEDED = ("nbclient", "nbformat", "ipykernel", "matplotlib")
CELL_TIMEOUT_S = 300
#: seconds that the kernel may take to stop its engines, and that these may take to end
STOP_S = 30.0


class DemoFailed(Exception):
    """A cell failed, something is missing, or a process was left over."""


def run(out: Path, *, n_engines: int | None = None) -> int:
    """Execute the example of three Gaussians in the directory `out`; print what it found, return 0.

    Parameters
    ----------
    out
        Working directory of the kernel; gets the executed notebook and the picture.
    n_engines
        One per core by default.

    Raises
    ------
    DemoFailed
    """
    began = time.monotonic()
    check_requirements()
    source = find_example(NAME)
    out.mkdir(parents=True, exist_ok=True)
    picture, notebook = out / f"{NAME}.png", out / f"{NAME}.ipynb"
    picture.unlink(missing_ok=True)
    executed = execute(source, notebook, n_engines=n_engines)
    print(summary_of(executed))
    if not picture.is_file():
        raise DemoFailed(f"the notebook ran, but made no {picture}.")
    print(f"\npicture:  {picture}\nnotebook: {notebook}\n{time.monotonic() - began:.1f} s")
    return 0


def check_requirements() -> None:
    """Say which packages the demonstration lacks.

    Raises
    ------
    DemoFailed
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pip = f"{sys.executable} -m pip install"
        raise DemoFailed(f"it needs {', '.join(missing)}.\nType: {pip} {' '.join(missing)}")


def find_example(name: str) -> Path:
    """Return the path of a notebook in `examples/`, which is in the source tree and not in wheels.

    Raises
    ------
    DemoFailed
    """
    path = Path(__file__).resolve().parent.parent / "examples" / f"{name}.ipynb"
    if not path.is_file():
        raise DemoFailed(
            f"this installation has no examples/{name}.ipynb.\n"
            f"The examples are in the source of pxtools: there, type `make demo`."
        )
    return path


def execute(source: Path, target: Path, *, n_engines: int | None = None) -> Any:
    """Execute a notebook in the directory of `target`, write it there, and return it.

    Parameters
    ----------
    n_engines
        Started by the first magic that needs engines, unless the notebook says how many; one per core by default.

    Raises
    ------
    DemoFailed
        A cell raised (what was executed is written all the same), or a process outlived the kernel.
    """
    import nbformat

    notebook: Any = nbformat.read(source, as_version=4)
    with private_environment() as environment:
        if n_engines is not None:
            ask_for_engines(environment["IPYTHONDIR"], n_engines)
        kernel = kernel_manager(environment)
        try:
            run_cells(notebook, kernel, target.parent, environment)
        except DemoFailed as error:
            raise DemoFailed(f"{error}\nSee {target}.") from None
        finally:
            nbformat.write(notebook, target)
            left_over = end_left_over(environment["IPYTHONDIR"])
    if left_over:
        raise DemoFailed(f"outlived the kernel, and were ended: {'; '.join(left_over)}")
    return notebook


def run_cells(notebook: Any, kernel: Any, folder: Path, environment: dict[str, str]) -> None:
    """Start the kernel in `folder`, execute the cells, which take up their outputs, and stop the kernel.

    Raises
    ------
    DemoFailed
        A cell raised, took too long, or the kernel died.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    resources = {"metadata": {"path": str(folder)}}
    options = {"timeout": CELL_TIMEOUT_S, "record_timing": False}
    client = NotebookClient(notebook, kernel, resources=resources, **options)
    try:
        client.execute(cleanup_kc=True, env=environment)
    except CellExecutionError as error:
        raise DemoFailed(f"a cell raised {error.ename}: {error.evalue}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        raise DemoFailed(str(error)) from None
    except AssertionError:  # nbclient 0.11 answers SIGINT by stopping the kernel, and then misses it
        raise DemoFailed("interrupted.") from None
    finally:
        if kernel.has_kernel:
            kernel.shutdown_kernel()


def ask_for_engines(ipython_dir: str, n_engines: int) -> None:
    """Set how many engines the first magic starts, in the kernel's own configuration.

    A notebook that says how many it starts has what it says.
    """
    profile = Path(ipython_dir) / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text(f"c.PxTools.engines = {n_engines}\n")


@contextlib.contextmanager
def private_environment() -> Iterator[dict[str, str]]:
    """Give the kernel profiles and connection files of its own: no cluster of the user plays a part."""
    with tempfile.TemporaryDirectory(prefix="pxtools-demo-", ignore_cleanup_errors=True) as folder:
        own = {"IPYTHONDIR": f"{folder}/ipython", "JUPYTER_RUNTIME_DIR": f"{folder}/runtime"}
        strange = {"PXTOOLS_CLUSTER_FILE", "MPLBACKEND"}
        yield {name: value for name, value in os.environ.items() if name not in strange} | own


def kernel_manager(environment: dict[str, str]) -> Any:
    """Return a manager whose kernel is this very Python, whatever kernels Jupyter knows."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager

    folder = Path(environment["JUPYTER_RUNTIME_DIR"])
    folder.mkdir(mode=0o700)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    files = {"connection_file": str(folder / "kernel.json"), "ip": str(folder / "kernel")}
    manager = KernelManager(transport="ipc", shutdown_wait_time=STOP_S, **files)
    manager._kernel_spec = KernelSpec(argv=command, display_name="Python", language="python")
    return manager


def end_left_over(ipython_dir: str) -> list[str]:
    """Wait until the kernel's family is gone; end those that are not, and return what they were.

    Its members, down to the last engine, are those that inherited the private IPython directory.
    """
    _, alive = psutil.wait_procs(family(ipython_dir), timeout=STOP_S)
    described = []
    for process in [*alive, *family(ipython_dir)]:
        with contextlib.suppress(psutil.Error):
            described.append(f"{process.pid} {' '.join(process.cmdline())[:80]}")
            process.kill()
    return sorted(set(described))


def family(ipython_dir: str) -> list[psutil.Process]:
    """Return the processes that have this IPython directory in their environment."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get("IPYTHONDIR") == ipython_dir:
                members.append(process)
    return members


def summary_of(notebook: Any) -> str:
    """Return the text that the first cell with `%pxsample` shows.

    Raises
    ------
    DemoFailed
        There is none.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code" and "%pxsample" in cell.source:
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    return str(output.data["text/plain"])
    raise DemoFailed("no cell of the notebook shows samples.")
