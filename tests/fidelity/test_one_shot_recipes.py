"""The published recipes of ENAS and SPOS: rates, decay, smoothing, dropped paths, the second classifier; and that
searches stored before they had them go on as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.config import restore
from nas_core.evaluation import Context
from nas_core.moves import sample
from nas_core.one_shot import Compute
from nas_core.relax import Mix
from nas_core.seeds import generator
from nas_core.strategy import Proposal, Setting
from search_spaces.darts.space import Darts as DartsSpace
from search_spaces.darts.space import Size as DartsSize
from search_spaces.nasbench201.space import NasBench201, Size
from search_spaces.supernet.picker import MixedOp, SupernetPicker
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.enas import Enas
from strategies.one_shot.gdas import Gdas
from strategies.one_shot.spos import Spos
from strategies.one_shot.weights import SharedWeights, WeightsConfig
from studies.setup.assemble import build, describe
from studies.setup.config import SearchConfig
from training.checkpoint import write_tensors
from training.data import load
from training.data.loading import Loading
from training.data.split import Split
from training.evaluators.supernet import SupernetEvaluator

DIGITS = load("digits", Split(limit=160))
SMALL = DartsSize(channels=2, layers=3, auxiliary=True)


def shared(config: WeightsConfig, auxiliary: bool = False) -> SharedWeights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if auxiliary:
            supernet = Supernet(DartsSpace(), DIGITS.task, SMALL, auxiliary=True)
        else:
            supernet = Supernet(NasBench201(), DIGITS.task, Size(channels=2, cells=1))
    return SharedWeights(supernet, DIGITS.bind("cpu", Loading(batch_size=16)), config, Compute())


def test_the_rate_of_enas_restarts_as_torch_has_it() -> None:
    config = Enas.Config()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2, eta_min=0.0005)
    expected = []
    for _ in range(150):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert [config.learning_rate(epoch) for epoch in range(150)] == pytest.approx(expected)
    assert [epoch for epoch in range(150) if config.learning_rate(epoch) == 0.05] == [0, 10, 30, 70]
    short = Enas.Config(epochs=4)  # a search that is shorter than the first period sees all of it
    assert short.learning_rate(2) == pytest.approx((0.05 + 0.0005) / 2)


def test_the_rate_of_spos_falls_linearly_to_zero() -> None:
    config = Spos.Config(epochs=5)
    assert [config.learning_rate(epoch) for epoch in range(5)] == pytest.approx(
        [0.5 * 64 / 1024 * part for part in (1, 0.8, 0.6, 0.4, 0.2)]
    )


def test_spos_smooths_labels_and_spares_vectors_from_decay() -> None:
    weights = shared(Spos.Config())
    batch = next(weights.data.batches("train", 0, 0))
    mix = weights.supernet.mix_of(sample(NasBench201(), generator(1)))
    weights.supernet.eval()
    logits = weights.forward(batch, mix)
    expected = functional.cross_entropy(logits, batch.target, label_smoothing=0.1)
    torch.testing.assert_close(weights.loss(batch, mix), expected)
    kernels, vectors = weights.optimizer.param_groups
    assert (kernels["weight_decay"], vectors["weight_decay"]) == (4e-5, 0.0)
    assert {x.dim() for x in vectors["params"]} == {1}
    assert min(x.dim() for x in kernels["params"]) > 1
    assert len(kernels["params"]) + len(vectors["params"]) == len(list(weights.supernet.parameters()))


class Scaled(nn.Module):
    """Twice its input."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Same(nn.Module):
    skip = True

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_paths_are_dropped_by_sample_and_skips_never() -> None:
    picker = SupernetPicker()
    mixed = picker.module("edge", {"twice": Scaled, "skip": Same})
    assert isinstance(mixed, MixedOp)
    x = torch.ones(4000, 3)
    torch.manual_seed(0)
    picker.current.mix = Mix({"edge": (0,)}, drop_path=0.25)
    dropped = mixed(x)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0.0, 2 / 0.75])
    assert (dropped == dropped[:, :1]).all()  # whole samples
    assert dropped.mean().item() == pytest.approx(2, abs=0.1)
    picker.current.mix = Mix({"edge": (1,)}, drop_path=0.25)
    assert torch.equal(mixed(x), x)


