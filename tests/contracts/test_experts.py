"""Every kind of expert by every assignment, and every router in a layer: one contract each, over the tables."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.errors import UsageError
from search_spaces.counter import MacCounter, active_params, macs, params
from search_spaces.layers.assigned import Assignment, Every, Grouped, Merged, Split, groupable
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.operators.experts import EXPERT, UNMERGED
from search_spaces.operators.experts.mixed import Mixed
from search_spaces.operators.routers import ROUTER, facts_of
from search_spaces.operators.routers.facts import CHOSEN, CONDITION, LATER, ONE

FEATURES, EXPERTS, HIDDEN = 8, 4, 32
COUNTS = ([3, 0, 5, 4], [12, 0, 0, 0], [0, 4, 4, 4])
OPTIONS: dict[str, dict[str, Any]] = {"task": {"tasks": 3}, "mmoe": {"tasks": 3}, "smear-task": {"tasks": 3}}
BY_TASK = tuple(OPTIONS)
CHOOSING = {name for name in ROUTER.table if facts_of(ROUTER.operator(name)).computes == CHOSEN} - {"expert-choice"}


def expert(name: str, experts: int = EXPERTS, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return EXPERT.operator(name).make(experts, FEATURES, HIDDEN, FEATURES)


def layer(router: str, kind: str = "gelu", active: int = 2, experts: int = EXPERTS, **settings: Any) -> nn.Module:
    torch.manual_seed(1)
    operator = ROUTER.operator(router)
    active = min(active, facts_of(operator).most or active)
    made = operator.make(FEATURES, experts, active, **OPTIONS.get(router, {}))
    return MixtureOfExperts(made, expert(kind, experts), **settings)


def inputs(router: str, samples: int = 3, tokens: int = 5) -> tuple[Tensor, Tensor | None]:
    torch.manual_seed(2)
    x = torch.randn(samples, tokens, FEATURES)
    if router in BY_TASK:
        return x, torch.arange(samples) % 3
    return x, torch.randn(samples, 8) if router == "attributes" else None


def one_by_one(experts: nn.Module, x: Tensor, counts: Sequence[int]) -> Tensor:
    """Each row through a copy of the module that has its expert alone."""
    kinds = [(experts, number) for number in range(len(counts))]
    if isinstance(experts, Mixed):
        kinds = [
            (kind, n) for kind, size in zip(experts.kinds.values(), experts.sizes, strict=True) for n in range(size)
        ]
    rows = []
    for (kind, number), piece in zip(kinds, x.split(list(counts)), strict=True):
        alone = copy.deepcopy(kind)
        for parameter in alone.parameters():
            parameter.data = parameter.data[number : number + 1]
        rows.append(alone(piece, Every())[0])
    return torch.cat(rows)


@pytest.mark.parametrize("name", EXPERT.table)
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_each_row_is_computed_by_its_expert(name: str, counts: list[int]) -> None:
    experts, x = expert(name), torch.randn(12, FEATURES)
    assert torch.allclose(experts(x, Split(counts)), one_by_one(experts, x, counts), atol=1e-6)


@pytest.mark.parametrize("name", EXPERT.table)
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_ways_of_computing_agree_in_values_and_gradients(name: str, counts: list[int]) -> None:
    experts = expert(name)
    x = torch.randn(12, FEATURES, requires_grad=True)
    weights = torch.randn(12, FEATURES)

    def found(assignment: Assignment) -> list[Tensor]:
        answer = experts(x, assignment)
        if answer.dim() == 3:  # all experts for all rows: take each row's own
            answer = answer[torch.arange(EXPERTS).repeat_interleave(torch.tensor(counts)), torch.arange(12)]
        return [answer, *torch.autograd.grad((answer * weights).sum(), [x, *experts.parameters()])]

    wanted = found(Split(counts))
    for assignment in (Every(), Grouped(counts, x.device)):
        if isinstance(assignment, Every) or groupable(x.dtype, x.device, [FEATURES, HIDDEN]):
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found(assignment), wanted, strict=True))


@pytest.mark.parametrize("name", EXPERT.table)
def test_second_derivatives_of_grouped_products_are_those_of_split_ones(name: str) -> None:
    experts, counts = expert(name), COUNTS[-1]
    x, weights = torch.randn(12, FEATURES, requires_grad=True), torch.randn(12, FEATURES)
    if not groupable(x.dtype, x.device, [FEATURES, HIDDEN]):
        pytest.skip("there is no grouped product here")

    def found(assignment: Assignment) -> tuple[Tensor, ...]:
        leaves = [x, *experts.parameters()]
        first = torch.autograd.grad((experts(x, assignment) * weights).sum(), leaves, create_graph=True)
        again = sum((gradient.square().sum() for gradient in first), torch.zeros(()))
        return torch.autograd.grad(again, leaves, allow_unused=True, materialize_grads=True)

    for a, b in zip(found(Grouped(counts, x.device)), found(Split(counts)), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


@pytest.mark.parametrize("name", EXPERT.table)
def test_gradients_in_float64_are_those_of_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    experts = EXPERT.operator(name).make(3, 2, 4, 2).double()
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    parameters = tuple(experts.parameters())
    for parameter in parameters:  # not where they start: an absolute value has no derivative at 0
        nn.init.normal_(parameter, std=0.5)
    assert torch.autograd.gradcheck(lambda x, *_: experts(x, Split([2, 0, 1])), (x, *parameters))


@pytest.mark.parametrize("name", [name for name in EXPERT.table if name not in UNMERGED])
def test_merging_with_a_share_of_one_is_that_expert(name: str) -> None:
    experts, x = expert(name), torch.randn(2, 6, FEATURES)
    shares = functional.one_hot(torch.tensor([1, 3]), EXPERTS).float()
    wanted = experts(x.flatten(0, 1), Every())
    merged = experts(x, Merged(shares))
    assert torch.allclose(merged[0], wanted[1, :6], atol=1e-6)
    assert torch.allclose(merged[1], wanted[3, 6:], atol=1e-6)


@pytest.mark.parametrize("name", sorted(UNMERGED))
def test_experts_of_several_kinds_cannot_be_merged(name: str) -> None:
    with pytest.raises(ValueError, match="several kinds cannot be merged"):
        layer("smear", name)(*inputs("smear"))


def test_mixed_experts_are_of_the_kinds_in_turn() -> None:
    assert expert("mixed", 2).sizes == [1, 1]
    whole = expert("mixed", 8)
    assert dict(zip(whole.kinds, whole.sizes, strict=True)) == {
        **dict.fromkeys(("gelu", "glu"), 2),
        **dict.fromkeys(("kan", "rational", "pade", "linear"), 1),
    }
    for kind, own in whole.kinds.items():
        assert {name: value.shape[1:] for name, value in own.named_parameters()} == {
            name: value.shape[1:] for name, value in expert(kind).named_parameters()
        }
    assert layer("switch", "mixed", experts=8).loads.shape == (8,)


@pytest.mark.parametrize("kinds", [(), ("gelu", "gelu"), ("gelu", "glus")])
def test_kinds_of_mixed_experts_are_known_and_named_once(kinds: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="mixed"):
        Mixed(4, FEATURES, HIDDEN, FEATURES, kinds)


@pytest.mark.parametrize("kinds", [("gelu", "linear"), ("kan", "glu", "linear")])
def test_costs_of_mixed_experts_are_means_over_them(kinds: tuple[str, ...]) -> None:
    experts, x = Mixed(3, FEATURES, HIDDEN, FEATURES, kinds), torch.randn(1, 60, FEATURES)
    module = MixtureOfExperts(ROUTER.operator("noisy-top-k").make(FEATURES, 3, 2), experts)
    products = sum(p.numel() for p in experts.parameters() if p.dim() == 3) / 3
    assert macs(module, (x,)) == 60 * (3 * FEATURES + 2 * products)
    whole = params(experts)
    assert active_params(module) == params(module) - whole // 3
    assert macs(MixtureOfExperts(ROUTER.operator("softmax").make(FEATURES, 3, 1), experts), (x,)) == 60 * (
        6 * FEATURES + 3 * products
    )


@pytest.mark.parametrize("name", [name for name in EXPERT.table if name not in ("linear", *UNMERGED)])
def test_experts_of_one_hidden_width_have_about_as_many_parameters(name: str) -> None:
    def size(kind: str) -> int:
        return sum(one.numel() for one in EXPERT.operator(kind).make(1, 64, 256, 64).parameters())

    assert size(name) == pytest.approx(size("gelu"), rel=0.15)


@pytest.mark.parametrize("router", ROUTER.table)
@pytest.mark.parametrize("kind", ["gelu", "kan", "mixed"])
def test_all_weights_of_a_layer_learn(router: str, kind: str) -> None:
    if kind in UNMERGED and facts_of(ROUTER.operator(router)).computes == ONE:
        pytest.skip("experts of several kinds are not merged")
    module, (x, condition) = layer(router, kind), inputs(router)
    x.requires_grad_()
    answer = module(x, condition)
    terms, statistics = module.take()
    (answer.square().sum() + sum(terms.values())).backward()
    assert answer.shape == x.shape
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert {"load_ratio", "dead_share", "router_entropy"} <= set(statistics)
    assert not any(value.requires_grad for value in statistics.values())


@pytest.mark.parametrize(
    "router", [name for name in ROUTER.table if name not in ("random", "smear", "smear-task", "mmoe")]
)
def test_the_routers_own_weights_get_a_gradient_of_the_answer(router: str) -> None:
    # Also where one expert is active: weights that are always 1 would leave the router as it was.
    for active in (1, 2):
        module, (x, condition) = layer(router, active=active), inputs(router)
        if router == "noisy-top-k" and active == 1:
            continue  # the softmax of one is 1: a space allows it no single expert
        module(x, condition).square().sum().backward()
        # A matrix that starts at 0 has to start moving.
        assert sum(float(one.grad.abs().sum()) for one in module.router.parameters() if one.grad is not None) > 0


@pytest.mark.parametrize("router", ROUTER.table)
def test_in_evaluation_a_sample_has_its_answer_in_any_batch_and_always(router: str) -> None:
    settings = {"capacity": 0.5} if router in CHOOSING else {}
    module, (x, condition) = layer(router, **settings).eval(), inputs(router)
    whole = module(x, condition)
    assert torch.equal(whole, module(x, condition))
    for sample in range(len(x)):
        alone = module(x[sample : sample + 1], None if condition is None else condition[sample : sample + 1])
        assert torch.allclose(alone[0], whole[sample], atol=1e-6)


@pytest.mark.parametrize("router", ROUTER.table)
def test_routers_that_look_ahead_say_so(router: str) -> None:
    module, (x, condition) = layer(router).eval(), inputs(router)
    other = x.clone()
    other[:, -1] = other[:, -1].flip(-1) * 5
    changed = not torch.allclose(module(other, condition)[:, :-1], module(x, condition)[:, :-1], atol=1e-6)
    assert changed == (LATER in facts_of(ROUTER.operator(router)).needs)


@pytest.mark.parametrize("router", ROUTER.table)
def test_a_traced_program_answers_as_the_layer(router: str) -> None:
    module, (x, condition) = layer(router).eval(), inputs(router)
    program = torch.export.export(module, (x, condition)).module()
    assert torch.allclose(program(x, condition), module(x, condition), atol=1e-6)


def padded(x: Tensor, more: int) -> tuple[Tensor, Tensor]:
    """Samples of 3, 4, 5, ... tokens, and after those no matter what."""
    real = torch.arange(x.shape[1] + more) < torch.arange(3, 3 + len(x))[:, None]
    other = functional.pad(x, (0, 0, 0, more))
    return torch.where(real.unsqueeze(-1), other, 9 * torch.randn_like(other)), real


@pytest.mark.parametrize("router", ROUTER.table)
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_knows_of_no_padding(router: str, training: bool) -> None:
    settings = {"capacity": 0.6, "capacity_eval": 0.6} if router in CHOOSING else {}
    module, (x, condition) = layer(router, **settings), inputs(router)
    if router == "noisy-top-k":  # its gate starts at 0, where all tokens are alike
        nn.init.normal_(module.router.gate.weight)
    answers, found = [], []
    for more in (0, 6):
        tokens, real = padded(x, more)
        tried = copy.deepcopy(module).train(training)
        torch.manual_seed(3)
        answer = tried(tokens, condition, real)
        assert not answer[~real].any()
        answers.append(answer[real])
        terms, statistics = tried.take()
        found.append({**terms, **statistics, **{f"load {n}": load for n, load in enumerate(tried.loads)}})
    assert torch.allclose(*answers, atol=1e-6)
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])
    assert not training or "router_entropy" in found[0]


@pytest.mark.parametrize("router", ROUTER.table)
def test_a_padded_sample_has_the_answer_of_the_sample_alone(router: str) -> None:
    module, (x, condition) = layer(router).eval(), inputs(router)
    tokens, real = padded(x, 2)
    whole = module(tokens, condition, real)
    for sample, length in enumerate(real.sum(1).tolist()):
        alone = module(x[sample : sample + 1, :length], None if condition is None else condition[sample : sample + 1])
        assert torch.allclose(alone[0], whole[sample, :length], atol=1e-6)


@pytest.mark.parametrize("router", ROUTER.table)
def test_a_traced_program_knows_of_no_padding(router: str) -> None:
    module, (x, condition) = layer(router, **({"capacity_eval": 0.6} if router in CHOOSING else {})), inputs(router)
    tokens, real = padded(x, 2)
    module.eval()
    program = torch.export.export(module, (tokens, condition, real)).module()
    assert torch.allclose(program(tokens, condition, real), module(tokens, condition, real), atol=1e-6)


@pytest.mark.parametrize("router", ROUTER.table)
def test_a_layer_is_copied_after_a_pass(router: str) -> None:
    module, (x, condition) = layer(router), inputs(router)
    module(x, condition).sum().backward()
    copied = copy.deepcopy(module)
    assert copied.take() == ({}, {})
    assert set(copied.state_dict()) == set(module.state_dict())
    assert not any("load" in name for name in module.state_dict())


@pytest.mark.parametrize("router", ROUTER.table)
def test_under_autocast_the_router_stays_in_float32(router: str) -> None:
    module, (x, condition) = layer(router).eval(), inputs(router)
    wanted = module(x, condition)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(x, condition)
    assert torch.allclose(found.float(), wanted, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("router", "active"), [("switch", 2), ("grin", 3), ("noisy-top-k", 5), ("task", 0)])
def test_impossible_numbers_of_experts_are_refused(router: str, active: int) -> None:
    with pytest.raises(UsageError, match=f"{active} active of {EXPERTS} experts"):
        ROUTER.operator(router).make(FEATURES, EXPERTS, active, **OPTIONS.get(router, {}))


def accepts(router: str, active: int, **options: Any) -> bool:
    try:
        ROUTER.operator(router).make(FEATURES, EXPERTS, active, **OPTIONS.get(router, {}), **options)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("router", ROUTER.table)
def test_facts_of_a_router_are_those_of_its_class(router: str) -> None:
    facts = facts_of(ROUTER.operator(router))
    most = facts.most or EXPERTS
    if facts.computes == CHOSEN:
        assert [active for active in range(1, EXPERTS + 2) if accepts(router, active)] == list(range(1, most + 1))
    for option, values in facts.options.items():
        assert all(accepts(router, 1, **{option: value}) for value in values)
    assert all(set(left) < set(facts.options[option]) for option, left in facts.alone.items())
    for active in (1, 2):
        module = layer(router, active=active)
        chosen = min(active, most)
        assert module.router.active == facts.active(EXPERTS, chosen)
        if CONDITION in facts.needs or router not in CHOOSING:
            assert not facts.drops
            continue
        dropping = layer(router, active=active, capacity=0.25)
        dropping(inputs(router)[0])
        assert (float(dropping.take()[1].get("dropped_share", 0)) > 0) == facts.drops


@pytest.mark.parametrize("router", [name for name in ROUTER.table if facts_of(ROUTER.operator(name)).alone])
def test_what_is_left_for_one_expert_teaches_the_router(router: str) -> None:
    for option, left in facts_of(ROUTER.operator(router)).alone.items():
        for value in facts_of(ROUTER.operator(router)).options[option]:
            module = ROUTER.operator(router).make(FEATURES, EXPERTS, 1, **{option: value}).eval()
            weights = module(torch.randn(2, 3, FEATURES)).weights
            gradient = torch.autograd.grad(weights.sum(), module.gate.weight)[0]
            assert (gradient.abs().sum() > 0) == (value in left)


def test_softmax_of_top_k_is_before_or_after() -> None:
    with pytest.raises(UsageError, match="softmax is 'between'"):
        ROUTER.operator("noisy-top-k").make(FEATURES, EXPERTS, 2, softmax="between")


@pytest.mark.parametrize("router", ROUTER.table)
@pytest.mark.parametrize("name", ["capacity", "capacity_eval"])
def test_a_capacity_is_for_routers_that_choose_experts_per_token(router: str, name: str) -> None:
    module, (x, condition) = layer(router, **{name: 1.5}), inputs(router)
    if router in CHOOSING:
        assert module(x, condition).shape == x.shape
    else:
        with pytest.raises(ValueError, match=r"1\.5.*chooses no experts per token"):
            module(x, condition)


@pytest.mark.parametrize("capacity", [0.0, -1.0, float("nan"), float("inf")])
def test_a_capacity_without_places_is_refused(capacity: float) -> None:
    with pytest.raises(UsageError, match=f"capacity is {capacity}"):
        layer("switch", capacity=capacity)


def test_routers_by_task_need_one() -> None:
    conditional = {name for name in ROUTER.table if CONDITION in facts_of(ROUTER.operator(name)).needs}
    assert conditional == {*BY_TASK, "attributes"}
    for router in conditional:
        with pytest.raises(ValueError, match="router"):
            layer(router)(torch.randn(3, 5, FEATURES))


@pytest.mark.parametrize("kind", EXPERT.table)
def test_costs_are_those_of_the_experts_that_compute(kind: str) -> None:
    x = (torch.randn(1, 6, FEATURES),)
    gate = FEATURES * EXPERTS
    one, two = (macs(layer("noisy-top-k", kind, active), x) / 6 - gate for active in (1, 2))
    assert two == 2 * one


MERGING = EXPERTS * (2 * FEATURES * HIDDEN + HIDDEN + FEATURES)  # a product of shares and all parameters
ACTIVE_MACS = {  # per token, of three samples of five tokens: gate, experts
    "noisy-top-k": (FEATURES * EXPERTS, 2),
    "switch": (FEATURES * EXPERTS, 1),
    "gshard": (FEATURES * EXPERTS, 2),
    "grin": (FEATURES * EXPERTS, 2),
    "smear": ((FEATURES * EXPERTS + MERGING) / 5, 1),
    "smear-task": ((FEATURES * EXPERTS + MERGING) / 5, 1),  # of each of three tasks, once
    "expert-choice": (FEATURES * EXPERTS + FEATURES * 12 / 5, 12 / 5),  # each expert three of five tokens, added up
    "loss-free": (FEATURES * EXPERTS, 2),
    "task": (FEATURES * EXPERTS / 5, 2),
    "mmoe": (3 * FEATURES * EXPERTS + FEATURES * EXPERTS, EXPERTS),  # the last: the sum by weights
    "attributes": ((8 * FEATURES + FEATURES * EXPERTS) / 5, 2),
    # An embedding of 32, a residual, two layers of 1 + 8 products per number, two of gates.
    "grkan": (
        32 * FEATURES + 32 * EXPERTS + 9 * (32 + EXPERTS) * EXPERTS + 2 * EXPERTS**2 + FEATURES * EXPERTS,
        EXPERTS,
    ),
    "softmax": (2 * FEATURES * EXPERTS, EXPERTS),
    "random": (FEATURES * EXPERTS, 2),
}


@pytest.mark.parametrize("router", ROUTER.table)
def test_active_products_are_those_counted_by_hand(router: str) -> None:
    x, condition = inputs(router)
    gate, computed = ACTIVE_MACS[router]
    assert macs(layer(router), (x, condition)) == round(15 * (gate + computed * 2 * FEATURES * HIDDEN))


def test_grouped_and_split_products_count_the_same_with_their_backward() -> None:
    def counted(kind: torch.dtype) -> int:  # there is no grouped product in float64
        module, (x, _) = layer("noisy-top-k").to(kind), inputs("noisy-top-k")
        x = x.to(kind).requires_grad_()
        with MacCounter(module) as counter:
            module(x).sum().backward()
        return counter.macs

    wanted = 3 * 15 * (2 * 2 * FEATURES * HIDDEN + 2 * FEATURES * EXPERTS)
    assert counted(torch.float32) == counted(torch.float64) == wanted
