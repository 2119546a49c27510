"""Functions of R as targets: `r:name` for `%pxsample` and `%pxmap`. Loops run inside R, not call by call.

An `RFunction` is a name. It travels as such, and means the function of that name in the R of the engine that uses it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pxtools.errors import PxRError, PxUsageError
from pxtools.kernels.calls_numpy import result_at, value_at
from pxtools.kernels.rwm_numpy import walk
from pxtools.kernels.target_calls import as_values, checked_number, refuse_value
from pxtools.remote.engine import Engine, Message
from pxtools.remote.engine import current as current_engine
from pxtools.remote.r_runner import R, interruptible
from pxtools.remote.r_runner import current as current_r
from pxtools.remote.r_values import Converter

#: steps whose random numbers are handed to R at once
BLOCK = 4096

_HELPERS = r"""
local({
  guarded <- function(action) {
    at <- 0L
    mark <- function(k) at <<- as.integer(k)
    tryCatch(list(ok = TRUE, value = action(mark)),
      error = function(e) list(ok = FALSE, message = conditionMessage(e), at = at, interrupted = FALSE),
      interrupt = function(e) list(ok = FALSE, message = "interrupted", at = at, interrupted = TRUE))
  }
  list(
    formals = function(name) guarded(function(mark) {
      arguments <- formals(args(get(name, globalenv(), mode = "function")))
      list(names = names(arguments), required = vapply(arguments, function(a) identical(a, quote(expr = )), TRUE))
    }),
    map = function(name, items) guarded(function(mark) {
      f <- get(name, globalenv(), mode = "function")
      results <- vector("list", length(items))
      for (k in seq_along(items)) {
        mark(k)
        result <- do.call(f, items[[k]])
        if (!is.null(result)) results[[k]] <- result
      }
      results
    }),
    rows = function(name, points, flags) guarded(function(mark) {
      f <- get(name, globalenv(), mode = "function")
      if (flags[2]) return(f(points))
      values <- numeric(nrow(points))
      for (k in seq_len(nrow(points))) {
        new <- if (flags[1]) do.call(f, as.list(points[k, ])) else f(points[k, ])
        if (!is.numeric(new) || length(new) != 1L) return(list(bad = k))
        values[k] <- new
      }
      values
    }),
    walk = function(name, x, value, u, box, flags, first, thin, n_kept) guarded(function(mark) {
      f <- get(name, globalenv(), mode = "function")
      d <- length(x)
      step <- box[1, ]; lower <- box[2, ]; upper <- box[3, ]
      draws <- matrix(0, n_kept, d); values <- numeric(n_kept)
      counts <- integer(3); first_nan <- rep(NaN, d)
      kept <- 0L; next_kept <- first
      for (t in seq_len(nrow(u))) {
        p <- x + step * (2 * u[t, seq_len(d)] - 1)
        if (all(lower <= p & p <= upper)) {
          new <- if (flags[2]) do.call(f, as.list(p)) else f(p)
          counts[1] <- counts[1] + 1L
          if (!is.numeric(new) || length(new) != 1L || identical(new, Inf) || (flags[1] && isTRUE(new < 0)))
            return(list(bad = p))
          if (is.nan(new) || is.na(new)) {
            if (counts[3] == 0L) first_nan <- p
            counts[3] <- counts[3] + 1L
          } else {
            r <- u[t, d + 1L]
            if (if (flags[1]) r * value < new else new >= value || log(r) < new - value) {
              x <- p; value <- new; counts[2] <- counts[2] + 1L
            }
          }
        }
        if (t == next_kept) {
          kept <- kept + 1L
          draws[kept, ] <- x; values[kept] <- value
          next_kept <- next_kept + thin
        }
      }
      list(x = x, value = value, draws = draws, values = values, counts = counts, first_nan = first_nan,
           next_kept = next_kept)
    })
  )
})
"""


class RFunction:
    """A function of R, by name.

    Parameters
    ----------
    name
        In R's global environment on the engines.
    required, optional
        Names of its arguments without and with a default.
    """

    def __init__(self, name: str, required: Sequence[str] = (), optional: Sequence[str] = ()) -> None:
        self.name = name
        self.__name__ = f"r:{name}"
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        given = [inspect.Parameter(_identifier(n), kind) for n in required]
        given += [inspect.Parameter(_identifier(n), kind, default=None) for n in optional]
        self.__signature__ = inspect.Signature(given)
        self.arguments = (tuple(required), tuple(optional))

    def __reduce__(self) -> Any:
        return RFunction, (self.name, *self.arguments)

    def __repr__(self) -> str:
        return f"<R function {self.name}>"

    def __call__(self, *args: Any) -> Any:
        return self.map_batch([args])[0]

    def map_batch(self, items: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call it with each item's arguments, in one call of R.

        Raises
        ------
        PxRError
            With `.item`, the position of the item that failed.
        """
        r, converter = _current(), Converter()
        lists = [r.ri.ListSexpVector([converter.to_r(a, "argument") for a in item]) for item in items]
        answer = _call(r, "map", r.text(self.name), r.ri.ListSexpVector(lists))
        if "message" in answer:
            error = PxRError(f"{self.__name__}: {answer['message'][0]}")
            error.item = max(int(answer["at"][0]) - 1, 0)  # type: ignore[attr-defined]
            raise error
        return [converter.from_r(value, f"the value of {self.__name__}") for value in answer["value"]]

    def rows(self, points: NDArray[np.float64], *, is_scalar: bool, is_vectorized: bool) -> NDArray[np.float64]:
        """Return its values at many points in one call of R: the loop runs there, or the function takes the matrix.

        Parameters
        ----------
        points : (n_points, n_params) array
            One point a row.
        is_scalar, is_vectorized : bool
            It takes a number per parameter; or the whole matrix, and returns a number per row.

        Raises
        ------
        PxRError
            An error in R, at some point.
        TargetError
            No number, or not one per row.
        """
        r, converter = _current(), Converter()
        flags = converter.to_r(np.array([is_scalar, is_vectorized]), "flags")
        answer = _call(r, "rows", r.text(self.name), converter.to_r(points, "points"), flags)
        if "message" in answer:
            raise PxRError(f"{self.__name__}: {answer['message'][0]}")
        values = np.asarray(converter.from_r(answer["value"], f"the value of {self.__name__}"), dtype=object)
        if values.shape != (len(points),) and not is_vectorized:
            point = points[int(answer["value"][0][0]) - 1].tolist()
            checked_number(self, result_at(self, point, is_scalar), point, is_scalar)
        return as_values(self, np.array(values.tolist()), len(points))

    def walk(
        self,
        x: NDArray[np.float64],
        value: float,
        n_steps: int,
        generator: Generator,
        *,
        box: NDArray[np.float64],
        is_density: bool,
        is_scalar: bool,
        first_kept: int,
        thin: int,
        draws: NDArray[np.float64],
        values: NDArray[np.float64],
        counts: NDArray[np.int64],
        first_nan: NDArray[np.float64],
        on_error: object = None,
    ) -> float:
        """Walk inside R: the twin of `pxtools.kernels.rwm_numpy.walk`, with the same random numbers.

        A block of steps in which the function raises an error is walked again from here, a call for each step, with
        `on_error` to decide.
        """
        r, converter = _current(), Converter()
        flags, boxed = converter.to_r(np.array([is_density, is_scalar]), "flags"), converter.to_r(box, "box")
        kept, next_kept = 0, first_kept
        for done in range(0, n_steps, BLOCK):
            n = min(BLOCK, n_steps - done)
            bits = generator.bit_generator.state
            uniforms = converter.to_r(generator.random((n, x.size + 1)), "u")
            first = next_kept - done
            n_kept = 0 if first > n else (n - first) // thin + 1
            start = r.ri.FloatSexpVector(x.tolist())
            numbers = [r.integers(k) for k in (min(first, 2**31 - 1), min(thin, 2**31 - 1), n_kept)]
            answer = _call(
                r, "walk", r.text(self.name), start, r.ri.FloatSexpVector([value]), uniforms, boxed, flags, *numbers
            )
            if "message" in answer:
                generator.bit_generator.state = bits
                options = {"box": box, "is_density": is_density, "is_scalar": is_scalar, "counts": counts}
                options |= {"first_kept": first, "thin": thin, "first_nan": first_nan, "on_error": on_error}
                part = slice(kept, kept + n_kept)
                value = walk(self, x, value, n, generator, draws=draws[part], values=values[part], **options)
                kept, next_kept = kept + n_kept, next_kept + n_kept * thin
                continue
            held = dict(zip(answer["value"].names, answer["value"], strict=True))
            if "bad" in held:
                self._refuse(r, list(held["bad"]), is_density, is_scalar)
            x[:], value = list(held["x"]), float(held["value"][0])
            if n_kept:
                rows = np.array(held["draws"].memoryview()).reshape((n_kept, x.size), order="F")
                draws[kept : kept + n_kept], values[kept : kept + n_kept] = rows, list(held["values"])
                kept, next_kept = kept + n_kept, next_kept + n_kept * thin
            new_counts = np.array(held["counts"].memoryview(), dtype=np.int64)
            if counts[2] == 0 and new_counts[2]:
                first_nan[:] = list(held["first_nan"])
            counts += new_counts
        return value

    def _refuse(self, r: R, point: list[float], is_density: bool, is_scalar: bool) -> None:
        """Raise what the same value of a Python function would raise."""
        value = value_at(self, point, is_scalar)
        refuse_value(self, value, point, is_scalar, is_density)


