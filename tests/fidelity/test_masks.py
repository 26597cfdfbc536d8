"""Unstructured compression: what the papers say of each method, exact counts, zeros that stay."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from compressors.compressor import Plan, Subject
from compressors.importance.passes import drawn
from compressors.masks.density import counts, density, prunable
from compressors.masks.grasp import Grasp, balanced
from compressors.masks.kept import Kept
from compressors.masks.lottery import Lottery
from compressors.masks.magnitude import Magnitude, recurrent
from compressors.masks.masking import Masking, along_inputs, shared_out
from compressors.masks.oba import Oba
from compressors.masks.random import Random
from compressors.masks.snip import Snip
from compressors.masks.synflow import SynFlow
from compressors.masks.taylor import Taylor
from compressors.target import parse_targets
from nas_core.batch import Data
from nas_core.errors import UsageError
from training.checkpoint import storable
from training.data import load
from training.data.loading import Loading
from training.data.source import Source
from training.data.split import Split
from training.fit import fit
from training.flow import positive
from training.recipe import Recipe, recipe

CPU = torch.device("cpu")
SCOPES = ("blind", "uniform", "distribution")
EVERY = (Magnitude, Random, Snip, Grasp, SynFlow, Taylor, Oba, Lottery)


@cache
def digits() -> tuple[Source, Data]:
    source = load("digits", Split(limit=160))
    return source, source.bind("cpu", Loading(batch_size=16))


def mlp(seed: int = 0, bias: bool = True) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *(nn.Flatten(), nn.Linear(64, 40, bias), nn.ReLU(), nn.Linear(40, 20, bias), nn.ReLU()),
            nn.Linear(20, 10, bias),
        )


def deep(seed: int = 0) -> nn.Module:
    """Convolutions whose widths grow as those of VGG do."""
    widths = (8, 8, 16, 16, 32, 32, 32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((1, *widths)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


class Steps(nn.Module):
    """Rows of an image as steps of two recurrent layers."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.layers = kind(8, 6, num_layers=2)
        self.norm = nn.LayerNorm(6)
        self.classifier = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.norm(self.layers(x.squeeze(1).transpose(0, 1))[0][-1]))


def subject(target: str | None = "density<=0.2", make: Callable[[], nn.Module] = mlp, **others: Any) -> Subject:
    source, data = digits()
    targets = parse_targets([target] if target else [])
    given = {"base": {"density": 1.0}, "initial": make, "recipe": recipe("quick", source.task, epochs=1), **others}
    return Subject(source.task, data, CPU, 3, targets=targets, **given)


def made(kind: type[Masking], of: Subject, **settings: Any) -> Any:
    return kind(of, kind.Config(**settings))


def masked(kind: type[Masking], network: nn.Module, target: str | None = "density<=0.2", **settings: Any) -> nn.Module:
    made(kind, subject(target, lambda: copy.deepcopy(network)), **settings).compress(network, 0)
    return network


def left(network: nn.Module) -> list[int]:
    return [nonzero for nonzero, _ in counts(prunable(network)).values()]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_method_leaves_exactly_what_the_target_says_and_the_same_every_time(kind: type[Masking]) -> None:
    network, again = mlp(), mlp()
    settings = {"rounds": 1} if kind is Lottery else {}
    method = made(kind, subject(), **settings)
    plan = method.plan(network)
    change = method.compress(network, 0)
    total = 64 * 40 + 40 * 20 + 20 * 10
    assert sum(left(network)) == total // 5
    assert isinstance(plan, Plan)
    assert plan.costs["density"] == density(network)
    assert sum(one["zeros"] for one in change.report.values()) == total - total // 5
    assert "no speed" in change.notes[0]
    made(kind, subject(), **settings).compress(again, 0)
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), again.parameters(), strict=True))


