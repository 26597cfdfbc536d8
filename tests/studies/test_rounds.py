"""A one-shot strategy in rounds, each on the supernet of another space of the same architectures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

from nas_core.architecture import Architecture
from nas_core.evaluation import Context
from nas_core.proposal import Proposal
from search_spaces.nasbench201.space import NasBench201
from studies.jobs import supernet as jobs
from studies.setup import assemble
from studies.setup.config import SearchConfig

Say = Callable[..., tuple[int, str, str]]
STRATEGY = """
from nas_core.architecture import Architecture
from nas_core.one_shot import OneShotConfig
from search_spaces.nasbench201.space import NasBench201
from strategies.one_shot.darts import Darts


class Round(NasBench201):
    name = "nasbench201-round"

    def derive(self, strengths):
        return Architecture("nasbench201", super().derive(strengths).values)


class Rounds:
    class Config(OneShotConfig):
        epochs: int = 4

    def __init__(self, setting, config):
        self.setting, self.config = setting, config

    def start(self, make, data, compute):
        self.make, self.data, self.compute = make, data, compute
        self.begin(0)

    def begin(self, number):
        self.number = number
        self.inner = Darts(self.setting, Darts.Config(epochs=2, batch_size=32))
        self.inner.start(lambda: self.make(Round()) if number else self.make(), self.data, self.compute)

    @property
    def supernet(self):
        return self.inner.supernet

    def step(self, epoch):
        if epoch // 2 != self.number:
            self.begin(epoch // 2)
        return self.inner.step(epoch % 2)

    def result(self):
        return self.inner.result()

    def state_dict(self):
        return {"round": self.number, "inner": self.inner.state_dict()}

    def load_state_dict(self, state):
        self.begin(state["round"])
        self.inner.load_state_dict(state["inner"])
"""


@pytest.fixture
def job(tmp_path: Path) -> jobs.Supernet:
    (tmp_path / "rounds.py").write_text(STRATEGY)
    config = SearchConfig(
        space="nasbench201",
        size={"channels": 2, "cells": 1},
        strategy=f"{tmp_path / 'rounds.py'}:Rounds",
        data="digits",
        split={"limit": 100},
        epochs=1,
        threads=1,
        device="cpu",
        seed=4,
    )
    parts = assemble.build(assemble.describe(config).spec).supernet
    assert parts is not None
    return jobs.Supernet(parts)


EVERY = Proposal(Architecture("nasbench201", {}))


def test_rounds_are_resumed_on_their_own_supernet(job: jobs.Supernet, tmp_path: Path) -> None:
    whole = Context(4, tmp_path / "whole")
    assert job.steps == 4
    reports = list(job.evaluate(EVERY, None, whole))
    for epoch in (1, 2, 3):  # in the first round, between the two, in the second
        parts = Context(4, tmp_path / f"parts{epoch}")
        with closing(job.evaluate(EVERY, None, parts)) as begun:  # type: ignore[type-var]
            for _ in range(epoch):
                next(begun)
        again = list(job.evaluate(EVERY, None, parts))
        assert [one.metrics for one in again] == [one.metrics for one in reports]
        assert (parts.workdir / jobs.FILE).read_bytes() == (whole.workdir / jobs.FILE).read_bytes()
    derived = job.result(whole.workdir).architectures
    assert all(NasBench201().illegal(arch) is None for arch in derived)


def test_proliferation_is_resumed_between_and_in_its_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from strategies.one_shot import memory

    monkeypatch.setattr(memory, "require", lambda *_: None)  # half of the time
    config = SearchConfig(
        space="argnp(vertices=4)",
        size={"node": 3, "relation": 2, "node_output": 3, "relation_output": 2},
        strategy="argnp",
        strategy_config={"epochs": 3, "rounds": 2},
        data="karate",
        epochs=1,
        threads=1,
        device="cpu",
    )
    parts = assemble.build(assemble.describe(config).spec).supernet
    assert parts is not None
    job, whole = jobs.Supernet(parts), Context(4, tmp_path / "whole")
    reports = list(job.evaluate(EVERY, None, whole))
    assert [report.metrics["round"] for report in reports] == [1, 2, 2]
    for epoch in (1, 2):
        parted = Context(4, tmp_path / f"parts{epoch}")
        with closing(job.evaluate(EVERY, None, parted)) as begun:  # type: ignore[type-var]
            for _ in range(epoch):
                next(begun)
        again = list(job.evaluate(EVERY, None, parted))
        assert [(one.metrics, one.detail) for one in again] == [(one.metrics, one.detail) for one in reports]
        assert (parted.workdir / jobs.FILE).read_bytes() == (whole.workdir / jobs.FILE).read_bytes()
        assert job.result(parted.workdir).architectures == job.result(whole.workdir).architectures
    with safetensors.safe_open(whole.workdir / jobs.FILE, framework="pt") as file:
        assert file.metadata() == {"space": "argnp-4-round2"}


def test_what_is_needed_is_that_of_the_largest_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that of all vertices, which is never made."""
    from strategies.one_shot import memory

    class Asked(Exception):
        pass

    def require(make: Callable[[], Any], *_: Any) -> None:
        raise Asked(make().space.name)

    monkeypatch.setattr(memory, "require", require)
    config = SearchConfig(
        space="argnp",
        size={"node": 2, "relation": 2, "node_output": 2, "relation_output": 2},
        strategy="argnp",
        strategy_config={"rounds": 2},
        data="karate",
        device="cpu",
    )
    parts = assemble.build(assemble.describe(config).spec).supernet
    assert parts is not None
    with pytest.raises(Asked, match="argnp-round2"):
        list(jobs.Supernet(parts).evaluate(EVERY, None, Context(4, tmp_path)))


def test_a_rounds_supernet_is_fresh_and_the_same_at_every_call(job: jobs.Supernet) -> None:
    class Round(NasBench201):
        name = "nasbench201-round"

    one, other, first = (dict(job.parts.make_supernet(space).state_dict()) for space in (Round(), Round(), None))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], first[name]) for name in one)


def test_weights_of_a_round_name_their_space(job: jobs.Supernet, tmp_path: Path) -> None:
    from nas_core.errors import UsageError
    from training.evaluators.supernet import SPACE, load_supernet

    list(job.evaluate(EVERY, None, Context(4, tmp_path)))
    with safetensors.safe_open(tmp_path / jobs.FILE, framework="pt") as file:
        assert file.metadata() == {SPACE: "nasbench201-round"}
    parts: Any = job.parts
    with pytest.raises(UsageError, match=r"are of 'nasbench201-round', .* and not of space 'nasbench201'"):
        load_supernet(parts.setting.space, parts.source.task, parts.size, tmp_path / jobs.FILE)
