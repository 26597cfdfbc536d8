"""The final size of a study: what decides it, how it is stored, and studies that were stored before there was one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search_spaces.nasbench201.space import Size
from studies.records import StudySpec, SupernetSettings, as_stored, final_size_of
from studies.setup.assemble import build, describe
from studies.setup.config import SearchConfig
from studies.setup.spaces import load_space
from studies.store.store import Store
from studies.store.testing import SPEC
from training.data.split import Split
from training.evaluators.joined import CostTableSettings
from training.testing.evaluators import on_digits

Say = Callable[..., tuple[int, str, str]]
SMALL = ("--size", "channels=2,cells=1", "-s", "split.limit=200", "--epochs", "1", "--threads", "1")
RANDOM = ("search", "--strategy", "random", "--trials", "1", *SMALL)
DARTS = ("search", "--strategy", "darts", "-s", "strategy.epochs=1", *SMALL)
TABLE = """
files: [cells.csv]
space: nasbench201
row: {text: arch}
data:
  made:
    task: {kind: image-classification, input_shape: [3, 32, 32], outputs: 10}
    metrics: {val_accuracy: {column: valid}}
    costs: {params: {column: params}}
"""
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"


def spec(name: str) -> StudySpec:
    with Store("sqlite:///nas.db", create=False) as store:
        return store.study(name).spec


def stored_before(name: str) -> None:
    """Make a study one that was stored before there were final sizes."""
    with sqlite3.connect("nas.db") as connection:
        connection.execute("UPDATE studies SET final_size = NULL WHERE name = ?", (name,))
    assert spec(name).final_size is None


def test_the_search_size_by_default_and_full_for_one_shot() -> None:
    small, full = {"channels": 2, "cells": 1}, Size(channels=16, cells=5).model_dump()
    for strategy, final, wanted in (
        ("random", None, small),
        ("random", "full", full),
        ("random", "full,channels=3", {**full, "channels": 3}),
        ("random", {"cells": 2}, Size(cells=2).model_dump()),
        ("darts", None, full),
        ("darts", "channels=2,cells=1", small),
    ):
        found = describe(SearchConfig(size="channels=2,cells=1", final_size=final, strategy=strategy)).spec
        assert (found.size, found.final_size) == (small, wanted), (strategy, final)


def test_it_is_stored_and_shown(say: Say) -> None:
    assert say(*RANDOM, "--final-size", "channels=3,cells=2", "--study", "a")[0] == 0
    assert spec("a").final_size == {"channels": 3, "cells": 2}
    assert "final size channels=3 cells=2" in " ".join(say("show", "a")[1].split())
    assert json.loads(say("show", "a", "--json")[1])["final_size"] == {"channels": 3, "cells": 2}
    code, _, err = say(*RANDOM, "--final-size", "channel=3")
    assert (code, "did you mean 'channels'" in err) == (2, True)


def test_a_search_on_shared_weights_is_for_what_the_supernet_was_trained_for(say: Say) -> None:
    spos = ("search", "--strategy", "spos", "-s", "strategy.epochs=1", *SMALL, "--study")
    assert say(*spos, "s")[0] == 0
    again = ("search", "--evaluator", "supernet:s", "--strategy", "random", "-n", "1", *SMALL[:2], "--study")
    assert say(*again, "a")[0] == 0
    assert spec("a").final_size == spec("s").final_size == Size(channels=16, cells=5).model_dump()


@pytest.mark.parametrize(("words", "final"), [(RANDOM, "channels=2,cells=1"), (DARTS, "")])
def test_the_same_command_finds_a_study_stored_before(say: Say, words: tuple[str, ...], final: str) -> None:
    words = (*words, "--study", "old", *(("--final-size", final) if final else ()))
    assert say(*words)[0] == 0
    stored_before("old")
    code, _, err = say(*words, "--json")
    assert code == 0, err
    assert spec("old").final_size is None  # it keeps its meaning
    assert final_size_of(spec("old")) == spec("old").size
    code, _, err = say(*words, "--final-size", "full")
    assert code == 2
    assert "final_size: None there" in err


def test_a_default_that_came_later_is_no_difference() -> None:
    new = SPEC.model_copy(update={"final_size": {"channels": 4}})
    assert as_stored(new, SPEC) == SPEC
    assert as_stored(new, SPEC, {"final_size"}) == SPEC  # asked for, and what the study did
    larger = SPEC.model_copy(update={"final_size": {"channels": 8}})
    assert as_stored(larger, SPEC) == SPEC
    assert as_stored(larger, SPEC, {"final_size"}) == larger
    assert as_stored(larger, new) == larger


def test_a_table_says_its_size(say: Say, folder: Path) -> None:
    Path("cells.csv").write_text(f"arch,valid,params\n{CELL},0.5,7\n")
    command = ("search", "--table", "cells.csv", "--data", "made", "--strategy", "random", "-n", "1", "--study")
    Path("cells.yaml").write_text(TABLE)
    assert say(*command, "a")[0] == 4 or spec("a")
    assert spec("a").final_size == Size(channels=16, cells=1).model_dump()
    for text, wanted in (
        ("full", {"channels": 16, "cells": 5}),
        ("{channels: 8, cells: 2}", {"channels": 8, "cells": 2}),
    ):
        Path("cells.yaml").write_text(f"size: {text}\n" + TABLE)
        name = f"b{wanted['cells']}"
        say(*command, name)
        assert spec(name).final_size == wanted
        assert spec(name).split_hash == spec("a").split_hash  # the study of before can go on
        assert say("resume", "a")[0] == say("resume", name)[0]
        code, _, err = say(*command, "c", "--final-size", "channels=3")
        assert code == 2
        assert f"records networks of size 'channels={wanted['channels']},cells={wanted['cells']}'" in err
    Path("cells.yaml").write_text("size: huge\n" + TABLE)
    code, _, err = say(*command, "d")
    assert (code, "mapping 'cells.yaml': unknown size preset 'huge'" in err) == (2, True)


def test_a_bench_of_before_is_found_again(say: Say, folder: Path) -> None:
    Path("cells.csv").write_text(f"arch,valid,params\n{CELL},0.5,7\n")
    Path("cells.yaml").write_text(TABLE)
    command = (
        "bench",
        "strategies",
        "--table",
        "cells.csv",
        "--strategies",
        "random",
        "--queries",
        "1",
        "--seeds",
        "1",
    )
    assert say(*command, "--name", "b")[0] == 0
    with sqlite3.connect("nas.db") as connection:
        (text,) = connection.execute("SELECT config FROM benches").fetchone()
        config: dict[str, Any] = json.loads(text)
        del config["problem"]["final_size"]
        connection.execute("UPDATE benches SET config = ?", (json.dumps(config),))
    for words in ((*command, "--name", "b"), command):
        assert say(*words)[0] == 0
    assert [name for name in ("b",) if name in say("bench", "ls")[1]] == ["b"]
    assert len(json.loads(say("bench", "ls", "--json")[1])) == 1


@pytest.mark.parametrize(("name", "data"), [("nb201", "cifar10"), ("nasbench_graph", "cora")])
def test_the_shipped_mappings_say_full(shared_data: Path, name: str, data: str) -> None:
    space = "nasbench201" if name == "nb201" else "nasbench_graph"
    table = str(shared_data / f"{name}.csv.gz")
    found = describe(SearchConfig(space=space, table=table, data=data, strategy="random")).spec
    assert final_size_of(found) == load_space(space)[0].Size.preset("full").fitted(found.task).model_dump(mode="json")


def test_photographs_have_their_stem_in_what_is_stored(folder: Path) -> None:
    """Chosen once, by the images, and written down; a study of an earlier version that is the same goes on."""
    import numpy

    rng = numpy.random.default_rng(0)
    images = rng.integers(0, 256, (20, 128, 128, 3), dtype=numpy.uint8)
    numpy.savez(folder / "photos.npz", images=images, labels=numpy.arange(20) % 2)
    for size in ("channels=2,cells=1", {"channels": 2, "cells": 1}):
        found = describe(SearchConfig(size=size, final_size="full", data="npz:photos.npz", strategy="random")).spec
        assert found.size == {"channels": 2, "cells": 1, "stem": "imagenet"}
        assert found.final_size == {"channels": 16, "cells": 5, "stem": "imagenet"}
    plain = describe(SearchConfig(size="channels=2,cells=1,stem=cifar", data="npz:photos.npz", strategy="random")).spec
    assert plain.size == {"channels": 2, "cells": 1}
    assert build(plain.model_copy(update={"space_version": 1})).size == Size(channels=2, cells=1)


def test_a_study_of_an_earlier_version_goes_on_by_the_same_command(say: Say) -> None:
    assert say(*RANDOM, "--study", "old")[0] == 0
    with sqlite3.connect("nas.db") as connection:
        connection.execute("UPDATE studies SET space_version = 1")
    assert say(*RANDOM, "--study", "old", "--json")[0] == 0
    assert say("resume", "old", "--trials", "3", "--json")[0] == 0
    with sqlite3.connect("nas.db") as connection:
        connection.execute("UPDATE studies SET space_version = 3")
    code, _, err = say("resume", "old", "--trials", "4", "--json")
    assert (code, "is version 2, but the study was made with 3" in err) == (2, True)


def test_what_auto_came_to_stays_on_another_machine() -> None:
    """The same command on a processor that multiplies bf16, or has none of it, is the same study."""

    def spec(precision: str, asked: str = "auto") -> StudySpec:
        recipe = on_digits().recipe.model_copy(update={"precision": asked})
        inner = on_digits().model_copy(update={"precision": precision, "recipe": recipe})
        joined = CostTableSettings(inner=inner, costs="costs.csv")
        supernet = SupernetSettings(
            data="digits",
            split=Split(),
            split_hash="",
            device="cpu",
            precision=precision,
            threads=1,
            deterministic=False,
        )
        return SPEC.model_copy(update={"evaluator": joined, "supernet": supernet})

    stored, now = spec("float32"), spec("bf16")
    assert as_stored(now, stored) == stored
    assert as_stored(now, stored, {"supernet"}).supernet == now.supernet
    wanted = spec("bf16", asked="bf16")
    assert as_stored(wanted, stored).evaluator == wanted.evaluator


def test_a_stored_configuration_has_the_keys_of_before() -> None:
    earlier = {"early_stop": "pruner", "warm_start": "prior"}
    dumped = {earlier.get(key, key): value for key, value in SPEC.model_dump().items()}
    assert StudySpec.model_validate(dumped) == SPEC