def test_class_blind_is_one_threshold_and_class_uniform_the_same_share(tmp_path: Path) -> None:
    """sparse-rnn card, check 1; the zeros are counted from the stored file."""
    blind, uniform, distribution = (masked(Magnitude, mlp(), scope=scope) for scope in SCOPES)
    dense = prunable(mlp())
    shares = []
    for network in (blind, uniform, distribution):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(safetensors.torch.save(storable(network.state_dict())))
        stored = {name: one for name, one in safetensors.torch.load_file(path).items() if name in dense}
        zeros = sum(int((one == 0).sum()) for one in stored.values())
        assert abs(zeros - 0.8 * 3560) <= 1
        shares.append([float((one != 0).float().mean()) for one in stored.values()])
        assert density(network) == (3560 - zeros) / 3560
    kept = torch.cat([weight.detach().abs()[weight != 0] for weight in prunable(blind).values()])
    gone = torch.cat([dense[name].detach().abs()[weight == 0] for name, weight in prunable(blind).items()])
    assert kept.min() >= gone.max()
    assert max(shares[0]) - min(shares[0]) > 0.2
    assert shares[1] == pytest.approx([0.2] * 3, abs=1 / 200)
    # Initial weights of torch's layers are uniform: divided by their deviation they are alike in all layers.
    assert shares[2] == pytest.approx([0.2] * 3, abs=0.05)


def test_shares_are_exact_to_one() -> None:
    given = shared_out({"a": 7, "b": 11, "c": 1}, 10)
    assert sum(given.values()) == 10
    assert all(abs(given[name] - size * 10 / 19) < 1 for name, size in (("a", 7), ("b", 11), ("c", 1)))


def test_synflow_is_conserved_at_every_hidden_neuron() -> None:
    """Theorem 1 of the paper: what comes in (weights and bias) is what goes out."""
    model = positive(mlp(bias=False))
    flows = made(SynFlow, subject()).flows(model, prunable(model))
    first, second, third = flows.values()
    assert torch.allclose(first.sum(1), second.sum(0), rtol=1e-12)
    assert torch.allclose(second.sum(1), third.sum(0), rtol=1e-12)
    # R itself flows through every layer.
    assert float(first.sum()) == pytest.approx(float(third.sum()), rel=1e-12)


def test_synflow_empties_no_layer_where_one_shot_scores_do() -> None:
    """The paper's layer collapse: at 1% density in 100 steps no layer is empty, in one step SNIP's are."""
    assert min(left(masked(SynFlow, deep(), "density<=0.01"))) > 0
    assert min(left(masked(Snip, deep(), "density<=0.01"))) == 0
    assert min(left(masked(SynFlow, deep(), "density<=0.01", iterations=1))) == 0


def test_synflow_reads_no_data_and_neither_norms_nor_signs() -> None:
    network, other = deep(), deep()
    with torch.no_grad():
        for module in other.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(), module.running_var.fill_(7)  # type: ignore[union-attr, operator]
        for weight in prunable(other).values():
            weight.neg_()
    source, _ = digits()
    config = {"iterations": 3, "weights": "trained"}
    for each in (network, other):
        blind = Subject(source.task, None, CPU, 0, targets=parse_targets(["density<=0.1"]))  # type: ignore[arg-type]
        made(SynFlow, blind, **config).compress(each, 0)
    for one, two in zip(prunable(network).values(), prunable(other).values(), strict=True):
        assert torch.equal(one != 0, two != 0)


def test_snip_is_the_derivative_by_a_factor_at_one() -> None:
    _, data = digits()
    network = mlp()
    weights = prunable(network)
    scores = made(Snip, subject()).scores(network, weights, 0)
    factors = {name: torch.ones_like(weight, requires_grad=True) for name, weight in weights.items()}
    (batch,) = drawn(subject(), 0, 1)
    scaled = {name: weight.detach() * factors[name] for name, weight in weights.items()}
    output = torch.func.functional_call(network, {**dict(network.named_parameters()), **scaled}, batch.inputs)
    found = torch.autograd.grad(data.loss(output, batch), list(factors.values()))
    for score, gradient in zip(scores.values(), found, strict=True):
        assert torch.allclose(score, gradient.abs(), atol=1e-7)


def test_grasp_masks_what_hinders_the_gradient_flow_least() -> None:
    """Equation 8: -theta * (H g) is, to first order, what removing a weight adds to half of |g|^2; the largest go."""
    _, data = digits()
    network = mlp().double()
    batch = balanced(subject(), 10)
    batch = type(batch)(tuple(one.double() for one in batch.inputs), batch.target)
    weights = prunable(network)

    class Wide:
        task = data.task
        loss = staticmethod(data.loss)
        targets = data.targets

        def batches(self, part: str, epoch: int, seed: int) -> Any:
            yield batch

    def flow(named: Mapping[str, Tensor]) -> Tensor:
        output = torch.func.functional_call(network, {**dict(network.named_parameters()), **named}, batch.inputs)
        loss = nn.functional.cross_entropy(output / 200, batch.target)
        return sum(one.square().sum() for one in torch.autograd.grad(loss, list(named.values())))  # type: ignore

    scores = made(Grasp, replace(subject(recipe=None), data=Wide()), weights="trained").scores(network, weights, 0)
    leaves = {name: one.detach().requires_grad_() for name, one in weights.items()}
    step = 1e-3
    for name, row, column in (("5.weight", 3, 7), ("3.weight", 2, 5), ("1.weight", 8, 20)):
        changed = {}
        for sign in (1, -1):
            value = leaves[name].detach().clone()
            value[row, column] *= 1 - sign * step
            changed[sign] = flow({**leaves, name: value.requires_grad_()})
        added = float(changed[1] - changed[-1]) / (2 * step) / 2
        assert -float(scores[name][row, column]) == pytest.approx(added, rel=1e-4)


