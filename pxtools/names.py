"""What a piece of code reads and binds: the inputs and outputs of a cell, the globals of a function."""

from __future__ import annotations
import __future__

import ast
import copy
import inspect
import re
import types
import warnings
from dataclasses import dataclass
from string import Formatter

from pxtools._flow import Flow
from pxtools.remote.codes import global_names, nested, operations

# Magics whose argument is Python code, with their options that take a value.
_CODE_MAGICS = {"time": "", "timeit": "nrpv", "prun": "lsTD", "memit": "rtiv", "capture": ""}
# Of those, the ones that run it in the notebook's namespace, so that it binds names there.
_BINDING_MAGICS = {"time", "prun", "capture"}


@dataclass(frozen=True)
class CellNames:
    """The names that a cell takes in and gives out.

    Attributes
    ----------
    reads : frozenset of str
        Names that some path through the cell may read before the cell binds them, builtins included.
    assigned : tuple of str
        Names to collect, in the order of their first assignment.
    binds : frozenset of str
        Every module-level name that the cell binds in any way.
    imports : tuple of str
        The import statements that the cell always runs, one source line each.
    has_await : bool
        Whether the cell awaits at its top level.
    deletes : frozenset of str
        Names that the cell deletes at its top level.
    """

    reads: frozenset[str]
    assigned: tuple[str, ...]
    binds: frozenset[str]
    imports: tuple[str, ...]
    has_await: bool
    deletes: frozenset[str]


def analyse(code: str) -> CellNames:
    r"""Find what a cell reads before it binds it, and what it binds.

    The answer is on the safe side: a name that only some paths bind counts as read. Text that is
    given to `exec` or `eval` is not looked at. The result depends on `code` alone.

    Parameters
    ----------
    code : str
        Python source, after IPython has turned its magics into calls of `get_ipython()`.

    Returns
    -------
    CellNames
        The names, with `get_ipython` left out of `reads`.

    Raises
    ------
    SyntaxError
        When `code` is not Python.

    Examples
    --------
    >>> names = analyse("total = a + sum(b)\nfor item in b: total += item")
    >>> sorted(names.reads), names.assigned
    (['a', 'b', 'sum'], ('total',))
    """
    with warnings.catch_warnings():
        # The cell's own run shows its SyntaxWarnings; here they would come a second time.
        warnings.simplefilter("ignore")
        tree = ast.parse(code)
        compiled = compile(code, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        flow = _CellFlow(compiled.co_flags & __future__.annotations.compiler_flag)
        flow.visit(tree)
    flow.finish()
    return CellNames(
        reads=frozenset(flow.reads),
        assigned=tuple(name for name in flow.assigned if name not in flow.dropped),
        binds=frozenset(flow.binds),
        imports=tuple(flow.imports),
        has_await=bool(compiled.co_flags & inspect.CO_COROUTINE),
        deletes=frozenset(flow.deletes),
    )


def mentions(code: str) -> tuple[frozenset[str], frozenset[str]]:
    """Find every module that a cell imports absolutely, and every attribute that it looks up on anything.

    Examples
    --------
    >>> modules, attributes = mentions("import scipy.linalg as la; la.norm(x.T)")
    >>> sorted(modules), sorted(attributes)
    (['scipy.linalg'], ['T', 'norm'])
    """
    modules: set[str] = set()
    attributes: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            attributes.add(node.attr)
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module)
    return frozenset(modules), frozenset(attributes)


def parse_rename(spec: str) -> tuple[str, str]:
    """Split an option value such as ``r=py`` into destination and source.

    Parameters
    ----------
    spec : str
        ``name`` or ``destination=source``.

    Returns
    -------
    tuple of str
        Destination and source; twice the same for a bare name.

    Raises
    ------
    ValueError
        When either side is not an identifier.

    Examples
    --------
    >>> parse_rename("x"), parse_rename("r=py")
    (('x', 'x'), ('r', 'py'))
    """
    destination, equals, source = (piece.strip() for piece in spec.partition("="))
    if not equals:
        source = destination
    for name in (destination, source):
        if not name.isidentifier():
            raise ValueError(
                f"{spec!r} is not a name or a rename: {name!r} is not an identifier.\n"
                "Write `x`, or `destination=source`."
            )
    return destination, source


# -- code objects --------------------------------------------------------------------------------------


def _inner(code: types.CodeType) -> list[types.CodeType]:
    return [const for const in code.co_consts if isinstance(const, types.CodeType)]


def _stored_globals(code: types.CodeType) -> set[str]:
    return {op.argval for op in operations(code) if op.opname == "STORE_GLOBAL"}


