"""`nas export` and `nas infer`: which training is exported, what its card says, and what no written file may hold."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import nas
import nas_cli.export as command
from nas_core.public import public
from nas_core.seeds import derive
from studies.store.store import Store
from studies.store.urls import parse, shareable, shown
from training.data import load
from training.data.source import ImageSource
from training.data.split import Split
from training.inputs import inputs_from

Say = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]


def _table(card: str) -> dict[str, list[str]]:
    """The cells of every row, by all but the last three of metric rows, else by the first."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line.startswith("|")]
    return {" ".join(row[:3]) if row[0] == "this network" else row[0]: row for row in rows}


def test_the_best_training_is_exported_with_its_own_figures(say: Say, folder: Path) -> None:
    search = ["--size", "channels=2,cells=1", "-s", "split.limit=200", "--threads", "1", "--seed", "5"]
    assert say("search", "--study", "s", "--epochs", "1", "--trials", "1", *search)[0] == 0
    code, out, err = say("train", "s", "--size", "channels=2,cells=1", "--epochs", "2", "--seeds", "3", "--json")
    assert code == 0, err
    runs = {run["address"]: run["metrics"] for run in json.loads(out)["runs"]}
    assert list(runs) == [f"s:0/train-{n}" for n in (1, 2, 3)]
    best = max(runs, key=lambda address: runs[address]["val_accuracy"])
    other = next(address for address in reversed(runs) if address != best)
    values = [metrics["val_loss"] for metrics in runs.values()]  # differs wherever the weights do
    assert len(set(values)) == 3
    for address, wanted in (("s:0", best), (other, other)):
        code, out, err = say("export", address, "--format", "json", "--no-verify", "--json")
        assert code == 0, err
        found = json.loads(out)
        assert (found["trial"], found["training"]) == ("s:0", wanted)
        (card,) = (path for path in map(Path, found["files"]) if path.suffix == ".md")
        rows = _table(card.read_text())
        assert "this network test_accuracy test" in rows
        own, mean = rows["this network val_loss valid"][3:5]
        assert float(own) == pytest.approx(runs[wanted]["val_loss"], rel=1e-5)
        assert mean == f"{np.mean(values):.6g} ± {np.std(values, ddof=1):.4g}"
        assert rows["training"][1] == f"`{wanted}`"
        repeat = int(wanted.rpartition("-")[2]) - 1
        assert rows["seed of the training"][1] == f"`{derive(5, 0, 'retrain', repeat)}`"
        assert rows["seed of the study"][1] == "`5`"
    code, out, err = say("export", "s", "--hub", "hub", "--format", "safetensors", "--no-verify", "--json")
    assert code == 0, err
    names = ["model.safetensors", "model.json", ".gitattributes", "README.md"]
    assert [str(Path(path).relative_to("hub")) for path in json.loads(out)["files"]] == names
    _, head, card = (folder / "hub" / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(head)
    assert (fields["pipeline_tag"], "license" in fields) == ("image-classification", False)
    assert {"pytorch", "safetensors"} < set(fields["tags"])
    results = fields["model-index"][0]["results"]
    figures = {metric["name"]: metric["value"] for result in results for metric in result["metrics"]}
    assert figures == {name: runs[best][name] for name in figures}
    assert [result["dataset"]["split"] for result in results] == ["valid", "test"]
    assert all("accuracy" in {metric["type"] for metric in result["metrics"]} for result in results)
    assert {"accuracy", "loss"} <= set(fields["metrics"])
    assert card.lstrip().startswith("# nasbench201 s:0\n")
    assert "*.safetensors filter=lfs" in (folder / "hub" / ".gitattributes").read_text()
    assert sum(parameter.numel() for parameter in nas.load(folder / "hub").parameters()) > 0
    assert "leave out --out" in say("export", "s", "--hub", "hub", "--out", "other")[2]
    assert say("export", "s:0/train-4")[0] == 3
    assert "is one training; a study or trial is needed here" in say("train", "s:0/train-1")[2]


@pytest.mark.usefixtures("forked_checks")
def test_no_written_file_holds_a_password_or_a_path(say: Say, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space, strategy, data and database by absolute paths, the database's URL with a password."""
    place = folder / "some where"
    place.mkdir()
    shutil.copy(ROOT / "examples" / "my_space.py", place / "mine.py")
    (place / "own.py").write_text("from strategies.basic.random_search import RandomSearch as Own\n")
    source = load("digits")
    assert isinstance(source, ImageSource)
    part = source.parts.valid[:60]
    np.savez(place / "some.npz", images=source.images[part], labels=source.labels[part])
    db = f"sqlite:///{folder / 'nas.db'}"
    sizes = ["--size", "search", "--epochs", "1", "--threads", "1", "--data", f"npz:{place / 'some.npz'}"]
    given = ["--space", f"{place / 'mine.py'}:space", "--strategy", f"{place / 'own.py'}:Own", "--db", db]
    code, _, err = say("search", "--study", "s", "--trials", "1", *sizes, *given)
    assert code == 0, err
    assert say("train", "s", "--size", "search", "--epochs", "2", "--db", db)[0] == 0
    for number, url in enumerate((db, "postgresql+psycopg://me:s3cret@db.example/studies?password=s3cret")):
        monkeypatch.setattr(command, "open_store", lambda given, files, url=url: _at(db, url))
        code, _, err = say("export", "s", "--format", "safetensors", "--out", f"ex{number}", "--db", url)
        assert code == 0, err
    written = [path for ending in "01" for path in (folder / f"ex{ending}").iterdir()]
    assert {path.name for path in written} == {"s-0.safetensors", "s-0.json", "s-0.space.py", "s-0.md"}
    for path in written:
        content = path.read_bytes()
        assert str(folder).encode() not in content, path
        assert b"s3cret" not in content, path
    first, second = ((folder / name / "s-0.md").read_text() for name in ("ex0", "ex1"))
    assert "--data npz:some.npz" in first
    assert "--db" not in first
    assert "--db postgresql+psycopg://me@db.example/studies" in second
    # Other data at the same place are not what the network was trained on.
    np.savez(place / "some.npz", images=source.images[part][::-1], labels=source.labels[part])
    code, _, err = say("export", "s", "--format", "json")
    assert code == 2
    assert "are not what s:0/train-1 was trained on" in err


def _at(place: str, url: str) -> Store:
    """The store at `place`, which takes itself for the one at `url`."""
    store = Store(place, create=False)
    store.url = url
    return store


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("folder:/home/me/flowers?size=32", "folder:flowers?size=32"),
        ("/home/me/my files/mine.py:Space(factor=3)", "mine.py:Space(factor=3)"),
        ("mine.py:load:/data/x.npy", "mine.py:load:x.npy"),
        ("-s loss=/home/me/l.py:loss", "-s loss=l.py:loss"),
        ("csv:/data/a.csv?test=/data/b&c/b.csv&missing=N/A&drop=x", "csv:a.csv?test=b.csv&missing=N/A&drop=x"),
        ("folder:/", "folder:."),
        ("folder:../data/flowers", "folder:../data/flowers"),
        ("folder:~/flowers", "folder:~/flowers"),
        ("bench/random/0:3/train-1", "bench/random/0:3/train-1"),
        ("postgresql://me@db.example/studies", "postgresql://me@db.example/studies"),
        ({"recipe": {"loss": ["/a/b.py:f", 3]}}, {"recipe": {"loss": ["b.py:f", 3]}}),
    ],
)
def test_paths_are_cut_to_their_last_part(text: object, expected: object) -> None:
    assert public(text) == expected


