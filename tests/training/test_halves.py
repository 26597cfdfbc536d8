"""The halves of the training part that bilevel searches train on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas_core.batch import HALVES, Data
from training.data.augment import Augment
from training.data.loading import Loading
from training.data.source import ImageSource, graph_source, image_source
from training.data.split import Split

CLASSES = np.repeat(np.arange(3), (60, 31, 20))


def images_of(labels: np.ndarray = CLASSES) -> ImageSource:
    """No two images are the same, so that an image is known by its pixels."""
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 1, 6, 5), dtype=np.uint8)
    return image_source("made", images, labels, Split())


def passed(data: Data, part: str, epoch: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(data.batches(part, epoch, seed))
    return torch.cat([batch.inputs[0] for batch in batches]), torch.cat([batch.target for batch in batches])


def members(data: Data, part: str, epoch: int = 0, seed: int = 0) -> set[tuple[float, ...]]:
    images, _ = passed(data, part, epoch, seed)
    found = {tuple(image.flatten().tolist()) for image in images}
    assert len(found) == len(images)
    return found


def test_halves_are_disjoint_and_together_the_training_part():
    data = images_of().bind("cpu", Loading(batch_size=7))
    weights, alphas = (members(data, part) for part in HALVES)
    assert not weights & alphas
    assert weights | alphas == members(data, "train")
    assert abs(len(weights) - len(alphas)) <= 1


@pytest.mark.parametrize("counts", [(60, 31, 20), (200, 4, 4), (9, 9, 9)])
def test_halves_hold_half_of_every_class(counts):
    source = images_of(np.repeat(np.arange(3), counts))
    data = source.bind("cpu", Loading(batch_size=7))
    weights, alphas = (torch.bincount(passed(data, part)[1], minlength=3) for part in HALVES)
    train = torch.from_numpy(np.bincount(source.labels[source.parts.train], minlength=3))
    assert torch.equal(weights + alphas, train)
    assert int((weights - alphas).abs().max()) <= 1


def test_halves_are_the_same_for_every_seed_epoch_and_binding():
    source = images_of()
    first = source.bind("cpu", Loading(batch_size=7))
    for part in HALVES:
        expected = members(first, part)
        assert members(first, part, epoch=3, seed=9) == expected
        assert members(source.bind("cpu", Loading(batch_size=16)), part) == expected


def test_order_depends_on_seed_epoch_and_part():
    data = images_of().bind("cpu", Loading(batch_size=7))
    for part in HALVES:
        first, again = passed(data, part, 2, 5), passed(data, part, 2, 5)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
        for other in (passed(data, part, 3, 5), passed(data, part, 2, 6)):
            assert not torch.equal(first[0], other[0])
    # Two halves of one size are shuffled differently: positions among the sorted images do not go together.
    places = []
    for part in HALVES:
        keys = [tuple(image.flatten().tolist()) for image in passed(data, part, 2, 5)[0]]
        places.append([sorted(keys).index(key) for key in keys])
    shortest = min(map(len, places))
    assert places[0][:shortest] != places[1][:shortest]


def test_augmentation_is_active_and_repeats():
    source = images_of()
    plain, changed = source.bind("cpu"), source.bind("cpu", Loading(augment=Augment(flip=True, crop=1)))
    for part in HALVES:
        one, other = passed(plain, part), passed(changed, part)
        assert torch.equal(one[1], other[1])
        assert not torch.equal(one[0], other[0])
        assert torch.equal(other[0], passed(changed, part)[0])
        assert not torch.equal(other[0], passed(changed, part, epoch=1)[0])


def test_halves_of_a_graph_are_its_training_and_validation_nodes():
    edges = np.stack([np.arange(30), np.roll(np.arange(30), 1)])
    source = graph_source("made", np.random.default_rng(0).random((30, 4)), np.arange(30) % 3, edges, Split())
    data = source.bind("cpu")
    for half, part in zip(HALVES, ("train", "valid"), strict=True):
        (one,), (other,) = data.batches(half, 4, 2), data.batches(part, 0, 0)
        assert torch.equal(one.index, other.index)
        assert len(one.index) > 0
        assert all(torch.equal(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))
