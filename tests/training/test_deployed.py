"""Exported files classify an image file as the network in training does, with and without this program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.errors import NotFoundError, UsageError, VerificationError
from search_spaces.nasbench201.space import NasBench201, Size
from search_spaces.nasbench_graph.space import GraphSize, NasBenchGraph
from tests.training.isolated import run_alone
from training.data import load
from training.data.source import GraphSource, ImageSource, graph_source, image_source
from training.data.split import Split
from training.export import export
from training.export.proof import proofs_of
from training.infer import classify, open_model, read
from training.infer.classify import probabilities
from training.inputs import Inputs

CELL = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"


def _disturbed(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.1 * torch.rand(tensor.shape, generator=generator)
    return network.eval()


def _network(source: ImageSource) -> tuple[nn.Module, Architecture, dict[str, Any]]:
    space, size = NasBench201(), {"channels": 4, "cells": 1}
    arch = space.from_text(CELL)
    card = {"title": "A network", "space": "nasbench201", "size": size, "command": "nas train s:0"}
    return _disturbed(space.build(arch, source.task, Size(**size))), arch, card


def _export(
    source: ImageSource, folder: Path, *formats: str, inputs: Inputs | None = None, **options: Any
) -> nn.Module:
    network, arch, card = _network(source)
    inputs = inputs or source.inputs
    batch = next(iter(source.bind("cpu").batches("valid", 0, 0)))
    example = tuple(map(torch.from_numpy, inputs.restored(tuple(tensor.numpy() for tensor in batch.inputs))))
    export(
        *(network, source.task, example, arch, card, folder, "net", formats),
        inputs=inputs,
        proofs=proofs_of(source),
        **options,
    )
    return network


def _photographs(folder: Path) -> Path:
    """Files of all kinds, of several sizes: two classes, and a part `valid` that holds every kind."""
    rng = np.random.default_rng(3)
    for part, count in (("train", 12), ("valid", 6)):
        for name in ("cat", "dog"):
            place = folder / part / name
            place.mkdir(parents=True)
            for number in range(count):
                width, height = (20, 30) if number % 2 else (24, 16)
                tint = 60 if name == "cat" else 160
                pixels = np.clip(rng.normal(tint, 50, (height, width, 3)), 0, 255).astype(np.uint8)
                image = Image.fromarray(pixels)
                match number % 6:
                    case 0:
                        image.save(place / f"{number}.png")
                    case 1:
                        exif = Image.Exif()
                        exif[0x0112] = 6  # to be turned
                        image.save(place / f"{number}.jpg", exif=exif)
                    case 2:
                        image.convert("L").save(place / f"{number}.png")
                    case 3:
                        image.convert("P").save(place / f"{number}.gif")
                    case 4:
                        image.convert("CMYK").save(place / f"{number}.jpg")
                    case 5:
                        image.convert("RGBA").save(place / f"{number}.webp", lossless=True)
    return folder


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], Tensor, tuple[str, ...]]:
    """A folder of files of a colour network, image files, and what the network in training answers to them."""
    folder = tmp_path_factory.mktemp("deployed")
    data = _photographs(folder / "data")
    source = load(f"folder:{data}?size=8")
    assert isinstance(source, ImageSource)
    network = _export(source, folder / "out", "onnx", "pt2", "safetensors")
    with torch.inference_mode():
        answers = network(*next(iter(source.bind("cpu").batches("valid", 0, 0))).inputs)
    files = [str(path) for name in ("cat", "dog") for path in sorted((data / "valid" / name).iterdir())]
    return folder / "out", files, answers, source.inputs.classes


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2", "net.safetensors", "net.json"])
def test_a_file_is_classified_as_the_network_in_training_does(deployed: Any, name: str) -> None:
    folder, files, expected, classes = deployed
    model = open_model(folder / name)
    assert model.inside == (name in ("net.onnx", "net.pt2"))
    for file, row in zip(files, probabilities(expected.numpy()), strict=True):
        (answer,), _ = classify(model, file)
        assert dict(answer.classes) == pytest.approx(dict(zip(classes, row, strict=True)), abs=1e-5), file


# Runs a script for each of its arguments, in one process.
EACH = """
import runpy, sys
for file in sys.argv[1:]:
    print("--")
    sys.argv = ["script.py", file]
    runpy.run_path("script.py", run_name="__main__")
