"""Compressed candidates: what is reported when, what a resume goes on from, and what turns a candidate down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressors import evaluator as wrapping
from compressors.compressor import Change, Round, Subject
from compressors.evaluator import Compressed, CompressedOptions, CompressedSettings
from compressors.methods import costs_of
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.config import Config
from nas_core.errors import Rejected, UsageError, VerificationError
from nas_core.evaluation import Context, Report
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from studies.setup import options
from training.evaluators import kinds
from training.evaluators.settings import Problem, Request
from training.evaluators.train import Train

Say = Callable[..., tuple[int, str, str]]


class Widths(SearchSpace):
    name = "widths"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", (8, 12)),)

    def build(self, arch: Any, task: Any, size: Any) -> nn.Module:
        width = arch.values["width"]
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, task.outputs)
        )


class Settings(Config):
    keep: int = 4


class Front:
    """Keeps the first hidden units."""

    Config = Settings
    needs = ()
    rounds: Sequence[Round] = (Round(),)
    lies = False

    def __init__(self, subject: Subject, config: Settings) -> None:
        self.subject, self.keep = subject, config.keep

    def compress(self, network: Any, round: int) -> Change:
        first, norm, last = network[1], network[2], network[4]
        if self.keep >= first.out_features:
            raise UsageError("nothing is to be done")
        gone = range(self.keep, first.out_features)
        for tensor in ("weight", "bias"):
            setattr(first, tensor, nn.Parameter(getattr(first, tensor).detach()[: self.keep]))
            setattr(norm, tensor, nn.Parameter(getattr(norm, tensor).detach()[: self.keep]))
        norm.running_mean, norm.running_var = norm.running_mean[: self.keep], norm.running_var[: self.keep]
        last.weight = nn.Parameter(last.weight.detach()[:, : self.keep])
        first.out_features = norm.num_features = last.in_features = self.keep
        return Change(removed={"1": [*gone][self.lies :]}, recalibrate=True)


INNER = {"kind": "train", "split": {"limit": 120}, "epochs": 2, "device": "cpu", "threads": 1}
SPACE = Widths()
PROPOSAL = Proposal(Architecture("widths", {"width": 8}))


@pytest.fixture(autouse=True)
def _listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapping, "method", lambda reference: Front)
    monkeypatch.setattr(wrapping, "file_hash", lambda reference: None)


def compressed(*targets: str, epochs: int = 2, **settings: Any) -> Compressed:
    asked = kinds.options(
        {
            "kind": "compressed",
            "compress": "front",
            "compress_to": targets,
            "compress_epochs": epochs,
            "compress_settings": settings,
            "inner": {**INNER, "checkpoint_seconds": 0.0},
        }
    )
    found = asked.settle(Request(Problem(SPACE, SPACE.Size()), SPACE.name, None)).evaluator
    assert isinstance(found, Compressed)
    return found


def reports(made: Compressed, folder: Path, stop: int | None = None) -> list[Report]:
    """All of them, or the first `stop`, after which the candidate is stopped as a search stops."""
    found = made.evaluate(PROPOSAL, None, Context(3, folder, stopping=lambda: stop is not None))
    return list(found) if stop is None else [next(found) for _ in range(stop)]


def plain(found: Sequence[Report]) -> list[tuple[float, dict[str, float]]]:
    return [(report.step, dict(report.metrics)) for report in found]


def test_reports_are_of_the_whole_network_then_of_what_is_left(tmp_path: Path) -> None:
    made = compressed("macs<=0.6x")
    found = reports(made, tmp_path)
    assert [report.step for report in found] == [1, 2, 3, 4]
    whole, left = found[1].metrics, found[-1].metrics
    assert not {"params", "macs"} & whole.keys()
    assert left["macs"] == 64 * 4 + 4 * 10
    assert left["params"] == 65 * 4 + 2 * 4 + 5 * 10
    assert left["base_macs"] == 64 * 8 + 8 * 10
    assert left["base_val_accuracy"] == whole["val_accuracy"]
    assert left["val_loss"] != whole["val_loss"]
    assert [report.seconds for report in found] == sorted(report.seconds for report in found)
    assert not any(tmp_path.glob("compressed"))


def test_costs_are_not_known_before(tmp_path: Path) -> None:
    made = compressed()
    costs = [metric.name for metric in made.metrics if metric.cost]
    assert costs == []
    assert made.costs(PROPOSAL.arch, ["params", "macs", "latency_ms"]) == {}
    assert made.fidelity is not None
    assert (made.fidelity.low, made.fidelity.high, made.fidelity.continues) == (3, 4, False)
    low = list(made.evaluate(PROPOSAL, 3, Context(3, tmp_path)))
    assert [report.step for report in low] == [1, 2, 3]
    assert "macs" in low[1].metrics


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resume_ends_in_the_same_reports(tmp_path: Path, stop: int) -> None:
    """Stopped while the whole network trains, before it is made smaller, and while what is left trains."""
    made = compressed("macs<=0.6x")
    full = plain(reports(made, tmp_path / "full"))
    assert plain(reports(made, tmp_path / "stopped", stop)) == full[:stop]
    assert plain(reports(made, tmp_path / "stopped")) == full


def test_a_resume_does_not_train_the_whole_network_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compressed()
    full = plain(reports(made, tmp_path / "full"))
    reports(made, tmp_path / "stopped", 3)
    monkeypatch.setattr(made._evaluator, "trained", None)
    assert plain(reports(made, tmp_path / "stopped")) == full


def test_a_network_that_costs_little_already_is_trained_as_long(tmp_path: Path) -> None:
    found = reports(compressed("macs<=1000"), tmp_path)
    assert [report.step for report in found] == [1, 2, 3, 4]
    assert found[-1].metrics["macs"] == found[-1].metrics["base_macs"] == 592


def test_what_cannot_be_made_smaller_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="nothing is to be done") as error:
        reports(compressed(keep=9), tmp_path / "nothing")
    assert (error.value.reason, error.value.seconds > 0) == ("compression", True)
    with pytest.raises(Rejected, match=r"macs<=0\.2x is not reached: macs is 296"):
        reports(compressed("macs<=0.2x"), tmp_path / "target")


def test_what_has_gone_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Front, "lies", True)
    with pytest.raises(VerificationError, match="has the shape"):
        reports(compressed(), tmp_path)


def test_methods_of_several_rounds_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Front, "rounds", (Round(), Round()))
    with pytest.raises(UsageError, match="2 rounds; a search takes methods of one round"):
        reports(compressed(), tmp_path)
    assert not any(tmp_path.iterdir())


def test_statistics_are_recalibrated_and_weights_are_those_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained on begins as a recalibrated cut of the network that was trained."""
    made, seen = compressed(), []
    learn = Train.learn

    def spied(train: Train, network: Any, *rest: Any) -> Any:
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return learn(train, network, *rest)

    monkeypatch.setattr(Train, "learn", spied)
    whole = made.made(PROPOSAL.arch, 3)
    list(made.trained(whole, PROPOSAL, None, Context(3, tmp_path)))
    assert torch.equal(seen[1]["1.weight"], whole[1].weight[:4])  # type: ignore[index]
    assert int(seen[1]["2.num_batches_tracked"]) > 0
    assert not torch.equal(seen[1]["2.running_mean"], whole[2].running_mean[:4])  # type: ignore[index]
    assert costs_of(whole, made.task)["macs"] == 592


