"""Every listed evaluator owns its settings: they are stored and read back, opened, and refuse what they do not know."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.space import SearchSpace
from search_spaces.evonorm.space import EvoNorm
from search_spaces.nasbench201.space import NasBench201
from studies.records import StudySpec
from studies.store.testing import SPEC
from training.data import load
from training.data.split import Split
from training.evaluators import BUILTIN, WRAPPERS, kinds
from training.evaluators.earlier import as_now
from training.evaluators.settings import EvaluatorOptions, EvaluatorSettings, Problem, Request, Shared
from training.reading import Silent, reading

SPLIT = Split(limit=120)
SPACE = NasBench201()
SIZE = SPACE.Size.preset("search", channels=2, cells=1)
TABLE = "arch,c10_valid_e12,c10_valid,c10_test_e12,c10_test,params,macs,c10_epoch_s\n{},71.5,90,71,91,4,5,8\n"
ROW = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
COSTS = "space: nasbench201\nrow: {text: arch}\nmatch: architecture\ncosts: {phone_ms: {column: ms, unit: ms}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nb201.csv").write_text(TABLE.format(ROW))
    (tmp_path / "phone.csv").write_text(f"arch,ms\n{ROW},3.5\n")
    (tmp_path / "phone.yaml").write_text(COSTS)
    return tmp_path


def shared(folder: Path, space: SearchSpace) -> Shared:
    """An untrained supernet, as a study of that name would have it."""
    from search_spaces.supernet.supernet import Supernet
    from training.checkpoint import write_tensors

    source = load("digits", SPLIT)
    size = SIZE.fitted(source.task)
    write_tensors(folder / "weights", Supernet(space, source.task, size).state_dict())
    return Shared(
        study="source", space="nasbench201", space_hash=None, size=size.model_dump(mode="json"),
        final_size=size.model_dump(mode="json"), task=source.task, data="digits", split=SPLIT,
        split_hash=source.split_hash, device="cpu", precision="float32", threads=1, deterministic=False,
        weights=str(folder / "weights"), sha256=hashlib.sha256((folder / "weights").read_bytes()).hexdigest(),
    )  # fmt: skip


ASKED = {
    "train": {"kind": "train", "split": {"limit": 120}, "epochs": 1, "device": "cpu", "trial_time": 60},
    "table": {"kind": "table", "table": "nb201.csv", "data": "cifar10", "epochs": 12},
    "supernet": {"kind": "supernet", "study": "source", "latency": {"batch": 2}},
    "told": {"kind": "told", "split": {"limit": 120}, "epochs": 4, "metrics": ["val_f1:max"]},
    "compressed": {"kind": "compressed", "compress": "svd", "inner": {"kind": "train", "split": {"limit": 120}}},
    "cost-table": {"kind": "cost-table", "costs": "phone.csv", "inner": {"kind": "train", "split": {"limit": 120}}},
    "screened": {"kind": "screened", "screens": ["finite"], "inner": {"kind": "train", "split": {"limit": 120}}},
    "hosts": {"kind": "hosts", "hosts": ["vgg", "resnet"], "inner": {"kind": "train", "split": {"limit": 120}}},
}


def problem(kind: str) -> Problem:
    """Of the space whose architectures an evaluator is for."""
    if kind != "hosts":
        return Problem(SPACE, SIZE, SIZE)
    space = EvoNorm()
    size = space.Size.preset("search", host="vgg", width=4)
    return Problem(space, size, size)


def settled(folder: Path, kind: str) -> tuple[EvaluatorOptions, EvaluatorSettings, str]:
    asked = kinds.options(ASKED[kind])
    own = shared(folder, SPACE) if kind == "supernet" else None
    found = replace(problem(kind), final_size=None)
    request = Request(found, found.space.name, None, ("val_accuracy",), 1, own)
    settings, _, read = asked.settle(request)
    return asked, settings, read


def test_every_listed_evaluator_is_here() -> None:
    assert {*ASKED} == {*BUILTIN, *WRAPPERS}


@pytest.mark.parametrize("kind", ASKED)
def test_settings_come_back_as_they_were_stored_and_open_what_was_opened(folder: Path, kind: str) -> None:
    with reading(Silent()):
        _, settings, read = settled(folder, kind)
        assert settings.kind == kind
        spec = SPEC.model_copy(update={"evaluator": settings})
        again = StudySpec.model_validate_json(spec.model_dump_json()).evaluator
        assert (again, type(again)) == (settings, type(settings))
        evaluator, found = kinds.opened(again, problem(kind))
        assert found == read
        names = {metric.name for metric in evaluator.metrics}
        assert names
        assert evaluator.task.outputs == 10
        assert ("phone_ms" in names) == (settings.facts.costs is not None)


@pytest.mark.parametrize("kind", ASKED)
def test_unknown_keys_are_named_with_the_nearest(folder: Path, kind: str) -> None:
    known = [name for name in kinds.options(ASKED[kind]).model_dump() if name != "kind"][-1]
    with pytest.raises(UsageError, match=f"unknown key '{known}x'.*did you mean '{known}'"):
        kinds.options({**ASKED[kind], f"{known}x": 1})


@pytest.mark.parametrize("kind", ["train", "supernet", "told", "cost-table"])
def test_what_is_read_is_checked(folder: Path, kind: str) -> None:
    """Another place is the same study as long as the hash is the same."""
    with reading(Silent()):
        _, settings, read = settled(folder, kind)
        assert settings.at("karate").facts.data == "karate"
        assert settings.on("cuda:1").facts.device == "cuda:1"
        if kind == "cost-table":
            (folder / "phone.csv").write_text(f"arch,ms\n{ROW},4.5\n")
            assert kinds.opened(settings, Problem(SPACE, SIZE, SIZE)).read != read


def test_facts_say_what_a_study_asks(folder: Path) -> None:
    with reading(Silent()):
        facts = {kind: settled(folder, kind)[1].facts for kind in ASKED}
    assert [kind for kind in ASKED if facts[kind].trains] == [
        *("train", "compressed", "cost-table", "screened", "hosts")
    ]
    assert [kind for kind in ASKED if facts[kind].looks_up] == ["table"]
    assert [kind for kind in ASKED if facts[kind].told] == ["told"]
    assert [kind for kind in ASKED if facts[kind].supernet] == ["supernet"]
    assert facts["train"].trial_seconds == 60
    assert facts["table"].level == 12
    recipe = facts["train"].recipe
    assert recipe is not None
    assert (recipe.epochs, facts["cost-table"].costs) == (1, "phone.csv")
    assert facts["supernet"].latency.batch == 2
    assert facts["screened"].screens == ("finite",)
    assert [kind for kind in ASKED if facts[kind].hosts] == ["hosts"]
    assert facts["hosts"].hosts == ("vgg", "resnet")


def test_settings_of_before_are_read_as_they_are_now() -> None:
    before = {"name": "table", "table": "t.csv", "data": "d", "mapping": None, "level": None, "costs": "c.csv"}
    inner = {"kind": "table", "table": "t.csv", "data": "d", "mapping": None, "level": None}
    now = {"kind": "cost-table", "inner": inner, "costs": "c.csv"}
    assert as_now(before) == now
    assert as_now(now) == now
    found = StudySpec.model_validate({**SPEC.model_dump(mode="json"), "evaluator": before})
    assert found == StudySpec.model_validate({**SPEC.model_dump(mode="json"), "evaluator": now})
    assert found.evaluator.facts.costs == "c.csv"


def test_an_evaluator_that_is_not_here_is_read_all_the_same() -> None:
    """A study of a user's own evaluator is listed and shown, whatever has become of its file."""
    stored = {"kind": "gone.py:Mine", "file_hash": "0" * 16, "settings": {"data": "made", "device": "cpu"}}
    settings = kinds.stored(stored)
    assert (settings.facts.data, settings.facts.device, settings.facts.trains) == ("made", "cpu", False)
    assert kinds.stored(settings.model_dump(mode="json")) == settings
    with pytest.raises(UsageError, match="unknown key"):
        validate(type(settings), {**stored, "nothing": 1}, "evaluator")
