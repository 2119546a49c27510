"""Make tests/sampling/references.json: known posteriors, for those who add one.

    python tools/reference_posteriors.py POSTERIORDB

POSTERIORDB is a checkout of https://github.com/stan-dev/posteriordb (BSD-3-Clause; Magnusson et al. 2025). Its
reference draws are 10,000 per posterior, from ten long chains, thinned until nearly independent; means, deviations and
their Monte Carlo errors are computed from them. Of the data of its regressions only X'X, the estimate and the residual
are kept.

The logistic regression has no published reference. Its values here come from importance sampling, which shares nothing
with the samplers under test: 400,000 draws of a multivariate t distribution around the mode.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "sampling"))

from reference_targets import FILE, logistic_data  # noqa: E402

from pxtools.sampling import diagnostics  # noqa: E402

SOURCE = (
    "posteriordb (Magnusson et al., AISTATS 2025; https://github.com/stan-dev/posteriordb, BSD-3-Clause): mean, its "
    "Monte Carlo error, standard deviation, its error, from the 10,000 reference draws of each posterior. The logistic "
    "regression: importance sampling, tools/reference_posteriors.py. Data: eight schools (Rubin 1981); kidiq, "
    "mesquite, nes (Gelman & Hill 2007); kilpisjarvi (Finnish Meteorological Institute); hare and lynx (Hewitt 1921); "
    "arK, sblrc (simulated)."
)
Data = dict[str, Any]


def read(database: Path, folder: str, name: str) -> Any:
    """Return one of the zipped JSON files of the database."""
    packed = (database / "posterior_database" / folder / f"{name}.json.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def columns(data: Data, *names: str) -> np.ndarray:
    """Return a design matrix: a column of ones, and the named ones."""
    return np.column_stack([np.ones(data["N"]), *(np.array(data[name], dtype=float) for name in names)])


def kidscore(*names: str) -> Callable[[Data], tuple[np.ndarray, np.ndarray]]:
    """Return the design of a regression of children's scores."""

    def design(data: Data) -> tuple[np.ndarray, np.ndarray]:
        both = {"inter": np.multiply(data["mom_hs"], data["mom_iq"])}
        return columns({**data, **both}, *names), np.array(data["kid_score"], dtype=float)

    return design


