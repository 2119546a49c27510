"""The house itself: floors, extras, light imports, a build without a compiler, and what every magic owes."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

HEAVY = ["IPython", "arviz", "ipyparallel", "matplotlib", "numpy", "pandas", "scipy"]
# the escapes keep this file from finding itself
FOREIGN = re.compile(r"/(?:work|root)/|pypi\.org|pythonhosted\.org|deb\.debian\.org|registry\.npmjs")

PROBE = """
def answer():
    return 42
"""


def repository_files() -> list[Path]:
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("not a git checkout")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-co", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def magic_names() -> list[str]:
    """The modules that `MAGICS` lists, read without importing anything."""
    tree = ast.parse((ROOT / "pxtools/magics/__init__.py").read_text())
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "MAGICS" for target in targets):
            return list(ast.literal_eval(node.value))
    return []


def test_import_pxtools_imports_nothing_heavy() -> None:
    program = f"import sys, pxtools; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_imports_keep_to_their_floors() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint_imports], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_every_optional_tool_has_its_extra() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert set(extras) == {"cython", "r", "octave", "numba", "plot", "expr", "arviz", "mpi", "zarr", "parquet", "all"}
    (everything,) = extras["all"]
    assert set(re.search(r"\[(.*)\]", everything)[1].split(",")) == set(extras) - {"all"}


def test_no_file_names_a_place_of_the_machine_it_was_written_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in repository_files()
        if path.suffix not in {".png", ".npy", ".npz"}
        if (match := FOREIGN.search(path.read_text(errors="replace")))
    ]
    assert found == []


@pytest.fixture
def bare_copy(tmp_path: Path) -> Path:
    """A copy of the package with one kernel, `probe`, and nothing compiled."""
    pytest.importorskip("Cython")
    shutil.copytree(ROOT / "pxtools", tmp_path / "pxtools", ignore=shutil.ignore_patterns("*.so", "*.c", "*.pyx"))
    for name in "setup.py", "pyproject.toml", "README.md", "LICENSE":
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "pxtools/kernels/probe.pyx").write_text(PROBE)
    return tmp_path


def build(place: Path, **environment: str) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
    subprocess.run(command, cwd=place, env={**os.environ, **environment}, check=True, capture_output=True)


def libraries(place: Path) -> list[str]:
    return [path.name.split(".")[0] for path in (place / "pxtools/kernels").glob("*.so")]


def test_without_a_compiler_the_package_builds_and_every_twin_imports(bare_copy: Path) -> None:
    build(bare_copy, CC="/bin/false")
    assert libraries(bare_copy) == []
    modules = [path.stem for path in (bare_copy / "pxtools/kernels").glob("[!_]*.py")]
    program = "; ".join(["import pxtools.kernels", *(f"import pxtools.kernels.{name}" for name in modules)])
    subprocess.run([sys.executable, "-c", program], cwd=bare_copy, check=True)


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_kernel_that_no_longer_compiles_leaves_no_older_library_to_hide_its_twin(bare_copy: Path) -> None:
    build(bare_copy)
    assert libraries(bare_copy) == ["probe"]
    build(bare_copy, CC="/bin/false")
    assert libraries(bare_copy) == []


def test_every_magic_has_a_module_a_test_file_a_section_and_an_example() -> None:
    docs = ROOT / "docs/magics.md"
    headings = [line for line in docs.read_text().splitlines() if line.startswith("#")] if docs.exists() else []
    examples = [path.read_text() for path in sorted((ROOT / "examples").rglob("*")) if path.suffix in {".py", ".ipynb"}]
    missing = []
    for name in magic_names():
        mention = re.compile(rf"%{name}\b")
        if not (ROOT / f"pxtools/magics/{name}.py").exists():
            missing.append(f"pxtools/magics/{name}.py")
        if not (ROOT / f"tests/magics/test_{name}.py").exists():
            missing.append(f"tests/magics/test_{name}.py")
        if not any(mention.search(heading) for heading in headings):
            missing.append(f"a heading with %{name} in docs/magics.md")
        if not any(mention.search(example) for example in examples):
            missing.append(f"an example that uses %{name}")
    assert missing == []
