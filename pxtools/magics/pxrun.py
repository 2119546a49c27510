"""`%%pxrun`: a cell on the engines, with the names that it reads, and its names back here."""

from __future__ import annotations

import argparse
from typing import Any

from IPython.core.magic import line_cell_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxError, PxUsageError
from pxtools.magics import nested
from pxtools.magics.common import HOW_HELP, TARGETS, PxMagics, read_line, renames, waits
from pxtools.magics.display import LastValues, Table, show_replies
from pxtools.results import human_bytes
from pxtools.session.run import Cell, Running, RunResult, plan, submit, syntax_error


@magics_class
class PxRun(PxMagics):
    """Cells on the engines."""

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    @magic_arguments()
    @argument(
        "-i",
        "--input",
        action="append",
        help="Also push these names: a,b or r=py for another name there (default: what it reads).",
    )
    @argument(
        "-o",
        "--output",
        action="append",
        help="Also collect these names: a,b or here=there (default: what it assigns).",
    )
    @argument("-t", "--targets", help=TARGETS)
    @argument("--how", help=HOW_HELP)
    @argument("--local", action="store_true", help="Run here as well; only -o names are collected then.")
    @argument(
        "--seed",
        type=int,
        help="Seed px_rng, random and numpy.random, independently on each engine (default: PxTools.seed, none).",
    )
    @waits
    @argument("--no-auto", action="store_true", help="Push and collect only what -i and -o name.")
    @argument("--explain", action="store_true", help="List what would travel, and why; run nothing.")
    @argument("--out", help="Bind the last expression's values to this name (default: none).")
    @argument("rest", nargs=argparse.REMAINDER, help="%%pxrun only: the code.")
    def pxrun(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Run code on the engines.

        Names that the code reads and the notebook holds are pushed; names that it assigns come back as `PerEngine`
        values: a sequence by engine with `.concat()`, `.stack()`, `.first()`, `.same()`. The code sees `px_rank`,
        `px_size`, and with `--seed` an independent `px_rng`. Magics work in it, `%%timeit` as its first line, too.

        Returns
        -------
        The last expression's value on each engine, of length px_size; shown once per distinct value.

        Examples
        --------
        >>> %pxrun x = px_rank**2
        >>> %%pxrun --seed 1 --how concat
        ... points = px_rng.random((1000, 2))
        >>> points.shape    # (1000 * px_size, 2)
        """
        args = read_line(self.pxrun, line)
        code = args.rest if cell is None else cell
        if cell is not None and args.rest:
            raise PxUsageError(f"`{args.rest}` is no option of %%pxrun; the code goes below.")
        if not code.strip():
            raise PxUsageError("there is nothing to run. Write `%pxrun x = px_rank`, or code below `%%pxrun`.")
        code = code.lstrip("\n")
        nested.refuse_old_names(code)
        inner = nested.split(code)
        if inner is not None and inner.magic in nested.ROUTES:
            return self._route(nested.ROUTES[inner.magic], inner, args, local_ns)
        asked = self._cell(args, code)
        local = self.locals_only(local_ns)
        if args.explain:
            return explain(self.session, asked, local)
        running = submit(self.session, asked, local)
        failed_here = args.local and not self._run_here(asked.code)

        def take(ended: Running) -> Any:
            result = ended.finish()
            shown = self._show(result, args.out, failed_here)
            return result.outputs if args.noblock else shown

        return self.carry_out(args, lambda: self._wait(running), take)

    def _route(self, magic: str, inner: nested.Nested, args: Any, local_ns: Any) -> Any:
        """Give the cell to the language's own magic."""
        run = self.shell.find_cell_magic(magic)
        line = f"{nested.options_for(magic, args)} {inner.line}".strip()
        return run(line, inner.body) if magic == "pxcython" else run(line, inner.body, local_ns)

    def _cell(self, args: Any, code: str) -> Cell:
        first = code.split(maxsplit=1)[0]
        inner = nested.split(code)
        is_timed = inner is not None and inner.magic == "timeit"
        if inner is not None and inner.magic in ("writefile", "file"):
            args.targets = nested.one_per_host(self.session, args.targets)
        try:
            is_python = inner is not None and inner.magic in nested.PYTHON_BODIES
            python = nested.python_of(self.shell, inner) if inner and is_python else self.shell.transform_cell(code)
        except SyntaxError as error:
            raise syntax_error(error) from None
        return Cell(
            code=nested.timed(inner) if inner and is_timed else code,
            python=python,
            inputs=renames(args.input),
            outputs=renames(args.output),
            targets=args.targets,
            how=args.how,
            seed=args.seed,
            auto=not args.no_auto,
            collects=not args.local and not is_timed,
            extensions=(first.lstrip("%"),) if first.startswith("%%") else (),
        )

    def _run_here(self, code: str) -> bool:
        self.session.namespace.update(px_rank=-1, px_size=len(self.session.wire.ids))
        return bool(self.shell.run_cell(code, store_history=False).success)

    def _wait(self, running: Running) -> Running:
        progress = self.session.progress("engines at work")
        try:
            return running.wait(tick=lambda call: progress.update(call.progress(), call.fraction()))
        finally:
            progress.close(running.call.progress(), running.call.fraction())

    def _show(self, result: RunResult, out: str | None, failed_here: bool) -> Any:
        show_replies(result.replies)
        if result.error is not None:
            raise result.error
        if failed_here:
            raise PxError("the cell failed here, see above; the engines ran it.")
        if out is not None:
            self.session.namespace[out] = result.last
        if result.last is not None and all(type(value).__name__ == "TimeitResult" for value in result.last):
            return nested.times_table(result.last)
        return LastValues.of(result.last, result.shown) if result.last is not None else None


def explain(session: Any, cell: Cell, local: Any) -> Table:
    """Return what would travel for a cell: name, size, why, and what cannot."""
    names, gathering = plan(session, cell, local)
    engines = session.targets(cell.targets)
    rows = []
    for name, item in gathering.items.items():
        is_there = all(session.ledger.is_in_step(engine, item) for engine in engines)
        how = "is there already" if is_there else "import" if item.imported else human_bytes(item.nbytes)
        rows.append((name, how, item.why))
    rows += [(name, "stays here", reason) for name, reason in gathering.problems.items()]
    back = ", ".join([*names.assigned, *cell.outputs]) or "nothing"
    return Table(("name", "size", "why"), rows, caption=f"comes back: {back}")
