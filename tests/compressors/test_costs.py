"""Costs of what is left, without building it."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.groups.costs import Costs
from compressors.groups.removal import remove
from search_spaces import counter
from tests.compressors.test_groups import made, traced

NAMES = ("other-boundaries", "grouped", "transformer", "lstm")


def test_a_thousand_answers_take_less_than_a_second() -> None:
    network, inputs = made("resnet")
    groups = traced("resnet")
    costs = Costs(network, groups, [one[:1] for one in inputs])
    assert costs.by_formula
    began = time.process_time()
    for number in range(1000):
        costs.of({groups.groups[0].name: [number % 8]})
    assert time.process_time() - began < 1


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_costs_are_those_of_the_network_that_is_built(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    network, inputs = made(name)
    groups = traced(name)
    one = tuple(each[:1] for each in inputs)  # another batch than the one that was traced
    removed = {
        group.name: data.draw(st.sets(st.integers(0, len(group.units) - 1), max_size=len(group.units) - group.least))
        for group in groups.groups
    }
    smaller = copy.deepcopy(network)
    remove(smaller, groups, removed)
    costs = Costs(network, groups, one)
    assert costs.by_formula
    assert costs.of(removed) == {"params": counter.params(smaller), "macs": counter.macs(smaller, one)}


@pytest.mark.parametrize("graded", [True, False])
def test_fused_layers_count_as_what_they_consist_of(graded: bool) -> None:
    """An encoder layer of width 8, 2 heads and 12 hidden features on 5 tokens: four maps of 8 x 8, two of 8 x 12, and
    5 x 5 products of width 8 twice; an LSTM of 6 units on 5 steps of 3 features: 4 gates of 3 + 6."""
    encoder = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).requires_grad_(graded)
    tokens = torch.randn(1, 5, 8)
    assert counter.macs(encoder, (tokens,)) == 5 * (4 * 8 * 8 + 2 * 8 * 12) + 2 * 5 * 5 * 8
    assert torch.backends.mha.get_fastpath_enabled()
    assert counter.macs(nn.LSTM(3, 6, batch_first=True), (torch.randn(1, 5, 3),)) == 5 * 4 * 6 * (3 + 6)
