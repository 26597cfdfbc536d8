"""Export: the files run on their own, a wrong file is never kept, and what cannot work is refused with a reason."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import training.export.verify as verification
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import MachineError, NotFoundError, UsageError, VerificationError
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from search_spaces.nasbench201.space import NasBench201, Size
from search_spaces.nasbench_graph.space import OPERATIONS, GraphSize, NasBenchGraph
from training.export import FORMATS, Card, check_formats, export, load_network, model_card
from training.export.formats import signature_of
from training.export.rebuild import origin
from training.export.write import onnx_bytes, pt2_bytes, trace

ROOT = Path(__file__).resolve().parents[2]
CELL = "|nor_conv_3x3~0|+|skip_connect~0|avg_pool_3x3~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"
IMAGES = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 8, 8), outputs=10)
GRAPH = Task(kind=NODE_CLASSIFICATION, input_shape=(12,), outputs=4, nodes=30, edges=30)

OWN_SPACE = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Space(SearchSpace):
    name = "own"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", (4, 8)),)

    def __init__(self, factor=1):
        self.factor = factor

    def build(self, arch, task, size):
        from torch import nn

        print("a user's space may print")
        width = arch.values["width"] * self.factor
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, task.outputs))
"""


@dataclass(frozen=True)
class Trained:
    """A network with weights and statistics unlike those of a new one, and what `export` wants with it."""

    network: nn.Module
    task: Task
    example: tuple[Tensor, ...]
    arch: Architecture
    card: Mapping[str, Any]

    def export(self, folder: Path, *formats: str, verify: bool = True) -> list[Path]:
        return export(self.network, self.task, self.example, self.arch, self.card, folder, "net", formats, verify)


def _card(space: str, **size: Any) -> dict[str, Any]:
    return {"title": "A network", "space": space, "size": size, "command": "nas train digits:3"}


