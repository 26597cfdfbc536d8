"""Own metrics and scikit-learn's: what they are given, what they are called, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn import metrics as sk

from nas_core.architecture import Architecture
from nas_core.errors import TrialError, UsageError
from nas_core.evaluation import Context
from nas_core.strategy import Proposal
from search_spaces.nasbench201.space import NasBench201
from search_spaces.nasbench_graph.space import NasBenchGraph
from training.data import load
from training.data.split import Split
from training.evaluators.train import WEIGHTS, Train
from training.metrics import load_metrics
from training.networks import load_trained
from training.recipe import recipe
from training.tasks.image_classification import KIND

SPACE = NasBench201()
SIZE = SPACE.Size(channels=2, cells=1)
CELL = SPACE.from_text("|nor_conv_1x1~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|")
NAMES = ("f1", "balanced_accuracy", "roc_auc", "average_precision")


def trained(folder: Path, metrics: tuple[str, ...], **options: Any) -> tuple[Train, dict[str, float]]:
    source = load("digits", Split(limit=200))
    made = recipe("quick", source.task, epochs=1, precision="float32")
    train = Train(SPACE, source, SIZE, made, device="cpu", threads=1, metrics=metrics, test=True, **options)
    return train, dict(list(train.evaluate(Proposal(CELL), None, Context(1, folder)))[-1].metrics)


def test_names_are_scikit_learns(tmp_path: Path) -> None:
    train, found = trained(tmp_path, NAMES, keep_weights=True)
    network = load_trained(SPACE, CELL, train.task, SIZE, tmp_path / WEIGHTS)
    for part, name in (("valid", "val"), ("test", "test")):
        batches = list(train.source.bind("cpu").batches(part, 0, 0))
        with torch.no_grad():
            answers = torch.cat([network(*batch.inputs) for batch in batches]).double()
        truth, said, sure = torch.cat([batch.target for batch in batches]), answers.argmax(1), answers.softmax(1)
        wanted = {
            "f1": sk.f1_score(truth, said, average="macro"),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, said),
            "roc_auc": sk.roc_auc_score(truth, sure, multi_class="ovr"),
            "average_precision": sk.average_precision_score(truth, sure),
        }
        assert {key: found[f"{name}_{key}"] for key in NAMES} == pytest.approx(wanted, abs=1e-6)
        assert found[f"{name}_accuracy"] == pytest.approx(float((said == truth).double().mean()))


def test_two_classes_are_those_of_a_positive_one() -> None:
    random = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(50, 2, generator=random), torch.randint(2, (50,), generator=random)
    f1, balanced, auc, precision = (metric(outputs, targets) for metric in load_metrics(NAMES, KIND))
    assert f1 == pytest.approx(sk.f1_score(targets, outputs.argmax(1)))
    assert balanced == pytest.approx(sk.balanced_accuracy_score(targets, outputs.argmax(1)))
    assert auc == pytest.approx(sk.roc_auc_score(targets, outputs[:, 1] - outputs[:, 0]))
    assert precision == pytest.approx(sk.average_precision_score(targets, outputs[:, 1] - outputs[:, 0]))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_without_samples(classes: int, recwarn: pytest.WarningsRecorder) -> None:
    outputs, targets = torch.randn(20, classes), torch.zeros(20, dtype=torch.long)
    f1, balanced, auc, precision = (metric(outputs, targets) for metric in load_metrics(NAMES, KIND))
    assert (math.isnan(auc), math.isnan(precision)) == (True, True)
    assert 0 <= f1 <= 1
    assert 0 <= balanced <= 1
    assert not [warning for warning in recwarn if "sklearn" in str(warning.filename)]


MINE = """
import math
import torch
def shape(outputs, targets):
    assert outputs.dtype == torch.float32 and targets.dtype == torch.int64
    return outputs.shape[0] * 1000 + outputs.shape[1]
def tensor(outputs, targets):
    return (outputs.argmax(1) == targets).float().mean()
def infinite(outputs, targets):
    return math.inf
def nothing(outputs, targets):
    pass
def accuracy(outputs, targets):
    return 1.0
class Top:
    def __init__(self, k=1):
        self.k = k
    def __call__(self, outputs, targets):
        return (outputs.topk(self.k, 1).indices == targets[:, None]).any(1).float().mean()
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "run"


def test_functions_of_ones_own_get_all_outputs_of_a_part(mine: Path) -> None:
    train, found = trained(mine, ("mine.py:shape", "mine.py:tensor", "mine.py:Top(k=3)", "mine.py:infinite"))
    sizes = train.source.sizes
    assert (found["val_shape"], found["test_shape"]) == (sizes["valid"] * 1000 + 10, sizes["test"] * 1000 + 10)
    assert found["val_tensor"] == pytest.approx(found["val_accuracy"])
    assert found["val_Top"] > found["val_accuracy"]
    assert math.isnan(found["val_infinite"])
    assert len(set(train.files.values())) == 1
    assert train.files.keys() == {"mine.py:shape", "mine.py:tensor", "mine.py:Top(k=3)", "mine.py:infinite"}


def test_of_a_graph_they_get_the_nodes_of_the_part(mine: Path) -> None:
    space, source = NasBenchGraph(), load("karate", Split())
    arch = Architecture(space.name, dict(zip([c.name for c in space.choices], ["0000", *["gcn"] * 4], strict=True)))
    made = recipe("quick", source.task, epochs=1)
    train = Train(space, source, space.Size(hidden=4), made, device="cpu", metrics=["mine.py:shape"])
    found = list(train.evaluate(Proposal(arch), None, Context(1, mine)))[-1].metrics
    assert found["val_shape"] == source.sizes["valid"] * 1000 + source.task.outputs


def test_what_is_no_metric_is_told(mine: Path) -> None:
    with pytest.raises(TrialError, match=r"metric 'mine.py:nothing' returned a NoneType, not a number"):
        trained(mine, ("mine.py:nothing",))
    for references, message in (
        (("auc",), "unknown metric 'auc'; did you mean 'roc_auc'"),
        (("mine.py:accuracy",), "val_accuracy is always reported; give the function another name"),
        (("accuracy",), "val_accuracy is always reported; leave it out"),
        (("f1", "f1"), "two metrics are called 'f1'"),
        (("mine.py:math",), "is a module, which cannot be called"),
    ):
        with pytest.raises(UsageError, match=message):
            load_metrics(references, KIND)


def test_nothing_is_collected_where_nobody_asks(tmp_path: Path) -> None:
    _, plain = trained(tmp_path / "plain", ())
    _, found = trained(tmp_path / "more", ("f1",))
    assert found.keys() - plain.keys() == {"val_f1", "test_f1"}
    assert {name: found[name] for name in plain} == plain
