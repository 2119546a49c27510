"""The cell form: textbook letters in, a model out.

The cell is ordinary Python that is read as a tree, so that every `free(…)` knows its place, then run: once for a model,
once for each set of values for a model with free parameters.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError, nearest
from pxtools.kalman import builders
from pxtools.kalman.arima import arima
from pxtools.kalman.model import LETTERS, StateSpaceModel
from pxtools.kalman.parameters import Free, FreeModel, free

#: what a cell may assign: letters and public names
WORDS = {
    **LETTERS,
    "x0": "initial_mean",
    "P0": "initial_cov",
    "initial": "initial",
    "state_names": "state_names",
    "obs_names": "obs_names",
    "approximate_variance": "approximate_variance",
}
COVARIANCES = ("Q", "R", "P0", "process_cov", "observation_cov", "initial_cov")
REQUIRED = ("F", "H", "Q", "R")

#: the arguments of builders that are variances, by position
VARIANCES = {
    "local_level": (0,),
    "local_linear_trend": (0, 1),
    "seasonal": (1,),
    "trigonometric_seasonal": (1,),
    "cycle": (1,),
    "arima": (2,),
}
BUILDERS = {
    name: getattr(builders, name)
    for name in (
        "local_level",
        "local_linear_trend",
        "seasonal",
        "trigonometric_seasonal",
        "cycle",
        "regression",
    )
} | {"arima": arima, "StateSpaceModel": StateSpaceModel}

FREE = "free"


def model_from_cell(source: str, namespace: Mapping[str, Any]) -> StateSpaceModel | FreeModel:
    """Return the model that a cell defines.

    Parameters
    ----------
    source : str
        Python statements that assign `F`, `H`, `Q`, `R`, and optionally `x0` and `P0`, or `initial` ("diffuse",
        "stationary", …), `c`, `d`, `G`; the public names (`transition_matrix`, …) serve as well. Or a statement
        `model = …` with builders and models of the notebook. `free(…)` in the place of a number marks what is fitted.
    namespace : mapping
        The notebook's names; it is not changed.

    Returns
    -------
    StateSpaceModel or FreeModel
        The latter if the cell has free parameters. They are named after what they are assigned to: `q` for
        `q = free()`, `Q[0,0]` for an element. Those that can only be variances are kept positive.

    Raises
    ------
    PxUsageError
        A letter is missing, assigned twice under two names, or misspelt; the matrices are no model.
    SyntaxError, NameError, …
        Whatever the cell's own code raises.

    Examples
    --------
    >>> from pxtools.kalman.cell import model_from_cell
    >>> model_from_cell("F = H = [[1]]; Q = [[free()]]; R = [[free()]]", {})
    FreeModel(Q[0,0], R[0,0])
    """
    tree = ast.parse(source, "<%%pxkalman>")
    _check_words(tree)
    marks = _Marks(tree, is_ours="free" not in namespace or namespace["free"] is free)
    code = compile(ast.fix_missing_locations(marks.visit(tree)), "<%%pxkalman>", "exec")
    cell = _Cell(code, _read_names(tree, namespace))
    first = _Values()
    model = cell.run(first)
    if not first.found:
        return model
    return FreeModel(cell.build, first.found, fills=_filled(marks, first.found))


@dataclass(frozen=True)
class _Cell:
    """A compiled cell with the notebook's values that it reads."""

    code: CodeType
    names: dict[str, Any]

    def build(self, **values: float) -> StateSpaceModel:
        return self.run(_Values(values))

    def run(self, values: _Values) -> StateSpaceModel:
        """Run the cell with these values in the places marked free."""
        names = {"np": np, "numpy": np, **BUILDERS, FREE: values.take, **self.names}
        exec(self.code, names)
        return _model_of(names)

    def __getstate__(self) -> dict[str, Any]:
        import marshal

        return {"code": marshal.dumps(self.code), "names": self.names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import marshal

        object.__setattr__(self, "code", marshal.loads(state["code"]))
        object.__setattr__(self, "names", state["names"])


@dataclass
class _Values:
    """Stand in for `free` in a cell: hand out values, and note the marks."""

    given: Mapping[str, float] = field(default_factory=dict)
    found: dict[str, Free] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    def take(self, start: Any = None, *, _place: str = "free", _bounds: Any = None, **options: Any) -> float:
        """Return the value of the parameter at this place; a place that is passed again is numbered."""
        name = str(options.get("name") or _place)
        self.calls[name] += 1
        if self.calls[name] > 1 and not options.get("name"):
            name = f"{name}.{self.calls[name]}"
        if _bounds is not None and not {"lower", "upper", "positive"} & set(options):
            options["lower"], options["upper"] = _bounds
        mark = free(start, **options)
        self.found.setdefault(name, mark)
        return self.given.get(name, mark.guess())


class _Marks(ast.NodeTransformer):
    """Tell every call of `free` where it stands, and whether only a variance can stand there."""

    def __init__(self, tree: ast.Module, is_ours: bool) -> None:
        self.is_ours = is_ours
        self.targets: dict[str, str] = {}
        self.variances = _variance_names(tree)
        self.target, self.place, self.bounds = FREE, "", None  # type: tuple[str, str, Any]

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        first = node.targets[-1]
        self.target = first.id if isinstance(first, ast.Name) else FREE
        is_variance = self.target in COVARIANCES or self.target in self.variances
        self.bounds = (0.0, None) if is_variance else None
        node.value = self._inside(node.value, ())
        self.target, self.bounds = FREE, None
        return node

    def _inside(self, node: ast.expr, place: tuple[int, ...]) -> ast.expr:
        """Walk through nested lists, whose positions name the elements of a matrix."""
        if isinstance(node, (ast.List, ast.Tuple)):
            node.elts = [self._inside(element, (*place, i)) for i, element in enumerate(node.elts)]
            return node
        kept = self.place, self.bounds
        self.place = f"[{','.join(map(str, place))}]" if place else ""
        if self.target in COVARIANCES and len(place) >= 2 and place[-1] != place[-2]:
            self.bounds = None
        visited = self.visit(node)
        self.place, self.bounds = kept
        assert isinstance(visited, ast.expr)
        return visited

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == FREE and self.is_ours:
            place = self.target + self.place
            self.targets[place] = self.target
            node.keywords.append(ast.keyword("_place", ast.Constant(place)))
            if self.bounds is not None:
                node.keywords.append(ast.keyword("_bounds", ast.Constant(self.bounds)))
            return node
        if name in VARIANCES:
            return self._builder(node, name)
        return self.generic_visit(node)

    def _builder(self, node: ast.Call, name: str) -> ast.AST:
        kept = self.place, self.bounds
        stem = f"{name}." if self.target in (FREE, "model") else f"{self.target}."
        target, self.target = self.target, stem
        for i, argument in enumerate(node.args):
            self.place = list(inspect.signature(BUILDERS[name]).parameters)[i] if i < 3 else str(i)
            self.bounds = (0.0, None) if i in VARIANCES[name] else None
            node.args[i] = self.visit(argument)
        for keyword in node.keywords:
            self.place = str(keyword.arg)
            is_variance = str(keyword.arg).endswith("var")
            self.bounds = (0.0, None) if is_variance else (0.0, 1.0) if keyword.arg == "damping" else None
            keyword.value = self.visit(keyword.value)
        self.target = target
        self.place, self.bounds = kept
        return node


def _variance_names(tree: ast.Module) -> set[str]:
    """Names that are read inside a covariance, and nowhere off the diagonal of one written as lists."""
    on: set[str] = set()
    off: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[-1], ast.Name):
            continue
        if node.targets[-1].id in COVARIANCES:
            for place, name in _names_at(node.value, ()):
                (off if len(place) >= 2 and place[-1] != place[-2] else on).add(name)
    return on - off