def test_it_is_asked_for_by_words_of_its_own() -> None:
    own = {"compress": "front", "compress_to": "macs<=0.5x", "compress_epochs": 3}
    around = {"screen": ["finite"], "costs": "phone.csv"}
    found = kinds.wrapped(options.nested({**own, **around, "epochs": 5}, ("evaluator",))["evaluator"])
    assert (found["kind"], found["inner"]["kind"], found["inner"]["inner"]["kind"]) == (
        *("cost-table", "screened", "compressed"),
    )
    made = kinds.options(found["inner"]["inner"])
    assert isinstance(made, CompressedOptions)
    assert (made.compress_to, made.compress_epochs) == (("macs<=0.5x",), 3)
    assert made.inner.model_dump()["epochs"] == 5


def test_what_trains_nothing_cannot_be_made_smaller() -> None:
    asked = kinds.options({"kind": "compressed", "compress": "front", "inner": {"kind": "told"}})
    with pytest.raises(UsageError, match="--compress front makes networks smaller that are trained"):
        asked.settle(Request(Problem(SPACE, SPACE.Size()), SPACE.name, None))


def test_a_file_that_has_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = compressed()._settings.model_copy(update={"hashes": {"front": "before"}})
    assert isinstance(settings, CompressedSettings)
    assert settings.facts.files["front"] == "before"
    with pytest.raises(UsageError, match="has changed since the study was made"):
        Compressed.open(settings, Problem(SPACE, SPACE.Size()))