def _identifier(name: str) -> str:
    cleaned = "".join(ch if ch.isalnum() else "_" for ch in name)
    return cleaned if cleaned.isidentifier() else f"_{cleaned}"


def _current() -> R:
    return current_r(current_engine())


def _call(r: R, helper: str, *arguments: Any) -> dict[str, Any]:
    held: Any = getattr(r, "targets", None)
    if held is None:
        functions = r.ri.evalr(_HELPERS)
        held = dict(zip(functions.names, functions, strict=True))
        r.targets = held  # type: ignore[attr-defined]
    with interruptible(r):
        answer = held[helper](*arguments)
    named = dict(zip(answer.names, answer, strict=True))
    if "interrupted" in named and bool(named["interrupted"][0]):
        raise KeyboardInterrupt
    return named


def describe(engine: Engine, message: Message) -> Message:
    """Return the arguments of an R function: ``required`` and ``optional`` names.

    Raises
    ------
    PxUsageError
        There is no such function on this engine.
    """
    answer = _call(current_r(engine), "formals", current_r(engine).text(message["name"]))
    if "message" in answer:
        raise PxUsageError(
            f"`r:{message['name']}` is no function in the R of engine {engine.engine_id}.\nDefine it in a `%%pxR` cell."
        )
    held = dict(zip(answer["value"].names, answer["value"], strict=True))
    names = [] if not len(held["required"]) else [str(name) for name in held["names"]]
    pairs = [(n, bool(is_required)) for n, is_required in zip(names, held["required"], strict=True) if n != "..."]
    return {
        "required": [n for n, is_required in pairs if is_required],
        "optional": [n for n, is_required in pairs if not is_required],
    }