def _names_at(node: ast.expr, place: tuple[int, ...]) -> list[tuple[tuple[int, ...], str]]:
    if isinstance(node, (ast.List, ast.Tuple)):
        return [found for i, element in enumerate(node.elts) for found in _names_at(element, (*place, i))]
    return [(place, child.id) for child in ast.walk(node) if isinstance(child, ast.Name)]


def _read_names(tree: ast.Module, namespace: Mapping[str, Any]) -> dict[str, Any]:
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {name: namespace[name] for name in read if name in namespace and namespace[name] is not free}


def _bound_names(tree: ast.Module) -> dict[str, int]:
    """Names that the cell assigns at its top level, with their lines."""
    found: dict[str, int] = {}
    for statement in tree.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.setdefault(node.id, node.lineno)
    return found


def _check_words(tree: ast.Module) -> None:
    """A word that is assigned, never read and close to a known one is a slip of the pen."""
    known = {*WORDS, *WORDS.values(), "model"}
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    for name, line in _bound_names(tree).items():
        hint = nearest(name, known) if len(name) > 2 or name.upper() in known else ""
        if name not in known and name not in read and hint:
            raise PxUsageError(f"Line {line} of the cell assigns `{name}`, which no model has and nothing reads.{hint}")


def _model_of(names: dict[str, Any]) -> StateSpaceModel:
    if isinstance(names.get("model"), StateSpaceModel) and "F" not in names:
        model: StateSpaceModel = names["model"]
        return model
    parts: dict[str, Any] = {}
    for word, public in WORDS.items():
        both = [key for key in dict.fromkeys((word, public)) if key in names and not hasattr(builtins, key)]
        if len(both) > 1:
            raise PxUsageError(f"The cell gives both `{both[0]}` and `{both[1]}`, which are the same.\nKeep one.")
        if both:
            parts[public] = names[both[0]]
        elif word in REQUIRED:
            raise PxUsageError(
                f"The cell does not define `{word}` (or `{public}`).\nA model needs F, H, Q and R, for example\n"
                'F = [[1]]; H = [[1]]; Q = [[1469.1]]; R = [[15099]]; initial = "diffuse"'
            )
    try:
        return StateSpaceModel(**parts)
    except PxUsageError as error:
        letters = {public: letter for letter, public in WORDS.items() if letter in names and letter != public}
        message = str(error)
        for public, letter in letters.items():  # the error names the matrix as the cell does
            message = message.replace(f"`{public}`", f"`{letter}` ({public})")
        raise PxUsageError(message) from None


def _filled(marks: _Marks, found: dict[str, Free]) -> tuple[str, ...]:
    """The matrices that are free as a whole for EM: those that hold a mark directly."""
    targets = dict.fromkeys(marks.targets.get(name.split(".")[0], "") for name in found)
    return tuple(WORDS.get(t, t) for t in targets if t in WORDS or t in WORDS.values())
