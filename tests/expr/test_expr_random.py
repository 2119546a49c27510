"""Random formulas never get a wrong answer, from the compiled loop, from the twin, or in blocks."""

from __future__ import annotations

import ast

import numpy as np
from expr_oracle import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from random_formulas import ASSUME, formulas, make_inputs

from pxtools.expr import compile, parse_cell
from pxtools.kernels import blasplan

SHAPES = st.sampled_from([("n", "n"), ("m", "m"), ("n", "m"), ("n", "1"), ("1", "1")])


def read(source: str, n: int, m: int):
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    said = "; ".join(clause for clause in f"{ASSUME}; c: scalar".split("; ") if clause.split(":")[0] in names)
    sized = source.replace("Identity(n)", f"Identity({n})").replace("Identity(m)", f"Identity({m})")
    return parse_cell(sized, assume=said), sized


def check(formula, inputs, wanted):
    found = formula(**{name: inputs[name] for name in formula.inputs})
    for name, truth in wanted.items():
        value, truth = np.asarray(getattr(found, name)), np.asarray(truth)
        value = value.reshape(truth.shape)
        scale = max(np.abs(truth).max(), 1e-2)
        assert np.abs(value - truth).max() <= 1e-7 * scale, f"{name} of {formula.problem.source}"


@settings(max_examples=250, deadline=None)
@given(SHAPES, SHAPES, st.data(), st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_random_formulas_agree_with_numpy(first, second, data, n, m, seed):
    source = f"x = {data.draw(formulas(*first))}\ny = {data.draw(formulas(*second))}"
    inputs = make_inputs(n, m, seed)
    problem, sized = read(source, n, m)
    wanted = evaluate(sized, inputs)
    check(compile(problem), inputs, wanted)


@settings(max_examples=80, deadline=None)
@given(SHAPES, st.data(), st.integers(1, 7), st.integers(1, 7), st.integers(0, 100), st.sampled_from([2, 3]))
def test_random_formulas_agree_in_blocks_and_on_the_twin(shape, data, n, m, seed, blocks):
    source = f"x = {data.draw(formulas(*shape))}"
    inputs = make_inputs(n, m, seed)
    problem, sized = read(source, n, m)
    wanted = evaluate(sized, inputs)
    formula = compile(problem, blocks=blocks)
    check(formula, inputs, wanted)
    kept, blasplan.run_plan = blasplan.run_plan, blasplan.run_plan_numpy
    try:
        check(formula, inputs, wanted)
    finally:
        blasplan.run_plan = kept


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.data(), st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_a_general_plan_without_assumptions_agrees_too(shape, data, n, m, seed):
    source = f"x = {data.draw(formulas(*shape))}"
    inputs = make_inputs(n, m, seed)
    problem, sized = read(source, n, m)
    check(compile(problem, assumptions=False), inputs, evaluate(sized, inputs))


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(2, 6), st.integers(2, 6), st.integers(0, 100))
def test_symmetric_results_are_symmetric_to_the_last_bit(data, n, m, seed):
    from pxtools.expr.infer import Facts
    from pxtools.expr.lower import Lowering

    source = f"x = {data.draw(formulas('n', 'n'))}"
    problem, _ = read(source, n, m)
    inputs = make_inputs(n, m, seed)
    formula = compile(problem)
    found = formula(**{name: inputs[name] for name in formula.inputs}).x
    known = problem.sizes.copy()
    for name, value in (("n", n), ("m", m)):
        if name in problem.dim_names():
            from pxtools.expr.dims import Dim

            known.learn(Dim.var(name), Dim.of(value))
    lowering = Lowering(problem, known)
    node = lowering.outputs()["x"]
    if Facts(lowering.graph).holds(node, "symmetric") and node.op != "sym":
        assert np.array_equal(found, found.T)
