"""`%pxkalman`: filter, smooth, forecast and fit linear Gaussian state-space models."""

from __future__ import annotations

import argparse
import ast
from typing import Any

from IPython.core.magic import line_cell_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from pxtools.errors import PxUsageError
from pxtools.kalman import FilterResult, FleetResult, LongResult, model_from_cell
from pxtools.magics.common import PxMagics, evaluate, expressions, read_line, waits
from pxtools.session.handle import Handle
from pxtools.session.kalman import filter_on


@magics_class
class PxKalman(PxMagics):
    """Kalman filters."""

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    @magic_arguments()
    @argument("--smooth", action="store_true", help="Smooth now; else smoothed moments are computed when first read.")
    @argument("--forecast", type=int, default=0, metavar="N", help="Forecast so many steps (default 0).")
    @argument("--level", type=float, default=0.95, help="Probability of the forecasts' intervals (default 0.95).")
    @argument("--fit", choices=("ml", "em"), help="Fit the free parameters: maximum likelihood (default) or EM.")
    @argument(
        "--starts",
        type=int,
        default=1,
        metavar="N",
        help="Start points of the fit, mapped over the engines (default 1).",
    )
    @argument("--seed", type=int, default=0, help="Of the start points (default 0).")
    @argument("--until", help='When the fit stops, such as "gain<1e-6 iterations>500" (default: the method\'s).')
    @argument("--form", default="auto", help="auto (default), univariate, cholesky, sqrt, information or generated.")
    @argument(
        "-t",
        "--targets",
        help="Filter there: 0, 0,2, ::2, all, or a view; many series are split over them, a long one is cut in "
        "time (default: here).",
    )
    @argument("--where", default="auto", help="With -t: auto (default: where it is faster), here, or engines.")
    @argument(
        "--write",
        metavar="PATH",
        help="Have the engines write arrays to this folder (or .zarr, .parquet), not send them (default: send).",
    )
    @waits
    @argument("-o", "--out", help="Bind the result to this name, too (default: none).")
    @argument("rest", nargs=argparse.REMAINDER, help="MODEL OBSERVATIONS; in a cell OBSERVATIONS alone.")
    def pxkalman(
        self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None
    ) -> FilterResult | FleetResult | LongResult | Handle:
        """Filter observations with a linear Gaussian state-space model.

        The line form names a `StateSpaceModel` and the observations: `(n_steps, n_obs)`, `(n_series, n_steps, n_obs)`,
        a Series or a DataFrame; NaN is a missing value. Many series may also be a name that was scattered, a value that
        engines hold, or the path of a .npy, .zarr or .parquet file; then they are filtered where they are. One long
        series, with a model that does not change, is cut in time over several engines where that pays.

        The cell form defines the model with textbook letters F, H, Q, R, and `initial` or x0 and P0; numbers that are
        left `free()` are fitted.

        Returns
        -------
        `FilterResult`: `.filtered_mean` is (n_steps, n_states), `.filtered_cov` (n_steps, n_states, n_states), with an
        axis (n_series, ...) in front for many series, which are a `FleetResult`. A series that was cut in time is a
        `LongResult`, whose arrays come from the engines when they are read.

        Examples
        --------
        >>> flow = 1000 + np.random.default_rng(1).normal(0, 120, 100)
        >>> %%pxkalman flow -o level --smooth
        ... F = [[1]]; H = [[1]]; Q = [[1469.1]]; R = [[15099]]
        ... initial = "diffuse"
        >>> from pxtools.kalman import local_level
        >>> model = local_level(1469.1, observation_var=15099)
        >>> %pxkalman model flow --forecast 5 -o ahead
        """
        args = read_line(self.pxkalman, line, line_operands if cell is None else cell_operands)
        known = self.names(local_ns)
        operands = line_operands(args.rest) if cell is None else cell_operands(args.rest)
        *models, observations = (evaluate(node, known) for node in operands)
        model = models[0] if models else model_from_cell(cell or "", known)
        options = {key: getattr(args, key) for key in _OPTIONS}
        options["name"] = operands[-1].id if isinstance(operands[-1], ast.Name) else None
        local = self.locals_only(local_ns)
        result = self.carry_out(args, lambda: filter_on(self.session, model, observations, local=local, **options))
        if args.out is not None:
            self.session.namespace[args.out] = result
        return result


_OPTIONS = ("targets", "where", "write", "smooth", "forecast", "level", "fit", "until", "starts", "seed", "form")


def line_operands(text: str) -> list[ast.expr]:
    """Read `MODEL OBSERVATIONS`.

    Raises
    ------
    PxUsageError
    """
    found = expressions(text) if text else []
    if len(found) != 2:
        what = f"`{text}` is not a model and observations" if text else "give a model and observations"
        raise PxUsageError(f"{what}. Write `%pxkalman model flow --smooth`.")
    return found


def cell_operands(text: str) -> list[ast.expr]:
    """Read `OBSERVATIONS`.

    Raises
    ------
    PxUsageError
    """
    found = expressions(text) if text else []
    if len(found) != 1:
        raise PxUsageError(f"`{text}`: name the observations. Write `%%pxkalman flow -o level`, the model below it.")
    return found
