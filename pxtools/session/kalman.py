"""Kalman filters here or on engines: batches are split over engines, the starts of a fit are mapped over them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pxtools.errors import PxUsageError
from pxtools.kalman import FilterResult, FreeModel, join_results, kalman
from pxtools.kalman.api import as_model
from pxtools.session.core import Session
from pxtools.session.failures import to_exception
from pxtools.session.mapping import map_on
from pxtools.session.pool import Pool

CALL = "operator.call"


def filter_on(
    session: Session,
    model: Any,
    observations: Any,
    *,
    targets: Any = None,
    timeout_s: float | None = None,
    local: Mapping[str, Any] | None = None,
    **options: Any,
) -> FilterResult:
    """Filter observations, on the engines where `targets` names some.

    Parameters
    ----------
    model, observations
        See `pxtools.kalman.kalman`.
    targets
        Engines. Independent series, `(n_series, n_steps, n_obs)`, are split over them; one series goes to the first.
        Without targets the work is done here, except the starts of a multi-start fit, which are mapped over engines
        if there are some.
    timeout_s
        For the engines' work.
    **options
        Of `pxtools.kalman.kalman`: smooth, forecast, level, fit, until, starts, seed, form.

    Returns
    -------
    FilterResult
        The same, to the last bit, wherever it was computed.

    Raises
    ------
    PxUsageError
        What was given does not fit together.
    """
    model = as_model(model)
    is_fit = isinstance(model, FreeModel) or options.get("fit") is not None
    if is_fit:
        if targets is not None or (session.is_connected and options.get("starts", 1) > 1):
            options["map"] = functools.partial(map_on, session, targets=targets, timeout_s=timeout_s, local=local)
        return kalman(model, observations, **options)
    if targets is None:
        return kalman(model, observations, **options)
    task, gathering = session.gatherer(local).pack_value(functools.partial(kalman, model, **options))
    gathering.more_modules |= task.modules
    is_batch = getattr(observations, "ndim", 0) == 3
    engines = session.targets(targets)
    parts = np.array_split(observations, min(len(engines), len(observations))) if is_batch else [observations]
    with Pool(session, task, gathering, engines[: len(parts)], timeout_s) as pool:
        results = _filter_parts(pool, parts)
    return join_results(results) if is_batch else results[0]


def _filter_parts(pool: Pool, parts: Sequence[Any]) -> list[FilterResult]:
    """Return the result of each part, in order."""
    if not len(parts):
        raise PxUsageError("there are no series to filter.")
    for k, part in enumerate(parts):
        pool.submit(k, "call_task", {"function": CALL, "args": (part,)})
    results: dict[int, FilterResult] = {}
    for k, reply in pool.completed():
        if reply.failure is not None:
            raise to_exception({reply.engine_id: reply.failure}, 1)
        results[k] = (reply.answer or {})["value"]
    return [results[k] for k in sorted(results)]
