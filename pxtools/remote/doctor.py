"""What a process has: versions, compilers, languages, thread settings. Nothing is started that stays."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pxtools.remote import importer

#: environment variables that decide how many threads a BLAS uses
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")

Facts = dict[str, str]


def look(engine: Any, message: dict[str, Any]) -> Facts:
    """Return the facts of an engine; `engine` and `message` may be anything."""
    return facts()


def facts() -> Facts:
    """Return what this process has, as text; an empty text is a thing that is missing."""
    return {
        "Python": platform.python_version(),
        "platform": importer.abi(),
        "NumPy": package("numpy"),
        "pandas": package("pandas"),
        "Cython": package("cython"),
        "setuptools": package("setuptools"),
        "C compiler": compiler(),
        "R": said_version("R", "--version", r"R version (\S+)"),
        "rpy2": package("rpy2-rinterface") or package("rpy2"),
        "RPY2_CFFI_MODE": os.environ.get("RPY2_CFFI_MODE", ""),
        "Octave": said_version("octave-cli", "--version", r"version (\S+)")
        or said_version("octave", "--version", r"version (\S+)"),
        "oct2py": package("oct2py"),
        "gnuplot": said_version("gnuplot", "--version", r"gnuplot (.+)"),
        "BLAS": blas(),
        "BLAS threads": ", ".join(f"{name}={os.environ[name]}" for name in THREADS if name in os.environ),
        "cores": str(os.cpu_count() or ""),
    }


def package(name: str) -> str:
    """Return the version of an installed package, or an empty string."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def compiler() -> str:
    """Return the C compiler of this Python's build with its version; empty when it is not here."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    found = said_version(command, "--version", r"(\d+\.\d+[\w.+-]*)")
    return f"{os.path.basename(command)} {found}" if found else ""


def said_version(command: str, option: str, pattern: str) -> str:
    """Return what a program says of its version, or an empty string."""
    path = shutil.which(command)
    if path is None:
        return ""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=20, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1].strip() if found else "?"


def blas() -> str:
    """Return the name and version of the BLAS that NumPy was built with."""
    if importlib.util.find_spec("numpy") is None or "numpy" not in sys.modules:
        return ""
    import numpy as np

    try:
        held: Any = np.show_config(mode="dicts")
        library = held["Build Dependencies"]["blas"]
    except (TypeError, KeyError):
        return "?"
    return f"{library.get('name', '?')} {library.get('version', '')}".strip()