def test_grasp_takes_as_many_of_every_class() -> None:
    _, data = digits()
    assert balanced(subject(), 4).target.bincount().tolist() == [4] * 10
    everything = data.targets("train").bincount()
    assert torch.equal(balanced(subject(), 10_000).target.bincount(), everything)


def test_elements_of_taylor_and_oba_are_homogeneous() -> None:
    """oba card, check 1, by layer: sum theta g = f and sum theta (H theta) = (L - 1) f, where f is a sum of outputs."""
    network = mlp(bias=False).double()
    _, data = digits()
    batch = next(iter(data.batches("train", 0, 3)))
    inputs = tuple(one.double() for one in batch.inputs)

    class Summed:
        task = data.task

        def loss(self, output: Tensor, batch: Any) -> Tensor:
            return output.sum()

        def batches(self, part: str, epoch: int, seed: int) -> Any:
            yield type(batch)(inputs, batch.target)

    total = float(network(*inputs).detach().sum())
    of = replace(subject(recipe=None), data=Summed())
    second = made(Oba, of, classifier=True).elements(network, prunable(network), 0)
    first = made(Taylor, of).elements(network, prunable(network), 0)
    for name in second:
        assert float(first[name].sum()) == pytest.approx(total, rel=1e-12)
        assert float(second[name].sum()) == pytest.approx(2 * total, rel=1e-12)


def test_oba_is_no_taylor_and_leaves_the_classifier() -> None:
    oba, taylor = masked(Oba, mlp(), "density<=0.3"), masked(Taylor, mlp(), "density<=0.3")
    assert left(oba)[-1] == 200
    assert any(
        not torch.equal(one != 0, two != 0)
        for one, two in zip(prunable(oba).values(), prunable(taylor).values(), strict=True)
    )


