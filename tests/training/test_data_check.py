"""What `nas data check` finds: equal images, uneven classes, edges in one direction."""

from __future__ import annotations

import numpy as np

from training.data.check import equal_images, findings, imbalance
from training.data.source import graph_source, image_source
from training.data.split import Split


def images_of(*changes: tuple[int, int], labels: np.ndarray | None = None, names: bool = False):
    """40 different images of two classes, of which `changes` (to, from) become equal: 0 to 19 in train and valid,
    20 to 29 valid, 30 to 39 test."""
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), dtype=np.uint8)
    for to, source in changes:
        images[to] = images[source]
    labels = np.arange(40) % 2 if labels is None else labels
    parts = {"valid": np.arange(20, 30), "test": np.arange(30, 40)}
    files = [f"file-{number}" for number in range(40)] if names else ()
    return image_source("made", images, labels, Split(), **parts, files=files)


def test_equal_images_are_found_between_and_within_parts():
    assert equal_images(images_of()) == []
    found = equal_images(images_of((30, 2), (32, 2), (34, 22), (24, 4), (6, 8), names=True))
    assert found == [
        "2 test images are equal to one in the training part: file-30 = file-2, file-32 = file-2",
        "1 test image is equal to one in the validation part: file-34 = file-22",
        "1 validation image is equal to one in the training part: file-24 = file-4",
        "1 training image is equal to one in that part already: file-8 = file-6",
        "1 test image is equal to one in that part already: file-32 = file-30",
    ]


def test_equal_images_of_two_classes_are_told():
    found = equal_images(images_of((31, 2), (3, 5)))
    assert found[0] == "1 test image is equal to one in the training part: image 31 = image 2"
    assert found[-1] == "1 images have another label than an equal one: image 31 = image 2"


def test_a_limit_does_not_mix_up_the_names():
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), dtype=np.uint8)
    images[39] = images[38]
    names = [f"file-{number}" for number in range(40)]
    source = image_source(*("made", images, np.arange(40) % 2, Split(limit=10)), test=np.arange(30, 40), files=names)
    assert source.files[-10:] == tuple(names[30:])
    assert "file-39 = file-38" in equal_images(source)[0]


def test_uneven_classes_are_told_with_what_a_constant_answer_reaches():
    counts = {"train": (90, 9, 0), "valid": (8, 2, 0), "test": (1, 1, 1)}
    found = imbalance(counts, "abc")
    assert (found.largest, found.most, found.smallest, found.least) == ("a", 90, "b", 9)
    assert (found.ratio, found.majority) == (10, 0.8)
    labels = np.where(np.arange(40) % 10 == 0, 1, 0)
    (text,) = findings(images_of(labels=np.where(np.arange(40) == 5, 1, labels * (np.arange(40) > 19))), "ab")
    assert text.startswith("class 'a' has 19 training samples, class 'b' 1: answering 'a'")
    assert "right for 90.0% of the validation part" in text
    assert findings(images_of(), "ab") == []


def test_edges_that_an_undirected_graph_would_not_have_are_told():
    ring = np.stack([np.arange(30), np.roll(np.arange(30), 1)])
    both = np.concatenate([ring, ring[::-1]], axis=1)

    def of(edges):
        return findings(graph_source("made", np.ones((30, 2)), np.arange(30) % 3, edges, Split()), "abc")

    assert of(both) == []
    assert of(ring) == ["30 edges have no way back; an undirected graph holds both directions of each"]
    more = np.concatenate([both, both[:, :2], [[4], [4]]], axis=1)
    assert of(more) == ["2 edges occur more than once", "1 edges go from a node to itself"]
