"""Build one Cython module from a cell's text, in a private folder, to bytes.

A module's name is a hash of all that its content depends on. Nothing is shared with other processes: no cache, no
folder, no file that two builds could write at once, which is what breaks `%%cython` on several engines.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pxtools.errors import PxCompileError, PxMissing
from pxtools.languages.cython_targets import appendix, entries, without
from pxtools.remote.importer import abi

#: what one machine answers for another's question, in `build_for`
Message = dict[str, Any]

_CYTHON_ERROR = re.compile(
    r"^(?!warning: |performance hint: ).*?\.pyx:(?P<line>\d+):(?P<column>\d+): (?P<text>.*)$", re.MULTILINE
)
_CYTHON_SAYS = re.compile(r"^(?:warning|performance hint): .*?\.pyx:(?P<line>\d+):\d+: ")
_C_ERROR = re.compile(r"^(?P<file>[^\s:]+\.(?:c|cpp)):(?P<line>\d+):\d+: (?:fatal )?error: (?P<text>.*)$", re.MULTILINE)
_LINE_COMMENT = re.compile(r'^\s*/\* ".*?\.pyx":(\d+)$')


@dataclass(frozen=True)
class CythonFlags:
    """What `%%cython` takes on its line, with its names.

    Attributes
    ----------
    annotate
        ``default`` or ``fullc``: also make the coloured source.
    cplus
        Make C++, not C.
    language_level
        2 or 3; Cython's own default when None.
    """

    annotate: str | None = None
    cplus: bool = False
    language_level: int | None = None
    compile_args: tuple[str, ...] = ()
    link_args: tuple[str, ...] = ()
    lib: tuple[str, ...] = ()
    library_dirs: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    src: tuple[str, ...] = ()
    name: str | None = None
    pgo: bool = False
    quiet: bool = True


@dataclass(frozen=True)
class Built:
    """A compiled module.

    Attributes
    ----------
    name
        To be imported under.
    binary
        The shared library.
    annotation
        The coloured source as HTML, or an empty string.
    warnings
        What Cython and the C compiler had to say; commands too when not `quiet`.
    """

    name: str
    binary: bytes
    annotation: str = ""
    warnings: str = ""


def cython_version() -> str:
    """Return Cython's version here, or an empty string."""
    try:
        return version("cython")
    except PackageNotFoundError:
        return ""


def module_name(code: str, flags: CythonFlags, salt: str = "") -> str:
    """Return the module's name: a hash over code, flags, Python, Cython and platform.

    Examples
    --------
    >>> module_name("x = 1", CythonFlags()) == module_name("x = 1", CythonFlags())
    True
    >>> module_name("x = 1", CythonFlags()) == module_name("x = 1", CythonFlags(cplus=True))
    False
    """
    files = [Path(name).read_bytes() for name in flags.src if Path(name).is_file()]
    parts = (code, sorted(asdict(flags).items()), files, sys.version, abi(), cython_version(), salt)
    return "_pxcython_" + hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def build(name: str, code: str, flags: CythonFlags) -> Built:
    """Compile `code` to a module called `name`.

    Raises
    ------
    PxMissing
        There is no Cython, no setuptools or no compiler here.
    PxCompileError
        Cython or the C compiler refused; the message holds the first error and the cell's line.
    """
    with tempfile.TemporaryDirectory(prefix="pxtools-cython-", ignore_cleanup_errors=True) as folder:
        if not flags.pgo:
            return _build_in(Path(folder), name, code, flags)
        profile = Path(folder) / "profile"
        trial = _build_in(Path(folder), name, code, flags, ("-fprofile-generate", f"-fprofile-dir={profile}"))
        _run_once(Path(folder), trial)
        final = ("-fprofile-use", "-Wmissing-profile", "-Wno-coverage-mismatch", f"-fprofile-dir={profile}")
        return _build_in(Path(folder), name, code, flags, final)


def build_for(engine: Any, message: Message) -> Message:
    """Build on an engine, for the client or for engines of the same platform; see `build`."""
    built = build(message["name"], message["code"], CythonFlags(**message["flags"]))
    return asdict(built)


