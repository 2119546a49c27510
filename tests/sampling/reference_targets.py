"""Posteriors whose means and deviations are known, written as anybody would write them in a notebook.

`references.json` holds the known values, with their Monte Carlo errors, and what the regressions need of their data: a
normal regression sees its data only through X'X, the least-squares estimate and its residual sum of squares. Where the
numbers come from is said in the file; `tools/reference_posteriors.py` makes it.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("references.json")


@dataclass(frozen=True, eq=False)
class Reference:
    """A log-density with its known answer.

    `of` maps draws (chain, draw, parameter) to the quantities that are known, and back-transforms where the log-density
    uses other parameters. `is_positive` marks the parameters with a bound at 0.
    """

    log_density: Callable[[Any], float]
    names: tuple[str, ...]
    mean: np.ndarray
    mean_error: np.ndarray
    sd: np.ndarray
    sd_error: np.ndarray
    of: Callable[[np.ndarray], np.ndarray]
    starts: Callable[[np.random.Generator], np.ndarray]
    is_positive: tuple[bool, ...]


def references() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text())["posteriors"]
    return found


def load(name: str) -> Reference:
    """Return a posterior with start points three of its deviations wide."""
    entry = references()[name]
    known = np.array(list(entry["known"].values())).T
    mean, sd = known[0], known[2]
    log_density, is_positive, of = BUILDERS[entry["kind"]](entry)
    into = INTO[entry["kind"]]

    def starts(generator: np.random.Generator) -> np.ndarray:
        return into(mean, sd, generator, np.array(is_positive))

    return Reference(log_density, tuple(entry["known"]), *known, of, starts, is_positive)


# --- normal regressions ----------------------------------------------------------------------------------------------


def regression(entry: dict[str, Any]) -> tuple[Callable[[Any], float], tuple[bool, ...], Any]:
    """Coefficients, normal or flat a priori; then sigma, half-Cauchy, half-normal or flat."""
    gram, estimate = np.array(entry["gram"]), np.array(entry["estimate"])
    centre = np.array(entry["prior_mean"])
    precision = np.array([0.0 if sd is None else sd**-2.0 for sd in entry["prior_sd"]])
    n, residual, size = entry["n"], entry["residual"], len(estimate)
    prior, scale = entry["sigma_prior"]
    is_cauchy, is_normal = prior == "cauchy", prior == "normal"

    def log_posterior(p):
        sigma = p[size]
        squares, log_prior = residual, 0.0
        for i in range(size):
            row = 0.0
            for j in range(size):
                row += gram[i, j] * (p[j] - estimate[j])
            squares += row * (p[i] - estimate[i])
            log_prior -= 0.5 * precision[i] * (p[i] - centre[i]) ** 2
        if is_cauchy:
            log_prior -= math.log1p((sigma / scale) ** 2)
        if is_normal:
            log_prior -= 0.5 * (sigma / scale) ** 2
        return log_prior - n * math.log(sigma) - 0.5 * squares / sigma**2

    return log_posterior, (False,) * size + (True,), lambda draws: draws


# --- eight schools ---------------------------------------------------------------------------------------------------

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools_centered(entry: dict[str, Any]) -> tuple[Callable[[Any], float], tuple[bool, ...], Any]:
    """Theta, mu, tau: as the model is told."""

    def log_posterior(p):
        mu, tau = p[8], p[9]
        value = -0.5 * (mu / 5) ** 2 - math.log1p((tau / 5) ** 2) - 8 * math.log(tau)
        for j in range(8):
            value -= 0.5 * ((p[j] - mu) / tau) ** 2 + 0.5 * ((EFFECTS[j] - p[j]) / ERRORS[j]) ** 2
        return value

    return log_posterior, (False,) * 9 + (True,), lambda draws: draws


def schools_noncentered(entry: dict[str, Any]) -> tuple[Callable[[Any], float], tuple[bool, ...], Any]:
    """z, mu, log tau, with theta = mu + tau z."""

    def log_posterior(p):
        mu, log_tau = p[8], p[9]
        tau = math.exp(log_tau)
        value = -0.5 * (mu / 5) ** 2 - math.log1p((tau / 5) ** 2) + log_tau
        for j in range(8):
            value -= 0.5 * p[j] ** 2 + 0.5 * ((EFFECTS[j] - mu - tau * p[j]) / ERRORS[j]) ** 2
        return value

    def of(draws):
        mu, tau = draws[..., 8:9], np.exp(draws[..., 9:])
        return np.concatenate([mu + tau * draws[..., :8], mu, tau], axis=-1)

    return log_posterior, (False,) * 10, of


# --- hare and lynx: a differential equation --------------------------------------------------------------------------

#: pelts in thousands that the Hudson's Bay Company collected, 1900 to 1920 (Hewitt 1921)
# fmt: off
HARE = np.array([30, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22, 25.4, 27.1, 40.3, 57, 76.6, 52.3, 19.5, 11.2, 7.6,
    14.6, 16.2, 24.7])
LYNX = np.array([4, 6.1, 9.8, 35.2, 59.4, 41.7, 19, 13, 8.3, 9.1, 7.4, 8, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7,
    10.1, 8.6])
# fmt: on
#: Runge-Kutta steps a year
SUBSTEPS = 6


def hare_and_lynx(entry: dict[str, Any]) -> tuple[Callable[[Any], float], tuple[bool, ...], Any]:
    """Lotka and Volterra's equations with log-normal errors: rates, first populations, errors."""
    hare, lynx = np.log(HARE), np.log(LYNX)

    def log_posterior(p):
        a, b, c, d = p[0], p[1], p[2], p[3]
        u, v, h = p[4], p[5], 1.0 / SUBSTEPS
        value = -2 * ((a - 1) ** 2 + (c - 1) ** 2) - 200 * ((b - 0.05) ** 2 + (d - 0.05) ** 2)
        for k in range(2):
            value -= 0.5 * (math.log(p[6 + k]) + 1) ** 2 + math.log(p[6 + k])
            value -= 0.5 * (math.log(p[4 + k]) - math.log(10.0)) ** 2 + math.log(p[4 + k])
            value -= 21 * math.log(p[6 + k])
        for year in range(21):
            if not (0 < u < 1e6 and 0 < v < 1e6):
                return -math.inf
            value -= 0.5 * ((hare[year] - math.log(u)) / p[6]) ** 2
            value -= 0.5 * ((lynx[year] - math.log(v)) / p[7]) ** 2
            for _ in range(SUBSTEPS):
                u1, v1 = (a - b * v) * u, (d * u - c) * v
                x, y = u + h / 2 * u1, v + h / 2 * v1
                u2, v2 = (a - b * y) * x, (d * x - c) * y
                x, y = u + h / 2 * u2, v + h / 2 * v2
                u3, v3 = (a - b * y) * x, (d * x - c) * y
                x, y = u + h * u3, v + h * v3
                u4, v4 = (a - b * y) * x, (d * x - c) * y
                u += h / 6 * (u1 + 2 * u2 + 2 * u3 + u4)
                v += h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        return value

    return log_posterior, (True,) * 8, lambda draws: draws


