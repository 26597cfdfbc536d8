"""The space `moe`: what of its choices the papers rule out, and what its networks have in common with plain ones."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.errors import TrialError, UsageError
from nas_core.seeds import generator
from nas_core.space import known_by_name
from nas_core.task import TABULAR_REGRESSION, Task, image_task, multi_task, table_task, text_task
from search_spaces.counter import active_params, params
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.mlp.space import Mlp
from search_spaces.mlp.space import Size as MlpSize
from search_spaces.moe.layers import CLOSE, Layout, dense
from search_spaces.moe.named import LAYOUTS
from search_spaces.moe.space import Moe, Size
from search_spaces.moe.text import Attention
from search_spaces.operators.experts import EXPERT
from search_spaces.operators.routers import ROUTER, facts_of
from search_spaces.operators.routers.facts import ONE
from training.causal import check_causal
from training.cost import NetworkCosts, costs
from training.tasks import sample_inputs
from training.tasks.multi_task import DIGITS

TABLE = table_task(TABULAR_REGRESSION, (1,) * 5 + (3,), 1, "rmse")
IMAGES = image_task((1, 8, 8), 10)
TEXT = text_task(12, 7, "bpc")
SEVERAL = multi_task((1, 8, 8), DIGITS)
TASKS: Mapping[str, Task] = {"table": TABLE, "text": TEXT, "patches": IMAGES, "tasks": SEVERAL}
CONDITIONAL = {"task", "mmoe", "attributes", "smear-task"}
SPACES = {backbone: Moe(backbone) for backbone in TASKS}
SMALL = Size(width=8)
MISSING = {
    "table": {"sparse-mlp", "task-moe"},
    "text": {"sparse-mlp", "smear", "task-moe"},
    "patches": {"task-moe"},
    "tasks": set[str](),
}


def built(space: Moe, arch: Architecture, size: Size = SMALL, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return space.build(arch, TASKS[space.backbone.name], size)


def made(space: Moe, **values: Value) -> Architecture:
    """With these choices (`/` in names as `__`), the first of what is left for the others."""
    named = {name.replace("__", "/").replace("_", "-"): value for name, value in values.items()}
    arch = moves.complete(space, named, moves.first)
    assert named.items() <= arch.values.items()
    return arch


def layers_of(network: nn.Module) -> list[MixtureOfExperts]:
    return [module for module in network.modules() if isinstance(module, MixtureOfExperts)]


# What is allowed


@pytest.mark.parametrize("backbone", TASKS)
def test_of_all_architectures(backbone: str) -> None:
    space = SPACES[backbone]
    seen = set()
    for number in range(300):
        arch = moves.sample(space, generator("moe", number))
        values = arch.values
        seen.add(values["ffn"])
        if values["ffn"] == "dense":
            assert set(values) == {"ffn", "depth", "expansion"}
            continue
        assert values.get("active", 1) <= values["experts"]
        if values["ffn"] in ("switch",):
            assert values["active"] == 1
        if values["ffn"] in ("grin", "gshard"):
            assert values["active"] <= 2
        if values["ffn"] == "noisy-top-k" and values["active"] == 1:
            assert values["noisy-top-k/softmax"] == "before"
        if values["ffn"] in ("smear", "expert-choice", "softmax", "grkan", "dense-total"):
            assert "capacity" not in values
        assert "experts" in [value for name, value in values.items() if name.startswith("block")]
        assert ("factor" in values) == (values.get("width") == "free")
    assert seen == {"dense", "dense-total", *space.routers}


def test_routers_are_those_that_a_backbone_gives_what_they_need() -> None:
    assert set(SPACES["tasks"].routers) == set(ROUTER.table)
    assert set(SPACES["patches"].routers) == set(ROUTER.table) - CONDITIONAL
    # Experts that choose would choose among the rows of a batch: among customers.
    assert set(SPACES["table"].routers) == set(ROUTER.table) - CONDITIONAL - {"expert-choice"}
    # Both would let a character depend on those that it is to predict.
    assert set(SPACES["text"].routers) == set(ROUTER.table) - CONDITIONAL - {"expert-choice", "smear"}
    for router in ("expert-choice", "smear"):
        with pytest.raises(UsageError, match=f"router {router} needs later tokens, which the backbone text has not"):
            Moe("text", routers=("switch", router))
    with pytest.raises(UsageError, match="router expert-choice needs several tokens of a sample, which the backbone"):
        Moe("table", routers=("switch", "expert-choice"))
    with pytest.raises(UsageError, match="router task needs a task or attributes"):
        Moe("patches", routers=("task",))


def test_dense_networks_alone() -> None:
    for ffn in ("dense", "dense-total"):
        space = Moe(ffn=ffn)
        assert {moves.sample(space, generator(number)).values["ffn"] for number in range(20)} == {ffn}
        assert list(space.named) == [ffn]
        with pytest.raises(UsageError, match=r"architecture 'smear': its layers are smear"):
            known_by_name(space, ["smear"])
    assert moves.size(Moe(ffn="dense"), 100) == 20


def test_arguments_that_are_none() -> None:
    with pytest.raises(UsageError, match=r"backbone.*'tabel'.*table"):
        Moe("tabel")
    with pytest.raises(UsageError, match=r"ffn.*'dens'.*dense"):
        Moe(ffn="dens")
    with pytest.raises(UsageError, match=r"'swich'.*switch"):
        Moe(routers=("swich",))
    with pytest.raises(UsageError, match="gelus"):
        Moe(kinds=("gelus",))
    with pytest.raises(UsageError, match=r"'switch\(capacity=0\.1\)': got .* 'capacity'"):
        Moe(routers=("switch(capacity=0.1)",))
    with pytest.raises(UsageError, match=r"'mixed\(kind='gelu'\)': got .* 'kind'"):
        Moe(kinds=("mixed(kind='gelu')",))


def test_mixed_experts_are_not_merged() -> None:
    space = SPACES["patches"]
    for router, facts in ((label, facts_of(router)) for label, router in space.routers.items()):
        legal = moves.complete(space, {"ffn": router, "expert": "mixed"}, moves.first)
        assert (legal.values["expert"] == "mixed") == (facts.computes != ONE), router
    with pytest.raises(UsageError, match=r"router smear merges its experts.*mixed.*add another kind \(gelu, "):
        Moe("patches", routers=("switch", "smear"), kinds=("mixed",))
    alone = Moe("patches", kinds=("mixed(kinds=('gelu', 'linear'))",))
    assert set(space.routers) - set(alone.routers) == {"smear"}


@pytest.mark.parametrize("router", ["noisy-top-k", "softmax"])
def test_mixed_layers_have_as_many_active_parameters(router: str) -> None:
    features, hidden = 32, 512
    layout = Layout(ROUTER.operator(router), EXPERT.operator("mixed"), 8, 2, shared=1)
    whole = layout.made(features, hidden)
    assert active_params(whole) == pytest.approx(params(dense(features, hidden)), rel=0.05)
    assert layout.total(features, hidden) == params(whole)


def test_known_layouts_are_what_they_say() -> None:
    for backbone, space in SPACES.items():
        assert set(space.named) | set(space.left_out) == set(LAYOUTS)
        assert set(space.left_out) == MISSING[backbone]
        for name, arch in space.named.items():
            assert space.illegal(arch) is None
            assert LAYOUTS[name].values.items() <= arch.values.items(), name
            depth = sum(block in LAYOUTS[name].blocks for block in range(1, 5))
            several = len(space.backbone.places) if LAYOUTS[name].whole else 1
            count = len(layers_of(built(space, arch)))
            wanted = 0 if name.startswith("dense") else depth * several * int(arch.values.get("layers", 1))
            assert count == wanted, name


# How wide


@pytest.mark.parametrize("router", ["noisy-top-k", "switch", "grin", "smear", "softmax"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("shared", [0, 2])
def test_equal_active_parameters(router: str, layers: int, shared: int) -> None:
    chosen = 1 if router == "switch" else 2
    layout = Layout(ROUTER.operator(router), EXPERT.operator("gelu"), 4, chosen, shared, layers)
    for features, hidden in ((32, 128), (128, 512), (64, 96)):
        whole = layout.made(features, hidden)
        found, wanted = active_params(whole), params(dense(features, hidden))
        assert abs(found - wanted) <= max(CLOSE * wanted, layers * (layout.active + shared) * (features + 0.5))
        assert layout.total(features, hidden) == params(whole)


def test_hidden_units_are_aligned_where_that_is_near_enough() -> None:
    def units(features: int, hidden: int, chosen: int = 2) -> int:
        return Layout(ROUTER.operator("noisy-top-k"), EXPERT.operator("gelu"), 8, chosen).units(features, hidden)

    assert units(256, 1024) % 8 == 0
    assert units(32, 128) == 60  # a multiple of 4: 64 would be 6% too many
    assert units(8, 4) == 1  # no number of units is small enough


def test_a_factor_of_the_features() -> None:
    space = SPACES["table"]
    for factor, units in ((0.25, 8), (0.5, 16), (2.0, 64)):
        arch = made(space, ffn="switch", expert="gelu", width="free", factor=factor)
        module = layers_of(built(space, arch, Size(width=32)))[0]
        assert module.experts.up.weight.shape[1] == units


def test_hidden_units_are_told_as_they_are_built() -> None:
    def told(space: Moe, size: int, **values: Value) -> Mapping[str, int]:
        return space.hidden_units(made(space, **values), TASKS[space.backbone.name], Size(width=size))

    table: dict[str, Value] = {
        "ffn": "noisy-top-k",
        "experts": 8,
        "active": 2,
        "shared": 0,
        "depth": 2,
        "expansion": 4.0,
    }
    assert told(SPACES["table"], 32, **table, expert="gelu", layers=1) == {"expert": 60}  # not 64
    mixed = {**table, "block1__ffn": "dense", "layers": 1}
    assert told(SPACES["table"], 32, **mixed, expert="gelu") == {"dense layer": 128, "expert": 60}
    free = {**mixed, "width": "free", "factor": 2.0}  # of 64
    units = {"gelu": 64, "rational": 64, "glu": 40, "kan": 7}  # glu: 2/3 in steps of 8, kan: 1/9
    for kind, number in units.items():
        assert told(SPACES["table"], 32, **free, expert=kind)["expert"] == number
    assert told(SPACES["table"], 32, **free, expert="mixed")["gelu expert"] == 64
    assert told(SPACES["table"], 32, **mixed, expert="linear") == {"dense layer": 128}
    assert told(SPACES["table"], 32, ffn="dense", expansion=0.5) == {"dense layer": 16}
    space = SPACES["patches"]
    arch = made(space, ffn="switch", expert="pade", depth=2, block1__tokens="dense", block1__channels="experts")
    block, second = list(layers_of(built(space, arch, Size(width=32))))[:2]
    found = space.hidden_units(arch, TASKS["patches"], Size(width=32))
    assert found["expert of channels"] == block.experts.down.weight.shape[2]
    assert found["expert of tokens"] == second.experts.down.weight.shape[2]
    assert found.keys() == {"dense layer of tokens", "expert of channels", "expert of tokens"}


@pytest.mark.parametrize("backbone", TASKS)
def test_dense_networks_of_equal_parameters(backbone: str) -> None:
    space = SPACES[backbone]
    for size in (Size.preset("search"), Size.preset("full")):
        every = {name: built(space, arch, size) for name, arch in space.named.items()}
        experts = every["sparsely-gated"]
        assert params(every["dense-total"]) == pytest.approx(params(experts), rel=0.001)
        assert params(every["dense"]) == pytest.approx(active_params(experts), rel=0.02)
        for name in {"switch", "grin", "smear"} & set(space.named):
            assert params(every["dense"]) == pytest.approx(active_params(every[name]), rel=0.02)


# What it costs


def by_hand(network: nn.Module, values: Mapping[str, Value]) -> dict[str, float]:
    """Of the known layouts, of what the papers say of their layers: parameters, those that a token passes, and
    multiply-accumulates of one sample."""
    heads = list(network.heads) if hasattr(network, "heads") else [network.head]
    width, outputs = heads[0].in_features, sum(head.out_features for head in heads)
    if isinstance(network.stem, nn.Embedding):  # which multiplies nothing; every position is answered
        tokens, total = 12, network.stem.num_embeddings * width
        macs = tokens * width * outputs
    else:
        inputs, tokens = (1, 64) if isinstance(network.stem, nn.Conv2d) else (network.stem.in_features, 1)
        total, macs = inputs * width + width, tokens * inputs * width + width * outputs
    total += 2 * width + width * outputs + outputs
    active = total
    for block in network.blocks:
        if isinstance(block.layer, Attention):
            count = 2 * width + 4 * (width * width + width)
            total, active = total + count, active + count
            macs += tokens * 4 * width * width + 2 * tokens * tokens * width
            continue
        rows, d = (width, tokens) if block.across else (tokens, width)
        total, active = total + 2 * width, active + 2 * width
        for layer in layers_of(block) or [getattr(block.layer, "layer", block.layer)]:
            if not isinstance(layer, MixtureOfExperts):
                hidden = layer[0].out_features
                count, products = 2 * d * hidden + hidden + d, rows * 2 * d * hidden
                total, active, macs = total + count, active + count, macs + products
                continue
            E, k, router = int(values["experts"]), int(values.get("active", 0)), values["ffn"]
            if values["expert"] == "kan":
                m = layer.experts.first.base.weight.shape[1]
                each, products = 9 * d * m + 9 * m * d, 9 * d * m + 9 * m * d
            else:
                m = layer.experts.up.weight.shape[1]
                each, products = 2 * d * m + m + d, 2 * d * m
            gates, gate_products = d * E, rows * d * E
            passed, computed = k, rows * k * products
            if router == "noisy-top-k":
                gates = 2 * d * E  # the noise is none of evaluation
            if router == "task":  # one per task, whatever the sample
                gates, gate_products = len(heads) * d + d * E, len(heads) * d * E
            if router == "smear":  # one gate per sample; weights of experts are averaged, then one is computed
                gates, gate_products = d * E + d + 2 * d, d * E
                passed, computed = 1, E * each + rows * products
            if router in ("softmax", "grkan"):
                passed, computed = E, rows * E * (products + d)
            if router == "grkan":
                kan = 9 * (32 * E + E * E)
                gates = d + 32 * d + 32 + 32 * E + E + kan + 2 * (E * E + E) + 2 * E
                gate_products = rows * (32 * d + 32 * E + kan + 2 * E * E)
            total += gates + E * each
            active += gates + passed * each
            macs += gate_products + computed
    return {"params": total, "active_params": active, "macs": macs}


@pytest.mark.parametrize("backbone", TASKS)
def test_costs_of_known_layouts_are_those_by_hand(backbone: str) -> None:
    space, task = SPACES[backbone], TASKS[backbone]
    for name, arch in space.named.items():
        found = costs(space, arch, task, SMALL, space.counted)
        assert found == by_hand(built(space, arch), arch.values), name


def test_costs_of_a_study_have_active_parameters_and_those_of_other_spaces_do_not() -> None:
    small = NetworkCosts(SPACES["table"], TABLE, SMALL, torch.device("cpu"))
    assert [metric.name for metric in small.metrics][:3] == ["params", "active_params", "macs"]
    assert "active_params" not in [m.name for m in NetworkCosts(Mlp(), TABLE, MlpSize(), torch.device("cpu")).metrics]
    dense = SPACES["table"].named["dense"]
    found = small.of(dense, ("params", "active_params"))
    assert found["params"] == found["active_params"]


# What is computed


def test_a_dense_network_for_tables_is_plain_layers() -> None:
    network = built(SPACES["table"], SPACES["table"].named["dense"])
    x = torch.randn(6, 8)
    h = functional.linear(x, network.stem.weight, network.stem.bias)
    for block in network.blocks:
        up, _, down = block.layer
        inner = functional.layer_norm(h, (8,), block.norm.weight, block.norm.bias)
        h = h + functional.gelu(inner @ up.weight.t() + up.bias) @ down.weight.t() + down.bias
    wanted = network.head(functional.layer_norm(h, (8,), network.norm.weight, network.norm.bias))
    assert torch.allclose(network(x), wanted, atol=1e-6)


def test_token_mixing_maps_the_patches_of_each_channel() -> None:
    network = built(SPACES["patches"], SPACES["patches"].named["dense"])
    x = torch.randn(3, 1, 8, 8)
    tokens = network.stem(x).flatten(2).transpose(1, 2)
    assert tokens.shape == (3, 64, 8)
    mixing = network.blocks[0]
    wanted = tokens.clone()
    for channel in range(8):
        wanted[:, :, channel] += mixing.layer(mixing.norm(tokens)[:, :, channel])
    assert torch.allclose(mixing(tokens), wanted, atol=1e-6)


def test_token_experts_route_channels() -> None:
    network = built(SPACES["patches"], SPACES["patches"].named["sparse-mlp"]).eval()
    features = [module.router.gate.in_features for module in layers_of(network)]
    assert features == [64, 8, 64, 8]
    network(torch.randn(3, 1, 8, 8))
    assert [int(module.loads.sum()) for module in layers_of(network)] == [3 * 8, 3 * 64] * 2


@pytest.mark.parametrize("backbone", TASKS)
def test_a_sample_has_its_answer_in_any_batch(backbone: str) -> None:
    space = SPACES[backbone]
    inputs = sample_inputs(TASKS[backbone], 5)
    for router in space.routers:
        network = built(space, made(space, ffn=router, depth=2)).eval()
        whole = network(*inputs)
        alone = torch.cat([network(*(one[number : number + 1] for one in inputs)) for number in range(5)])
        assert torch.allclose(whole, alone, atol=1e-5), router


def stirred(network: nn.Module) -> nn.Module:
    """With other weights, so that routers, which may begin with zeros, tell tokens apart."""
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for one in network.parameters():
            one += 0.3 * torch.randn(one.shape, generator=draws)
    return network


def changed_after(network: nn.Module, place: int) -> tuple[bool, bool]:
    """Whether the answers before a place, and at it or after it, change with the character there."""
    (tokens,) = sample_inputs(TEXT, 3)
    others = tokens.clone()
    others[:, place] = (others[:, place] + 1) % 7
    answers = []
    for given in (tokens, others):
        torch.manual_seed(0)  # of noise in training
        answers.append(network(given).detach())
    differ = (answers[0] - answers[1]).abs().amax(-1)
    return bool((differ[:, :place] > 1e-5).any()), bool((differ[:, place:] > 1e-5).all(1).any())


@pytest.mark.parametrize("ffn", ["dense", "dense-total", *SPACES["text"].routers])
def test_no_character_sees_a_later_one(ffn: str) -> None:
    network = stirred(built(SPACES["text"], made(SPACES["text"], ffn=ffn, depth=3)))
    for place in (1, 6, 11):
        for mode in (True, False):
            assert changed_after(network.train(mode), place) == (False, True), (place, mode)


@pytest.mark.parametrize("router", ["smear", "expert-choice"])
def test_routers_that_are_not_allowed_would_see_later_characters(router: str) -> None:
    layout = Layout(ROUTER.operator(router), EXPERT.operator("gelu"), 4, 2)
    backbone = SPACES["text"].backbone
    network = stirred(backbone.network(TEXT, 8, 2, lambda *where: layout.made(where[2], 16))).eval()
    assert changed_after(network, 6) == (True, True)
    with pytest.raises(TrialError, match="sees-the-future"):
        check_causal(network, TEXT)


def test_a_dense_network_for_texts_is_attention_with_rotary_positions() -> None:
    """Computed anew, with rotations as products of complex numbers, and a mask."""
    width, heads = 32, 2
    network = stirred(built(SPACES["text"], SPACES["text"].named["dense"], Size(width=width))).eval()
    (tokens,) = sample_inputs(TEXT, 3)
    h = network.stem.weight[tokens]
    mask = torch.ones(12, 12, dtype=torch.bool).tril()
    angles = torch.arange(12)[:, None] * 10_000.0 ** (-torch.arange(8) / 8)
    turn = torch.polar(torch.ones_like(angles), angles)

    def turned(x: Tensor) -> Tensor:  # [n, t, features of a head]
        return torch.view_as_real(torch.complex(x[..., :8], x[..., 8:]) * turn).transpose(-1, -2).flatten(-2)

    for attention, feed_forward in zip(network.blocks[::2], network.blocks[1::2], strict=True):
        inner = functional.layer_norm(h, (width,), attention.norm.weight, attention.norm.bias)
        query, key, value = attention.layer.inputs(inner).chunk(3, -1)
        found = []
        for head in range(heads):
            q, k, v = (one[..., head * 16 : (head + 1) * 16] for one in (query, key, value))
            scores = (turned(q) @ turned(k).transpose(1, 2) / 4).masked_fill(~mask, -torch.inf)
            found.append(scores.softmax(-1) @ v)
        h = h + attention.layer.outputs(torch.cat(found, -1))
        up, _, down = feed_forward.layer
        inner = functional.layer_norm(h, (width,), feed_forward.norm.weight, feed_forward.norm.bias)
        h = h + down(functional.gelu(up(inner)))
    wanted = network.head(functional.layer_norm(h, (width,), network.norm.weight, network.norm.bias))
    assert torch.allclose(network(tokens), wanted, rtol=1e-4, atol=1e-4)


def test_options_reach_the_router() -> None:
    space = SPACES["table"]
    arch = made(space, ffn="switch", switch__balance=0.1, switch__z=0.001, drops=True, capacity=1.5, shared=2)
    for module in layers_of(built(space, arch)):
        assert (module.router.balance, module.router.z, module.capacity) == (0.1, 0.001, 1.5)
        assert module.capacity_eval is None
        assert module.shared is not None


def test_options_of_a_reference_are_not_chosen() -> None:
    space = Moe(routers=("switch", "noisy-top-k(importance=0.5)"), kinds=("glu", "pade(numerator=1)"))
    labels = {"switch", "noisy-top-k(importance=0.5)"}
    assert set(space.routers) == labels
    seen: set[Value] = set()
    for number in range(60):
        arch = moves.sample(space, generator(number))
        seen.add(arch.values.get("expert", ""))
        for module in layers_of(built(space, arch)):
            if arch.values["ffn"] == "noisy-top-k(importance=0.5)":
                assert module.router.importance == 0.5
    assert seen == {"", "glu", "pade(numerator=1)"}


def gradient_sum(network: nn.Module, *inputs: Tensor) -> float:
    network(*inputs).square().sum().backward()
    return sum(float(one.grad.abs().sum()) for one in network.parameters() if one.grad is not None)


@pytest.mark.parametrize("backbone", TASKS)
def test_every_known_layout_learns(backbone: str) -> None:
    inputs = sample_inputs(TASKS[backbone], 4)
    for arch in SPACES[backbone].named.values():
        assert gradient_sum(built(SPACES[backbone], arch), *inputs) > 0
