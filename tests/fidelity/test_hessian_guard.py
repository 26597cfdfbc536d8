"""R-DARTS' early stop: the eigenvalue against the whole Hessian, the rule on made-up sequences, resumption."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import strategies
from nas_core import refs
from nas_core.config import validate
from nas_core.errors import TrialError, UsageError
from nas_core.evaluation import Objective
from nas_core.one_shot import Compute, OneShot, OneShotConfig
from nas_core.relax import Mix
from nas_core.seeds import derive
from nas_core.strategy import Setting
from search_spaces.nasbench201.space import NasBench201, Size
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot import guard
from strategies.one_shot.guard import HessianGuard, dominant_eigenvalue, stop_epoch
from training import checkpoint
from training.data import load
from training.data.loading import Loading
from training.data.split import Split

SPACE = NasBench201()
SETTING = Setting(SPACE, 3, (Objective("val_accuracy", "max"),))
INNER = {"epochs": 12, "alpha_std": 0.3, "alpha_lr": 0.05}


@pytest.fixture(scope="module")
def data() -> Any:
    return load("digits", Split(limit=80)).bind("cpu", Loading(batch_size=32, channels_last=True))


def started(data: Any, inner: str = "darts", inner_config: dict[str, Any] = INNER, **config: Any) -> Any:
    def make() -> Supernet:
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            return Supernet(SPACE, data.task, Size(channels=4, cells=1))

    made = HessianGuard(
        SETTING, validate(HessianGuard.Config, {"inner": inner, "inner_config": inner_config, **config}, "strategy")
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(2)
        made.start(make, data, Compute())
    return made


def step(strategy: Any, epoch: int) -> Any:
    with torch.random.fork_rng([]):
        torch.manual_seed(epoch)
        return strategy.step(epoch)


@pytest.mark.parametrize("values", [[3.0, -7.0, 2.0, 0.0], [-1.0, -2.0, -3.0], [5.0, 5.0, 5.0, 1.0], [4.0]])
def test_largest_eigenvalue_of_a_quadratic(values: list[float]) -> None:
    """The largest, not the largest in magnitude; also among equal ones, and where all are negative."""
    size = len(values)
    draws = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=draws, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T
    x = torch.randn(size, generator=draws, dtype=torch.float64)
    parts = [x[: size // 2].clone().requires_grad_(), x[size // 2 :].clone().requires_grad_()]
    whole = torch.cat(parts)
    loss = whole @ matrix @ whole / 2
    assert dominant_eigenvalue(loss, parts, 0) == pytest.approx(max(values), rel=1e-6)


def test_a_linear_loss_is_flat() -> None:
    x, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    assert dominant_eigenvalue(3 * x.sum(), [x, unused], 0) == 0.0


def test_a_curvature_that_is_not_finite_ends_the_search() -> None:
    x = torch.zeros(3, requires_grad=True)
    with pytest.raises(TrialError, match="not finite"):
        dominant_eigenvalue(x.sqrt().sum(), [x], 0)


def test_eigenvalue_on_a_supernet_is_that_of_the_whole_hessian(data: Any) -> None:
    made = started(data)
    step(made, 0)
    state = copy.deepcopy(made.supernet.state_dict())
    progress = step(made, 1)
    assert any(not torch.equal(value, state[name]) for name, value in made.supernet.state_dict().items())

    net = copy.deepcopy(made.supernet).double().to(memory_format=torch.contiguous_format).train()
    names = list(made.inner.alphas.vectors)
    batch = next(iter(data.batches("alphas", 1, derive(SETTING.seed, "hessian"))))
    images = batch.inputs[0].double().contiguous()

    def loss(vector: Tensor) -> Tensor:
        parts = dict(zip(names, vector.split(5), strict=True))
        mix = Mix(made.inner.relaxed().active, {name: part.softmax(0) for name, part in parts.items()})
        return nn.functional.cross_entropy(net([images], mix), batch.target)

    point = torch.cat([vector.detach().double() for vector in made.inner.alphas])
    hessian = torch.autograd.functional.hessian(loss, point)
    exact = float(torch.linalg.eigvalsh(hessian)[-1])
    assert exact > 1e-3
    assert progress.metrics["alpha_eigenvalue"] == pytest.approx(exact, rel=1e-3)


def test_the_guard_changes_nothing_but_the_end(data: Any) -> None:
    """Statistics, weights and architecture parameters are those of the search without it."""
    made = started(data)
    free = refs.find("darts", strategies.ONE_SHOT, strategies.GROUP, "strategy")
    alone = free(SETTING, free.Config(**INNER))
    with torch.random.fork_rng([]):
        torch.manual_seed(2)
        alone.start(lambda: _fresh(data), data, Compute())
    for epoch in range(2):
        guarded, plain = step(made, epoch), step(alone, epoch)
        assert guarded.metrics == {**plain.metrics, "alpha_eigenvalue": guarded.metrics["alpha_eigenvalue"]}
        assert (guarded.arch, guarded.scores, guarded.done) == (plain.arch, plain.scores, False)
    state = made.supernet.state_dict()
    for name, value in alone.supernet.state_dict().items():
        assert torch.equal(state[name], value), name
    assert all(parameter.requires_grad for parameter in made.supernet.parameters())
    assert made.result() == alone.result()


def _fresh(data: Any) -> Supernet:
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        return Supernet(SPACE, data.task, Size(channels=4, cells=1))


def stops(eigenvalues: list[float], window: int = 5, ratio: float = 0.75, first: int = 0) -> tuple[int, int] | None:
    """After how many epochs a search stops, and the epoch that it goes back to."""
    for count in range(1, len(eigenvalues) + 1):
        back = stop_epoch(eigenvalues[:count], window, ratio, first)
        if back is not None:
            return count, back
    return None


def test_the_rule() -> None:
    assert stops([1.0] * 50) is None
    assert stops([1 / (1 + epoch) for epoch in range(50)]) is None
    # Over 5 epochs a growth by 1.05 each is 1.28, below 1 / 0.75; by 1.07 it is 1.40.
    assert stops([1.05**epoch for epoch in range(50)], first=2) is None
    assert stops([1.07**epoch for epoch in range(50)], first=2) == (10, 2)
    assert stops([1.07**epoch for epoch in range(50)], first=10) == (18, 10)
    # A step from 1 to 3 after 20 epochs: the mean around epoch 19 has two of the threes (1.8), that around 18 one
    # (1.4 > 1 / 0.75), known after epoch 20, 5 epochs after 13.
    assert stops([1.0] * 20 + [3.0] * 20) == (21, 13)
    # One outlier of 2 is smoothed away (1.2), one of 3 is not (1.4).
    assert stops([1.0] * 20 + [2.0] + [1.0] * 20) is None
    assert stops([1.0] * 20 + [3.0] + [1.0] * 20) == (21, 13)
    assert stops([1.0, 2.0, 4.0], window=1) == (2, 0)
    # Curvature that was none grows by any factor.
    assert stops([0.0] * 10 + [1.0] * 10) == (11, 3)
    assert stops([0.0] * 20) is None


def test_the_start_is_smoothed_over_what_there_is() -> None:
    """Around epoch 0 the mean is that of epochs 0 to 2."""
    values = [3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert stop_epoch([*values[:-3], 2.2, 2.2, 2.2], 5, 0.95, 0) is None  # 1.67 before, 1.72 now
    assert stop_epoch([*values[:-3], 2.5, 2.5, 2.5], 5, 0.95, 0) == 0  # 1.67 before, 1.9 now


def _sharp(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    remaining = iter(values)
    monkeypatch.setattr(guard, "dominant_eigenvalue", lambda *given: next(remaining))


def test_a_stopped_search_goes_back(data: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = started(data, window=2, first_epoch=1)
    _sharp(monkeypatch, [1.0, 1.0, 1.0, 1.0, 2.0])  # the mean around epoch 3 is 1.5, known after epoch 4
    progress = [step(made, epoch) for epoch in range(5)]
    assert [each.done for each in progress] == [False] * 4 + [True]
    assert progress[-1].arch == progress[1].arch
    assert progress[-1].strengths == progress[1].strengths != progress[3].strengths
    assert progress[-1].metrics["alpha_eigenvalue"] == 2.0
    assert made.result() == [progress[1].arch]
    scores = {name: vector.softmax(0).tolist() for name, vector in made.inner.alphas.vectors.items()}
    assert scores == {name: pytest.approx(list(found)) for name, found in progress[1].strengths.items()}
    resumed = _reloaded(made, started(data, window=2, first_epoch=1), tmp_path)
    assert resumed.result() == made.result()


def _reloaded(made: Any, fresh: Any, folder: Path) -> Any:
    tensors, plain = checkpoint.pack(made.state_dict())
    checkpoint.save(folder, checkpoint.Checkpoint(1, tensors, plain))
    stored = checkpoint.load(folder)
    assert stored is not None
    fresh.load_state_dict(checkpoint.unpack(stored.tensors, stored.state))
    return fresh


def test_resumed_is_uninterrupted(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over a stop whose decision needs epochs from before."""
    whole = started(data, window=1, ratio=0.01, first_epoch=0)
    assert isinstance(whole, OneShot)
    for epoch in range(2):
        step(whole, epoch)
    resumed = _reloaded(whole, started(data, window=1, ratio=0.01, first_epoch=0), tmp_path)
    one, other = step(whole, 2), step(resumed, 2)
    assert one == other
    assert not one.done
    assert resumed.eigenvalues == whole.eigenvalues
    assert len(whole.eigenvalues) == 3
    for strategy in (whole, resumed):
        _sharp(monkeypatch, [1e6])
        assert step(strategy, 3).done
    state = resumed.supernet.state_dict()
    for name, value in whole.supernet.state_dict().items():
        assert torch.equal(state[name], value), name
    for left, right in zip(whole.inner.alphas, resumed.inner.alphas, strict=True):
        assert torch.equal(left, right)
    assert whole.result() == resumed.result() == [one.arch]