def test_databases_are_shown_without_passwords() -> None:
    url = parse("postgresql+psycopg://me:s3cret@db.example:5433/studies?sslpassword=s3cret&sslmode=require")
    assert shown(url) == "postgresql+psycopg://me:***@db.example:5433/studies?sslmode=require"
    assert shareable(url) == "postgresql+psycopg://me@db.example:5433/studies?sslmode=require"
    assert shareable(parse("sqlite:////home/me/nas.db")) == "sqlite:///nas.db"
    assert shareable(parse("sqlite:///../nas.db")) == "sqlite:///../nas.db"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@db.example:port/x",
        "mysql://me:s3cret@db/x",
        "oracle:x://me:s3c@s3cret@h?password=s3cret",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(say: Say, url: str) -> None:
    code, out, err = say("ls", "--db", url)
    assert code != 0
    assert "s3cret" not in out + err


def _a_wrong_mean_is_not_exported(say: Say) -> None:
    """What the network needs of its inputs is kept with its training, and held against the data when it is exported."""
    with sqlite3.connect("nas.db") as connection:
        (text,) = connection.execute("SELECT recipe FROM runs WHERE kind = 'retrain'").fetchone()
        stored = json.loads(text)
        limited = load("digits", Split(limit=200))
        assert inputs_from(stored["inputs"]) == limited.inputs
        stored["inputs"]["mean"] = [0.0]
        connection.execute("UPDATE runs SET recipe = ? WHERE kind = 'retrain'", [json.dumps(stored)])
    code, _, err = say("export", "s", "--format", "safetensors", "--out", "wrong")
    assert code == 7
    assert "differs from the network" in err
    with sqlite3.connect("nas.db") as connection:
        connection.execute("UPDATE runs SET recipe = ? WHERE kind = 'retrain'", [text])