def test_enas_drops_more_paths_from_epoch_to_epoch_and_none_where_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Enas.Config(epochs=5, batch_size=64, controller_steps=1, aggregate=1, candidates=1)
    strategy = Enas(Setting(NasBench201(), 1, ()), config)
    strategy.start(
        lambda: Supernet(NasBench201(), DIGITS.task, Size(channels=2, cells=1)), DIGITS.bind("cpu"), Compute()
    )
    seen: list[tuple[bool, float]] = []
    forward = Supernet.forward

    def watched(self: Supernet, inputs: tuple[Tensor, ...], mix: Mix) -> Tensor:
        seen.append((self.training, mix.drop_path))
        return forward(self, inputs, mix)

    monkeypatch.setattr(Supernet, "forward", watched)
    for epoch in (0, 2, 4):
        seen.clear()
        strategy.step(epoch)
        assert {dropped for training, dropped in seen if training} == {0.1 * epoch}
        assert {dropped for training, dropped in seen if not training} == {0.0}


def test_the_second_classifier_is_part_of_the_loss_of_enas_alone() -> None:
    weights = shared(Enas.Config(), auxiliary=True)
    batch = next(weights.data.batches("train", 0, 0))
    mix = weights.supernet.mix_of(sample(DartsSpace(), generator(1)))
    weights.supernet.train()
    logits, second = weights.supernet(batch.inputs, mix)
    expected = functional.cross_entropy(logits, batch.target) + 0.4 * functional.cross_entropy(second, batch.target)
    torch.testing.assert_close(weights.loss(batch, mix), expected)
    assert weights.supernet.eval()(batch.inputs, mix).shape == (len(batch.target), 10)
    without = Supernet(DartsSpace(), DIGITS.task, SMALL).train()
    assert isinstance(without(batch.inputs, mix), Tensor)


def test_weights_with_a_second_classifier_are_evaluated_without_it(tmp_path: Path) -> None:
    supernet = shared(Enas.Config(), auxiliary=True).supernet
    path = tmp_path / "weights.safetensors"
    write_tensors(path, supernet.state_dict())
    evaluator = SupernetEvaluator(DartsSpace(), DIGITS, SMALL, path, device="cpu", threads=1, precision="float32")
    arch = sample(DartsSpace(), generator(2))
    (report,) = evaluator.evaluate(Proposal(arch), None, Context(0, tmp_path))
    assert 0 <= report.metrics["supernet_accuracy"] <= 1


def test_searches_stored_before_keep_their_recipe() -> None:
    """A stored configuration names every field that its version knew."""
    new = {"restart_epochs", "restart_factor", "schedule", "label_smoothing", "decay_all", "drop_path", "auxiliary"}
    for strategy, name in ((Enas, "enas"), (Spos, "spos"), (Gdas, "gdas")):
        spec = describe(SearchConfig(strategy=name, size={"channels": 2, "cells": 1}, split=Split(limit=160))).spec
        before = {key: value for key, value in spec.strategy_config.items() if key not in new | {"scalars"}}
        config = build(spec.model_copy(update={"strategy_config": before})).strategy_config
        assert config == restore(strategy.Config, before, "strategy")
        assert isinstance(config, WeightsConfig)
        assert (config.restart_epochs, config.schedule, config.label_smoothing, config.decay_all) == (
            None,
            "cosine",
            0.0,
            True,
        )
        if isinstance(config, Enas.Config):
            assert (config.drop_path, config.auxiliary) == (0.0, False)
        if isinstance(config, Gdas.Config):
            assert config.scalars
        assert build(spec).strategy_config == strategy.Config()


@pytest.mark.parametrize("scalars", [True, False])
def test_entries_that_are_not_drawn_are_part_of_the_loss_as_asked(
    scalars: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Gdas.Config(epochs=1, scalars=scalars, batch_size=16)
    strategy = Gdas(Setting(NasBench201(), 1, ()), config)
    torch.manual_seed(3)
    strategy.start(
        lambda: Supernet(NasBench201(), DIGITS.task, Size(channels=2, cells=1)), DIGITS.bind("cpu"), Compute()
    )
    seen: list[Mix] = []
    forward = Supernet.forward

    def watched(self: Supernet, inputs: tuple[Tensor, ...], mix: Mix) -> Tensor:
        seen.append(mix)
        return forward(self, inputs, mix)

    monkeypatch.setattr(Supernet, "forward", watched)
    with torch.no_grad():  # `none` wins often: some paths are cut off, and depend on no entry without scalars
        for alpha in strategy.alphas:
            alpha[0] = 3.0
    strategy.step(0)
    for mix in seen:
        assert all(len(taken) == 1 for taken in mix.active.values())
        others = {len(taken) for taken in mix.scalars.values()}
        assert others == ({4} if mix.weights and scalars else set())
    assert any(mix.weights for mix in seen)