class _BelowCell(Exception):
    """Cython refused only what was put below the cell; `errors` is line to text."""

    def __init__(self, errors: dict[int, str]) -> None:
        super().__init__(str(errors))
        self.errors = errors


def _build_in(folder: Path, name: str, code: str, flags: CythonFlags, extra: tuple[str, ...] = ()) -> Built:
    """Build with C entry points for the typed functions, as far as these compile."""
    _check_packages()
    wanted = entries(code)
    html = ""
    if flags.annotate and wanted:  # the coloured source is that of the cell alone
        source = _written(folder, name, code)
        _to_c(source, flags, extra, code)
        html, flags = source.with_suffix(".html").read_text(encoding="utf-8"), replace(flags, annotate=None)
    while True:
        try:
            built = _build_text(folder, name, code, appendix(wanted), flags, extra)
            return replace(built, annotation=html or built.annotation)
        except _BelowCell as error:
            wanted = without(wanted, code, error.errors)


def _written(folder: Path, name: str, text: str) -> Path:
    source = folder / f"{name}.pyx"
    source.write_text(text, encoding="utf-8")
    return source


def _build_text(folder: Path, name: str, code: str, below: str, flags: CythonFlags, extra: tuple[str, ...]) -> Built:
    source = _written(folder, name, code + below)
    extension, said = _to_c(source, flags, extra, code)
    output = folder / "out"
    with _quiet_working_directory(folder):
        said += _to_library(extension, folder, output, source.with_suffix(".cpp" if flags.cplus else ".c"), flags)
    library = next(output.rglob(f"{name}*"))
    annotation = source.with_suffix(".html")
    return Built(
        name=name,
        binary=library.read_bytes(),
        annotation=annotation.read_text(encoding="utf-8") if annotation.exists() else "",
        warnings=said.strip(),
    )


def _check_packages() -> None:
    for package in ("Cython", "setuptools"):
        if importlib.util.find_spec(package) is None:
            raise PxMissing(
                f"{package} is not installed here, and compiling needs it.\nType: `%pip install cython setuptools`."
            )


def _to_c(source: Path, flags: CythonFlags, extra: tuple[str, ...], code: str) -> tuple[Any, str]:
    """Translate to C or C++; return the extension to be compiled and what Cython said of the cell, `code`.

    Raises
    ------
    PxCompileError
        Cython refused the cell.
    _BelowCell
        It refused what the file has below the cell.
    """
    from Cython.Build import cythonize
    from Cython.Compiler.Errors import CompileError
    from setuptools import Extension

    extension = Extension(
        source.stem,
        [str(source), *map(os.path.abspath, flags.src)],  # the compiler runs in another directory
        include_dirs=[*map(os.path.abspath, flags.include), *_numpy_headers()],
        library_dirs=[*map(os.path.abspath, flags.library_dirs)],
        libraries=list(flags.lib),
        extra_compile_args=list(flags.compile_args),
        extra_link_args=list(flags.link_args),
        language="c++" if flags.cplus else "c",
    )
    options: dict[str, Any] = {"quiet": flags.quiet, "annotate": flags.annotate or False, "force": True}
    if flags.language_level is not None:
        options["language_level"] = flags.language_level
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            made = cythonize([extension], **options)[0]
    except CompileError:
        errors = {int(found["line"]): found["text"] for found in _CYTHON_ERROR.finditer(said.getvalue())}
        if errors and source.read_text(encoding="utf-8") != code and min(errors) > len(code.splitlines()):
            raise _BelowCell(errors) from None
        raise PxCompileError(first_cython_error(said.getvalue(), code)) from None
    # not given to cythonize, which remembers them for the file's next translation
    made.extra_compile_args = [*made.extra_compile_args, *extra]
    made.extra_link_args = [*made.extra_link_args, *(arg for arg in extra if arg.startswith("-fprofile"))]
    return made, _about_cell(said.getvalue(), len(code.splitlines()))


def _about_cell(said: str, n_lines: int) -> str:
    """Leave out warnings about lines below the cell."""
    kept, is_below = [], False
    for row in said.splitlines(keepends=True):
        found = _CYTHON_SAYS.match(row)
        if found is not None:
            is_below = int(found["line"]) > n_lines
        if not is_below:
            kept.append(row)
    return "".join(kept)


