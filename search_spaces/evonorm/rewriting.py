"""Symbolic classes of layers: what the laws of arithmetic show to be one function has one text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from search_spaces.evonorm.graph import INITIAL, ZERO, Graph
from search_spaces.evonorm.primitives import AGGREGATIONS, COMMUTATIVE, EPS, apply
from search_spaces.evonorm.vectors import NUMPY

POSITIVE = {"abs", "square", "exp", "sigmoid", *(op for op, (what, _) in AGGREGATIONS.items() if what != "mean")}
SIGNLESS = {"abs", "square", *(op for op, (what, _) in AGGREGATIONS.items() if what != "mean")}
"""Operations of which `-x` gives what `x` gives."""


@dataclass(frozen=True, slots=True)
class Term:
    """A constant with its value, an initial value without inputs, or an operation on terms; equal by its text."""

    text: str
    op: str = ""
    inputs: tuple[Term, ...] = ()
    value: float | None = None


def _constant(value: float) -> Term:
    return Term(repr(value + 0.0), value=value + 0.0)  # no -0


def canonical(graph: Graph) -> str:
    """The text of the simplified output: zero and unit elements, idempotent and involutive operations, constants
    folded, commutative inputs in order."""
    terms = [_constant(0.0) if place == ZERO else Term(text) for place, text in enumerate(INITIAL)]
    for node in graph.live().nodes:
        terms.append(_simplified(node.op, tuple(terms[place] for place in node.inputs)))
    return terms[-1].text


def _simplified(op: str, inputs: tuple[Term, ...]) -> Term:
    known = _folded(op, inputs) or (_unary(op, inputs[0]) if len(inputs) == 1 else _binary(op, *inputs))
    if known is not None:
        return known
    if op in COMMUTATIVE:
        inputs = tuple(sorted(inputs, key=lambda term: term.text))
    return Term(f"{op}({','.join(term.text for term in inputs)})", op, inputs)


def _folded(op: str, inputs: tuple[Term, ...]) -> Term | None:
    """A constant, where all inputs are and the value is finite."""
    values = [numpy.full((1, 1, 1, 1), term.value) for term in inputs if term.value is not None]
    if len(values) < len(inputs):
        return None
    with numpy.errstate(all="ignore"):
        value = float(apply(NUMPY, op, values[0], values[-1], EPS).item())
    return _constant(value) if numpy.isfinite(value) else None


def _unary(op: str, term: Term) -> Term | None:
    if op == "neg" and term.op == "neg":
        return term.inputs[0]
    if op == "abs" and term.op in POSITIVE:
        return term
    if op in SIGNLESS and term.op == "neg":
        return _simplified(op, term.inputs)
    if (op == "square" or op.startswith("rms_")) and term.op == "abs":
        return _simplified(op, term.inputs)
    if op in AGGREGATIONS and term.op in AGGREGATIONS:
        what, over = AGGREGATIONS[op]
        if what == "mean" and AGGREGATIONS[term.op][1] == over:
            return term  # the same all over what it would be the mean of
    return None


def _binary(op: str, one: Term, other: Term) -> Term | None:
    for term, rest in ((one, other), (other, one)):
        if op == "add" and term.value == 0.0:
            return rest
        if op == "add" and term.op == "neg" and term.inputs[0].text == rest.text:
            return _constant(0.0)
        if op == "mul" and term.value in (0.0, 1.0):
            return rest if term.value else term
    if op == "max" and one.text == other.text:
        return one
    if op == "mul" and one.text == other.text:
        return _simplified("square", (one,))
    if op == "div" and other.value == 1.0:
        return one
    return None