def test_the_loop_reads_the_settings_of_the_inner_strategy() -> None:
    config = validate(
        HessianGuard.Config,
        {"inner": "darts", "inner_config": {"epochs": 7, "batch_size": 16, "flip": True}},
        "strategy",
    )
    assert isinstance(config, OneShotConfig)
    assert (config.epochs, config.batch_size, config.crop, config.flip) == (7, 16, 0, True)
    assert config.inner_config["momentum"] == 0.9  # defaults are stored
    assert validate(HessianGuard.Config, config.model_dump(mode="json"), "strategy") == config
    assert validate(HessianGuard.Config, {}, "strategy").epochs == 50
    assert not config.float32_only
    assert validate(HessianGuard.Config, {"inner_config": {"order": 2}}, "strategy").float32_only


def test_bad_settings(tmp_path: Path) -> None:
    def refused(**given: Any) -> str:
        with pytest.raises(UsageError) as caught:
            validate(HessianGuard.Config, given, "strategy hessian-guard")
        return str(caught.value)

    other = tmp_path / "other.py"
    other.write_text("from nas_core.one_shot import OneShotConfig\nclass Sampled:\n    Config = OneShotConfig\n")
    message = refused(inner=f"{other}:Sampled")
    assert "Sampled' has no architecture parameters" in message
    assert "darts" in message.partition("these have:")[2]
    assert "hessian-guard" not in message.partition("these have:")[2]
    assert "hessian-guard' has no architecture parameters" in refused(inner="hessian-guard")
    assert "set inner_config.epochs" in refused(inner_config={"epochs": 5}, epochs=6)
    assert "unknown key 'epoch'; did you mean 'epochs'?" in refused(inner_config={"epoch": 5})
    assert "window" in refused(window=0)
    assert "inner_config" in refused(inner_config=3)
    assert "unknown one-shot strategy 'dart'" in refused(inner="dart")
