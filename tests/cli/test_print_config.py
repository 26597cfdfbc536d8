"""`nas search --print-config`: a file that asks for the same study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from studies.setup.assemble import describe
from studies.setup.config import SearchConfig
from studies.setup.configuration import gather

Say = Callable[..., tuple[int, str, str]]

ASKED = {
    "defaults": "",
    "black-box": "--strategy tpe --epochs 2 -s recipe.lr=0.02 --early-stop median --objective val_loss "
    "--objective params:min --constraint params<=5e5 -s strategy.startup=3",
    "one-shot": "--space darts --strategy darts --guard hessian -s strategy.epochs=3",
    "graph": "--space nasbench_graph --data karate --size hidden=8 --final-size full",
    "scored": "--warm-up synflow:20 --workers 2 --order free --metric f1 --seed 7",
    "bracket": "--strategy hyperband --spend 3 --time 60 --trial-time 9 --threads 1",
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_what_is_printed_asks_for_the_same_study(asked: str, folder: Path, say: Say) -> None:
    code, out, err = say("search", *asked.split(), "--print-config")
    assert (code, err) == (0, "")
    assert not (folder / "nas.db").exists()
    (folder / "config.yaml").write_text(out)
    assert say("search", "config.yaml", "--print-config") == (0, out, "")
    spec = describe(gather(Path("config.yaml"), (), {})).spec
    content = yaml.safe_load(out)
    assert spec.size == content["size"]
    assert spec.strategy_config.items() <= content["strategy"].items()
    assert spec.evaluator.facts.recipe.model_dump(mode="json").items() <= content["evaluator"]["recipe"].items()
    # Nothing of it is a default of this version that another one may have changed.
    recipe = {**content["evaluator"]["recipe"], "epochs": 9}
    changed = {**content, "evaluator": {**content["evaluator"], "recipe": recipe}}
    (folder / "config.yaml").write_text(yaml.safe_dump(changed))
    assert describe(gather(Path("config.yaml"), (), {})).spec.evaluator.facts.recipe.epochs == 9


def test_it_is_a_document_too(folder: Path, say: Say) -> None:
    code, out, _ = say("search", "--seed", "3", "--print-config", "--json")
    assert code == 0
    assert json.loads(out) == yaml.safe_load(say("search", "--seed", "3", "--print-config")[1])


@pytest.mark.parametrize("option", ["--then", "--warm-start"])
def test_what_no_file_holds_is_refused(option: str, folder: Path, say: Say) -> None:
    code, out, err = say("search", option, "random", "--print-config")
    assert (code, out) == (2, "")
    assert f"no file holds {option}" in err


def test_a_mistake_prints_nothing(folder: Path, say: Say) -> None:
    code, out, err = say("search", "--strategy", "tpee", "--print-config")
    assert (code, out) == (2, "")
    assert "did you mean 'tpe'" in err


def without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in values.items() if value is not None}
    return {key: without_nothing(value) if isinstance(value, dict) else value for key, value in said.items()}


def test_init_writes_every_key_as_a_comment(folder: Path, say: Say) -> None:
    code, out, err = say("init")
    assert (code, err) == (0, "")
    assert "nas search search.yaml" in out
    text = (folder / "search.yaml").read_text()
    lines = text.splitlines()
    assert all(not line or line.startswith("#") for line in lines)
    said = [line[1:] for line in lines if line.startswith("#") and line[1:2] not in (" ", "")]
    taken = ("then", "strategy_config", "early_stop_config")
    assert [line.partition(":")[0] for line in said] == [
        name for name in SearchConfig.model_fields if name not in taken
    ]
    within = [line[1:] for line in lines if line.startswith("#  ")]
    assert sum(line.lstrip().startswith("# ") for line in within) == len(within) // 2  # all but the kind are explained
    assert "# None" not in text
    # With all of its comments taken off it asks for what nothing asks for.
    bare = "\n".join(line[1:] for line in lines if not line.startswith("# "))
    (folder / "all.yaml").write_text(yaml.safe_dump(without_nothing(yaml.safe_load(bare))))
    assert say("search", "all.yaml", "--print-config") == say("search", "--print-config")
    assert say("init", "other/search.yaml")[0] == 2
    code, out, err = say("init")
    assert (code, out) == (2, "")
    assert "'search.yaml' exists" in err
    assert (folder / "search.yaml").read_text() == text
