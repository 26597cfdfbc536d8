"""Trainings that begin with the weights of another trial: what is copied, how long it is kept, kills in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas_core.architecture import Architecture
from nas_core.errors import NotFoundError, VerificationError
from nas_core.evaluation import Context
from nas_core.records import Run, StopAt
from nas_core.seeds import derive
from nas_core.strategy import Proposal, State
from studies.analysis.verify import verify
from studies.events import Event, Finished, Listener, Reported, silent
from studies.executors import Job
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.setup import assemble
from studies.setup.config import SearchConfig
from studies.store.store import Store
from training import transfer
from training.fit import fit
from training.networks import build

SPACE = """
import torch
from torch import nn
from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Hidden(nn.Linear):
    def __init__(self, inputs, outputs, act):
        super().__init__(inputs, outputs)
        self.act = act

    def signature(self):
        return "hidden", self.act

    def forward(self, x):
        return getattr(torch, self.act)(super().forward(x))


class Fresh(nn.Linear):
    def signature(self):
        return None


class Acts(SearchSpace):
    name = "acts"
    tasks = frozenset({"image-classification"})
    choices = (
        Choice("width", (6, 8)),
        Choice("first", ("tanh", "relu", "sigmoid", "sin")),
        Choice("second", ("tanh", "relu", "sigmoid", "sin")),
    )

    def build(self, arch, task, size):
        width, first, second = arch.values["width"], arch.values["first"], arch.values["second"]
        layers = Hidden(64, width, first), Hidden(width, width, second), Fresh(width, width)
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, task.outputs))


space = Acts()
"""
STRATEGY = """
from nas_core import moves
from nas_core.config import Config as Base
from nas_core.proposal import Proposal
from nas_core.seeds import generator


class Heirs:
    class Config(Base):
        pass

    def __init__(self, setting, config):
        self.setting, self.best, self.count = setting, None, 0

    def ask(self, number, pending):
        rng = generator(self.setting.seed, number, "heirs")
        if self.best is None:
            return Proposal(moves.sample(self.setting.space, rng))
        arch = self.best.proposal.arch
        arch = arch if number % 3 == 0 else moves.mutate(self.setting.space, arch, rng)
        return Proposal(arch, transfer=self.best.number)

    def tell(self, outcome):
        if outcome.values is not None and (self.best is None or outcome.values > self.best.values):
            self.best = outcome

    def donors(self):
        return () if self.best is None else (self.best.number,)
"""


class Shared:
    """Searches whose trials begin with the best one's weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "space.py").write_text(SPACE)
        (folder / "heirs.py").write_text(STRATEGY)
        self.spec = assemble.describe(
            SearchConfig(
                space=f"{folder / 'space.py'}:space",
                strategy=f"{folder / 'heirs.py'}:Heirs",
                data="digits",
                recipe={"name": "quick", "precision": "float32"},
                epochs=2,
                split={"limit": 200},
                threads=1,
                device="cpu",
                seed=5,
                checkpoint_seconds=0.0,
            )
        ).spec

    def search(
        self, name: str, trials: int = 8, listener: Listener = silent, stopping: Any = lambda: False
    ) -> list[Run]:
        with Store(f"sqlite:///{self.folder / name}.db") as store:
            study = store.find_study("s") or store.create_study("s", self.spec, StopAt(trials=trials))
            parts = assemble.build(self.spec)
            search = Search(store, study, parts, listener=listener, stopping=stopping)
            ending = search.run(StopAt(trials=trials))
            if ending != Ending.INTERRUPTED:
                donors = {search._workdirs.holder(number) for number in search.strategy.donors()}  # type: ignore[attr-defined]
                assert self.files(name) == {f"trial-{number}/{transfer.LEAVES}" for number in donors}
                assert list(verify(store, study, parts)) == []
            return list(store.trials(study, metrics=True))

    def files(self, name: str) -> set[str]:
        root = self.folder / f"{name}-files" / "s"
        return {str(path.relative_to(root)) for path in root.glob("trial-*/*")}


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(tmp_path)


def told(runs: list[Run]) -> list[Run]:
    return [
        replace(run, attempt=0, started=None, ended=None, verdict=replace(run.verdict, seconds=None)) for run in runs
    ]


def test_what_means_the_same_is_copied_and_trained_on(shared: Shared, tmp_path: Path) -> None:
    """Against networks that are copied by hand and trained apart from the search."""
    runs = shared.search("one")
    assert {run.state for run in runs} <= {State.COMPLETE, State.REUSED}
    begun = [run for run in runs if run.proposal.transfer is not None and run.state == State.COMPLETE]
    assert len(begun) > 3
    parts = assemble.build(shared.spec)
    evaluator: Any = parts.evaluator

    def trained(run: Run) -> tuple[nn.Module, dict[str, float], float]:
        network, share = build(parts.space, run.arch, evaluator.task, parts.size, _seed(run)), 0.0
        if run.proposal.transfer is not None:
            first = runs[run.proposal.transfer]
            before = trained(first if first.reuses is None else runs[first.reuses])
            share = _by_hand(before[0], network, first.arch, run.arch)
        reports = fit(network, evaluator.data, evaluator.recipe, device=evaluator.device, seed=_seed(run))
        *_, last = reports
        return network, dict(last.metrics), share

    def _seed(run: Run) -> int:
        return derive(shared.spec.seed, run.number, "train")

    for run in begun[:4]:
        _, metrics, share = trained(run)
        assert run.metrics["transferred"] == pytest.approx(share)
        assert {name: run.metrics[name] for name in metrics if name in run.metrics} == {
            name: value for name, value in metrics.items() if name in run.metrics
        }
    assert {run.metrics["transferred"] for run in begun} != {0.0}


