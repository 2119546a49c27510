"""Follow the module-level control flow of a cell: which names are definitely bound when a name is read.

One pass over the tree carries the set of names that every path so far has bound; branches are joined by
intersection. ``names.py`` adds what needs compiled code (function bodies) and IPython's magics.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Any

from pxtools._bound import Jumps, Names, Scope, State, join

# Context managers that swallow exceptions, known by their usual names: their body may stop half-way.
_SWALLOWERS = {"suppress", "raises", "assertRaises"}


class Flow(Names):
    """Walk statements and expressions in the order in which Python runs them."""

    def body_names(self, node: ast.AST) -> tuple[set[str], set[str]]:
        """Globals that the body of a function, lambda or type alias needs, and those that it binds."""
        raise NotImplementedError

    # -- statements ----------------------------------------------------------------------------------

    def block(self, body: Iterable[ast.stmt], state: State) -> State:
        """Run statements that may be skipped, from `state`; return the state at their end."""
        self.bound = state
        self.depth += 1
        self.visit_all(body)
        self.depth -= 1
        return self.bound

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Lambda) and all(isinstance(t, ast.Name) for t in node.targets):
            needs = self.lambda_needs(node.value)
            keys = [self.bind(t.id) for t in node.targets if isinstance(t, ast.Name)]
            for key in keys:
                self.defer(key, needs - set(keys))
        else:
            self.visit(node.value)
        for target in node.targets:
            self.store(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.read(node.target.id)
        else:
            self.visit(node.target)
        self.visit(node.value)
        self.store(node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.store(node.target)
        elif not isinstance(node.target, ast.Name):
            self.visit(node.target)
        self.annotation(node.annotation)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self.delete(target)

    def delete(self, target: ast.expr) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            for element in target.elts:
                self.delete(element)
        elif isinstance(target, ast.Name):
            scope, name = self.home(), self.mangled(target.id)
            self.read(target.id, may_call=False)
            self.unbind(scope.prefix + name if name not in scope.declared else name)
            if not scope.prefix:
                self.deletes.add(name)
                if self.depth == 0:
                    self.dropped.add(name)
        else:
            self.visit(target)

    def visit_Global(self, node: ast.Global) -> None:
        scope = self.home()
        if scope.prefix:
            scope.declared.update(self.mangled(name) for name in node.names)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        if self.depth == 0 and not self.home().prefix:
            self.imports.setdefault(ast.unparse(node))
        for alias in node.names:
            if alias.name != "*":
                self.bind(alias.asname or alias.name.partition(".")[0])

    visit_ImportFrom = visit_Import

    def visit_If(self, node: ast.If) -> None:
        true, false = self.split(node.test)
        self.bound = join(self.block(node.body, true), self.block(node.orelse, false))

    def visit_While(self, node: ast.While) -> None:
        self.loop(lambda: self.split(node.test), node)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        def next_item() -> tuple[State, State]:
            exhausted = self.bound
            self.store(node.target, collects=False)
            return self.bound, exhausted

        self.visit(node.iter)
        self.loop(next_item, node)

    visit_AsyncFor = visit_For

    def loop(self, head: Callable[[], tuple[State, State]], node: ast.For | ast.AsyncFor | ast.While) -> None:
        """Run a loop until another round would change nothing (`del` and `def` reach the next round)."""
        entry = self.bound
        while True:
            known = sum(map(len, self.pending.values()))
            self.loops.append(Jumps())
            self.bound = entry
            enter, leave = head()
            end = self.block(node.body, enter)
            jumps = self.loops.pop()
            again = join(entry, end, *jumps.continues)
            if again == entry and known == sum(map(len, self.pending.values())):
                break
            entry = again
        self.bound = join(self.block(node.orelse, leave), *jumps.breaks)

    def visit_Break(self, node: ast.Break) -> None:
        self.loops[-1].breaks.append(self.leave())

    def visit_Continue(self, node: ast.Continue) -> None:
        self.loops[-1].continues.append(self.leave())

    def leave(self) -> State:
        state, self.bound = self.bound, None
        return state and state - set(self.handled)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.generic_visit(node)
        self.exits.append(self.bound)
        self.bound = None

    def visit_Assert(self, node: ast.Assert) -> None:
        true, self.bound = self.split(node.test)
        self.visit_all([node.msg])
        self.bound = true

    def visit_Try(self, node: ast.Try | ast.TryStar) -> None:
        with self.watched() as whole:
            with self.watched() as body:
                normal = self.block(node.body, self.bound)
            ends: list[State] = []
            raised = body.state
            for handler in node.handlers:
                ends.append(self.handle(handler, raised))
                if isinstance(node, ast.TryStar):  # several handlers may run, one after the other
                    raised = join(raised, ends[-1])
            ends.append(self.block(node.orelse, normal))
        self.bound = join(*ends)
        if node.finalbody:
            after = self.bound
            self.finals += 1
            self.block(node.finalbody, whole.state)
            self.block(node.finalbody, after)
            self.finals -= 1

    visit_TryStar = visit_Try

    def handle(self, handler: ast.ExceptHandler, state: State) -> State:
        self.bound = state
        self.visit_all([handler.type])
        if handler.name is None:
            return self.block(handler.body, self.bound)
        key = self.bind(handler.name)
        self.handled.append(key)
        self.block(handler.body, self.bound)
        self.handled.pop()
        self.unbind(key)
        return self.bound

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.visit(item.context_expr)
            if item.optional_vars is not None:
                self.store(item.optional_vars, collects=False)
        with self.watched() as body:
            if any(_swallows(item.context_expr) for item in node.items):
                self.bound = join(self.block(node.body, self.bound), body.state)
            else:
                self.visit_all(node.body)

    visit_AsyncWith = visit_With

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        ends: list[State] = []
        rest = self.bound
        for case in node.cases:
            self.bound = rest
            self.pattern(case.pattern)
            enter, missed = self.split(case.guard) if case.guard else (self.bound, None)
            rest = missed if _always_matches(case.pattern) else join(rest, missed)
            ends.append(self.block(case.body, enter))
        self.bound = join(rest, *ends)

    def pattern(self, pattern: ast.pattern) -> None:
        # Captures are stored only when the whole pattern matches, after all of its values were read.
        nodes = list(ast.walk(pattern))
        self.visit_all(n for p in nodes for n in ast.iter_child_nodes(p) if isinstance(n, ast.expr)
                       and not isinstance(p, ast.expr))  # fmt: skip
        for node in nodes:
            name = getattr(node, "rest" if isinstance(node, ast.MatchMapping) else "name", None)
            if isinstance(name, str):
                self.bind(name)

    # -- definitions ---------------------------------------------------------------------------------

    def type_scope(self, node: Any) -> Scope:
        """Make the scope of type parameters (Python 3.12 and later)."""
        params = getattr(node, "type_params", [])
        names = frozenset(param.name for param in params)
        return Scope(local=names, is_inner=True, sees_class=True)

    def annotation(self, node: ast.expr | None) -> None:
        if node is not None and not self.lazy_annotations:
            self.touch(node)

    def touch(self, node: ast.expr) -> None:
        """Read an annotation or a base class: a bare name there is looked up, not called."""
        if isinstance(node, ast.Name) and not self.home().prefix and node.id not in self.eager:
            self.read(node.id, may_call=False)
        else:
            self.visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        args = node.args
        self.visit_all([*node.decorator_list, *args.defaults, *args.kw_defaults])
        with self.scope(self.type_scope(node)):
            every = [*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg]
            for arg in every:
                self.annotation(arg.annotation if arg else None)
            self.annotation(node.returns)
            needs = self.needs(node)
        self.defer(self.bind(node.name), needs, at_once=bool(node.decorator_list))

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_TypeAlias(self, node: Any) -> None:
        needs = self.needs(node)
        self.store(node.name, collects=False)
        self.defer(self.mangled(node.name.id), needs)

    def needs(self, node: ast.AST) -> set[str]:
        needs, stores = self.body_names(node)
        self.binds |= stores
        return {need for need in needs if not self.is_local(need)}

    def lambda_needs(self, node: ast.Lambda) -> set[str]:
        self.visit_all([*node.args.defaults, *node.args.kw_defaults])
        return self.needs(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for need in self.lambda_needs(node):
            self.read_global(need)
            self.use(need)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_all(node.decorator_list)
        prefix = f"{len(self.scopes)}:"
        with self.scope(self.type_scope(node)):
            for base in node.bases:
                self.touch(base)
            self.visit_all(node.keywords)
            with self.scope(Scope(name=node.name, prefix=prefix)):
                self.visit_all(node.body)
        needs = self.leave_class(prefix)
        for base in node.bases:
            if isinstance(base, ast.Name):
                needs |= self.pending.get(base.id, set())
        key = self.bind(node.name)
        if any(getattr(stmt, "name", "") == "__init_subclass__" for stmt in node.body):
            self.eager.add(key)
        self.defer(key, needs, at_once=bool(node.decorator_list or node.keywords))

    def leave_class(self, prefix: str) -> set[str]:
        """Forget a class body's names; return what its methods need."""
        if self.bound is not None:
            self.bound = frozenset(key for key in self.bound if not key.startswith(prefix))
        methods = [key for key in self.pending if key.startswith(prefix)]
        return set().union(*(self.pending.pop(key) for key in methods))

    # -- expressions ---------------------------------------------------------------------------------

    def split(self, test: ast.expr) -> tuple[State, State]:
        """Evaluate a condition; return the states where it is true and where it is false."""
        if isinstance(test, ast.Constant):
            return (self.bound, None) if test.value else (None, self.bound)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            true, false = self.split(test.operand)
            return false, true
        if isinstance(test, ast.BoolOp):
            return self.split_short_circuit(test)
        if isinstance(test, ast.Compare):
            stopped: State = None
            self.visit_all([test.left, test.comparators[0]])
            for comparator in test.comparators[1:]:
                stopped = join(stopped, self.bound)
                self.visit(comparator)
            return self.bound, join(stopped, self.bound)
        self.visit(test)
        return self.bound, self.bound

    def split_short_circuit(self, test: ast.BoolOp) -> tuple[State, State]:
        is_and = isinstance(test.op, ast.And)
        stopped: State = None
        for value in test.values:
            true, false = self.split(value)
            self.bound, stop = (true, false) if is_and else (false, true)
            stopped = join(stopped, stop)
        return (self.bound, stopped) if is_and else (stopped, self.bound)

    def visit_BoolOp(self, node: ast.BoolOp | ast.Compare) -> None:
        self.bound = join(*self.split(node))

    visit_Compare = visit_BoolOp

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.bound, false = self.split(node.test)
        self.visit(node.body)
        true, self.bound = self.bound, false
        self.visit(node.orelse)
        self.bound = join(true, self.bound)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        rights = []  # a loop, because a sum of a thousand terms is a tree a thousand deep
        left: ast.expr = node
        while isinstance(left, ast.BinOp):
            rights.append(left.right)
            left = left.left
        self.visit_all([left, *reversed(rights)])

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            self.visit_all([key, value])

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.read(node.id)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.store(node.target)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        self.comprehension(node.generators, [node.elt])

    visit_SetComp = visit_GeneratorExp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self.comprehension(node.generators, [node.key, node.value])

    def comprehension(self, generators: list[ast.comprehension], results: list[ast.expr]) -> None:
        self.visit(generators[0].iter)
        before = self.bound  # it may go round zero times
        targets = (name for gen in generators for name in ast.walk(gen.target))
        local = frozenset(n.id for n in targets if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        with self.scope(Scope(local=local, is_inner=True)):
            for number, generator in enumerate(generators):
                if number:
                    self.visit(generator.iter)
                self.store(generator.target, collects=False)
                for test in generator.ifs:
                    self.bound, _ = self.split(test)
            self.visit_all(results)
        self.bound = before


def _swallows(manager: ast.expr) -> bool:
    if not isinstance(manager, ast.Call):
        return False
    name = getattr(manager.func, "attr", getattr(manager.func, "id", ""))
    return name in _SWALLOWERS


def _always_matches(pattern: ast.pattern) -> bool:
    if isinstance(pattern, ast.MatchOr):
        return any(map(_always_matches, pattern.patterns))
    return isinstance(pattern, ast.MatchAs) and (pattern.pattern is None or _always_matches(pattern.pattern))