@pytest.mark.parametrize(
    "plan",
    [
        {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "ema": 0.9, "grad_clip": 1.0},
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1, "keep": "best"},
        {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
    ],
    ids=lambda plan: str(plan["optimizer"]),
)
def test_zeros_stay_through_momentum_and_decay(plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """sparse-rnn card, check 2: after every one of 18 steps exactly the same weights are 0, and the others move."""
    network = masked(Magnitude, mlp())
    before = {name: weight.detach().clone() for name, weight in prunable(network).items()}
    seen = []
    after = Kept.after_step

    def checked(self: Kept) -> None:
        after(self)
        seen.append(all(torch.equal(weight == 0, before[name] == 0) for name, weight in prunable(network).items()))

    monkeypatch.setattr(Kept, "after_step", checked)
    _, data = digits()
    list(fit(network, data, Recipe(epochs=2, **plan), device=CPU, seed=0, regimes=(Kept(),)))
    assert seen == [True] * 18
    for name, weight in prunable(network).items():
        assert torch.equal(weight == 0, before[name] == 0)
        assert (weight != before[name])[weight != 0].float().mean() > 0.9


def test_a_resumed_training_keeps_the_same_zeros(tmp_path: Path) -> None:
    _, data = digits()
    plan = Recipe(epochs=2, optimizer="adamw", lr=0.01, weight_decay=0.1, ema=0.9)
    whole, parted, resumed = (masked(Magnitude, mlp()) for _ in range(3))
    list(fit(whole, data, plan, device=CPU, seed=0, regimes=(Kept(),)))
    list(fit(parted, data, plan, device=CPU, seed=0, regimes=(Kept(),), budget=1, folder=tmp_path))
    list(fit(resumed, data, plan, device=CPU, seed=0, regimes=(Kept(),), folder=tmp_path))
    assert density(whole) == 0.2
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_masked_weights_have_no_gradient() -> None:
    """Otherwise the norm that gradients are clipped by would be that of the dense network."""
    network = masked(Magnitude, mlp())
    regime = Kept()
    _, data = digits()
    batch = next(iter(data.batches("train", 0, 0)))
    regime.begin(network, lambda *_: None, batch, 0)  # type: ignore[arg-type]
    data.loss(network(*batch.inputs), batch).backward()
    for weight in prunable(network).values():
        assert not weight.grad[weight == 0].any()  # type: ignore[index]
    regime.end()
    data.loss(network(*batch.inputs), batch).backward()
    assert any(weight.grad[weight == 0].any() for weight in prunable(network).values())  # type: ignore[index]


def test_whatever_moves_a_masked_weight_it_is_0_after_the_step() -> None:
    network = masked(Magnitude, mlp())
    zeros = {name: weight == 0 for name, weight in prunable(network).items()}
    _, data = digits()
    regime = Kept()
    regime.begin(network, lambda *_: None, next(iter(data.batches("train", 0, 0))), 0)  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in prunable(network).values():
            weight.fill_(-1)
    regime.after_step()
    assert all(torch.equal(weight == 0, zeros[name]) for name, weight in prunable(network).items())


@pytest.mark.parametrize("kind", [Random, Magnitude, Taylor, Oba])
def test_what_is_masked_already_stays_so(kind: type[Masking]) -> None:
    network = masked(kind, mlp(), "density<=0.5")
    before = {name: weight == 0 for name, weight in prunable(network).items()}
    made(kind, replace(subject("density<=0.25"), seed=9)).compress(network, 0)
    assert density(network) == 0.25
    assert all(bool((weight == 0)[before[name]].all()) for name, weight in prunable(network).items())


def test_rounds_take_the_same_share_each_time() -> None:
    network = mlp()
    method = made(Magnitude, subject("density<=0.125"), rounds=3)
    assert len(method.rounds) == 3
    found = []
    for round in range(3):
        method.compress(network, round)
        found.append(density(network))
    assert found == pytest.approx([0.5, 0.25, 0.125], abs=1e-3)


def test_lottery_rewinds_to_the_initial_weights_exactly() -> None:
    """Masks by the trained magnitudes, values from before the training, round by round; biases and norms too."""
    network, initial = mlp(seed=5), mlp()
    trained = {name: weight.detach().abs() for name, weight in prunable(network).items()}
    method = made(Lottery, subject("density<=0.5"))
    assert len(method.rounds) == 4  # 0.8^3 is above a half, 0.8^4 is not
    method.compress(network, 0)
    assert density(network) == pytest.approx(0.5 ** (1 / 4), abs=1e-3)
    for name, weight in prunable(network).items():
        assert torch.equal(weight, prunable(initial)[name] * (weight != 0))
    kept = torch.cat([trained[name][weight != 0] for name, weight in prunable(network).items()])
    gone = torch.cat([trained[name][weight == 0] for name, weight in prunable(network).items()])
    assert kept.min() >= gone.max()
    assert torch.equal(network[1].bias, initial[1].bias)  # type: ignore[index]


def test_late_rewinding_is_to_the_first_steps_of_a_training() -> None:
    """Step k is where `fit` is after k steps: nine steps are one epoch of it."""
    _, data = digits()
    of = subject("density<=0.5")
    assert of.recipe is not None
    network, epoch = mlp(seed=5), mlp()
    made(Lottery, of, rounds=1, rewind=9).compress(network, 0)
    list(fit(epoch, data, of.recipe, device=CPU, seed=of.seed))
    for name, weight in prunable(network).items():
        assert torch.equal(weight, prunable(epoch)[name] * (weight != 0))
    step, begun = mlp(seed=5), mlp()
    made(Lottery, of, rounds=1, rewind=1).compress(step, 0)
    assert not torch.equal(step[1].bias, begun[1].bias)  # type: ignore[index]
    assert not torch.equal(step[1].bias, epoch[1].bias)  # type: ignore[index]
    with pytest.raises(UsageError, match="10 steps are more than the 9 of 1 epochs"):
        made(Lottery, of, rounds=1, rewind=10).compress(mlp(), 0)


@pytest.mark.parametrize("make", [mlp, deep])
def test_two_of_four_along_the_inputs(make: Callable[[], nn.Module]) -> None:
    network, dense = masked(Magnitude, make(), None, pattern="2:4"), make()
    for name, weight in prunable(network).items():
        if weight.shape[1] % 4:
            assert torch.equal(weight, prunable(dense)[name])
            continue
        fours = weight.detach().movedim(1, -1).unflatten(-1, (-1, 4))
        there = prunable(dense)[name].detach().movedim(1, -1).unflatten(-1, (-1, 4)).abs()
        assert torch.equal((fours != 0).sum(-1), torch.full(fours.shape[:-1], 2))
        assert bool((fours.abs().amax(-1) == there.amax(-1)).all())
    both = masked(Magnitude, make(), "density<=0.3", pattern="2:4")
    assert density(both) == pytest.approx(0.3, abs=1e-3)
    assert all(bool((along_inputs(one.abs(), 2, 4) | (one == 0)).all()) for one in prunable(both).values())


def test_a_new_target_scores_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Any] = {}
    made(Taylor, subject(cache=kept)).compress(mlp(), 0)
    fresh, again = mlp(), mlp()
    made(Taylor, subject("density<=0.1")).compress(fresh, 0)
    monkeypatch.setattr(Taylor, "scores", None)
    made(Taylor, subject("density<=0.1", cache=kept)).compress(again, 0)
    assert all(torch.equal(one, other) for one, other in zip(fresh.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("which", ["ih", "hh", "both"])
def test_recurrent_sets_are_masked_jointly(kind: type[nn.RNNBase], which: str) -> None:
    """sparse-rnn card, A: one threshold over the chosen weights of all layers; biases and all else stay."""
    network = Steps(kind)
    dense = copy.deepcopy(network)
    masked(Magnitude, network, None, which=which, density=0.4)
    chosen = recurrent(network, which)
    assert len(chosen) == {"ih": 2, "hh": 2, "both": 4}[which]
    found = dict(network.named_parameters())
    entries = sum(found[name].numel() for name in chosen)
    zeros = sum(int((found[name] == 0).sum()) for name in chosen)
    assert abs(zeros - 0.6 * entries) <= 1
    for name, weight in dense.named_parameters():
        if name not in chosen:
            assert torch.equal(weight, found[name])
    kept = torch.cat([found[name].detach().abs()[found[name] != 0] for name in chosen])
    gone = torch.cat([dict(dense.named_parameters())[name].detach().abs()[found[name] == 0] for name in chosen])
    assert kept.min() >= gone.max()


def test_what_counts_as_a_weight() -> None:
    assert list(prunable(Steps())) == [
        *(f"layers.weight_{which}_l{layer}" for layer in (0, 1) for which in ("ih", "hh")),
        "classifier.weight",
    ]
    shared = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "head": nn.Linear(4, 5), "norm": nn.LayerNorm((2, 4))})
    shared["head"].weight = shared["embedding"].weight
    assert not prunable(shared)
    assert density(shared) == 1.0
    attention = nn.MultiheadAttention(8, 2)
    assert list(prunable(attention)) == ["in_proj_weight", "out_proj.weight"]