def _bare(node: ast.AST) -> ast.AST:
    """Copy a function without what is evaluated at its definition: decorators, defaults, annotations."""
    bare = copy.copy(node)
    if isinstance(bare, (ast.FunctionDef, ast.AsyncFunctionDef)):
        bare.decorator_list, bare.returns = [], None
    if isinstance(bare, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        args = bare.args
        bare.args = ast.arguments(
            posonlyargs=[ast.arg(arg.arg) for arg in args.posonlyargs],
            args=[ast.arg(arg.arg) for arg in args.args],
            vararg=args.vararg and ast.arg(args.vararg.arg),
            kwonlyargs=[ast.arg(arg.arg) for arg in args.kwonlyargs],
            kw_defaults=[None] * len(args.kw_defaults),
            kwarg=args.kwarg and ast.arg(args.kwarg.arg),
            defaults=[],
        )
    return bare


# -- magics --------------------------------------------------------------------------------------------


class _CellFlow(Flow):
    """The flow of a cell, with function bodies read from compiled code, and with IPython's magics."""

    def __init__(self, compiler_flags: int = 0) -> None:
        super().__init__(lazy_annotations=bool(compiler_flags))
        self.compiler_flags = compiler_flags

    def body_names(self, node: ast.AST) -> tuple[set[str], set[str]]:
        bare = _bare(node)
        tree = ast.parse("")
        tree.body = [ast.Expr(bare) if isinstance(bare, ast.expr) else bare]  # type: ignore[list-item]
        cls = next((scope.name for scope in reversed(self.scopes) if scope.prefix), "")
        if cls:  # private names and `super()` need a class around the method
            outer = ast.parse(f"class {cls}: pass")
            outer.body[0].body, tree = tree.body, outer  # type: ignore[attr-defined]
        ast.fix_missing_locations(tree)
        codes = _inner(compile(tree, "<cell>", "exec", flags=self.compiler_flags, dont_inherit=True))
        if cls:
            codes = [inner for code in codes for inner in _inner(code)]
        needs = set().union(*map(global_names, codes))
        every = [inner for code in codes for inner in nested(code)]
        local = {name for code in every for name in (*code.co_varnames, *code.co_cellvars)}
        needs |= self._magic_reads_within(node) - local
        return needs, set().union(*map(_stored_globals, every))

    def _magic_reads_within(self, node: ast.AST) -> set[str]:
        inner = _CellFlow()
        for call in ast.walk(node):
            if isinstance(call, ast.Call):
                inner.magic(call)
        return inner.reads

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        self.magic(node)

    def magic(self, call: ast.Call) -> None:
        """Read the names in the text of a call such as `get_ipython().run_line_magic('time', 'f(x)')`."""
        match call.func:
            case ast.Attribute(ast.Call(ast.Name("get_ipython")), method):
                pass
            case _:
                return
        texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        match method, texts:
            case "system" | "getoutput", [text]:
                self._expand(text)
            case "run_line_magic", [name, line]:
                self._line_magic(name, line)
            case "run_cell_magic", [name, line, body]:
                self._cell_magic(name, line, body)

    def _line_magic(self, name: str, line: str) -> None:
        if name not in _CODE_MAGICS or name == "capture" or not self._run(name, _without_options(name, line)):
            self._expand(line)

    def _cell_magic(self, name: str, line: str, body: str) -> None:
        if name not in _CODE_MAGICS:
            self._expand(line)
            return
        rest = _without_options(name, line)
        if name == "capture":
            self._run(name, body)
            if rest.strip().isidentifier():
                self.bind(rest.strip())
        else:
            self._run(name, f"{rest}\n{body}")

    def _run(self, name: str, source: str) -> bool:
        """Follow the code that a magic runs; False when it is not Python."""
        tree = _parse_leniently(source)
        if tree is None:
            return False
        if name in _BINDING_MAGICS:
            self.visit_all(tree.body)
        else:
            inner = _CellFlow(self.compiler_flags)
            inner.bound, inner.pending = self.bound, {key: set(val) for key, val in self.pending.items()}
            inner.visit_all(tree.body)
            self.reads |= inner.reads
        return True

    def _expand(self, text: str) -> None:
        """Read the names that IPython fills in: `$name`, `{expression}`; `$$` and `{{` are escapes."""
        for name in re.findall(r"(?<!\$)(?:\$\$)*\$([^\W\d]\w*)", text):
            self.read(name)
        try:
            fields = list(Formatter().parse(text))
        except ValueError:  # unbalanced braces: IPython leaves the text alone
            return
        for _, expression, spec, _ in fields:
            tree = _parse(expression.strip()) if expression else None
            if tree is not None:
                self.visit_all(stmt for stmt in tree.body if isinstance(stmt, ast.Expr))
            if spec:
                self._expand(spec)


def _without_options(magic: str, line: str) -> str:
    """Drop a magic's leading options: `-n 10 -r3 --quiet f(x)` becomes `f(x)`."""
    line = line.strip()
    while found := re.match(r"--[a-z][\w-]*\s*|-([A-Za-z])(\S*)\s*", line):
        letter, value = found.groups()
        line = line[found.end() :]
        if letter and not value and letter in _CODE_MAGICS[magic]:
            line = re.sub(r"""^('[^']*'|"[^"]*"|\S+)\s*""", "", line)
    return line


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):  # ValueError: a null byte
        return None


def _parse_leniently(source: str) -> ast.Module | None:
    """Parse the body of a magic, in which further magics are not transformed yet."""
    if source.lstrip().startswith("%%"):
        first, _, body = source.lstrip()[2:].partition("\n")
        name, _, line = first.partition(" ")
        return ast.parse(f"get_ipython().run_cell_magic({name!r}, {line!r}, {body!r})")
    tree = _parse(source)
    return tree or _parse("\n".join(map(_transformed, source.split("\n"))))


def _transformed(line: str) -> str:
    """Turn one line with a magic into the call that IPython would make of it."""
    start = line.lstrip()
    before = line[: len(line) - len(start)]
    target, equals, value = start.partition("=")
    if equals and value.lstrip()[:1] in ("%", "!"):
        before, start = f"{before}{target}= ", value.lstrip()
    if start.startswith("%"):
        name, _, rest = start[1:].partition(" ")
        return f"{before}get_ipython().run_line_magic({name!r}, {rest!r})"
    if start.startswith("!"):
        return f"{before}get_ipython().system({start[1:]!r})"
    return f"{before}pass" if start.startswith("?") or start.rstrip().endswith("?") else line
