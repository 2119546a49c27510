"""The documentation site: `make docs` writes it to build/docs.

The source directory is the repository itself, so that a link between files is the same link on the repository's host
and on the site. README.md is the front page; the order of the others stands in `SECTIONS`. Notebooks are shown with the
outputs that they were committed with: nothing is executed here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pxtools import __version__

project = "pxtools"
author = "the pxtools contributors"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc", "sphinx_copybutton"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**", "examples/*.ipynb"]
exclude_patterns = [
    ".*",
    "build",
    "dist",
    "pxtools",
    "tests",
    "tools",
    "benchmarks",
    "*.egg-info",
    "**/.ipynb_checkpoints",
]

#: caption -> pages, in the order of the side bar; the last of a section may be a pattern: all that are named nowhere
SECTIONS = {
    "Begin": ["examples/first_steps.ipynb", "docs/magics.md", "docs/semantics.md", "docs/troubleshooting.md"],
    "What it does": ["docs/sampling.md", "docs/kalman.md", "docs/formulas.md", "docs/languages.md", "docs/clusters.md"],
    "How it stands": ["docs/performance.md", "docs/engine_room.md", "docs/scaling.md", "docs/safety.md", "docs/*.md"],
    "Notebooks": ["examples/three_gaussians.ipynb", "examples/introduction.ipynb", "examples/*.ipynb"],
    "Python": ["docs/api/functions.md", "docs/api/*.md"],
    "Project": ["CHANGELOG.md", "CONTRIBUTING.md", "docs/decisions/*.md"],
}

# Markdown and notebooks
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_render_error_lexer = "text"  # messages of pxtools are sentences, no frames

# docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstring says it, in words and shapes
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# looks
html_theme = "furo"
html_title = f"pxtools {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_static/index.html"]  # leads to README.html
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
copybutton_prompt_text = r">>> |\.\.\. |In \[\d*\]: |\$ "
copybutton_prompt_is_regexp = True


def pages_of(patterns: list[str], taken: set[Path]) -> list[Path]:
    """Return the files of a section; a pattern stands for all that are not taken."""
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(set(ROOT.glob(pattern)) - taken - set(found)) if "*" in pattern else [ROOT / pattern]
        found += matches
    return found


def add_sections(app: Any, docname: str, source: list[str]) -> None:
    """Add the side bar's table of contents to the front page, which on the repository's host has no use for one."""
    if docname != root_doc:
        return
    taken = {ROOT / name for names in SECTIONS.values() for name in names}
    for caption, patterns in SECTIONS.items():
        names = [path.relative_to(ROOT).with_suffix("") for path in pages_of(patterns, taken)]
        entries = "\n".join(f"/{name.as_posix()}" for name in names)
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def setup(app: Any) -> None:
    """Connect what this file adds to Sphinx."""
    app.connect("source-read", add_sections)
