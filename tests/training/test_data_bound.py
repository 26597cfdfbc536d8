"""Data on a device: order, normalisation, layout, loss and metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas_core.batch import Batch, plain
from nas_core.errors import UsageError
from search_spaces.layers.graph_batch import GraphBatch
from training.data import bound, passes
from training.data.augment import Augment
from training.data.loading import Loading
from training.data.source import GraphSource, ImageSource, graph_source, image_source
from training.data.split import Split
from training.tasks import kind_of


def images_of(count: int = 90, channels: int = 3, kind: type = np.uint8) -> ImageSource:
    """Images of 6x5 pixels; the mean of an image tells which one it is."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, channels, 6, 5)).astype(kind)
    return image_source("made", images, np.arange(count) % 3, Split())


def graph_of() -> GraphSource:
    rng = np.random.default_rng(0)
    edges = np.stack([np.arange(30), np.roll(np.arange(30), 1)])
    return graph_source("made", rng.random((30, 4)), np.arange(30) % 3, edges, Split())


def passed(data, part: str, epoch: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(data.batches(part, epoch, seed))
    return torch.cat([batch.inputs[0] for batch in batches]), torch.cat([batch.target for batch in batches])


def rows(images: torch.Tensor) -> list[tuple[float, ...]]:
    return [tuple(image.flatten().tolist()) for image in images]


def test_training_part_is_normalised_per_channel_and_others_by_the_same_numbers():
    source = images_of()
    data = source.bind("cpu", Loading(batch_size=100))
    train, _ = passed(data, "train")
    assert train.dtype == torch.float32
    assert torch.allclose(train.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(train.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    mean, deviation = (np.array(values).reshape(1, 3, 1, 1) for values in source.statistics)
    valid, target = passed(data, "valid")
    expected = (source.images[source.parts.valid] - mean) / deviation
    assert np.allclose(valid.numpy(), expected, atol=1e-5)
    assert target.tolist() == source.labels[source.parts.valid].tolist()


def test_a_constant_channel_becomes_zero_and_not_nan():
    images = np.full((60, 1, 4, 4), 77, dtype=np.uint8)
    data = image_source("made", images, np.arange(60) % 2, Split()).bind("cpu")
    assert torch.equal(passed(data, "train")[0].unique(), torch.zeros(1))


def test_a_training_pass_is_a_permutation_that_depends_on_seed_and_epoch():
    data = images_of().bind("cpu", Loading(batch_size=15))
    first, again = passed(data, "train", 0, 0), passed(data, "train", 0, 0)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    for other in (passed(data, "train", 1, 0), passed(data, "train", 0, 1)):
        assert not torch.equal(first[0], other[0])
        assert sorted(rows(first[0])) == sorted(rows(other[0]))


def test_images_stay_with_their_labels():
    source = images_of()
    data = source.bind("cpu", Loading(batch_size=15))
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in source.statistics)
    known = dict(zip(rows(torch.from_numpy(source.images)), source.labels.tolist(), strict=True))
    images, target = passed(data, "train")
    for row, label in zip(rows((images * deviation + mean).round()), target.tolist(), strict=True):
        assert known[row] == label


@pytest.mark.parametrize(("batch_size", "sizes"), [(16, [16, 16, 16, 16]), (13, [13, 13, 13, 13, 13]), (1, [1] * 65)])
def test_only_a_last_training_batch_of_one_is_left_out(batch_size, sizes):
    source = images_of(90)
    assert source.sizes["train"] == 65
    data = source.bind("cpu", Loading(batch_size=batch_size))
    assert [len(batch.target) for batch in data.batches("train", 0, 0)] == sizes
    assert sum(len(batch.target) for batch in data.batches("valid", 0, 0)) == source.sizes["valid"]


def test_evaluation_keeps_a_last_batch_of_one_and_uses_large_batches(monkeypatch):
    source = images_of(90)
    monkeypatch.setattr(passes, "EVALUATION_VALUES", 17 * 90)
    data = source.bind("cpu", Loading(batch_size=4))
    assert source.sizes["test"] == 18
    assert [len(batch.target) for batch in data.batches("test", 0, 0)] == [17, 1]


def test_augmentation_is_for_training_alone_and_repeats():
    source, everything = images_of(), Augment(flip=True, crop=1, cutout=2)
    plain, changed = source.bind("cpu"), source.bind("cpu", Loading(augment=everything))
    assert not torch.equal(passed(plain, "train")[0], passed(changed, "train")[0])
    assert torch.equal(passed(plain, "train")[1], passed(changed, "train")[1])
    assert torch.equal(passed(changed, "train", 3, 4)[0], passed(changed, "train", 3, 4)[0])
    for part in ("valid", "test"):
        assert torch.equal(passed(plain, part)[0], passed(changed, part)[0])


def test_the_border_of_a_crop_is_black_and_not_the_mean():
    rng = np.random.default_rng(0)
    images = rng.integers(100, 256, (60, 3, 6, 5)).astype(np.uint8)
    source = image_source("made", images, np.arange(60) % 3, Split())
    mean, deviation = (torch.tensor(values).view(3) for values in source.statistics)
    seen, _ = passed(source.bind("cpu", Loading(augment=Augment(crop=2))), "train")
    assert torch.allclose(seen.amin((0, 2, 3)), -mean / deviation, atol=1e-5)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_large_sets_are_normalised_batch_by_batch_with_the_same_result(monkeypatch, kind):
    source, everything = images_of(kind=kind), Augment(flip=True, crop=1, cutout=2)
    before = source.images.copy()
    whole = source.bind("cpu", Loading(augment=everything))
    monkeypatch.setattr(bound, "FLOAT_LIMIT", 0)
    late = source.bind("cpu", Loading(augment=everything))
    for part in ("train", "valid"):
        assert torch.equal(passed(whole, part)[0], passed(late, part)[0])
    assert np.array_equal(source.images, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_batches_keep_convolutions_in_that_layout(channels):
    source = images_of(channels=channels)
    plain, last = source.bind("cpu"), source.bind("cpu", Loading(channels_last=True))
    assert torch.equal(passed(plain, "train")[0], passed(last, "train")[0])
    images = next(iter(last.batches("train", 0, 0))).inputs[0]
    assert images.stride(1) == 1
    layer = torch.nn.Conv2d(channels, 8, 3, padding=1).to(memory_format=torch.channels_last)
    assert layer(images).is_contiguous(memory_format=torch.channels_last)


def test_metrics_are_sums_and_loss_is_a_float32_mean():
    data = images_of().bind("cpu")
    logits = torch.tensor([[4.0, 0, 0], [0, 3, 0], [0, 0, 2], [1, 0, 0]])
    batch = Batch((torch.zeros(4, 3, 6, 5),), torch.tensor([0, 1, 2, 2]))
    metrics = data.metrics(logits, batch)
    assert all(value.shape == () for value in metrics.values())
    assert metrics["accuracy"].item() == 3
    assert metrics["count"].item() == 4
    expected = torch.nn.functional.cross_entropy(logits, batch.target)
    assert torch.allclose(metrics["loss"], 4 * expected)
    loss = data.loss(logits.bfloat16().requires_grad_(), batch)
    assert loss.dtype == torch.float32
    assert loss.requires_grad
    assert torch.allclose(loss, expected, atol=1e-2)


def test_a_graph_is_one_batch_with_an_index_per_part():
    source = graph_of()
    data = source.bind("cpu")
    assert (data.task.nodes, data.task.edges) == (30, 30)
    for part, index in source.parts.items():
        (batch,) = data.batches(part, 0, 0)
        assert [tensor.shape for tensor in batch.inputs] == [(30, 4), (2, 30)]
        assert batch.index is not None
        assert batch.index.tolist() == index.tolist()
        logits = torch.zeros(30, 3)
        logits[torch.arange(30), batch.target] = 5.0
        logits[index[0]] = -logits[index[0]]
        metrics = data.metrics(logits, batch)
        assert metrics["count"].item() == len(index)
        assert metrics["accuracy"].item() == len(index) - 1
        assert torch.allclose(data.loss(logits, batch) * len(index), metrics["loss"])


def test_what_layers_need_of_a_graph_is_made_once_for_all_passes_and_parts():
    source = graph_of()
    data = source.bind("cpu")
    x, edges = next(iter(data.batches("train", 0, 0))).inputs
    graph = GraphBatch.of(edges, x)
    assert graph.features is x
    assert torch.equal(edges.as_tensor(), graph.edge_index)
    assert sorted(edges.t().tolist()) == sorted(source.edge_index.T.tolist())
    for part in ("train", "valid", "test"):
        for epoch in (0, 1):
            (batch,) = data.batches(part, epoch, 0)
            assert GraphBatch.of(batch.inputs[1], batch.inputs[0]).csr("gcn") is graph.csr("gcn")
            assert GraphBatch.of(batch.part(0, 1).inputs[1], x) is graph
    for tensor in (*plain((x, edges)), *kind_of(data.task).first((x, edges), 1)):
        assert type(tensor) is torch.Tensor


def test_unlabelled_nodes_never_reach_the_loss():
    edges = np.zeros((2, 1), dtype=np.int64)
    labels = np.array([0, 1] * 10 + [-1] * 5)
    data = graph_source("made", np.ones((25, 2)), labels, edges, Split()).bind("cpu")
    for part in ("train", "valid", "test"):
        (batch,) = data.batches(part, 0, 0)
        assert data.loss(torch.zeros(25, 2), batch).isfinite()


def test_wrong_options_are_explained():
    source = images_of()
    with pytest.raises(UsageError, match="batch size 0"):
        source.bind("cpu", Loading(batch_size=0))
    with pytest.raises(UsageError, match=r"augment\.cutout 16 is too large for images of 6x5"):
        source.bind("cpu", Loading(augment=Augment(cutout=16)))
    with pytest.raises(UsageError, match="unknown part 'vald'; did you mean 'valid'"):
        next(iter(source.bind("cpu").batches("vald", 0, 0)))
    with pytest.raises(UsageError, match="unknown part"):
        next(iter(graph_of().bind("cpu").batches("all", 0, 0)))