def _numpy_headers() -> list[str]:
    try:
        import numpy
    except ImportError:
        return []
    return [numpy.get_include()]


def _to_library(extension: Any, folder: Path, output: Path, c_file: Path, flags: CythonFlags) -> str:
    """Compile and link; return what the compiler said."""
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    said: list[str] = []

    def spawn(command: list[str], *rest: Any, **options: Any) -> None:
        said.append("" if flags.quiet else " ".join(map(str, command)) + "\n")
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=options.get("env"))
        except FileNotFoundError:
            raise _no_compiler(command[0]) from None
        said.append(done.stderr)
        if done.returncode:
            raise PxCompileError(first_c_error(done.stderr, c_file))

    class Builder(build_ext):  # type: ignore[misc, unused-ignore]
        def build_extensions(self) -> None:
            self.compiler.spawn = self.compiler.call = spawn  # `call` since setuptools 84
            for made in self.extensions:
                self.build_extension(made)

    distribution = Distribution({"ext_modules": [extension]})
    builder = Builder(distribution)
    builder.build_lib, builder.build_temp, builder.force = str(output), str(folder / "objects"), True
    builder.finalize_options()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.run()
    return "".join(said)


def _no_compiler(command: str) -> PxMissing:
    return PxMissing(
        f"there is no C compiler here (`{command}` was not found).\n"
        f"Install one: `apt-get install gcc libc6-dev`, `xcode-select --install` or `conda install c-compiler`."
    )


def has_compiler() -> bool:
    """Return whether Cython, setuptools and the C compiler of this Python's build are here."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    is_here = all(importlib.util.find_spec(name) is not None for name in ("Cython", "setuptools"))
    return is_here and shutil.which(command) is not None


def first_cython_error(text: str, code: str) -> str:
    """Return Cython's first error with its line and caret, as it would be shown under the cell."""
    rows = code.splitlines()
    all_found = list(_CYTHON_ERROR.finditer(text))
    if not all_found:
        return (text.strip() or "Cython failed and said nothing").splitlines()[-1]
    found = next((found for found in all_found if int(found["line"]) <= len(rows)), all_found[0])
    line, column = int(found["line"]), int(found["column"])
    shown = rows[line - 1] if line <= len(rows) else ""
    below = f"\n    {shown}\n    {' ' * column}^" if shown.strip() else ""
    return f"line {line}: {found['text']}{below}"


def first_c_error(text: str, c_file: Path) -> str:
    """Return the compiler's or linker's first error and the line of the cell that it comes from."""
    found = _C_ERROR.search(text)
    if found is None:
        lines = [line for line in text.splitlines() if "error" in line or "cannot find" in line or "undefined" in line]
        return f"the C compiler says: {(lines or text.splitlines() or ['nothing'])[0].strip()}"
    line = _cell_line(c_file, int(found["line"])) or _line_naming(found["text"], c_file.with_suffix(".pyx"))
    where = f"line {line}: " if line is not None and Path(found["file"]).name == c_file.name else ""
    return f"{where}the C compiler says: {found['text']}"


def _cell_line(c_file: Path, line: int) -> int | None:
    """Return the cell's line that a line of the C file was made from: Cython notes it in a comment above."""
    for row in reversed(c_file.read_text(encoding="utf-8").splitlines()[:line]):
        found = _LINE_COMMENT.match(row)
        if found:
            return int(found[1])
    return None


def _line_naming(error: str, source: Path) -> int | None:
    """Return the first line of the cell that names the header which an error says is missing."""
    header = error.partition(":")[0]
    rows = source.read_text(encoding="utf-8").splitlines()
    return next((number for number, row in enumerate(rows, start=1) if header in row), None)


def _run_once(folder: Path, built: Built) -> None:
    """Import a module in a process of its own, which writes its profile when it ends."""
    path = folder / "trial" / f"{built.name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(built.binary)
    subprocess.run([sys.executable, "-c", f"import {built.name}"], cwd=path.parent, check=False, capture_output=True)


@contextlib.contextmanager
def _quiet_working_directory(folder: Path) -> Iterator[None]:
    """Keep objects inside the private folder although their sources are named by absolute paths."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