@pytest.mark.usefixtures("forked_checks")
def test_infer_answers_what_it_can(say: Say, folder: Path) -> None:
    search = ["--size", "channels=2,cells=1", "-s", "split.limit=200", "--threads", "1"]
    assert say("search", "--study", "s", "--epochs", "1", "--trials", "1", *search)[0] == 0
    assert say("train", "s", "--size", "channels=2,cells=1", "--epochs", "2")[0] == 0
    assert say("export", "s", "--format", "python", "--no-verify", "--out", "net")[0] == 0
    _a_wrong_mean_is_not_exported(say)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (9, 8, 3), dtype=np.uint8)).save("a.png")
    np.savez("many.npz", images=rng.integers(0, 17, (300, 8, 8), dtype=np.uint8))
    code, out, err = say("infer", "net", "a.png", "none.png", "npz:many.npz")
    assert (code, len(out.splitlines())) == (3, 1 + 5 + 300)
    assert err.splitlines() == [
        "nas: 1 of 3 inputs brought to 8x8 pixels (stretch)",
        "nas: there is no file 'none.png'; inputs are image files or npz:FILE",
    ]
    code, text, err = say("infer", "net/s-0.json", "a.png", "--json", "--top", "10")
    ((name, classes),) = ((one["input"], one["classes"]) for one in json.loads(text))
    assert (code, name, len(classes)) == (0, "a.png", 10)
    source = json.loads(say("infer", "net/s_0.py", "a.png", "--json", "--top", "10")[1])[0]["classes"]
    assert [one["class"] for one in source] == [one["class"] for one in classes]
    assert [one["probability"] for one in source] == pytest.approx([one["probability"] for one in classes], abs=1e-6)
    assert sum(one["probability"] for one in classes) == pytest.approx(1)
    assert [line.split() for line in out.splitlines()[1:6]] == [
        ["a.png", one["class"], repr(one["probability"])] for one in classes[:5]
    ]
    (folder / "net" / "s-0.safetensors").rename(folder / "net" / "other.safetensors")
    (folder / "bad.py").write_text("raise ValueError('not here')")
    for model, words in (
        ("net", "is one of two files"),
        ("net/s-0.json", "holds the weights of the network, is not there"),
        ("none", "there is no file 'none'"),
        ("bad.py", "cannot be run: ValueError: not here"),
        ("a.png", "is no exported network; known are .onnx"),
    ):
        code, _, err = say("infer", model, "a.png")
        assert code in (2, 3)
        assert words in err
