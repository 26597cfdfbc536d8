"""`nas compress --quantize`: a quantised program of a trained network, alone and after a method, exported and run."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_core.records import COMPRESS
from nas_core.strategy import State
from studies.jobs.rounds import Compression
from studies.store.store import Store
from tests.cli.test_compress import METHOD, SPACE
from training.export import compared

Say = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("forked_checks")

OPAQUE = """

class Opaque(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        self.last = nn.Linear(channels, outputs)

    def forward(self, x):
        x = x.mean((2, 3))
        if float(x.sum()) > 0:
            x = x * 2
        return self.last(x)


class Odd(Two):
    name = "odd"

    def build(self, arch, task, size):
        return Opaque(task.input_shape[0], task.outputs)
"""


@pytest.fixture
def trained(folder: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compared, "SECONDS", 0.02)
    (folder / "two.py").write_text(SPACE + OPAQUE)
    (folder / "method.py").write_text(METHOD)
    _train(say, "a", "two.py:Two")
    return folder


def _train(say: Say, study: str, space: str) -> None:
    search = ["search", "--space", space, "--study", study, "--trials", "1", "-s", "split.limit=200"]
    assert say(*search, "--threads", "1", "--epochs", "1")[0] == 0
    assert say("train", f"{study}:0", "--epochs", "2", "-s", "batch_size=32", "-s", "precision=float32")[0] == 0


def test_a_quantised_program_is_stored_exported_and_run(trained: Path, say: Say) -> None:
    code, out, err = say("compress", "a:0", "--quantize", "int8", "--json")
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    metrics = run["metrics"]
    assert metrics["float_val_accuracy"] == pytest.approx(metrics["val_accuracy"], abs=1e-6)
    assert metrics["float_test_accuracy"] == pytest.approx(metrics["base_test_accuracy"], abs=1e-6)
    assert metrics["params"] == metrics["base_params"]
    assert metrics["int8_agreement"] > 0.9
    kinds = {Path(file["path"]).name: file["kind"] for file in run["files"]}
    assert kinds["quantized.int8.onnx"] == "int8"
    # Once more is the same one, and the words that make it again say so.
    assert json.loads(say("compress", "a:0/train-1", "--quantize", "int8", "--json")[1])["runs"] == [run]
    assert "int8_agreement" in say("show", "a:0/compress-1")[1]
    # The exported file is the one that was measured.
    code, out, err = say("export", "a:0/compress-1", "--out", "out", "--json")
    assert code == 0, err
    names = {Path(path).name for path in json.loads(out)["files"]}
    assert {"a-0-compress-1.onnx", "a-0-compress-1.int8.onnx", "a-0-compress-1.md"} <= names
    exported = (trained / "out" / "a-0-compress-1.int8.onnx").read_bytes()
    stored = next(file["path"] for file in run["files"] if file["kind"] == "int8")
    assert exported == Path(stored).read_bytes()
    card = (trained / "out" / "a-0-compress-1.md").read_text()
    section = card.partition("## Quantised to int8")[2].partition("## Provenance")[0]
    for words in ("val_accuracy", "test_accuracy", "latency_ms", f"{metrics['int8_bytes']:.6g}", "same answers"):
        assert words in section
    # It answers by 'nas infer', and by the card's lines; a folder means the float program.
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save("a.png")
    answers = json.loads(say("infer", "out/a-0-compress-1.int8.onnx", "a.png", "--json")[1])[0]["classes"]
    assert say("infer", "out", "a.png", "--json")[1] == say("infer", "out/a-0-compress-1.onnx", "a.png", "--json")[1]
    code, out, err = say("export", "a:0/compress-1", "--format", "int8", "--out", "alone")
    assert code == 0, err
    script = re.findall(r"```python\n(import json.*?)```", (trained / "alone" / "a-0-compress-1.md").read_text(), re.S)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.chdir(trained / "alone"):
        before, sys.argv = sys.argv, ["script", "../a.png"]
        try:
            exec(script[0], {})
        finally:
            sys.argv = before
    best = printed.getvalue().splitlines()[0].split()
    assert best[0] == answers[0]["class"]
    assert float(best[1]) == pytest.approx(answers[0]["probability"], abs=1e-3)


def test_after_a_method_it_is_the_smaller_network_s(trained: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["compress", "a:0", "--method", "method.py:Channels", "--epochs", "1", "--quantize", "fp16"]

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    # Killed while it is quantised, it goes on there.
    with monkeypatch.context() as patched:
        patched.setattr(compared, "quantize", killed)
        with pytest.raises(Killed):
            say(*words)
    rounds: list[int] = []
    monkeypatch.setattr(Compression, "_trained", lambda *given: rounds.append(1))
    code, out, err = say(*words, "--json")
    assert (code, rounds) == (0, []), err
    (run,) = json.loads(out)["runs"]
    assert run["metrics"]["float_test_accuracy"] == pytest.approx(run["metrics"]["test_accuracy"], abs=1e-6)
    assert run["metrics"]["params"] < run["metrics"]["base_params"]
    with Store("sqlite:///nas.db", reading=True) as store:
        (found,) = store.below(store.trial(store.study("a"), 0), COMPRESS)
        assert (found.state, found.tries) == (State.COMPLETE, 0)
        assert found.recipe is not None
        assert found.recipe["quantize"] == "fp16"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compress", "a:0", "--quantize", "int4"], "unknown quantisation 'int4'"),
        (["compress", "a:0"], "name a method (nas compressors list), or what to quantise to"),
        (["compress", "a:0", "--quantize", "int8", "--epochs", "2"], "epochs 2: without a method nothing is trained"),
        (
            ["compress", "a:0", "--quantize", "int8", "--target", "macs<=0.5x"],
            "target 'macs<=0.5x': without a --method that removes something none is reached",
        ),
        (["export", "a:0", "--format", "int8", "--out", "out"], "format 'int8': it was not quantised so"),
    ],
)
def test_what_cannot_be_is_one_line(trained: Path, say: Say, words: list[str], message: str) -> None:
    code, _, err = say(*words)
    assert (code, message in err, err.count("\n")) == (2, True, 1), err
    with Store("sqlite:///nas.db", reading=True) as store:
        assert store.below(store.trial(store.study("a"), 0), COMPRESS) == []


def test_what_cannot_be_written_as_onnx_is_not_trained(trained: Path, say: Say) -> None:
    _train(say, "odd", "two.py:Odd")
    method = ["--method", "examples.my_compressor:InnerChannels", "--epochs", "1"]
    code, _, err = say("compress", "odd:0", *method, "--quantize", "int8")
    assert code == 2
    assert "torch.export cannot trace this network" in err
    with Store("sqlite:///nas.db", reading=True) as store:
        assert store.below(store.trial(store.study("odd"), 0), COMPRESS) == []
