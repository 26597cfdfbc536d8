"""One list of options, and configurations that are nested, flat, or both."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import yaml

from nas_core.errors import UsageError
from studies.setup.config import SearchConfig
from studies.setup.configuration import asked_by, gather, option_names
from studies.setup.options import OPTIONS, Option
from training.evaluators import kinds
from training.evaluators.settings import EvaluatorOptions

FLAT: dict[str, Any] = {
    "data": "karate",
    "split": {"limit": 50},
    "recipe": {"name": "standard", "lr": 0.02},
    "epochs": 3,
    "metrics": ["f1"],
    "device": "cpu",
    "threads": 2,
    "deterministic": True,
    "latency": {"batch": 4},
    "checkpoint_seconds": 1.5,
    "trial_time": 60.0,
}
NESTED = {"evaluator": {"kind": "train", **FLAT}}


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for option in OPTIONS:
        monkeypatch.delenv(f"NAS_{option.name.upper()}", raising=False)


def fields(option: Option) -> list[Any]:
    parent, _, last = option.path.rpartition(".")
    if parent == "evaluator":
        known = [(one, one.earlier_keys.get(last, last)) for one in kinds.all_options()]
        found = [one.model_fields[name].annotation for one, name in known if name in one.model_fields]
        return [
            annotation for annotation in found if annotation is not type(None)
        ]  # a wrapper leaves it to the inner one
    within = SearchConfig if not parent else type(getattr(SearchConfig(), parent))
    return [within.model_fields[last].annotation]


def plain(annotation: Any) -> Any:
    """The type of one value, or a list of it."""
    if get_origin(annotation) in (Union, types.UnionType):
        return plain(next(one for one in get_args(annotation) if one is not type(None)))
    if get_origin(annotation) is tuple:
        return list[get_args(annotation)[0]]
    if get_origin(annotation) is Literal or not isinstance(annotation, type):
        return str
    return annotation if annotation in (int, float, bool) else str


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_a_field_of_its_type(option: Option) -> None:
    found = fields(option)
    assert found
    if option.flags:
        one = str if option.type is Path else option.type
        assert {plain(annotation) for annotation in found} == {list[one] if option.several else one}
        assert option.means[-1] in ".]"


def test_every_field_has_words() -> None:
    said = {option.path for option in OPTIONS if option.means}
    for name, field in SearchConfig.model_fields.items():
        assert field.description or name in said or name.endswith("_config"), name
    base = EvaluatorOptions.model_fields
    for one in kinds.all_options():
        own = {
            name for name in one.model_fields if name != "kind" and not ("inner" in one.model_fields and name in base)
        }
        assert all(one.model_fields[name].description for name in own), one


def test_flat_and_nested_files_are_the_same() -> None:
    assert gather(FLAT, (), {}) == gather(NESTED, (), {}) == SearchConfig(**FLAT)
    half = {key: value for key, value in FLAT.items() if key != "data"}
    assert gather({"data": "karate", "evaluator": {"kind": "train", **half}}, (), {}) == gather(NESTED, (), {})


def test_a_table_with_costs() -> None:
    inner = {"kind": "table", "table": "t.csv", "data": "cifar10", "level": 12}
    nested = gather({"evaluator": {"kind": "cost-table", "costs": "c.csv", "inner": inner}}, (), {})
    flat = gather({"table": "t.csv", "costs": "c.csv", "data": "cifar10", "epochs": 12}, (), {})
    assert nested == flat
    assert flat.evaluator.model_dump()["inner"]["level"] == 12
    other = gather({"evaluator": {"kind": "cost-table", "costs": "c.csv", "inner": inner}}, (), {"costs": "d.csv"})
    assert other.evaluator.model_dump()["costs"] == "d.csv"


def test_later_layers_win_at_whatever_place_they_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_EPOCHS", "5")
    monkeypatch.setenv("NAS_METRICS", "f1,roc_auc")
    file = {"evaluator": {"epochs": 3, "data": "karate", "recipe": "standard"}}
    found = gather(file, ["evaluator.recipe.lr=0.03", "recipe.momentum=0.5"], {"recipe": "quick", "data": "digits"})
    asked = found.evaluator.model_dump()
    assert (asked["epochs"], asked["data"], asked["metrics"]) == (5, "digits", ("f1", "roc_auc"))
    assert asked["recipe"] == {"name": "quick", "lr": 0.03, "momentum": 0.5}
    assert gather(file, ["evaluator.epochs=7"], {"epochs": 9}).evaluator.model_dump()["epochs"] == 9


def test_another_evaluator_leaves_behind_what_was_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    file = {"recipe": "standard", "epochs": 3, "data": "cifar10", "device": "cpu"}
    found = gather(file, (), {"table": "t.csv"})
    assert found.evaluator == kinds.options({"kind": "table", "table": "t.csv", "data": "cifar10", "level": 3})
    monkeypatch.setenv("NAS_RECIPE", "standard")
    assert gather(None, (), {"table": "t.csv"}).evaluator.kind == "table"
    assert gather({"table": "t.csv"}, (), {}).evaluator.kind == "table"  # the environment is for whatever can use it
    with pytest.raises(UsageError, match="unknown key 'recipe'"):
        gather(None, (), {"table": "t.csv", "recipe": "quick"})
    with pytest.raises(UsageError, match="for candidates that are trained"):
        gather(None, (), {"evaluator": "supernet:s", "metric": ["f1"]})


BEFORE = """
space: nasbench201
data: cifar10
split: {valid: 0.1, test: 0.2, seed: 0}
evaluator: train
table: t.csv
recipe: quick
order: strict
supernet: {precision: auto}
score_batch: 64
device: auto
deterministic: false
latency: {batch: 1, dtype: float32, runtime: torch}
checkpoint_seconds: 10.0
"""


def test_a_file_of_before_that_says_every_key_of_a_table() -> None:
    found = gather(yaml.safe_load(BEFORE), (), {})
    assert found.evaluator == kinds.options({"kind": "table", "table": "t.csv", "data": "cifar10"})
    with pytest.raises(UsageError, match="unknown key 'split'"):
        gather({**yaml.safe_load(BEFORE), "split": {"valid": 0.3}}, (), {})


def test_a_supernet_is_trained_where_a_table_is_asked() -> None:
    found = gather(None, (), {"table": "t.csv", "device": "cpu", "threads": 3, "search_on": "digits"})
    assert (found.supernet.device, found.supernet.threads, found.supernet.data) == ("cpu", 3, "digits")
    assert gather(None, (), {"device": "cpu"}).supernet.device is None


def test_a_study_whose_supernet_it_is() -> None:
    for asked in ({"evaluator": "supernet:one"}, {"evaluator": {"kind": "supernet", "study": "one"}}):
        assert gather(asked, (), {}).evaluator.supernet == "one"
    with pytest.raises(UsageError, match="write supernet:STUDY"):
        _ = gather({"evaluator": "supernet"}, (), {}).evaluator.supernet


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"dat": "digits"}, "unknown key 'dat'; did you mean 'data'?"),
        ({"evaluator": {"epoch": 3}}, "evaluator: unknown key 'epoch'; did you mean 'epochs'?"),
        ({"evaluator": {"epochs": 0}}, "evaluator: epochs"),
        ({"evaluator": 3}, "evaluator is 3; write a kind"),
        ({"recipe": 3}, "recipe is 3; write a name"),
        ({"epochs": 3, "evaluator": {"epochs": 4}}, "'epochs' and 'evaluator.epochs' are one setting"),
        ({"scoring": {"bath": 3}}, "unknown key 'scoring.bath'; did you mean 'batch'?"),
    ],
)
def test_mistakes(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        gather(asked, (), {})
    assert words in str(caught.value)


def test_keywords_are_the_flags() -> None:
    assert {option.name for option in OPTIONS} <= set(option_names())
    assert asked_by({"objective": ("val_loss",), "seed": 0, "deterministic": False, "lag": None}) == {
        "objective": ["val_loss"],
        "seed": 0,
    }
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        asked_by({"epoch": 3})
    with pytest.raises(UsageError, match="objective"):
        asked_by({"objectives": ["val_loss"]})


@pytest.mark.parametrize("text", ["then: {epochs: 3}", "pruner: median", "early_stop: {name: median, warmup_steps: 2}"])
def test_files_of_before(text: str) -> None:
    assert gather(yaml.safe_load(text), (), {}) != SearchConfig()
