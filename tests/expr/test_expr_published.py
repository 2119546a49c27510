"""Ten formulas from published collections: right, never above the naive order, near the best known plan."""

from __future__ import annotations

import numpy as np
import pytest
from expr_oracle import evaluate
from expr_reference import relative_error
from published_formulas import PROBLEMS, make_inputs

from pxtools.expr import compile


def plan_of(problem):
    formula = compile(problem.source, assumptions=problem.assume)
    names = formula.problem.dim_names()
    return formula.plan_for({name: size for name, size in problem.sizes.items() if name in names})


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_planned_flops_stay_below_the_naive_order(problem):
    assert plan_of(problem).flops <= problem.naive(**problem.sizes)


def test_at_least_nine_of_eleven_are_within_five_percent_of_the_best_known_plan():
    # eleven problems here; the issue asks for eight of ten
    ratios = {problem.name: plan_of(problem).flops / problem.best(**problem.sizes) for problem in PROBLEMS}
    assert sum(ratio <= 1.05 for ratio in ratios.values()) >= 9, ratios
    assert max(ratios.values()) < 1.2, ratios


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_results_agree_with_numpy(problem):
    formula = compile(problem.source, assumptions=problem.assume)
    small = {name: max(3, size // 50) for name, size in problem.sizes.items()}
    if problem.name == "signal processing":
        small["m"] = small["n"] - 1
    known = formula.problem.sizes
    shapes = {}
    for name, shape in formula.problem.inputs.items():
        words = None if shape is None else [str(known.resolve(dim)) for dim in shape]
        shapes[name] = words and tuple(small.get(word, 1) if not word.isdigit() else int(word) for word in words)
    inputs = make_inputs(problem, shapes)
    n = small["n"]
    cell = problem.source.replace("Identity(n)", f"Identity({n})").replace("Identity(q)", f"Identity({small.get('q')})")
    wanted = evaluate(cell, dict(inputs.items()))
    found = formula(**inputs)
    for name, truth in wanted.items():
        value = np.asarray(getattr(found, name))
        assert relative_error(value.reshape(np.shape(truth)), np.asarray(truth)) < 1e-9, name