def _by_hand(source: nn.Module, target: nn.Module, first: Architecture, second: Architecture) -> float:
    """Layers of one activation and width; the third is always fresh, and the head is there in every network."""
    one, other = first.values, second.values
    same = {1: one["first"] == other["first"], 2: one["second"] == other["second"], 3: False, 4: True}
    copied = 0
    for place, meant in same.items():
        for name in ("weight", "bias"):
            old, new = getattr(source[place], name), getattr(target[place], name)  # type: ignore[index]
            if meant and old.shape == new.shape:
                new.data.copy_(old.data)
                copied += new.numel()
    return copied / sum(parameter.numel() for parameter in target.parameters())


def test_interrupted_searches_go_on_and_keep_what_is_needed(shared: Shared) -> None:
    whole = shared.search("whole")

    class Stop:
        left = 0

        def __call__(self, event: Event) -> None:
            self.left -= isinstance(event, Reported | Finished)

    runs: list[Run] = []
    sessions = 0
    while len(runs) < len(whole) or not runs[-1].finished:
        stop = Stop()
        stop.left = 2
        runs = shared.search("parts", listener=stop, stopping=lambda: stop.left <= 0)  # noqa: B023
        sessions += 1
    assert sessions > 5
    assert told(runs) == told(whole)


def test_the_same_network_with_other_beginnings_is_another_candidate(shared: Shared) -> None:
    runs = shared.search("one", trials=10)
    same: dict[tuple[str, int | None], list[Run]] = {}
    for run in runs:
        donor = run.proposal.transfer
        origin = donor if donor is None or runs[donor].reuses is None else runs[donor].reuses
        same.setdefault((run.identity, origin), []).append(run)
    assert all([run.state for run in group[1:]] == [State.REUSED] * (len(group) - 1) for group in same.values())
    identities = [identity for identity, _ in same]
    assert len(set(identities)) < len(identities)


def test_lost_weights_are_told(shared: Shared, tmp_path: Path) -> None:
    evaluator = assemble.build(shared.spec).evaluator
    arch = Architecture("acts", {"width": 6, "first": "tanh", "second": "relu"})
    with pytest.raises(NotFoundError, match="the weights of trial 3, which another one begins with, are gone"):
        list(evaluator.evaluate(Proposal(arch, transfer=3), None, Context(0, tmp_path / "a")))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / transfer.BEGINS_WITH).write_bytes(b"nothing")
    with pytest.raises(VerificationError, match="is damaged"):
        list(evaluator.evaluate(Proposal(arch, transfer=3), None, Context(0, tmp_path / "b")))


def test_jobs_travel_as_plain_data(tmp_path: Path) -> None:
    proposal = Proposal(Architecture("a", {"x": 1}), 3.0, None, {"role": "heir"}, transfer=4)
    job = Job(7, proposal, 3.0, 3.0, 11, tmp_path, 5, keep=True)
    assert Job.of_packed(json.loads(json.dumps(job.packed()))) == job


class Said(nn.Module):
    def __init__(self, said: object, inside: nn.Module) -> None:
        super().__init__()
        self.said, self.inside = said, inside

    def signature(self) -> object:
        return self.said


@pytest.mark.parametrize(
    ("first", "second", "copied"),
    [
        (lambda: nn.Linear(2, 2), lambda: nn.Linear(2, 2), True),
        (lambda: nn.Linear(2, 3), lambda: nn.Linear(2, 2), False),
        (lambda: Said("a", nn.Linear(2, 2)), lambda: Said("a", nn.Linear(2, 2)), True),
        (lambda: Said(("gat", 8), nn.Linear(2, 2)), lambda: Said(("gat", 4), nn.Linear(2, 2)), False),
        (lambda: Said(None, nn.Linear(2, 2)), lambda: Said(None, nn.Linear(2, 2)), False),
        (lambda: Said("a", Said(None, nn.Linear(2, 2))), lambda: Said("a", Said(None, nn.Linear(2, 2))), False),
        (lambda: Said("a", nn.Linear(2, 2)), lambda: Said("a", Said("b", nn.Linear(2, 2))), False),
    ],
)
def test_signatures_of_all_that_hold_a_tensor_decide(
    tmp_path: Path, first: Callable[[], nn.Module], second: Callable[[], nn.Module], copied: bool
) -> None:
    source, target = first(), second()
    transfer.write(tmp_path / "w.safetensors", source)
    before = [parameter.clone() for parameter in target.parameters()]
    assert transfer.take(tmp_path / "w.safetensors", target) == float(copied)
    for old, new, given in zip(before, target.parameters(), source.parameters(), strict=True):
        assert torch.equal(new, given if copied else old)