"""


def test_the_printed_script_does_so_alone(deployed: Any) -> None:
    folder, files, expected, classes = deployed
    card = (folder / "net.md").read_text()
    script = card.partition("```python\n")[2].partition("```")[0]
    assert len(list(filter(None, script.splitlines()))) == 10
    (folder / "script.py").write_text(script)
    places = (1, 2, 3, 4)
    printed = run_alone(EACH, folder, *(files[place] for place in places)).split("--\n")
    for place, text in zip(places, printed[1:], strict=True):
        lines = [line.split() for line in text.splitlines()]
        row = probabilities(expected.numpy())[place]
        assert {name: float(odds) for name, odds in lines} == pytest.approx(
            dict(zip(classes, row, strict=True)), abs=1e-3
        )
        assert lines[0][0] == classes[int(row.argmax())]


def test_programs_say_what_their_inputs_are(deployed: Any) -> None:
    folder, _, _, classes = deployed
    model = onnx.load(folder / "net.onnx")
    said = {entry.key: entry.value for entry in model.metadata_props}
    found = json.loads(said["inputs"])
    assert found["classes"] == list(classes) == ["cat", "dog"]
    assert (found["mode"], found["height"], found["fit"], said["normalisation"]) == ("RGB", 8, "stretch", "inside")
    assert found == json.loads((folder / "net.json").read_text())["inputs"]
    extra = {"inputs": ""}
    torch.export.load(folder / "net.pt2", extra_files=extra)
    assert json.loads(extra["inputs"]) == found


def _digits() -> ImageSource:
    """Float images from 0 to 16, as scikit-learn has them."""
    source = load("digits")
    assert isinstance(source, ImageSource)
    rows = source.parts.valid[:60]
    return image_source("d", source.images[rows].astype(np.float64), source.labels[rows], Split())


WRONG: dict[str, Callable[[Any], Any]] = {
    "mean": lambda inputs: inputs.model_copy(update={"mean": (0.4,)}),
    "units": lambda inputs: inputs.model_copy(update={"mean": (inputs.mean[0] * 16,), "deviation": (6.0,)}),
}


@pytest.mark.usefixtures("forked_checks")
@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_normalisation_is_not_kept(tmp_path: Path, fault: str) -> None:
    source = _digits()
    with pytest.raises(
        VerificationError, match=r"net\.safetensors'.* differs from the network by .* on the file proof"
    ):
        _export(source, tmp_path, "safetensors", inputs=WRONG[fault](source.inputs))
    assert not any(path.is_file() for path in tmp_path.iterdir())


@pytest.mark.usefixtures("forked_checks")
def test_a_raw_program_normalises_nothing(tmp_path: Path) -> None:
    source = _digits()
    network = _export(source, tmp_path, "onnx", raw=True)
    seen = next(iter(source.bind("cpu").batches("valid", 0, 0))).inputs
    with torch.inference_mode():
        expected = network(*seen).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert np.allclose(session.run(None, {"image": seen[0].numpy()})[0], expected, atol=1e-5)
    model = open_model(tmp_path)
    assert not model.inside
    # Stored numbers go from 0 to 16; `nas infer` takes them so, too.
    np.savez(tmp_path / "valid.npz", images=source.images[source.parts.valid])
    assert model.inputs is not None
    shares = read(model.inputs, f"npz:{tmp_path / 'valid.npz'}").tensors
    assert np.allclose(model.run(shares), expected, atol=1e-4)
    card = (tmp_path / "net.md").read_text()
    assert "the bare network" in card
    (tmp_path / "proof.png").write_bytes(proofs_of(source)[0].content)
    (answer,), _ = classify(model, str(tmp_path / "proof.png"))
    script = card.partition("```python\n")[2].partition("```")[0]
    printed = [line.split() for line in run_alone(script, tmp_path, "proof.png").splitlines()]
    assert [(name, float(odds)) for name, odds in printed] == [
        (name, pytest.approx(odds, abs=1e-3)) for name, odds in answer.classes
    ]


@pytest.mark.usefixtures("forked_checks")
@pytest.mark.parametrize("formats", [("onnx",), ("pt2",), ("safetensors", "python")], ids="+".join)
def test_a_graph_is_classified_as_in_training(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], formats: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(5)
    features, edges = rng.random((40, 6)) * 9, rng.integers(0, 40, (2, 90))
    source = graph_source("g", features, np.arange(40) % 3, edges, Split(), normalise="rows", classes=["u", "v", "w"])
    assert isinstance(source, GraphSource)
    space = NasBenchGraph()
    arch = space.from_text("0123:gat,gcn,gin,cheb")
    network = _disturbed(space.build(arch, source.task, GraphSize(hidden=8)))
    card = {"title": "G", "space": "nasbench_graph", "size": {"hidden": 8}, "command": "nas train g:0"}
    seen = next(iter(source.bind("cpu").batches("valid", 0, 0))).inputs
    export(
        *(network, source.task, seen, arch, card, tmp_path, "net", formats),
        inputs=source.inputs,
        proofs=proofs_of(source),
    )
    assert capfd.readouterr() == ("", "")
    np.savez(tmp_path / "raw.npz", x=features, edge_index=edges)  # as they were before normalisation
    with torch.inference_mode():
        expected = probabilities(network(*seen).numpy())
    names = [source.inputs.classes[column] for column in expected.argmax(1)]
    for name in (f"net.{'py' if form == 'python' else form}" for form in formats):
        model = open_model(tmp_path / name)
        answers, _ = classify(model, f"graph:{tmp_path / 'raw.npz'}")
        assert [answer.classes[0][0] for answer in answers] == names
        assert [answer.classes[0][1] for answer in answers] == pytest.approx(expected.max(1), abs=1e-4)
        for nodes, count in ((7, 40), (5, 1), (4, 0), (1, 1)):  # whatever the numbers of nodes and edges
            graph = (rng.random((nodes, 6), np.float32), rng.integers(0, nodes, (2, count)))
            with torch.inference_mode():
                wanted = network(*map(torch.from_numpy, source.inputs.normalised(graph))).numpy()
            assert np.allclose(model.run(graph), wanted, rtol=1e-4, atol=1e-5), (name, nodes, count)
    if "onnx" in formats:
        script = (tmp_path / "net.md").read_text().partition("```python\n")[2].partition("```")[0]
        printed = [line.split()[1] for line in run_alone(script, tmp_path, "raw.npz").splitlines()]
        assert printed == names


def test_what_a_network_cannot_take_is_said(tmp_path: Path) -> None:
    inputs = load("digits").inputs
    karate = load("karate").inputs
    Image.new("F", (8, 8)).save(tmp_path / "deep.tif")
    (tmp_path / "text.png").write_text("no image")
    np.savez(tmp_path / "small.npz", images=np.zeros((2, 4, 4)))
    np.savez(tmp_path / "graph.npz", x=np.zeros((2, 5)), edge_index=np.array([[0], [2]]))

    def refused(given: Any, argument: str) -> str:
        with pytest.raises((UsageError, NotFoundError)) as caught:
            read(given, argument.format(tmp_path))
        return str(caught.value)

    assert "there is no file" in refused(inputs, "{}/none.png")
    assert "more than 16 bits per channel" in refused(inputs, "{}/deep.tif")
    assert "not a readable image" in refused(inputs, "{}/text.png")
    assert "is a folder; name its image files" in refused(inputs, "{}")
    assert "images are 1x4x4, the network takes 1x8x8" in refused(inputs, "npz:{}/small.npz")
    assert "is a graph, but the network classifies images" in refused(inputs, "graph:{}/graph.npz")
    assert "give graph:FILE" in refused(karate, "{}/deep.png")
    assert "the network takes [nodes, 34]" in refused(karate, "graph:{}/graph.npz")