# --- logistic regression, 1,000 observations and 20 coefficients -----------------------------------------------------


def logistic_data() -> tuple[np.ndarray, np.ndarray]:
    """Return the covariates (1000, 20) and the outcomes (1000,): the same for every version of everything."""
    uniform = random.Random(1000).random
    slopes = [math.sin(1.0 + 2.0 * j) for j in range(20)]
    x = np.array([[2 * math.sqrt(3.0) * (uniform() - 0.5) for _ in range(20)] for _ in range(1000)])
    y = [uniform() < 1 / (1 + math.exp(-sum(b * v for b, v in zip(slopes, row, strict=True)))) for row in x.tolist()]
    return x, np.array(y, dtype=float)


def logistic(entry: dict[str, Any]) -> tuple[Callable[[Any], float], tuple[bool, ...], Any]:
    """Coefficients with a standard normal prior each."""
    x, y = logistic_data()
    columns = np.ascontiguousarray(x.T)
    gain = y @ x  # the likelihood sees the outcomes through this alone

    def log_posterior(p):
        value, eta = 0.0, np.zeros(1000)
        for j in range(20):
            value += gain[j] * p[j] - 0.5 * p[j] ** 2
            for i in range(1000):
                eta[i] += columns[j, i] * p[j]
        for i in range(1000):
            value -= max(eta[i], 0.0) + math.log1p(math.exp(-abs(eta[i])))
        return value

    return log_posterior, (False,) * 20, lambda draws: draws


# --- what there is ---------------------------------------------------------------------------------------------------


def _wide(mean: np.ndarray, sd: np.ndarray, generator: np.random.Generator, is_positive: np.ndarray) -> np.ndarray:
    points = mean + 3 * sd * generator.standard_normal((8, len(mean)))
    return np.where(is_positive, mean * np.exp((points - mean) / mean), points)


def _standard(mean: np.ndarray, sd: np.ndarray, generator: np.random.Generator, is_positive: np.ndarray) -> np.ndarray:
    return 3 * generator.standard_normal((8, len(is_positive)))


BUILDERS = {
    "regression": regression,
    "schools, centered": schools_centered,
    "schools, non-centered": schools_noncentered,
    "hare and lynx": hare_and_lynx,
    "logistic": logistic,
}
INTO = {
    "regression": _wide,
    "schools, centered": _wide,
    "schools, non-centered": _standard,
    "hare and lynx": _wide,
    "logistic": _wide,
}
