"""Every listed kind of task: its declarations, its inputs, and a toy network through training, proxies and export."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas_core.architecture import Architecture
from nas_core.batch import HALVES, PARTS
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.evaluation import Context
from nas_core.strategy import Proposal
from nas_core.task import Task
from predictors.scoring import Networks, split_score
from training import tasks
from training.data.loading import Loading
from training.data.source import Source
from training.data.split import Split
from training.evaluators.train import Train
from training.export import FORMATS, export
from training.export.formats import signature_of
from training.export.proof import proofs_of
from training.infer import classify, open_model
from training.inputs import inputs_from
from training.metrics import load_metrics
from training.networks import build
from training.recipe import recipe
from training.testing.toy_space import ToySpace

ARCH = Architecture("toy", {"width": 32})
NAMES = pytest.mark.parametrize("name", tasks.names())


def space_of(name: str) -> ToySpace:
    return ToySpace(kinds=(name,))


@cache
def source_of(name: str) -> Source:
    kind = tasks.find(name)
    source = kind.embedded(Split(limit=120 if kind.apart else None))
    assert source is not None
    assert source.task.kind == name
    return source


def evaluator(name: str, **options: object) -> Train:
    source = source_of(name)
    space = space_of(name)
    plan = recipe("quick", source.task, epochs=3)
    return Train(space, source, space.Size(), plan, device="cpu", test=True, **options)  # type: ignore[arg-type]


def test_kinds_are_found_by_their_names() -> None:
    assert [kind.name for kind in tasks.all_kinds()] == list(tasks.names())
    with pytest.raises(UsageError, match="unknown kind of task 'image-clasification'; did you mean 'image-class"):
        tasks.find("image-clasification")


@NAMES
def test_what_a_kind_says_fits_together(name: str) -> None:
    kind = tasks.find(name)
    assert kind.example.kind == name
    assert kind.example.metric == kind.metrics[0].name
    assert len(kind.axes) == len(kind.example.inputs)
    assert len({metric.name for metric in kind.metrics} | {"loss"}) == len(kind.metrics) + 1
    assert not {metric.name for metric in kind.metrics} & set(kind.further)
    assert {"quick", "standard"} <= set(kind.recipes)
    for named in kind.recipes:
        made = recipe(named, kind.example)
        assert made.loss in kind.losses
    assert all(hasattr(nn.functional, loss) for loss in kind.losses)
    assert kind.describe(kind.example)
    load_metrics(tuple(kind.further), kind)


@NAMES
def test_random_inputs_are_what_the_task_says_and_always_the_same(name: str) -> None:
    task = tasks.find(name).example
    first, again = tasks.sample_inputs(task, 3), tasks.sample_inputs(task, 3)
    assert len(first) == len(task.inputs)
    for axes, spec, tensor, same in zip(tasks.kind_of(task).axes, task.inputs, first, again, strict=True):
        assert torch.equal(tensor, same)
        assert str(tensor.dtype) == f"torch.{spec.dtype}"
        (free,) = axes
        assert (*tensor.shape[:free], *tensor.shape[free + 1 :]) == spec.shape


@NAMES
def test_bound_data_are_what_the_task_says(name: str) -> None:
    source = source_of(name)
    data = source.bind("cpu", Loading(batch_size=16))
    for part in (*PARTS, *HALVES):
        batches = list(data.batches(part, 0, 0))
        assert sum(batch.samples for batch in batches) in (len(data.targets(part)) - 1, len(data.targets(part)))
        for batch in batches:
            assert len(batch.inputs) == len(source.task.inputs)
            for axes, spec, tensor in zip(tasks.find(name).axes, source.task.inputs, batch.inputs, strict=True):
                (free,) = axes
                assert (*tensor.shape[:free], *tensor.shape[free + 1 :]) == spec.shape


@NAMES
def test_a_cut_batch_has_the_loss_and_the_sums_of_the_whole(name: str) -> None:
    source = source_of(name)
    data = source.bind("cpu", Loading(batch_size=16))
    batch = next(iter(data.batches("train", 0, 0)))
    network = build(space_of(name), ARCH, source.task, space_of(name).Size(), 0).eval()
    cut = max(1, batch.size // 3)
    parts = [batch.part(0, cut), batch.part(cut, batch.size)]
    with torch.no_grad():
        whole = data.metrics(network(*batch.inputs), batch)
        pieces = [data.metrics(network(*part.inputs), part) for part in parts]
        losses = [float(data.loss(network(*part.inputs), part)) * part.samples for part in parts]
        assert sum(losses) / batch.samples == pytest.approx(float(data.loss(network(*batch.inputs), batch)), rel=1e-5)
    assert [part.size for part in parts] == [cut, batch.size - cut]
    assert sum(part.samples for part in parts) == batch.samples
    for metric, value in whole.items():
        assert sum(float(piece[metric]) for piece in pieces) == pytest.approx(float(value), rel=1e-5), metric


@NAMES
def test_a_network_learns_and_reports_what_the_kind_says(name: str, tmp_path: Path) -> None:
    kind, train = tasks.find(name), evaluator(name)
    assert train.monitor.metric == f"val_{kind.metrics[0].name}"
    assert train.monitor.goal == kind.metrics[0].goal
    reports = list(train.evaluate(Proposal(ARCH), None, Context(1, tmp_path)))
    assert reports[-1].metrics["train_loss"] < reports[0].metrics["train_loss"]
    metrics = kind.metrics_of(train.task)
    assert [metric.name for metric in metrics[: len(kind.metrics)]] == [metric.name for metric in kind.metrics]
    wanted = {f"{part}_{metric.name}" for part in ("val", "test") for metric in metrics}
    assert wanted | {"val_loss"} <= set(reports[-1].metrics)
    assert ("micro_batch" in reports[-1].metrics) == kind.apart
    assert all(math.isfinite(value) for value in reports[-1].metrics.values())
    goals = {metric.name: metric.goal for metric in train.metrics}
    assert all(goals[f"test_{metric.name}"] == metric.goal for metric in metrics)


@NAMES
def test_metrics_do_not_depend_on_how_a_part_is_cut(name: str, tmp_path: Path) -> None:
    """Every figure is one of all answers of the part, however much memory there was."""
    from training.fit import Training

    kind, train = tasks.find(name), evaluator(name)
    data = source_of(name).bind("cpu", Loading(batch_size=16))
    model = build(train.space, ARCH, train.task, train.size, 0)
    own = load_metrics(tuple(kind.further)[:1], kind)
    training = Training(model, data, train.recipe, torch.device("cpu"), 0, None, own)
    found = training.evaluate("valid")
    if kind.apart:
        training.micro_batch = 8
    assert training.evaluate("valid") == pytest.approx(found, rel=1e-5)
    with torch.no_grad():
        pairs = [batch.answered(training.forward(model.eval(), batch)) for batch in data.batches("valid", 0, 0)]
    outputs, targets = (torch.cat(column) for column in zip(*pairs, strict=True))
    for metric in (*kind.metrics_of(train.task), *own):
        value = metric.function(outputs, targets)
        assert found[f"val_{metric.name}"] == pytest.approx(
            float(value.double().mean() if metric.per_sample else value), rel=1e-4
        )


@NAMES
def test_every_proxy_for_the_kind_scores_the_network(name: str) -> None:
    space = space_of(name)
    networks = Networks(space, space.Size(), source_of(name), batch=8)
    proxies = networks.predictors()
    assert len(proxies) >= 10
    (scored,) = networks.score([ARCH], proxies)
    unscored = {split_score(score)[0] for score, value in scored.values.items() if not math.isfinite(value)}
    assert unscored == set(scored.reasons)
    # az_nas needs blocks of a body, jacob_cov inputs to differentiate by.
    whole = any(spec.dtype == "int64" for spec in source_of(name).task.inputs[:1])
    assert unscored <= {"az_nas", *(["jacob_cov"] if whole else [])}, scored.reasons


# Every kind as the program that is asked here, and each other format with one kind at least; the product: `-m matrix`.
FURTHER = ("python", "pt2", "safetensors")  # which bring the others
EXPORTED = {name: ("onnx", FURTHER[number % len(FURTHER)]) for number, name in enumerate(tasks.names())}


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        pytest.param(name, formats, id=f"{name}-{'-'.join(formats)}", marks=marks)
        for name, some in EXPORTED.items()
        for formats, marks in ((some, ()), (tuple(FORMATS), pytest.mark.matrix))
    ],
)
@pytest.mark.usefixtures("forked_checks")  # tests/training/test_export.py has one without
def test_an_exported_network_answers_files_as_the_trained_one(
    name: str, formats: tuple[str, ...], tmp_path: Path
) -> None:
    source, space = source_of(name), space_of(name)
    network = build(space, ARCH, source.task, space.Size(), 3).eval()
    seen = next(iter(source.bind("cpu", Loading(batch_size=4)).batches("valid", 0, 0))).inputs
    inputs = source.inputs
    assert inputs_from(inputs.model_dump(mode="json")) == inputs
    example = tuple(map(torch.from_numpy, inputs.restored(tuple(tensor.numpy() for tensor in seen))))
    proofs = proofs_of(source)
    assert proofs
    card = {"title": "toy", "space": f"training.testing.toy_space:ToySpace(kinds=('{name}',))", "command": "nas train"}
    written = export(
        *(network, source.task, example, ARCH, card, tmp_path, "toy", formats), inputs=inputs, proofs=proofs
    )
    wanted = {FORMATS[one].suffix for form in formats for one in (form, *FORMATS[form].brings)}
    assert {path.suffix for path in written} == wanted | {".md"}
    proof = proofs[0]
    (tmp_path / proof.name).write_bytes(proof.content)
    with torch.no_grad():
        expected = network(*proof.seen).numpy()
    if inputs.outputs and source.task.positions is not None:
        expected = expected[:, -1]  # what follows the last position
    answers, _ = classify(open_model(tmp_path / "toy.onnx"), proof.argument.format(tmp_path))
    assert len(answers) == len(expected)
    if inputs.outputs:
        assert [answer.classes[0][0] for answer in answers] == [inputs.outputs[best] for best in expected.argmax(1)]
    else:
        numbers = np.array([answer.numbers for answer in answers])
        assert numbers == pytest.approx(inputs.in_own_unit(expected), rel=1e-4)
    signature = signature_of(source.task)
    assert signature.inputs == tuple(spec.name for spec in source.task.inputs)
    text = (tmp_path / "toy.md").read_text()
    assert "## Inputs" in text
    assert f"nas infer toy.onnx {tasks.find(name).given(inputs)[0]}" in text


def test_a_kind_of_ones_own_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is listed is known everywhere: by its recipes, its word for samples, its losses."""
    from training.outputs import logits_of
    from training.tasks.image_classification import ImageClassification

    class Digits(ImageClassification):
        name = "digit-classification"
        samples = "digits"

    listed = {**tasks.BUILTIN, "digit-classification": "tests.made:KIND"}
    monkeypatch.setattr(tasks, "BUILTIN", listed)
    monkeypatch.setattr(tasks.refs, "find", lambda name, *_: Digits())
    task = validate(Task, {"kind": "digit-classification", "input_shape": (1, 8, 8), "outputs": 10}, "task")
    assert recipe("standard", task).augment.crop == 1
    with pytest.raises(Exception, match="3 digits and 10 classes"):
        logits_of(torch.zeros(3, 9), 3, task)
