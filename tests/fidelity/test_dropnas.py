"""DropNAS (Hong et al., IJCAI 2020): the masks, the adjustment, and what a step leaves as it is."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from nas_core.errors import UsageError
from nas_core.evaluation import Constraint
from nas_core.one_shot import Compute
from nas_core.relax import Group
from nas_core.seeds import derive, generator
from nas_core.strategy import Setting
from search_spaces.nasbench201.space import NasBench201
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.alphas import Alphas, AlphasConfig
from strategies.one_shot.darts import Darts
from strategies.one_shot.dropnas import DropNas, adjustment, classes, draw, step_kept
from training.data import load
from training.data.loading import Loading
from training.data.split import Split

SPACE = NasBench201()
SETTING = Setting(SPACE, 7, ())
DARTS_EDGE = Group("edge", tuple("abcdefgh"), (False,) * 4 + (True,) * 4)
SMALL = {"epochs": 2, "batch_size": 32}


def started(strategy: Any) -> Any:
    data = load("digits", Split(limit=120)).bind("cpu", Loading(batch_size=32, channels_last=True))

    def make() -> Supernet:
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            return Supernet(SPACE, data.task, SPACE.Size(channels=4, cells=1))

    torch.manual_seed(derive(7, "start", "one-shot"))
    strategy.start(make, data, Compute())
    return strategy


def dropnas(**changes: Any) -> DropNas:
    return started(DropNas(SETTING, DropNas.Config(**{**SMALL, **changes})))


def train(strategy: Any, epochs: range) -> list[Any]:
    progress = []
    for epoch in epochs:
        torch.manual_seed(derive(7, epoch, "one-shot"))
        progress.append(strategy.step(epoch))
    return progress


def masks_of(strategy: DropNas, masks: dict[str, np.ndarray]) -> Any:
    return masks, {name: torch.from_numpy(mask) for name, mask in masks.items()}


def test_defaults() -> None:
    config = DropNas.Config()
    assert (config.epochs, config.batch_size, config.lr, config.lr_end) == (76, 96, 0.0375, 0.0015)
    assert (config.grad_clip, config.rate, config.momentum, config.weight_decay) == (3.0, 3e-5, 0.9, 3e-4)
    assert (config.alpha_lr, config.alpha_beta1, config.alpha_beta2) == (3e-4, 0.5, 0.999)
    assert config.alpha_weight_decay == 1e-3


def test_masks_keep_each_operation_with_the_conditional_probability() -> None:
    rng, parts = generator("masks"), classes(DARTS_EDGE)
    assert parts == ((4, 5, 6, 7), (0, 1, 2, 3))
    kept = np.stack([draw(parts, 3e-5, rng) for _ in range(20_000)])
    q = 3e-5**0.25
    assert q == pytest.approx(0.0740, abs=5e-5)
    expected = (1 - q) / (1 - q**4)
    assert expected == pytest.approx(0.92602, abs=1e-4)
    assert kept.mean(0) == pytest.approx(np.full(8, expected), abs=0.006)
    assert kept.mean() == pytest.approx(expected, abs=0.005)
    free, weighted = kept[:, :4].sum(1), kept[:, 4:].sum(1)
    assert free.min() >= 1
    assert weighted.min() >= 1
    assert abs(np.corrcoef(free, weighted)[0, 1]) < 0.02


def test_an_empty_class_is_redrawn() -> None:
    rng = generator("often")
    kept = np.stack([draw(((0, 1), (2,)), 0.25, rng) for _ in range(4000)])
    assert kept[:, :2].any(1).all()
    assert kept[:, 2].all()  # the only one of its class
    # dropped with q = 1/2 each; of the three draws that are not empty two keep a given one
    assert kept[:, 0].mean() == pytest.approx(2 / 3, abs=0.03)


def test_one_class_where_all_candidates_are_of_a_kind() -> None:
    assert classes(Group("g", ("a", "b", "c"), (True, True, True))) == ((0, 1, 2),)
    assert classes(Group("g", ("a", "b"), (False, False))) == ((0, 1),)
    assert set(map(classes, Supernet(SPACE, _task(), SPACE.Size(channels=2, cells=1)).groups.values())) == {
        ((2, 3), (0, 1, 4))
    }


def _task() -> Any:
    return load("digits", Split(limit=20)).task


def test_adjustment_of_the_numeric_example() -> None:
    before, after = torch.zeros(4), torch.tensor([0.3, 0.0, -0.3, 0.0])
    kept = torch.tensor([True, True, True, False])
    assert float(after[:3].exp().sum()) == pytest.approx(3.090677, abs=1e-6)
    k = adjustment(before, after, kept)
    assert float(k) == pytest.approx(-0.029778, abs=1e-6)
    adjusted = torch.where(kept, after + k, after)
    assert float(adjusted.softmax(0)[:3].sum()) == pytest.approx(0.75, abs=1e-7)


def test_adjustment_is_the_published_formula_and_does_not_overflow() -> None:
    torch.manual_seed(0)
    before, kept = torch.randn(6, dtype=torch.float64), torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    after = before + 0.1 * torch.randn(6, dtype=torch.float64)
    rho = before.softmax(0)[kept].sum()
    published = torch.log(rho / (1 - rho) * before[~kept].exp().sum() / after[kept].exp().sum())
    assert float(adjustment(before, after, kept)) == pytest.approx(float(published), abs=1e-12)
    shifted = before + torch.where(kept, 800.0, -800.0)
    assert math.isfinite(float(adjustment(shifted, shifted, kept)))


def test_dropped_entries_and_moments_stay_while_adam_moves_the_others() -> None:
    torch.manual_seed(0)
    groups, rng = {"edge": DARTS_EDGE, "other": DARTS_EDGE}, generator("adam")
    alphas = Alphas(groups, AlphasConfig(alpha_lr=0.02, alpha_std=1.0), torch.device("cpu"))
    drops = 0
    for number in range(60):
        masks = {name: draw(classes(group), 0.3, rng) for name, group in groups.items()}
        kept = {name: torch.from_numpy(mask) for name, mask in masks.items()}
        before = {name: vector.detach().clone() for name, vector in alphas.vectors.items()}
        state = {name: copy.deepcopy(alphas.optimizer.state[vector]) for name, vector in alphas.vectors.items()}
        for name, vector in alphas.vectors.items():
            vector.grad = torch.where(kept[name], torch.randn(8), 0.0)
        step_kept(alphas, masks, kept)
        for name, vector in alphas.vectors.items():
            dropped = ~kept[name]
            drops += int(dropped.sum())
            old, new = before[name].softmax(0), vector.detach().softmax(0)
            assert torch.equal(vector.detach()[dropped], before[name][dropped])
            assert not torch.equal(vector.detach()[~dropped], before[name][~dropped])
            if dropped.any():
                assert new[dropped].tolist() == pytest.approx(old[dropped].tolist(), abs=1e-6)
                assert float(new[~dropped].sum()) == pytest.approx(float(old[~dropped].sum()), abs=1e-6)
            for key in ("exp_avg", "exp_avg_sq"):
                moment = alphas.optimizer.state[vector][key]
                expected = state[name][key] if number else torch.zeros(8)
                assert torch.equal(moment[dropped], expected[dropped])
                assert not torch.equal(moment[~dropped], expected[~dropped])
    assert drops > 100


def test_a_step_leaves_alone_what_it_drops_everywhere() -> None:
    strategy = dropnas(alpha_lr=0.01)
    train(strategy, range(1))  # momentum and moments are there
    keep = np.array([True, True, False, True, True])  # nor_conv_1x1 is dropped on every edge
    masks, kept = masks_of(strategy, dict.fromkeys(strategy.supernet.groups, keep))
    before = {name: tensor.clone() for name, tensor in strategy.supernet.state_dict().items()}
    shares = strategy._strengths()
    batch = next(strategy.weights.data.batches("train", 1, 7))
    strategy.alphas.zero_grad()
    strategy.weights.step(batch, strategy.mix(masks, kept))
    step_kept(strategy.alphas, masks, kept)
    dropped = [name for name in before if ".operations.2." in name]
    kernels = [name for name in before if ".operations.3." in name and name.endswith("0.weight")]
    after = strategy.supernet.state_dict()
    assert dropped
    assert all(torch.equal(before[name], after[name]) for name in dropped)
    assert len(kernels) == 18
    assert not any(torch.equal(before[name], after[name]) for name in kernels)
    for name, share in strategy._strengths().items():
        assert float(share[2]) == pytest.approx(float(shares[name][2]), abs=1e-6)
        assert not torch.equal(share, shares[name])


def test_the_mix_is_a_softmax_over_what_is_kept() -> None:
    strategy = dropnas()
    name = next(iter(strategy.supernet.groups))
    keep = {group: np.array([True] * 5) for group in strategy.supernet.groups}
    keep[name] = np.array([False, True, True, False, True])
    mix = strategy.mix(*masks_of(strategy, keep))
    assert mix.active[name] == (1, 2, 4)
    logits = strategy.alphas.vectors[name]
    assert torch.allclose(mix.weights[name][[1, 2, 4]], logits[[1, 2, 4]].softmax(0))
    assert mix.weights[name][[0, 3]].tolist() == [0.0, 0.0]
    mix.weights[name][1].backward()
    assert logits.grad is not None
    assert logits.grad[[0, 3]].tolist() == [0.0, 0.0]


def test_without_drops_it_is_single_level_darts() -> None:
    config = DropNas.Config(**SMALL, rate=0.0, alpha_lr=0.01)
    shared = {name: getattr(config, name) for name in Darts.Config.model_fields if hasattr(config, name)}
    darts = started(Darts(SETTING, Darts.Config(**shared, bilevel=False, order=1)))
    ours = started(DropNas(SETTING, config))
    theirs = train(darts, range(2))
    for one, other in zip(train(ours, range(2)), theirs, strict=True):
        assert one.strengths == other.strengths
        assert one.metrics["train_loss"] == other.metrics["train_loss"]
    mine = ours.supernet.state_dict()
    for name, tensor in darts.supernet.state_dict().items():
        assert torch.equal(tensor, mine[name])
    assert train(dropnas(alpha_lr=0.01), range(2))[-1].scores != theirs[-1].scores


def test_goes_on_from_its_state_bit_for_bit() -> None:
    whole = dropnas()
    train(whole, range(1))
    state = copy.deepcopy(whole.state_dict())
    last = train(whole, range(1, 2))[0]
    resumed = dropnas()
    resumed.load_state_dict(state)
    assert train(resumed, range(1, 2))[0] == last
    again = resumed.supernet.state_dict()
    for name, tensor in whole.supernet.state_dict().items():
        assert torch.equal(tensor, again[name])
    assert resumed.result() == [last.arch]
    assert torch.equal(whole.relaxed().weights["cell/edge.0-1"], torch.tensor(last.strengths["cell/edge.0-1"]))


def test_refuses_constraints() -> None:
    with pytest.raises(UsageError, match=r"params<=5.*rc-darts"):
        DropNas(Setting(SPACE, 0, (), (Constraint("params", "<=", 5.0),)), DropNas.Config())