def kilpisjarvi(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return summer temperatures by year."""
    return columns(data, "x"), np.array(data["y"])


def autoregression(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return a series and its lags."""
    y, lags = np.array(data["y"]), data["K"]
    past = [y[lags - k : len(y) - k] for k in range(1, lags + 1)]
    return np.column_stack([np.ones(len(y) - lags), *past]), y[lags:]


def mesquite(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return logarithms of a bush's weight and measures."""
    logged = ("diam1", "diam2", "canopy_height", "total_height", "density")
    logs = {name: np.log(data[name]) for name in logged}
    return columns({**data, **logs}, *logged, "group"), np.log(data["weight"])


def elections(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return party identification and what may explain it."""
    ages = {f"age{k}": np.equal(data["age_discrete"], k) for k in (2, 3, 4)}
    names = ("real_ideo", "race_adj", "age2", "age3", "age4", "educ1", "gender", "income")
    return columns({**data, **ages}, *names), np.array(data["partyid7"], dtype=float)


def given(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return a design that the data hold."""
    return np.array(data["X"]), np.array(data["y"])


CAUCHY, FLAT = ("cauchy", 2.5), ("flat", None)
#: posterior, data set, design, (mean, deviation) of the coefficients' prior, prior of sigma
REGRESSIONS: list[tuple[str, str, Callable[[Data], tuple[np.ndarray, np.ndarray]], Any, Any]] = [
    ("kidiq-kidscore_momiq", "kidiq", kidscore("mom_iq"), None, CAUCHY),
    ("kidiq-kidscore_momhs", "kidiq", kidscore("mom_hs"), None, CAUCHY),
    ("kidiq-kidscore_momhsiq", "kidiq", kidscore("mom_hs", "mom_iq"), None, CAUCHY),
    ("kidiq-kidscore_interaction", "kidiq", kidscore("mom_hs", "mom_iq", "inter"), None, CAUCHY),
    ("kilpisjarvi_mod-kilpisjarvi", "kilpisjarvi_mod", kilpisjarvi, "in the data", FLAT),
    ("arK-arK", "arK", autoregression, 10.0, CAUCHY),
    ("mesquite-logmesquite", "mesquite", mesquite, None, FLAT),
    ("nes1980-nes", "nes1980", elections, None, FLAT),
    ("sblrc-blr", "sblrc", given, 10.0, ("normal", 10.0)),
]
OTHERS = [
    ("eight_schools-eight_schools_noncentered", "schools, non-centered"),
    ("eight_schools-eight_schools_centered", "schools, centered"),
    ("hudson_lynx_hare-lotka_volterra", "hare and lynx"),
]


def regression(database: Path, row: tuple[Any, ...]) -> dict[str, Any]:
    """Return what the log-density of a normal regression needs, and the known answer."""
    name, data_name, design, prior, sigma_prior = row
    data = read(database, "data/data", data_name)
    x, y = design(data)
    estimate = np.linalg.lstsq(x, y, rcond=None)[0]
    size = len(estimate)
    if prior == "in the data":
        means, sds = [data["pmualpha"], data["pmubeta"]], [data["psalpha"], data["psbeta"]]
    else:
        means, sds = [0.0] * size, [prior] * size
    return {
        "kind": "regression",
        "n": len(y),
        "gram": (x.T @ x).tolist(),
        "estimate": estimate.tolist(),
        "residual": float(((y - x @ estimate) ** 2).sum()),
        "prior_mean": means,
        "prior_sd": sds,
        "sigma_prior": sigma_prior,
        "known": known(database, name),
    }


def known(database: Path, name: str) -> dict[str, list[float]]:
    """Return mean, its error, deviation and its error of each parameter's reference draws."""
    name = name.replace("_centered", "_noncentered")  # one posterior, two ways to write it
    chains = read(database, "reference_posteriors/draws/draws", name)
    return described({parameter: np.array([chain[parameter] for chain in chains]) for parameter in chains[0]})


def described(draws: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Return the numbers of each parameter's draws, (n_chains, n_draws)."""
    numbers = {
        name: (array.mean(), diagnostics.mcse_mean(array), array.std(ddof=1), diagnostics.mcse_sd(array))
        for name, array in draws.items()
    }
    return {name: [float(f"{number:.8g}") for number in row] for name, row in numbers.items()}


def logistic_by_importance(n_draws: int = 400_000, dof: int = 30) -> dict[str, list[float]]:
    """Return the moments of the logistic posterior from weighted draws around its mode."""
    x, y = logistic_data()
    beta = np.zeros(20)
    for _ in range(50):  # Newton's method
        chance = 1 / (1 + np.exp(-x @ beta))
        precision = (x * (chance * (1 - chance))[:, None]).T @ x + np.eye(20)
        beta = beta + np.linalg.solve(precision, x.T @ (y - chance) - beta)
    rng = np.random.default_rng(2)
    factor = np.linalg.cholesky(np.linalg.inv(precision) * 1.1)
    z = rng.standard_normal((n_draws, 20))
    stretch = np.sqrt(dof / rng.chisquare(dof, n_draws))
    draws = beta + stretch[:, None] * (z @ factor.T)
    distance = (stretch[:, None] * z) ** 2
    log_proposal = -0.5 * (dof + 20) * np.log1p(distance.sum(axis=1) / dof)
    log_target = np.concatenate([_log_posterior(part, x, y) for part in np.array_split(draws, 200)])
    log_weights = log_target - log_proposal
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    print(f"logistic: {1 / (weights**2).sum():,.0f} of {n_draws:,} draws are effective")
    mean = weights @ draws
    squares = (draws - mean) ** 2
    sd = np.sqrt(weights @ squares)
    mean_error = np.sqrt(weights**2 @ squares)
    sd_error = np.sqrt(weights**2 @ (squares - sd**2) ** 2) / (2 * sd)
    table = np.column_stack([mean, mean_error, sd, sd_error])
    return {f"beta[{j + 1}]": [float(f"{number:.8g}") for number in row] for j, row in enumerate(table)}


def _log_posterior(points: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    eta = points @ x.T
    return np.asarray(eta @ y - np.logaddexp(0.0, eta).sum(axis=1) - 0.5 * (points**2).sum(axis=1))


def main(arguments: list[str]) -> None:
    """Write the file."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    database = Path(arguments[0])
    posteriors = {row[0]: regression(database, row) for row in REGRESSIONS}
    posteriors |= {name: {"kind": kind, "known": known(database, name)} for name, kind in OTHERS}
    posteriors["logistic_1000_20"] = {"kind": "logistic", "known": logistic_by_importance()}
    entries = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in posteriors.items())
    FILE.write_text(f'{{"source": {json.dumps(SOURCE)},\n"posteriors": {{\n{entries}\n}}}}\n')
    print(f"wrote {FILE.relative_to(ROOT)}: {len(posteriors)} posteriors")


if __name__ == "__main__":
    main(sys.argv[1:])
