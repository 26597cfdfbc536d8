"""Several tasks at once: which image asks what, what of an answer is learned from and judged, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.errors import UsageError
from nas_core.task import Head, Task, image_task, multi_task
from training import tasks
from training.data import load
from training.data.check import findings, imbalance_of
from training.data.loading import Loading
from training.data.split import Split
from training.data.task_source import TaskSource
from training.export.formats import signature_of
from training.infer.multi_task import read
from training.loss import Criterion
from training.recipe import recipe

NAMES = ("at_least_five", "digit", "parity")
HEADS = (Head(name="colour", outputs=3), Head(name="size", outputs=2))
OWNER = torch.tensor([0, 0, 0, 1, 1])


def source_of(reference: str, **split: Any) -> TaskSource:
    source = load(reference, Split(**split))
    assert isinstance(source, TaskSource)
    return source


def arrays(count: int = 60, **changes: Any) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    made = {
        "images": generator.integers(0, 256, (count, 4, 4)).astype(np.uint8),
        "task": np.array(["colour", "size"])[np.arange(count) % 2],
        "labels": np.where(np.arange(count) % 2 == 0, np.arange(count) // 2 % 3, np.arange(count) // 2 % 2),
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


def written(folder: Path, **changes: Any) -> str:
    np.savez(folder / "made.npz", **arrays(**changes))
    return f"npz:{folder / 'made.npz'}"


def test_each_digit_is_asked_for_one_of_three_tasks_and_answers_it() -> None:
    from sklearn.datasets import load_digits

    source, digits = source_of("tasks:digits"), load_digits().target
    assert [head.name for head in source.task.heads] == list(NAMES)
    assert [head.outputs for head in source.task.heads] == [2, 10, 2]
    assert np.bincount(source.asked).tolist() == [599, 599, 599]
    answers = [np.where(digits >= 5, "yes", "no"), digits.astype(str), np.where(digits % 2, "odd", "even")]
    expected = [f"{NAMES[asked]}={answers[asked][image]}" for image, asked in enumerate(source.asked)]
    assert [source.classes[label] for label in source.labels] == expected
    assert source.split_hash == source_of("tasks:digits").split_hash != source_of("tasks:digits", seed=1).split_hash
    for part, rows in source.parts.items():
        assert np.ptp(np.bincount(source.asked[rows])) <= 8, part


def test_the_network_is_given_the_image_and_the_number_of_its_task() -> None:
    source = source_of("tasks:digits")
    (image, task), told = source.task.inputs, source.bind("cpu", Loading(batch_size=32))
    assert (image.shape, task.dtype, task.vocabulary, source.task.outputs) == ((1, 8, 8), "int64", 3, 14)
    batch = next(iter(told.batches("train", 0, 0)))
    assert torch.equal(batch.inputs[1], torch.from_numpy(source.head_of_output)[batch.target])
    alone = source_of("tasks:digits?inputs=image")
    assert alone.task.images() == (1, 8, 8)
    same = next(iter(alone.bind("cpu", Loading(batch_size=32)).batches("train", 0, 0)))
    assert len(same.inputs) == 1
    assert torch.equal(same.inputs[0], batch.inputs[0])
    assert torch.equal(same.target, batch.target)
    with pytest.raises(UsageError, match=r"takes images alone, .* with \?inputs=image behind the data"):
        source.task.images()


def test_the_loss_is_the_cross_entropy_of_the_samples_own_head() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 5, requires_grad=True)
    target = torch.tensor([0, 3, 2, 4, 1, 3])
    batch = Batch((torch.zeros(6, 1),), target, heads=OWNER)
    kind = tasks.find("multi-task-classification")
    found = kind.loss(*batch.scored(logits))
    own = [(slice(0, 3), 0), (slice(3, 5), 3)]
    each = [
        functional.cross_entropy(row[own[h][0]], t - own[h][1])
        for row, t, h in zip(logits, target, OWNER[target], strict=True)
    ]
    assert found.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(found, logits)
    (expected,) = torch.autograd.grad(torch.stack(each).mean(), logits)
    assert torch.allclose(gradient, expected, atol=1e-7)
    assert not gradient[OWNER[target][:, None] != OWNER].any()
    cut = batch.part(1, 4)
    assert kind.loss(*cut.scored(logits[1:4])).item() == pytest.approx(torch.stack(each[1:4]).mean().item(), rel=1e-6)


def test_a_students_other_heads_learn_nothing_from_a_teacher() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)
    batch = Batch((torch.zeros(4, 1),), torch.tensor([0, 3, 2, 4]), heads=OWNER)
    kind = tasks.find("multi-task-classification")
    found = kind.divergence(batch.scored(student)[0], batch.scored(teacher)[0], 4.0)
    (gradient,) = torch.autograd.grad(found, student)
    own = [
        functional.kl_div((s[c] / 4).log_softmax(0), (t[c] / 4).softmax(0), reduction="sum")
        for s, t, c in zip(student, teacher, [slice(0, 3), slice(3, 5)] * 2, strict=True)
    ]
    assert found.item() == pytest.approx(16 * torch.stack(own).mean().item(), rel=1e-5)
    assert not gradient[OWNER[batch.target][:, None] != OWNER].any()


def test_accuracy_is_the_mean_over_the_tasks_and_told_of_each() -> None:
    task = multi_task((1, 4, 4), HEADS)
    target = torch.tensor([0, 1, 2, 0, 3, 4])
    logits = functional.one_hot(torch.tensor([0, 1, 0, 0, 4, 4]), 5).float()
    found = {one.name: one(logits, target) for one in tasks.kind_of(task).metrics_of(task)}
    assert found["accuracy.colour"] == 0.75
    assert found["accuracy.size"] == 0.5
    assert found["accuracy"] == 0.625  # over the samples it would be 4 of 6
    assert found["loss.size"] == pytest.approx(functional.cross_entropy(logits[4:], target[4:]).item())
    alone = {one.name: one(logits[:4], target[:4]) for one in tasks.kind_of(task).metrics_of(task)}
    assert alone["accuracy"] == 0.75
    assert np.isnan(alone["accuracy.size"])
    goals = {one.name: one.goal for one in tasks.kind_of(task).metrics_of(task)}
    assert goals["accuracy.size"] == "max"
    assert goals["loss.size"] == "min"


def test_a_task_without_several_tasks_is_stored_as_before() -> None:
    assert "heads" not in image_task((1, 8, 8), 10).model_dump()
    task = multi_task((1, 8, 8), HEADS)
    assert Task.model_validate(task.model_dump(mode="json")) == task
    with pytest.raises(ValueError, match=r"heads of \[3, 2\] outputs do not make up 6"):
        Task.model_validate({**task.model_dump(), "outputs": 6})


def test_images_with_an_array_of_tasks_are_read(tmp_path: Path) -> None:
    source = source_of(written(tmp_path))
    assert [head.name for head in source.task.heads] == ["colour", "size"]
    assert source.classes == ("colour=0", "colour=1", "colour=2", "size=0", "size=1")
    made = arrays()
    expected = [f"{task}={label}" for task, label in zip(made["task"], made["labels"], strict=True)]
    assert [source.classes[label] for label in source.labels] == expected
    texts = np.where(np.arange(60) % 2 == 0, "red", np.array(["big", "small"])[np.arange(60) // 2 % 2])
    texts[::4] = "blue"
    named = source_of(written(tmp_path, labels=texts))
    assert named.classes == ("colour=blue", "colour=red", "size=big", "size=small")
    numbered = source_of(written(tmp_path, task=np.arange(60) % 2 + 3))
    assert [head.name for head in numbered.task.heads] == ["task3", "task4"]


def test_a_test_part_has_tasks_of_its_own(tmp_path: Path) -> None:
    made = arrays()
    test = {f"test_{name}": made[name][:10] for name in ("images", "labels", "task")}
    source = source_of(written(tmp_path, **test))
    assert source.sizes["test"] == 10
    assert source.asked[source.parts.test].tolist() == [0, 1] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": np.array(["size"] * 60)}, "there is only one task, 'size'; leave the tasks out"),
        ({"task": np.arange(30) % 2}, r"task has shape \(30,\); needed is \(60,\), one per image"),
        ({"task": np.arange(60) / 2}, "needed are names or whole numbers"),
        ({"task": np.array(["a b", "c"])[np.arange(60) % 2]}, "task 'a b' is called by no word"),
        ({"classes": np.array(["a", "b"])}, "classes are of one task"),
        ({"test_images": np.zeros((4, 4, 4), np.uint8), "test_labels": np.zeros(4, int)}, "no test_task"),
        ({"task": None, "test_task": np.zeros(4, int)}, "has test_task and no task"),
        ({"labels": np.zeros(60, int)}, "task 'colour': there is only one class"),
        ({"labels": np.eye(3)[np.arange(60) % 3]}, "one per image is needed"),
    ],
)
def test_tasks_that_cannot_be_learned_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(written(tmp_path, **changes), Split())


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("tasks:digit", "unknown set of tasks 'digit'; did you mean 'digits'"),
        ("tasks", "tasks:digits; of your own, npz:FILE with an array task"),
        ("tasks:digits?inputs=both", "inputs"),
    ],
)
def test_what_is_no_set_of_tasks_is_refused(reference: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(reference, Split())


def test_without_tasks_there_is_no_choice_of_inputs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inputs=image is for images with an array task"):
        load(f"{written(tmp_path, task=None)}?inputs=image", Split())


def test_classes_are_weighed_and_compared_within_a_task() -> None:
    source = source_of("tasks:digits")
    plan = recipe("quick", source.task, class_weights="balanced")
    data = source.bind("cpu", Loading(batch_size=32))
    batch = next(iter(data.batches("train", 0, 0)))
    logits = torch.randn(len(batch.target), source.task.outputs)
    other = torch.where(torch.from_numpy(source.head_of_output) == batch.inputs[1][:, None], logits, 7.0)
    weighed = Criterion(plan, data)
    assert weighed(logits, batch).item() == pytest.approx(weighed(other, batch).item(), rel=1e-6)
    assert imbalance_of(source, source.classes).ratio < 2
    assert not findings(source, source.classes)


def test_the_same_image_may_be_asked_for_two_tasks(tmp_path: Path) -> None:
    images = np.repeat(arrays()["images"][:30], 2, axis=0)
    told = findings(source := source_of(written(tmp_path, images=images)), source.classes)
    assert any("equal to one in the training part" in text or "equal to one" in text for text in told)
    assert not any("another label" in text for text in told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixup": 0.2}, "two of one batch may have different tasks"),
        ({"label_smoothing": 0.1}, "smooth over the classes of all tasks"),
        ({"loss": "multi_margin_loss"}, "take cross_entropy"),
    ],
)
def test_recipes_that_would_mix_tasks_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe("quick", multi_task((1, 8, 8), HEADS), **changes)
    recipe("quick", image_task((1, 8, 8), 10), **changes)


def test_a_file_is_asked_for_what_is_said_or_for_every_task(tmp_path: Path) -> None:
    inputs = source_of(written(tmp_path)).inputs
    images = arrays()["images"][:3]
    np.savez(tmp_path / "few.npz", images=images)
    every = read(inputs, f"npz:{tmp_path / 'few.npz'}")
    assert every.tensors[1].tolist() == [0, 1] * 3
    assert every.names[0] == every.names[1]
    assert np.array_equal(every.tensors[0][0], every.tensors[0][1])
    one = read(inputs, f"npz:{tmp_path / 'few.npz'}?task=size")
    assert one.tensors[1].tolist() == [1, 1, 1]
    assert one.possible is not None
    assert one.possible.tolist() == [[False, False, False, True, True]] * 3
    np.savez(tmp_path / "asked.npz", images=images, task=np.array(["size", "colour", "size"]))
    assert read(inputs, f"npz:{tmp_path / 'asked.npz'}").tensors[1].tolist() == [1, 0, 1]
    np.savez(tmp_path / "asked.npz", images=images, task=np.array([0, 1, 2]))
    with pytest.raises(UsageError, match="tasks are 0 to 2; the 2 are numbered from 0"):
        read(inputs, f"npz:{tmp_path / 'asked.npz'}")
    with pytest.raises(UsageError, match="unknown task 'sice'; did you mean 'size'"):
        read(inputs, f"npz:{tmp_path / 'few.npz'}?task=sice")
    with pytest.raises(UsageError, match="unknown option 'tasks'; did you mean 'task'"):
        read(inputs, f"npz:{tmp_path / 'few.npz'}?tasks=size")


def test_programs_have_the_inputs_that_the_network_is_given() -> None:
    told, alone = (signature_of(multi_task((1, 8, 8), HEADS, told=told)) for told in (True, False))
    assert (told.inputs, told.axes) == (("image", "task"), ({0: "batch"}, {0: "batch"}))
    assert (alone.inputs, alone.axes) == (("image",), ({0: "batch"},))
