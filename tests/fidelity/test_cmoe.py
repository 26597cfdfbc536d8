"""CMoE (arXiv 2502.04416): exact parts, the clustering by hand and by counting, planted blocks, the router."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressors.cmoe import (
    BalancedLoad,
    Carving,
    CMoE,
    Settings,
    assigned,
    captured,
    carve,
    carved_layer,
    clustered,
    distances,
    hidden_scores,
    marked,
    means,
)
from compressors.compressor import Subject
from compressors.target import parse_targets
from nas_core.errors import UsageError
from nas_core.model import Changes
from nas_core.task import TABULAR_CLASSIFICATION, InputSpec, Task
from search_spaces.counter import macs
from search_spaces.layers.carved import ACTIVATIONS, CarvedFeedForward
from training.changes import changes_of, rebuilt

FEATURES, HIDDEN, OUTPUTS = 6, 24, 5
SMALL = Settings(experts=6, shared=2, k_act=4, min_width=8)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def maps(gated: bool, bias: bool = True, dtype: torch.dtype = torch.float32) -> dict[str, nn.Linear]:
    names = ("gate", "up") if gated else ("gate",)
    found = {name: nn.Linear(FEATURES, HIDDEN, bias, dtype=dtype) for name in names}
    return {**found, "down": nn.Linear(HIDDEN, OUTPUTS, bias, dtype=dtype)}


def dense(held: dict[str, nn.Linear], x: Tensor, activation: str = "silu") -> Tensor:
    inner = ACTIVATIONS[activation](held["gate"](x))
    inner = inner * held["up"](x) if "up" in held else inner
    answer: Tensor = held["down"](inner)
    return answer


def division(held: dict[str, nn.Linear], tokens: Tensor, config: Settings = SMALL) -> Carving:
    with torch.no_grad():
        return carve(hidden_scores(tokens, held, "silu"), config)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_with_all_experts_it_is_the_dense_layer(gated: bool, bias: bool) -> None:
    held, x = maps(gated, bias), torch.randn(3, 7, FEATURES)
    carving = division(held, torch.randn(200, FEATURES))
    layer = carved_layer(held, carving, "silu", 4)
    torch.testing.assert_close(layer(x), dense(held, x), rtol=1e-5, atol=1e-6)
    layer.active = 3
    assert (layer(x) - dense(held, x)).abs().max() > 1e-3


def test_the_parts_have_equal_sizes_and_are_a_partition() -> None:
    carving = division(maps(True), torch.randn(300, FEATURES))
    assert carving.shared.shape == (8,)
    assert carving.routed.shape == (4, 4)
    assert sorted(torch.cat([carving.shared, carving.routed.flatten()]).tolist()) == list(range(HIDDEN))
    assert carving.rates[carving.shared].min() >= carving.rates[carving.routed].max()
    assert carving.rates.sum() == pytest.approx(4)  # so many are marked per token
    assert all(int(one) in row.tolist() for one, row in zip(carving.representatives, carving.routed, strict=True))


def test_marks_are_the_largest_values_of_a_token_that_are_not_zero() -> None:
    scores = torch.tensor([[0.1, -3.0, 2.0, 0.5], [0.0, 0.0, -1.0, 0.0]])
    assert marked(scores, 2).tolist() == [[0, 1, 1, 0], [0, 0, 1, 0]]


def test_scores_are_of_inputs_and_rows_of_norm_one() -> None:
    held, x = maps(True, bias=False), torch.randn(4, FEATURES)
    gate, up = (functional.normalize(held[name].weight, dim=1) for name in ("gate", "up"))
    one = functional.normalize(x, dim=1)
    expected = functional.silu(one @ gate.T) * (one @ up.T)
    torch.testing.assert_close(hidden_scores(x, held, "silu"), expected)


def test_a_bias_keeps_the_sign_of_a_hidden_value() -> None:
    held, x = maps(False), torch.randn(50, FEATURES)
    assert torch.equal(hidden_scores(x, held, "relu") > 0, held["gate"](x) > 0)


def test_the_assignment_is_the_best_of_all_with_equal_sizes() -> None:
    cost = np.random.default_rng(3).random((6, 2))
    labels = assigned(cost)
    assert np.bincount(labels).tolist() == [3, 3]
    best = min(
        sum(cost[unit, int(unit not in chosen)] for unit in range(6)) for chosen in itertools.combinations(range(6), 3)
    )
    assert cost[np.arange(6), labels].sum() == pytest.approx(best, abs=1e-12)


def test_the_assignment_costs_no_more_than_a_greedy_one_and_what_scipy_says() -> None:
    from scipy.optimize import linear_sum_assignment

    cost = np.random.default_rng(5).random((20, 4)) ** 3
    labels = assigned(cost)
    total = cost[np.arange(20), labels].sum()
    wide = np.concatenate([cost] * 5, axis=1)
    assert total == pytest.approx(wide[linear_sum_assignment(wide)].sum(), abs=1e-12)
    free, greedy = [5] * 4, 0.0
    for row in cost:
        chosen = min((one for one in range(4) if free[one]), key=lambda one: row[one])
        free[chosen] -= 1
        greedy += row[chosen]
    assert total < greedy


def test_distances_are_sums_of_absolute_differences() -> None:
    columns, centroids = (torch.rand(30, 5) > 0.5).float(), torch.rand(30, 3)
    expected = (columns[:, :, None] - centroids[:, None]).abs().sum(0).double()
    torch.testing.assert_close(distances(columns, centroids), expected, rtol=1e-5, atol=1e-5)


def test_one_iteration_by_hand() -> None:
    """Units 0 and 2 are marked most often: the first centroids. 1 is like 0, 3 like 2."""
    columns = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 1.0]])
    labels = clustered(columns, 2, 1)
    assert labels.tolist() == [0, 0, 1, 1]
    found = distances(columns, means(columns, labels))
    # The final centroid of the first is the mean of both: half a token from each.
    assert found.tolist() == [[0.5, 5.5], [0.5, 4.5], [5.5, 0.5], [4.5, 0.5]]


def test_the_router_has_the_rows_of_the_representatives_bit_for_bit_and_nothing_was_trained() -> None:
    held = maps(True)
    before = copy.deepcopy(held)
    carving = division(held, torch.randn(100, FEATURES))
    layer = carved_layer(held, carving, "silu", 2)
    for name, router in (("gate", layer.router_gate), ("up", layer.router_up)):
        weight = held[name].weight.detach()
        rows = weight / weight.norm(dim=1)[:, None]
        assert router is not None
        assert torch.equal(router.weight, rows[carving.representatives])
        assert not router.weight.requires_grad
    order = torch.cat([carving.shared, carving.routed.flatten()])
    assert torch.equal(layer.gate.weight, before["gate"].weight[order])
    assert torch.equal(layer.down.weight, before["down"].weight[:, order])
    assert torch.equal(layer.scale, torch.zeros(4))
    assert torch.equal(layer.balance, torch.zeros(4))


@pytest.mark.parametrize("gated", [False, True])
def test_a_plain_loop_over_tokens_computes_the_same(gated: bool) -> None:
    held = maps(gated, dtype=torch.float64)
    carving = division(held, torch.randn(100, FEATURES, dtype=torch.float64))
    layer = carved_layer(held, carving, "silu", 2).double()
    layer.scale.data = torch.randn(4, dtype=torch.float64)
    layer.balance += 0.3 * torch.randn(4, dtype=torch.float64)
    x = torch.randn(9, FEATURES, dtype=torch.float64)

    def hidden(token: Tensor, unit: int) -> Tensor:
        value = functional.silu(held["gate"].weight[unit] @ token + held["gate"].bias[unit])
        return value * (held["up"].weight[unit] @ token + held["up"].bias[unit]) if gated else value

    def score(token: Tensor, unit: int) -> Tensor:
        value = torch.ones((), dtype=torch.float64)
        for name in ("gate", "up") if gated else ("gate",):
            weight, bias = held[name].weight[unit], held[name].bias[unit]
            linear = (weight @ token + bias) / weight.norm()
            value = value * (functional.silu(linear) if name == "gate" else linear)
        return value.abs()

    for token, answer in zip(x, layer(x), strict=True):
        share = torch.stack([score(token, int(unit)) for unit in carving.representatives]).softmax(0)
        chosen = sorted(range(4), key=lambda one: float(share.detach()[one] + layer.balance[one]))[-2:]
        expected = held["down"].bias.clone()
        for unit in carving.shared.tolist():
            expected += hidden(token, unit) * held["down"].weight[:, unit]
        for expert in chosen:
            for unit in carving.routed[expert].tolist():
                weight = 1 + share[expert] * layer.scale[expert]
                expected += weight * hidden(token, unit) * held["down"].weight[:, unit]
        torch.testing.assert_close(answer, expected)


def test_what_is_exported_answers_the_same() -> None:
    layer = carved_layer(maps(True), division(maps(True), torch.randn(100, FEATURES)), "silu", 2).eval()
    layer.scale.data, layer.balance = torch.randn(4), torch.tensor([0.1, -0.1, 0.0, 0.2])
    x = torch.randn(11, FEATURES)
    program = torch.export.export(layer, (x,), strict=False).module()
    torch.testing.assert_close(program(x), layer(x))


def test_of_equal_scores_the_first_experts_are_chosen() -> None:
    layer = CarvedFeedForward(FEATURES, HIDDEN, OUTPUTS, 12, 0, 3, "relu")
    layer.router_gate.weight.data = layer.router_gate.weight.abs()
    layer.router_gate.bias.data.zero_()
    chosen, _ = layer.route(-torch.rand(20, FEATURES))  # all scores are 0
    assert torch.equal(chosen.sort().values, torch.arange(3).expand(20, 3))


# Planted blocks

BLOCKS, SIZE, WIDE = 4, 8, 8


def planted() -> tuple[dict[str, nn.Linear], Tensor, Tensor]:
    """A layer of four blocks of units, each of which answers to one group of inputs alone, and one that answers to all;
    tokens; the block of each unit (4: that of all). In every block one unit has the mean direction of its group, so
    that its tokens always mark it; the others stress one feature each."""
    features = BLOCKS * WIDE + 1
    blocks = torch.arange(BLOCKS + 1).repeat_interleave(SIZE)
    blocks = blocks[torch.randperm(len(blocks))]
    weight = torch.zeros(len(blocks), features)
    for unit, block in enumerate(blocks.tolist()):
        if block == BLOCKS:
            weight[unit, -1], weight[unit, :-1] = 1, 0.01 * torch.rand(features - 1)
            continue
        weight[unit, :-1] = -0.5
        before = int((blocks[:unit] == block).sum())
        own = torch.ones(WIDE) if before == 0 else 0.2 + functional.one_hot(torch.tensor(before), WIDE)
        weight[unit, block * WIDE : (block + 1) * WIDE] = own
    group = torch.arange(400) % BLOCKS
    tokens = 0.01 * torch.rand(400, features)
    for token, one in enumerate(group.tolist()):
        tokens[token, one * WIDE : (one + 1) * WIDE] = 0.6 + 0.6 * torch.rand(WIDE)
    tokens[:, -1] = 10
    gate = nn.Linear(features, len(blocks), bias=False)
    gate.weight.data = weight
    return {"gate": gate, "down": nn.Linear(len(blocks), 3)}, tokens, blocks


PLANTED = Settings(experts=BLOCKS + 1, shared=1, active=1, k_act=SIZE + 4)


def test_planted_blocks_are_found_and_one_expert_keeps_the_output() -> None:
    held, tokens, blocks = planted()
    carving = carve(hidden_scores(tokens, held, "relu"), PLANTED)
    assert set(blocks[carving.shared].tolist()) == {BLOCKS}
    assert blocks[carving.routed].sort(0).values.tolist() == [[block] * SIZE for block in range(BLOCKS)]
    layer = carved_layer(held, carving, "relu", 1)
    expected = dense(held, tokens, "relu")
    assert (layer(tokens) - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert captured(layer, tokens)["captured"] == pytest.approx(1)


def test_random_groups_do_not_keep_it() -> None:
    held, tokens, _ = planted()
    carving = carve(hidden_scores(tokens, held, "relu"), PLANTED)
    others = carving.routed.flatten()[torch.randperm(BLOCKS * SIZE)].reshape(BLOCKS, SIZE)
    drawn = Carving(carving.shared, others, others[:, 0], carving.rates)
    layer = carved_layer(held, drawn, "relu", 1)
    expected = dense(held, tokens, "relu")
    assert (layer(tokens) - expected).abs().max() > 0.02 * expected.abs().max()


def test_the_router_captures_more_than_chance_and_less_than_the_best_choice() -> None:
    """Of a layer that was trained to tell clusters of inputs apart."""
    centres = torch.randn(16, FEATURES)
    held, classifier = maps(True, bias=False), nn.Linear(OUTPUTS, 8)
    wide = {"gate": nn.Linear(FEATURES, 64), "up": nn.Linear(FEATURES, 64), "down": nn.Linear(64, OUTPUTS)}
    held.update(wide)
    weights = [one for linear in (*wide.values(), classifier) for one in linear.parameters()]
    optimizer = torch.optim.Adam(weights, 0.01)
    for _ in range(150):
        group = torch.randint(16, (128,))
        tokens = centres[group] + 0.2 * torch.randn(128, FEATURES)
        loss = functional.cross_entropy(classifier(dense(held, tokens)), group // 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        tokens = centres.repeat(32, 1) + 0.2 * torch.randn(512, FEATURES)
        carving = carve(hidden_scores(tokens, held, "silu"), Settings(experts=16, shared=2))
        found = captured(carved_layer(held, carving, "silu", 4), tokens)
    assert found["captured_at_random"] == pytest.approx(4 / 14)
    assert found["captured_at_random"] < found["captured"] < found["captured_at_best"]


# Training


def test_balance_follows_the_load_and_no_gradient() -> None:
    layer = carved_layer(maps(False), division(maps(False), torch.randn(50, FEATURES)), "silu", 1)
    layer.balance += torch.tensor([5.0, 0, 0, 0])  # so that the first is always chosen
    regime = BalancedLoad(0.25)
    regime.begin(nn.Sequential(layer), None, None, 0)  # type: ignore[arg-type]
    regime.before_step(0, 1)
    layer(torch.randn(4, FEATURES)).square().sum().backward()
    layer(torch.randn(2, FEATURES))  # a second piece of the batch
    assert layer.load.tolist() == [6, 0, 0, 0]
    regime.after_step()
    assert layer.balance.tolist() == [4.75, 0.25, 0.25, 0.25]
    assert layer.scale.grad is not None
    assert layer.router_gate.weight.grad is None


def test_what_is_learned_of_the_routing_is_the_scale() -> None:
    layer = carved_layer(maps(True), division(maps(True), torch.randn(50, FEATURES)), "silu", 2)
    names = {name for name, one in layer.named_parameters() if not one.requires_grad}
    assert names == {"router_gate.weight", "router_gate.bias", "router_up.weight", "router_up.bias"}
    assert list(layer.no_decay()) == [layer.scale]
    assert "balance" in layer.state_dict()
    assert "load" not in layer.state_dict()


# The method


class Numbers:
    """Data of random rows."""

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Any]:
        assert part == "train"
        drawn = torch.Generator().manual_seed(seed)
        while True:
            yield SimpleNamespace(inputs=(torch.randn(16, FEATURES, generator=drawn),))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(OUTPUTS, HIDDEN), nn.Linear(OUTPUTS, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return answer


def network() -> nn.Sequential:
    plain = (nn.Linear(FEATURES, HIDDEN), nn.GELU(), nn.Dropout(0.5), nn.Linear(HIDDEN, OUTPUTS))
    return nn.Sequential(*plain, Gated(), nn.LayerNorm(OUTPUTS)).eval()


def subject(*targets: str, **more: Any) -> Subject:
    task = Task(kind=TABULAR_CLASSIFICATION, inputs=(InputSpec(name="x", shape=(FEATURES,)),), outputs=OUTPUTS)
    data: Any = Numbers()
    example = (torch.randn(1, FEATURES),)
    return Subject(task, data, torch.device("cpu"), 7, example, targets=parse_targets(targets), **more)


def test_a_network_is_carved_as_planned_and_rebuilt_from_its_changes() -> None:
    base = network()
    carved, about = copy.deepcopy(base), subject("macs<=0.8x")
    method = CMoE(about, SMALL)
    plan = method.plan(carved)
    assert not plan.fixed
    change = method.compress(carved, 0)
    assert macs(carved, about.inputs) == plan.costs["macs"] <= 0.8 * macs(base, about.inputs)
    assert all(check.difference <= 1e-6 for check in change.checks)
    assert set(change.report) == {"0", "4"}
    first = carved[0]
    assert isinstance(first, CarvedFeedForward)
    assert first.dropout == 0.5
    changes = Changes.model_validate_json(changes_of(base, carved).model_dump_json())
    again = rebuilt(network(), changes)
    again.load_state_dict(carved.state_dict())
    x = torch.randn(9, FEATURES)
    assert torch.equal(again.eval()(x), carved(x))


def test_most_experts_that_the_target_allows_are_active() -> None:
    about = subject("macs<=0.8x")
    costs = {}
    for active in (1, 2, 3, 4):
        carved = network()
        CMoE(subject(), SMALL.model_copy(update={"active": active})).compress(carved, 0)
        costs[active] = macs(carved, about.inputs)
    limit = 0.8 * macs(network(), about.inputs)
    chosen = max(active for active, cost in costs.items() if cost <= limit)
    assert CMoE(about, SMALL).plan(network()).costs["macs"] == costs[chosen]
    assert CMoE(subject(), SMALL).plan(network()).reachable["macs"] == (costs[1], costs[2], limit / 0.8)


def test_later_layers_are_carved_on_what_carved_ones_give() -> None:
    whole = network()
    carved = copy.deepcopy(whole)
    CMoE(subject(), SMALL).compress(carved, 0)
    rows = torch.cat([batch.inputs[0] for batch in itertools.islice(Numbers().batches("train", 0, 7), 8)])
    held = {name: getattr(whole[4], name) for name in ("gate", "up", "down")}
    with torch.no_grad():
        on_carved, on_dense = (
            carve(hidden_scores(net[:4](rows), held, "silu"), SMALL).representatives.tolist() for net in (carved, whole)
        )
        units = functional.normalize(held["gate"].weight)
        layer = carved[4]
        assert isinstance(layer, CarvedFeedForward)
        found = [int((units - row).square().sum(1).argmin()) for row in layer.router_gate.weight]
    assert found == on_carved != on_dense


@pytest.mark.parametrize(
    ("targets", "settings", "says"),
    [
        (("params<=0.5x",), {}, "keeps all weights"),
        (("macs<=0.1x",), {}, "cannot be reached: with one active expert there are"),
        (("macs<=1.5x",), {}, "is met already"),
        (("macs<=0.7x",), {"active": 4}, "take at most"),
        ((), {"active": 5}, "of 6 experts 4 are not shared"),
        ((), {"shared": 6}, "at least one is not shared"),
        ((), {"experts": 7}, "no multiple of 7 experts"),
        ((), {"min_width": 25}, "narrower than min_width 25"),
    ],
)
def test_what_does_not_fit_is_said(targets: tuple[str, ...], settings: dict[str, int], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        CMoE(subject(*targets), Settings(**{**SMALL.model_dump(), **settings})).plan(network())
