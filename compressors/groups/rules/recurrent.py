"""Recurrent layers, which are opaque in a graph: a hidden unit is its rows of every gate, and its columns."""

from __future__ import annotations

import math

import numpy as np

from compressors.groups.rules.call import Call, Result, plain, unknown
from compressors.groups.walk import Axis, Dim, Value, Walk


def recurrent(walk: Walk, call: Call) -> Result:
    """`lstm`, `gru`, `rnn_tanh`, `rnn_relu`: unit j is the rows j, j + H, ... of every matrix and bias, column j of the
    recurrent one, and the same of all layers and directions, which have one width."""
    x = call["input"]
    states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    both = bool(call["bidirectional"])
    parts = 2 if call["has_biases"] else 1
    params = list(call["params"])
    per = 2 * parts
    if len(params) % per or len(params) // per != call["num_layers"] * (1 + both):
        return unknown(walk, call)  # projections
    hidden = params[1].shape[1]
    gates = params[0].shape[0] // hidden
    unit: Axis | None = None
    read: Dim = x.dims[-1]
    for place in range(0, len(params), per):
        into, again, *biases = params[place : place + per]
        rows = [value.axis(0) for value in (into, again, *biases)]
        recurrent_columns = again.axis(1)
        if recurrent_columns is None or any(row is None for row in rows):
            return unknown(walk, call)
        for row in filter(None, rows):
            if unit is None:
                unit = Axis(row.ids[:hidden], row.zero[:hidden])
            walk.unite(np.tile(unit.ids, gates), row.ids)
        assert unit is not None
        walk.contract(unit, plain((hidden,)), recurrent_columns, again)
        if place // per % (1 + both) == 0 and place:  # a new layer reads all directions of the one before
            read = Axis(np.tile(unit.ids, 1 + both), np.ones(hidden * (1 + both), dtype=bool))
        walk.contract(read, x, into.dims[1], into)
        steps = math.prod(x.shape[:-1])
        walk.count(steps, [(into.shape[0], rows[0]), (into.shape[1], into.dims[1])])
        walk.count(steps, [(again.shape[0], rows[1]), (hidden, recurrent_columns)])
    assert unit is not None
    for state in states:
        if isinstance(state.dims[-1], Axis):
            walk.unite(unit.ids, state.dims[-1].ids)
        elif state.dims[-1] is None:
            walk.fix(unit, "begins with a state whose size stays")
        own = state.axis(-1)
        if not (state.zeros if own is None else own.zero.all()):
            walk.blur(unit.ids, "begins with a state that is not 0 where the unit is")
    wide = Axis(np.tile(unit.ids, 1 + both), np.tile(unit.zero, 1 + both))
    outer = Value(call.shapes[0], (*x.dims[:-1], wide))
    return [outer, *(Value(shape, (*(None,) * (len(shape) - 1), unit)) for shape in call.shapes[1:])]


def recurrent_cell(walk: Walk, call: Call) -> Result:
    """One step of `recurrent`: `lstm_cell`, `gru_cell`, `rnn_tanh_cell`."""
    into, again = call["w_ih"], call["w_hh"]
    state = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    biases = [call[name] for name in ("b_ih", "b_hh") if call[name] is not None]
    layer = {
        "input": call["input"],
        "hx": state,
        "params": [into, again, *biases],
        "has_biases": bool(biases),
        "num_layers": 1,
    }
    made = recurrent(walk, Call(call.name, layer, (call.shape, *call.shapes[1:])))
    if not isinstance(made, list):
        return made
    return made if len(call.shapes) > 1 else made[0]
