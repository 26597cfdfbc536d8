"""Data from the command line: what `nas data check` and `nas search` say of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_cli import told
from training.reading import counted, reading

Said = Callable[..., tuple[int, str, str]]

OWN = """
import numpy as np
from training.data.source import image_source

def load(argument, split):
    with open("calls.txt", "a") as calls:
        calls.write("read\\n")
    rng = np.random.default_rng(0)
    return image_source("mine", rng.random((40, 1, 8, 8)), np.arange(40) % 2 + 1, split)
"""

DATASET = """
import torch
from torch.utils.data import TensorDataset

class Named(TensorDataset):
    classes = ["a", "b", "c"]

train = Named(torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2)
test = Named(torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(10) % 2)
"""


def test_the_reading_of_a_large_set_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(told, "PATIENCE", 0.0)
    monkeypatch.setattr(told, "REFRESH", 0.0)
    with told.Told() as shown, reading(shown):
        assert list(counted(range(3), "a set")) == [0, 1, 2]
        assert list(counted(range(2), "another")) == [0, 1]
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" |")[0] for line in err.splitlines()] == [
        "a set: 1/3 samples read",
        "another: 1/2 samples read",
    ]
    monkeypatch.setattr(told, "PATIENCE", 60.0)
    with told.Told() as shown, reading(shown):
        list(counted(range(3), "a small set"))
    assert capsys.readouterr().err == ""


def test_a_search_reads_its_data_once_and_warns_once(say: Said, folder: Path) -> None:
    Path("my_data.py").write_text(OWN)
    wanted = ("--data", "my_data.py:load", "--trials", "1", "--epochs", "1", "--size", "search,channels=4,cells=1")
    code, _, err = say("search", "--space", "nasbench201", "--strategy", "random", *wanted)
    assert code == 0
    assert Path("calls.txt").read_text() == "read\n"
    warnings = [line for line in err.splitlines() if line.startswith("nas: warning:")]
    assert len(warnings) == 1
    assert warnings[0].startswith("nas: warning: my_data.py:load: the labels start at 1: 1 of the 3 outputs")


def test_data_check_warns_on_stderr(say: Said, folder: Path) -> None:
    np.savez("g.npz", x=np.ones((30, 2)), y=np.arange(30) % 3, edge_index=np.zeros((2, 4), int), weight=np.ones(4))
    code, out, err = say("data", "check", "graph:g.npz")
    assert code == 0
    assert "weight" not in out
    assert err.startswith("nas: warning: graph:g.npz: not used: weight (known: x, ")
    code, out, err = say("data", "check", "graph:g.npz?normalise=rows&spilt=1")
    assert (code, out) == (2, "")
    assert "unknown option 'spilt'; did you mean 'split'? (known: normalise, split, labels, " in err


def test_data_check_shows_what_would_be_silently_wrong(say: Said, folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(24):
        place = Path("set", "test" if number % 4 == 0 else "train", "rare" if number in (0, 5) else "usual")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(place / f"{number}.png")
    shutil.copy("set/train/usual/1.png", "set/test/usual/copy.png")
    Path("set", "train", "usual", "notes.txt").write_text("left out")
    code, out, err = say("data", "check", "folder:set")
    assert code == 0
    assert "1 test image is equal to one in the training part: test/usual/copy.png = train/usual/1.png" in out
    assert "imbalance    15 (15 training samples of usual, 1 of rare)" in out
    assert "answering 'usual' always is right for 100.0% of the validation part" in out
    mean = next(line for line in out.splitlines() if line.startswith("mean")).split(maxsplit=1)[1]
    assert all(100 < float(value) < 155 for value in mean.split(", "))
    assert "left out 1 file that is no image of a class: train/usual/notes.txt" in err
    assert "class 'rare' has no validation sample (1 in train, 1 in test)" in err
    code, out, err = say("data", "check", "folder:set", "--json")
    found = json.loads(out)
    assert (found["imbalance"], found["value_range"], len(found["mean"])) == (15, [0, 255], 3)
    assert sum("equal to one" in text for text in found["warnings"]) == 1
    assert sum("left out" in text for text in found["warnings"]) == 1


def test_a_data_set_of_ones_own_is_searched_on_in_another_process_too(say: Said, folder: Path) -> None:
    Path("my_data.py").write_text(DATASET)
    wanted = ("--data", "my_data.py", "--trials", "2", "--epochs", "1", "--study", "s", "--executor", "processes")
    size = ("--size", "search,channels=4,cells=1", "--threads", "1")
    code, _, err = say("search", "--space", "nasbench201", "--strategy", "random", *wanted, *size)
    assert (code, err.count("warning")) == (0, 1)
    assert "nas: warning: my_data.py: class 'c' has no sample in any part" in err
    assert [trial["state"] for trial in json.loads(say("trials", "s", "--json")[1])] == ["complete"] * 2


@pytest.mark.slow  # the fast one: test_batches_are_those_of_images_in_memory
def test_a_streamed_set_is_searched_resumed_trained_and_exported(say: Said, folder: Path) -> None:
    """The same study as that of the images in memory: same batches, same results, whatever reads them."""
    Path("my_data.py").write_text(DATASET)
    search = ("search", "--space", "nasbench201", "--strategy", "random", "--epochs", "2", "--threads", "1")
    size = ("--size", "search,channels=4,cells=1", "-s", "recipe.augment.flip=true")
    results = []
    for study, data in (("memory", "my_data.py"), ("stream", "my_data.py?stream=yes&workers=1")):
        assert say(*search, *size, "--data", data, "--study", study, "--trials", "1")[0] == 0
        code, _, err = say("resume", study, "--trials", "2")
        assert code == 0, err
        trials = json.loads(say("trials", study, "--json")[1])
        results.append([(trial["key"], trial["metrics"]) for trial in trials])
    assert results[0] == results[1]
    assert say("train", "stream:0", "--epochs", "1", "--recipe", "quick")[0] == 0
    code, out, err = say("export", "stream:0", "--out", "model", "--format", "pt2")
    assert code == 0, err
    code, out, err = say("data", "check", "my_data.py?stream=yes&workers=0")
    assert code == 0
    assert "images       1 x 8 x 8" in out


def test_data_check_shows_the_columns_of_a_table(say: Said, folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"{'' if n % 10 == 3 else 20 + n % 40}, {('', 'red', 'blue')[n % 3]}, {rng.normal():.3f}, "
        f"{'no' if n % 3 else 'yes'}"
        for n in range(300)
    ]
    Path("t.csv").write_text("\n".join(["age, colour, pay, buys", *rows, *rows[-6:]]) + "\n")
    code, out, err = say("data", "check", "csv:t.csv?target=buys")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "target buys" in lines
    assert "width 6" in lines
    assert any(line.startswith("age number 2") and "missing: the median 39, and an indicator" in line for line in lines)
    assert any(line.startswith("colour category 7") and line.endswith("3 levels: missing, blue, red") for line in lines)
    assert any(line.startswith("pay number 0 (value - ") and "missing" not in line for line in lines)
    assert any(line.startswith("no 1") for line in lines)
    assert "are equal to one of the training part in all columns but the target" in out
    found = json.loads(say("data", "check", "csv:t.csv?target=pay", "--json")[1])
    assert (found["classes"], found["class_counts"], found["imbalance"]) == ([], {}, None)
    assert found["target"]["name"] == "pay"
    assert found["target"].keys() == {"name", "train", "valid", "test"}
    assert found["target"]["test"].keys() == {"mean", "deviation", "least", "most"}
    assert [column["type"] for column in found["columns"]] == ["number", "category", "category"]
    code, out, err = say("data", "check", "csv:t.csv?target=pay")
    assert (code, err) == (0, "")
    assert {"train", "valid", "test"} <= {line.split()[0] for line in out.splitlines() if line}
    code, out, err = say("data", "check", "csv:t.csv?target=bys")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "unknown column 'bys'; did you mean 'buys'? (known: age, colour, pay, buys)" in err
