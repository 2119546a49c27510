"""`%pxsample`: Monte Carlo sampling of any density, on all engines."""

from __future__ import annotations

import argparse
import ast
from collections import ChainMap
from typing import Any

from IPython.core.magic import line_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.magics.common import TARGETS, PxMagics, evaluate, read_line
from pxtools.magics.language import name_r_functions, r_functions
from pxtools.magics.pxmap import expressions
from pxtools.sampling import Box, Samples
from pxtools.session.sampling import Sampling, sample


@magics_class
class PxSample(PxMagics):
    """Sampling on the engines."""

    @no_var_expand
    @needs_local_scope
    @line_magic
    @magic_arguments()
    @argument("--density", action="store_true", help="The target returns a density, not a log-density.")
    @argument(
        "--initial",
        help="Starts: (n_chains, n_params), one point, Box((-1, 1), ...), function, Samples (default: within bounds).",
    )
    @argument(
        "--step",
        default="0.1",
        help="rwm: half-width of the uniform box, an expression; one or per parameter (default 0.1).",
    )
    @argument(
        "--draws", type=int, help="Draws kept per chain (default 1000); with --until the most (default a million)."
    )
    @argument(
        "--warmup",
        type=int,
        help="Steps discarded per chain (default: 1000, 300 a parameter or a fifth of the draws; rwm: 100).",
    )
    @argument("--chains", type=int, help="Chains (default: rows of --initial, or a group for each engine).")
    @argument("--thin", type=int, default=1, help="Keep every so manieth step (default 1).")
    @argument(
        "--sampler",
        default="auto",
        help="auto (default): differential evolution; ram: robust adaptive; rwm: random walk.",
    )
    @argument(
        "--seed",
        type=int,
        help="Draws are the same for a seed on any number of engines (default: PxTools.seed, else a fresh one).",
    )
    @argument("--bounds", help="Hard bounds: (low, high), (n_params, 2), or a dict by name (default: none).")
    @argument("--periodic", help="Parameters that go round at their bounds: a,b (default: none).")
    @argument("--transform", action="store_true", help="Walk without bounds: log or logit of the bounded parameters.")
    @argument("--scale", type=float, default=1.0, help="Spread of random starts where there are no bounds (default 1).")
    @argument("--scalar", action=argparse.BooleanOptionalAction, help="Call it with floats, or (--no-scalar) a vector.")
    @argument("--vectorized", action="store_true", help="The target takes (n_points, n_params), returns (n_points,).")
    @argument("--names", help="Parameter names: a,b,c (default: of the arguments).")
    @argument(
        "--blobs", help="Names of the extra outputs that the target returns in a tuple: a,b (default: of the target)."
    )
    @argument("--tier", default="auto", help="auto (default), python or numba: what a Python function is made into.")
    @argument(
        "--until", help='Stop when met: "rhat<1.01 ess>1000" (rhat, ess, ess_bulk, ess_tail, mcse; default: never).'
    )
    @argument("--timeout", type=float, help="Stop after so many seconds, and keep the draws (default: never).")
    @argument("--checkpoint", help="File that keeps the state of the run (default: none).")
    @argument("--resume", action="store_true", help="Go on from the checkpoint, if there is one.")
    @argument("--noblock", action="store_true", help="Return a handle: .samples, .done, .result(), .cancel().")
    @argument("--plot", action="store_true", help="Show the picture, too.")
    @argument("-t", "--targets", help=TARGETS)
    @argument("-o", "--out", help="Bind the Samples to this name, too (default: none).")
    @argument("rest", nargs=argparse.REMAINDER, help="The target; options may follow it as well.")
    def pxsample(self, line: str, local_ns: dict[str, Any] | None = None) -> Samples | Sampling:
        """Sample a density with many chains over the engines.

        The target is a Python function or one compiled by Cython. One required parameter: it gets a float64 vector;
        two or more: it gets floats, and their names are the parameter names. The constants, helpers and modules that
        it uses are found and sent. `r:f` is a function that a `%%pxR` cell defined; the walk then runs inside R. The
        draws are bit-identical for any number of engines.

        Returns
        -------
        `Samples`: `.draws` is (n_chains, n_draws, n_params), `.points` (n_chains * n_draws, n_params),
        `.acceptance_rate` (n_chains,); with `--noblock` a handle.

        Examples
        --------
        >>> def ring(x, y):
        ...     return -((np.hypot(x, y) - 1) ** 2) / 0.02
        >>> %pxsample ring --bounds (-2,2) --draws 500 --seed 1 -o walk
        >>> walk.draws.shape
        >>> %pxsample ring --bounds "[(-2, 2), (0, 2)]" --until "rhat<1.05 ess>200" --draws 5000
        """
        args = read_line(self.pxsample, name_r_functions(line), one_expression)
        target = one_expression(args.rest)
        names = r_functions(self.session, self.names(local_ns), args.targets)
        if "Box" not in names:
            names = ChainMap({"Box": Box, **names.maps[0]}, names.maps[-1])

        def value(text: str | None) -> Any:
            return None if text is None else evaluate(one_expression(text), names)

        def keep(partial: Samples) -> None:
            if args.out is not None:
                self.session.namespace[args.out] = partial
                print(f"interrupted: `{args.out}` holds the {partial.n_draws:,} draws per chain that there are")

        samples = sample(
            self.session,
            evaluate(target, names),
            density=args.density,
            scalar=args.scalar,
            vectorized=args.vectorized,
            names=args.names.split(",") if args.names else None,
            blobs=args.blobs.split(",") if args.blobs else None,
            targets=args.targets,
            tier=args.tier,
            timeout_s=args.timeout,
            until=args.until,
            checkpoint=args.checkpoint,
            resume=args.resume,
            block=not args.noblock,
            local=self.locals_only(local_ns),
            on_partial=keep,
            draws=args.draws,
            warmup=args.warmup,
            chains=args.chains,
            thin=args.thin,
            step=value(args.step),
            initial=value(args.initial),
            bounds=value(args.bounds),
            periodic=args.periodic.split(",") if args.periodic else None,
            transform=args.transform,
            scale=args.scale,
            seed=args.seed,
            sampler=args.sampler,
        )
        if args.out is not None:
            self.session.namespace[args.out] = samples
        if args.plot and isinstance(samples, Samples):
            samples.plot()
        return samples


def one_expression(text: str) -> ast.expr:
    """Read a target or the value of an option.

    Raises
    ------
    PxUsageError
    """
    found = expressions(text)
    if len(found) != 1:
        what = f"`{text}` is not one target or value" if text else "give a target"
        raise PxUsageError(f"{what}. Write `%pxsample f --draws 1000`.")
    return found[0]
