"""The module `nas`: a search, a resume, a training and an export from Python are those of the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import nas
from nas_core.errors import NotFoundError, UsageError

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "study": "s", "size": "channels=2,cells=1", "epochs": 1, "trials": 2, "threads": 1,
    "config": {"split": {"limit": 60}},
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_it_stores_is_what_the_command_stores(place: Path) -> None:
    study = nas.search(**SMALL, objective=["val_loss", "params:min"], strategy="random", seed=3)
    command = ["search", "--study", "s", "--size", "channels=2,cells=1", "--epochs", "1", "-n", "2", "--threads", "1"]
    command += ["--objective", "val_loss", "--objective", "params:min", "--strategy", "random", "--seed", "3"]
    command += ["-s", "split.limit=60", "--db", "sqlite:///other.db", "--json"]
    subprocess.run([sys.executable, "-m", "nas_cli", *command], check=True, capture_output=True)
    (other,) = nas.studies(db="other.db")
    volatile = {"seconds", "started", "ended"}
    one, two = (
        [{key: value for key, value in trial.items() if key not in volatile} for trial in each.trials()]
        for each in (study, other)
    )
    assert one == two
    assert study.best()["number"] in (0, 1)
    assert repr(other) == "Study('s', db='other.db')"
    table = study.to_pandas()
    assert list(table["number"]) == [0, 1]
    assert {"val_loss", "params", "architecture.cell/edge.0-1"} <= set(table.columns)


def test_a_supernet_and_a_search_on_it(place: Path) -> None:
    options = {**SMALL, "trials": 1, "config": {**SMALL["config"], "strategy": {"epochs": 1}}}
    study = nas.search(**options, strategy="spos", then="random")
    assert study.name == "s-random"
    assert {"supernet_accuracy", "supernet_loss"} <= study.trials()[0]["metrics"].keys()
    assert [one.name for one in nas.studies()] == ["s", "s-random"]


def test_trainings_and_exports(place: Path) -> None:
    study = nas.resume(nas.search(**{**SMALL, "trials": 1}).name, trials=2)
    assert len(study.trials()) == 2
    alone = study.train(1, epochs=1, size="channels=2,cells=1", settings={"lr": 0.05})
    again = study.train(1, epochs=1, size="channels=2,cells=1", settings={"lr": 0.05}, seeds=2)
    assert [one["address"] for one in again] == ["s:1/train-1", "s:1/train-2"]
    assert again[0] == alone[0]
    taught = study.train(0, epochs=1, size="channels=2,cells=1", teacher="s:1")
    assert taught[0]["recipe"]["teacher"]["from"] == "s:1/train-1"
    paths = study.export("out", 1, format=["safetensors", "json"], verify=False)
    images = torch.zeros(2, 1, 8, 8)
    networks = [nas.load(one) for one in (paths, "out", Path("out/s-1.json"))]
    assert not any(network.training for network in networks)
    first, *others = [network(images) for network in networks]
    assert first.shape == (2, 10)
    assert all(torch.equal(first, other) for other in others)
    study.export("out", 0, format=["safetensors", "json"], verify=False)
    with pytest.raises(UsageError, match="holds 2 networks"):
        nas.load("out")


def test_mistakes_are_errors_with_the_words_of_the_command(place: Path) -> None:
    for options, words in (
        ({"spce": "darts"}, "unknown option 'spce'; did you mean 'space'?"),
        ({"objectives": "val_loss"}, "unknown option 'objectives'; did you mean 'objective'?"),
        ({"strategy": "randon"}, "did you mean 'random'?"),
        ({"config": {"seeds": 1}}, "seeds"),
        ({"then": "random"}, "trains no supernet"),
    ):
        with pytest.raises(UsageError) as caught:
            nas.search(**options)  # type: ignore[arg-type]
        assert words in str(caught.value)
    assert nas.studies() == []
    with pytest.raises(NotFoundError):
        nas.resume("nothing")
    with pytest.raises(NotFoundError, match=r"looked for \.json"):
        nas.load(place)
    with pytest.raises(NotFoundError):
        nas.studies(db="gone.db")
    study = nas.search(**SMALL)
    with pytest.raises(UsageError, match="seeds 0"):
        study.train(seeds=0)
    with pytest.raises(NotFoundError):
        study.train(9)


def test_places_come_from_the_environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_DB", "sqlite:///there.db")
    monkeypatch.setenv("NAS_FILES", "weights")
    study = nas.search(**{**SMALL, "trials": 1})
    study.train(epochs=1, size="channels=2,cells=1")
    assert (place / "there.db").is_file()
    assert list((place / "weights").rglob("weights.safetensors"))
    assert not (place / "nas.db").exists()


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, nas; print([n for n in ('torch', 'sqlalchemy', 'numpy', 'pydantic') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert json.loads(done.stdout.replace("'", '"')) == []


@pytest.mark.slow
def test_the_wheel_has_it_where_a_folder_has_its_name(tmp_path: Path) -> None:
    """To Python such a folder is an empty namespace package, behind an installed module. That the module is listed,
    `tests/test_layers.py` holds in the gate."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), "."]
    subprocess.run(build, check=True, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "work" / "nas").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", "import nas; print(nas.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path / "work",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.stdout.strip() == str(tmp_path / "site" / "nas.py")