@pytest.mark.parametrize(
    ("given", "settings", "words"),
    [
        ({"target": None}, {}, "say how many weights stay"),
        ({"target": "macs<=0.5x"}, {}, "masks leave shapes, macs and params as they are"),
        ({}, {"pattern": "4:4"}, "pattern 4:4 masks nothing"),
        ({"target": "density<=1"}, {}, "nothing is to be masked: .* is 1 already"),
        ({"ignored": ("1", "3", "5")}, {}, "no weight that could be masked: 1.weight: its module is ignored"),
        ({"ignored": ("1",)}, {}, "cannot be met: 2,560 of 3,560 weights are not masked, which is a density of 0.7191"),
    ],
)
def test_what_cannot_be_is_said(given: dict[str, Any], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(Magnitude, subject(**given), **settings).plan(mlp())


def test_weights_that_are_no_numbers_are_refused() -> None:
    network = mlp()
    with torch.no_grad():
        network[1].weight[0, 0] = float("nan")  # type: ignore[index]
    with pytest.raises(UsageError, match=r"the weights '1.weight' are not finite"):
        made(Magnitude, subject()).compress(network, 0)


@pytest.mark.parametrize("kind", [Snip, Grasp, SynFlow, Lottery])
def test_initial_weights_must_be_known(kind: type[Masking]) -> None:
    with pytest.raises(UsageError, match="the weights before the training of this network are not known"):
        made(kind, subject(initial=None))