def _disturb(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.1 * torch.rand(tensor.shape, generator=generator)
    return network


def _images(batch: int) -> Tensor:
    return torch.randn(batch, *IMAGES.input_shape, generator=torch.Generator().manual_seed(batch))


def _graph(nodes: int, edges: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(nodes)
    return torch.rand(nodes, 12, generator=generator), torch.randint(0, nodes, (2, edges), generator=generator)


def _cell() -> Trained:
    torch.manual_seed(0)
    space, size = NasBench201(), Size(channels=4, cells=1)
    arch = space.from_text(CELL)
    # A batch of one is the hard example: a careless trace would freeze it.
    return Trained(
        _disturb(space.build(arch, IMAGES, size)),
        IMAGES,
        (_images(1),),
        arch,
        _card("nasbench201", channels=4, cells=1),
    )


def _gnn(text: str) -> Trained:
    torch.manual_seed(0)
    space, size = NasBenchGraph(), GraphSize(hidden=8)
    arch = space.from_text(text)
    # As many edges as nodes: a careless trace would take them for one number.
    network = _disturb(space.build(arch, GRAPH, size)).eval()
    return Trained(network, GRAPH, _graph(30, 30), arch, _card("nasbench_graph", hidden=8))


def _own(folder: Path) -> Trained:
    path = folder / "my_space.py"
    path.write_text(OWN_SPACE, encoding="utf-8")
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    return Trained(network, IMAGES, (_images(2),), Architecture("own", {"width": 4}), _card(f"{path}:Space(factor=3)"))


def _run_onnx(content: bytes | Path, inputs: tuple[Tensor, ...]) -> Tensor:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return torch.from_numpy(session.run(None, feed)[0])


@pytest.fixture(scope="module")
def trained() -> Trained:
    return _cell()


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "new" / "folder"
    written = trained.export(folder, *FORMATS)
    assert [path.name for path in written] == ["net.onnx", "net.pt2", "net.safetensors", "net.json", "net.py", "net.md"]
    assert sorted(folder.iterdir()) == sorted(written)
    return folder


@pytest.mark.parametrize("batch", [1, 5])
def test_files_run_on_any_batch(trained: Trained, exported: Path, batch: int) -> None:
    images = _images(batch)
    with torch.inference_mode():
        expected = trained.network.eval()(images)
        answers = {
            "onnx": _run_onnx(exported / "net.onnx", (images,)),
            "pt2": torch.export.load(exported / "net.pt2").module()(images),
            "safetensors": load_network(exported / "net.json", exported / "net.safetensors")(images),
        }
    assert len({tuple(row) for row in expected.tolist()}) == batch
    for name, answer in answers.items():
        assert torch.allclose(answer, expected, rtol=1e-4, atol=1e-5), name


def test_caller_keeps_its_network(tmp_path: Path) -> None:
    trained = _cell()
    trained.network.train().to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    trained.export(tmp_path, "safetensors", verify=False)
    assert trained.network.training
    weights = safetensors.torch.load_file(tmp_path / "net.safetensors")
    after = trained.network.state_dict()
    assert weights.keys() == before.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in before.items())
    with pytest.raises(UsageError, match="'a/b' is no file name"):
        export(trained.network, IMAGES, trained.example, trained.arch, trained.card, tmp_path, "a/b", ["json"])


def test_onnx_names_its_dimensions_and_holds_its_weights(exported: Path) -> None:
    model = onnx.load(exported / "net.onnx", load_external_data=False)
    dims = {
        entry.name: [dim.dim_param or dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        for entry in (*model.graph.input, *model.graph.output)
    }
    assert dims == {"image": ["batch", 1, 8, 8], "logits": ["batch", 10]}
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_pt2_loads_without_pickle(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("loading unpickles something")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    assert torch.export.load(exported / "net.pt2").module()(_images(2)).shape == (2, 10)


def test_files_tell_nothing_of_the_machine_and_the_data(exported: Path) -> None:
    with zipfile.ZipFile(exported / "net.pt2") as archive:
        contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    assert [len(content) for name, content in contents.items() if "sample_inputs" in name] == [0]
    contents |= {path.name: path.read_bytes() for path in exported.iterdir()}
    assert [name for name, content in contents.items() if str(ROOT).encode() in content] == []


def test_json_and_card_say_what_was_exported(trained: Trained, exported: Path) -> None:
    data = json.loads((exported / "net.json").read_text(encoding="utf-8"))
    assert data["notation"] == CELL
    assert data["size"] == {"channels": 4, "cells": 1}
    assert Task(**data["task"]) == IMAGES
    assert Architecture.from_json(json.dumps(data["architecture"])) == trained.arch
    card = (exported / "net.md").read_text(encoding="utf-8")
    params = NasBench201().costs(trained.arch, IMAGES, Size(channels=4, cells=1))["params"]
    assert f"| parameters | {params:,.0f} |" in card
    assert CELL in card
    for path in exported.iterdir():
        if path.suffix != ".md":
            assert hashlib.sha256(path.read_bytes()).hexdigest() in card, path.name


def _wrong_onnx(path: Path) -> None:
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    changed = numpy_helper.to_array(weight) * numpy.float32(1.01)
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    onnx.save(model, path)


def _wrong_pt2(path: Path) -> None:
    program = torch.export.load(path)
    next(tensor for tensor in program.state_dict.values() if tensor.dim() == 4).data.mul_(1.01)
    torch.export.save(program, path)


def _wrong_safetensors(path: Path) -> None:
    weights = safetensors.torch.load_file(path)
    next(tensor for tensor in weights.values() if tensor.dim() == 4).mul_(1.01)
    path.write_bytes(safetensors.torch.save(weights))


def _wrong_json(path: Path) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    data["size"]["channels"] = 5
    path.write_text(json.dumps(data), encoding="utf-8")


def _wrong_python(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace("+ self.shortcut", "- self.shortcut"), encoding="utf-8")


def _curious(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\nimport nas_core\n", encoding="utf-8")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.usefixtures("forked_checks")
@pytest.mark.parametrize(
    ("form", "damage", "message"),
    [
        ("onnx", _wrong_onnx, r"'net\.onnx' .*format onnx differs from the network by \d.* on a batch of 1 \(allowed"),
        ("pt2", _wrong_pt2, r"'net\.pt2' .*format pt2 differs from the network by \d"),
        ("safetensors", _wrong_safetensors, r"'net\.safetensors' .*format safetensors differs from the network by \d"),
        ("python", _wrong_python, r"'net\.py' .*format python differs from the network by \d"),
        ("python", _curious, r"'net\.py' .*python: ModuleNotFoundError: No module named 'nas_core'"),
        ("safetensors", _cut, r"'net\.safetensors' .*does not hold the weights of this network"),
        (
            "json",
            _wrong_json,
            r"'net\.json' .*json: it builds another network: .* is \[5, 5, 3, 3\], not \[4, 4, 3, 3\]",
        ),
    ],
)
def test_a_wrong_file_is_not_kept(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    check = verification.verify

    def damaged(folder: Path, stem: str, *rest: Any, **more: Any) -> None:
        damage(folder / FORMATS[form].file(stem))
        check(folder, stem, *rest, **more)

    monkeypatch.setattr(verification, "verify", damaged)
    (tmp_path / "other").write_text("stays")
    with pytest.raises(VerificationError, match=message) as caught:
        trained.export(tmp_path, form)
    assert caught.value.exit_code == 7
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_verification_that_dies_is_an_error(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = {path: path.read_bytes() for path in trained.export(tmp_path, "json", verify=False)}
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(VerificationError, match="exit code 1"):
        trained.export(tmp_path, "json", "safetensors")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == earlier


def _programs_answer(gnn: Trained) -> None:
    signature = signature_of(gnn.task)
    program = trace(gnn.network, gnn.example, signature)
    model = onnx_bytes(program, signature, {})
    loaded = torch.export.load(io.BytesIO(pt2_bytes(program, {}))).module()
    for nodes, edges in ((30, 30), (9, 50), (3, 0)):
        inputs = _graph(nodes, edges)
        with torch.inference_mode():
            expected = gnn.network(*inputs)
            assert torch.allclose(loaded(*inputs), expected, rtol=1e-4, atol=1e-5)
            assert torch.allclose(_run_onnx(model, inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", ["0123:sage,arma,graph,fc", "0111:gcn,skip,fc,skip"])
def test_the_other_graph_operators(text: str) -> None:
    _programs_answer(_gnn(text))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["0111:{},{},gcn,gat", "0012:fc,{},arma,{}", "0000:{},{},sage,graph"])
@pytest.mark.parametrize("operator", OPERATIONS)
def test_every_graph_operator_everywhere(operator: str, text: str) -> None:
    if operator == "skip" and text.startswith("0000"):
        text = "0123:skip,skip,sage,skip"
    _programs_answer(_gnn(text.format(operator, operator)))


@pytest.mark.usefixtures("forked_checks")
def test_own_space_travels_along(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = _own(tmp_path)
    folder = tmp_path / "out"
    written = own.export(folder, "safetensors")
    assert [path.name for path in written] == ["net.safetensors", "net.json", "net.space.py", "net.md"]
    (tmp_path / "my_space.py").unlink()
    network = load_network(folder / "net.json", folder / "net.safetensors")
    images = _images(3)
    assert torch.equal(network(images), own.network(images))
    (folder / "net.space.py").write_text(OWN_SPACE.replace("ReLU", "Tanh"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"net\.space\.py' was changed"):
        load_network(folder / "net.json")
    (folder / "net.space.py").unlink()
    with pytest.raises(NotFoundError, match=r"there is no file '.*net\.space\.py'"):
        load_network(folder / "net.json")


SPACE_WITH_CLASSES = OWN_SPACE.replace(
    "class Space(",
    """
import torch
from einops import rearrange
from torch import nn

OFFSET = 0.5


class Block(nn.Module):
    \"\"\"A block.\"\"\"

    def __init__(self, width, outputs):
        super().__init__()
        self.layer = nn.Linear(width, outputs)
        KEPT

    def forward(self, x):
        return self.layer(rearrange(x, "b c h w -> b (c h w)") + OFFSET)


class Space(""",
).replace(
    "nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, task.outputs))", "Block(64, 10)"
)

EINOPS = """
def rearrange(x, form):
    return x.flatten(1)
"""


@pytest.mark.usefixtures("forked_checks")
@pytest.mark.parametrize("alone", [True, False])
def test_own_space_as_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    """It needs what the space's file imports; what cannot be written alone is built by that file, and says why."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "einops.py").write_text(EINOPS)
    monkeypatch.syspath_prepend(packages)
    (tmp_path / "project").mkdir()
    path = tmp_path / "project" / "my_space.py"
    kept = "" if alone else "self.register_buffer('table', torch.rand(99), persistent=False)"
    path.write_text(SPACE_WITH_CLASSES.replace("KEPT", kept), encoding="utf-8")
    arch = Architecture("own", {"width": 4})
    network = origin(f"{path}:Space(factor=3)").space.build(arch, IMAGES, SizeConfig())
    own = Trained(_disturb(network), IMAGES, (_images(2),), arch, _card(f"{path}:Space(factor=3)"))
    written = own.export(tmp_path / "out", "python")
    assert [file.name for file in written] == ["net.safetensors", "net.json", "net.space.py", "net.py", "net.md"]
    text = (tmp_path / "out" / "net.py").read_text(encoding="utf-8")
    card = (tmp_path / "out" / "net.md").read_text(encoding="utf-8")
    ours = packages_distributions()["nas_core"][0]
    needs = ", ".join(sorted(["einops", "torch", *([] if alone else [ours])]))
    assert f"Needs {needs}." in text
    assert f"net.load()  # needs {needs}" in card
    assert ("training.export" in text) is not alone
    why = "class Block: it keeps 99 numbers in self.table that are no part of its state"
    assert (why in " ".join(text.split())) is not alone


def test_formats_are_checked(trained: Trained) -> None:
    assert check_formats(["json", "pt2", "json"], IMAGES) == ("pt2", "json")
    assert check_formats(["safetensors"], GRAPH) == ("safetensors", "json")
    assert check_formats(["python"], GRAPH) == ("safetensors", "json", "python")
    with pytest.raises(UsageError, match="unknown export format 'onx'; did you mean 'onnx'"):
        check_formats(["onx"], IMAGES)
    with pytest.raises(UsageError, match="no export format"):
        check_formats([], IMAGES)
    other = Task(kind="unknown", input_shape=(7,), outputs=2)
    for form in ("onnx", "pt2"):
        with pytest.raises(UsageError, match=f"'{form}' does not support unknown: .*\nUse safetensors"):
            check_formats([form], other)
    assert check_formats(["safetensors", "json"], other) == ("safetensors", "json")


class Branching(nn.Module):
    """Takes another path for another batch: no single program computes it."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :10] if len(images) < 3 else images.flatten(1)[:, 10:20]


class Doubtful(nn.Module):
    """Answers in a form, or with numbers, that no file can be held against."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Branching(), "torch.export cannot trace this network with batch left free"),
        (Doubtful(lambda images: images / 0), "NaN or infinite"),
        (Doubtful(lambda images: [images]), "with a list"),
        (Doubtful(lambda images: images.reshape(2, 64)), "does not run on a batch of 1"),
    ],
)
def test_unfit_networks_are_refused(trained: Trained, tmp_path: Path, network: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export(network, IMAGES, (_images(2),), trained.arch, trained.card, tmp_path / "out", "net", ["pt2"])
    assert not (tmp_path / "out").exists()


def test_bad_cards_and_architectures_are_refused(trained: Trained, tmp_path: Path) -> None:
    def attempt(arch: Architecture = trained.arch, **changes: Any) -> None:
        export(trained.network, IMAGES, trained.example, arch, {**trained.card, **changes}, tmp_path, "net", ["json"])

    with pytest.raises(UsageError, match="unknown key 'metric'; did you mean 'metrics'"):
        attempt(metric=[])
    with pytest.raises(UsageError, match="unknown space 'nasbench202'"):
        attempt(space="nasbench202")
    with pytest.raises(UsageError, match="size: unknown key 'chanels'"):
        attempt(size={"chanels": 4})
    with pytest.raises(UsageError, match="does not hold this architecture: it belongs to space 'own'"):
        attempt(Architecture("own", {"width": 4}))
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"cannot write to '.*file': "):
        trained.export(tmp_path / "file", "json", verify=False)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="No space left"):
        trained.export(tmp_path / "full", "json", verify=False)
    assert list((tmp_path / "full").iterdir()) == []


def test_damaged_descriptions_are_explained(trained: Trained, tmp_path: Path) -> None:
    path = trained.export(tmp_path, "json", verify=False)[0]
    good = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(load_network(path), nn.Module)

    def damaged(**changes: Any) -> str:
        path.write_text(json.dumps({**good, **changes}), encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            load_network(path)
        return str(caught.value)

    assert "damaged: its architecture has key" in damaged(key="0" * 16)
    assert "of version 1" in damaged(version=2)
    assert "written for version 9 of 'nasbench201', this is 2" in damaged(space_version=9)
    assert "holds no architecture" in damaged(architecture={})
    path.write_text(json.dumps({name: good[name] for name in good if name != "size"}), encoding="utf-8")
    with pytest.raises(UsageError, match="damaged: it lacks size"):
        load_network(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="is not JSON"):
        load_network(path)
    with pytest.raises(NotFoundError, match="there is no file"):
        load_network(tmp_path / "none.json")


def test_card_holds_every_fact() -> None:
    card = Card.model_validate(
        {
            **_card("nasbench201", channels=4),
            "summary": "Found by evolution.",
            "metrics": [
                {"name": "accuracy", "split": "test", "value": 0.97125, "mean": 0.965, "std": 0.00131, "seeds": 5}
            ],
            "random_search": {"trials": 20, "metrics": [{"name": "accuracy", "split": "valid", "value": 0.95}]},
            "macs": 1234567,
            "latency": {
                "milliseconds": 1.25,
                "spread": 0.25,
                "device": "Some CPU",
                "threads": 2,
                "batch": 1,
                "dtype": "bfloat16",
            },
            "limits": [{"limit": "params<=2e+05", "value": 344346, "kept": False}, {"limit": "latency_ms.phone<=3"}],
            "study": "digits",
            "trial": 3,
            "training": "digits:3/train-2",
            "seed": 77,
            "study_seed": 0,
            "strategy": "regularized-evolution",
            "data": "folder:a|b",
            "split_hash": "00ff",
            "recipe": {"epochs": 8},
        }
    )
    text = model_card(card)
    for line in (
        "# A network",
        "Found by evolution.",
        "| this network | accuracy | test | 0.97125 | 0.965 ± 0.00131 | 5 |",
        "| random search, 20 trials | accuracy | valid | 0.95 |  | 1 |",
        "| multiply-accumulates per sample | 1,234,567 |",
        "| latency | 1.25 ms ± 0.25 between quartiles (Some CPU, threads 2, batch 1, bfloat16, torch) |",
        "| limit `params<=2e+05` | exceeded: 344,346 |",
        "| limit `latency_ms.phone<=3` | not known at this size |",
        "| study | `digits` |",
        "| trial | `3` |",
        "| training | `digits:3/train-2` |",
        "| seed of the training | `77` |",
        "| seed of the study | `0` |",
        "| strategy | `regularized-evolution` |",
        "| data | `folder:a\\|b` |",
        "| split hash | `00ff` |",
        '| recipe | `{"epochs": 8}` |',
        "nas train digits:3",
    ):
        assert line in text.splitlines(), line
    bare = model_card(Card.model_validate(_card("nasbench201")))
    assert "None were recorded." in bare
    assert bare.count("not measured") == 2
