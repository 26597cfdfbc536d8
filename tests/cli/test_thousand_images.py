"""A thousand photographs of CIFAR-10 (JPEG), classified by every exported file as the network in training does."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nas_cli.app import run
from studies.analysis.trained import addressed_training, trained_weights
from studies.store.store import Store
from tests.training.isolated import run_alone
from training.data import load
from training.data.split import Split
from training.infer import classify, open_model
from training.networks import load_trained

COUNT, AGREE = 1000, 999
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Runs the card's script for one file after another, as if each were given to it alone.
_EACH = """
import contextlib, io, json, sys
code = compile(open("script.py").read(), "script.py", "exec")
first = []
for name in json.load(open("files.json")):
    sys.argv, said = ["script.py", name], io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    first.append(said.getvalue().split()[0])
print(json.dumps(first))
"""

_PT2 = """
import json, numpy as np, torch
from PIL import Image
said = {"inputs": ""}
program = torch.export.load("net.pt2", extra_files=said).module()
inputs = json.loads(said["inputs"])
first = []
for name in json.load(open("files.json")):
    image = Image.open(name).convert(inputs["mode"]).resize((inputs["width"], inputs["height"]), 3)
    x = torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255)
    first.append(inputs["classes"][int(program(x).argmax())])
print(json.dumps(first))
"""

_SOURCE = """
import json, sys
from PIL import Image
sys.path.insert(0, ".")
from s_0 import CLASSES, load, preprocess
network = load()
files = json.load(open("files.json"))
print(json.dumps([CLASSES[network(preprocess(Image.open(name))).argmax()] for name in files]))
"""


def _photographs(file: Path, folder: Path) -> list[str]:
    """A folder of JPEG files: 100 of each class as `valid`, 60 as `train`, 10 as `test`; the first of these."""
    stored = np.load(file)
    names = []
    for number, name in enumerate(CLASSES):
        rows = np.flatnonzero(stored["labels"] == number)
        for part, chosen in (("valid", rows[:100]), ("train", rows[100:160]), ("test", rows[160:170])):
            place = folder / part / name
            place.mkdir(parents=True)
            for row in chosen:
                data = stored["data"][stored["offsets"][row] : stored["offsets"][row + 1]]
                (place / f"{row:05}.jpg").write_bytes(stored["header"].tobytes() + data.tobytes())
        names += sorted(str(path) for path in (folder / "valid" / name).iterdir())
    return names


@pytest.mark.slow
def test_a_thousand_images(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = _photographs(shared_data / "cifar10_jpeg_test.npz", tmp_path / "photographs")
    assert len(files) == COUNT
    small = ["--size", "channels=8,cells=1"]
    common = ["--study", "s", "--data", "folder:photographs", "--threads", "1", "--seed", "1"]
    assert run(["search", *common, *small, "--epochs", "1", "--trials", "1"]) == 0
    assert run(["train", "s", *small, "--epochs", "6"]) == 0
    assert run(["export", "s:0", "--format", "onnx,pt2,python", "--out", "net"]) == 0

    # What the network in training says of the validation part, which holds these files in this order.
    with Store("sqlite:///nas.db") as store:
        study, trial, training = addressed_training(store, "s")
        weights = trained_weights(store, study, trial, training)
    source = load("folder:photographs", Split())
    from studies.setup.spaces import load_space, size_of

    space, _ = load_space(study.spec.space)
    assert training.recipe is not None
    network = load_trained(space, trial.arch, source.task, size_of(space, training.recipe["size"]), weights).eval()
    with torch.inference_mode():
        batches = source.bind("cpu").batches("valid", 0, 0)
        expected = [CLASSES[n] for batch in batches for n in network(*batch.inputs).argmax(1).tolist()]
    assert len(set(expected)) > 5

    (stem,) = (path.stem for path in (tmp_path / "net").glob("*.onnx"))
    found: dict[str, list[str]] = {}
    for name in (f"{stem}.onnx", f"{stem}.pt2", f"{stem}.safetensors", "s_0.py"):
        model = open_model(tmp_path / "net" / name)
        found[f"nas infer {name}"] = [classify(model, file)[0][0].classes[0][0] for file in files]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert run(["infer", "net", *files, "--json"]) == 0
    found["nas infer"] = [answer["classes"][0]["class"] for answer in json.loads(said.getvalue())]
    card = (tmp_path / "net" / f"{stem}.md").read_text()
    (tmp_path / "net" / "script.py").write_text(card.partition("```python\n")[2].partition("```")[0])
    (tmp_path / "net" / "files.json").write_text(json.dumps(files))
    found["script"] = json.loads(run_alone(_EACH, tmp_path / "net"))
    (tmp_path / "net" / f"{stem}.pt2").rename(tmp_path / "net" / "net.pt2")
    found["pt2 alone"] = json.loads(run_alone(_PT2, tmp_path / "net"))
    found["model.py alone"] = json.loads(run_alone(_SOURCE, tmp_path / "net"))
    alike = {name: sum(map(str.__eq__, answers, expected)) for name, answers in found.items()}
    print(alike)
    assert all(count >= AGREE for count in alike.values()), alike
