"""Labels as people have them: numbers that start at 1, texts, columns, one-hot rows."""

from __future__ import annotations

import numpy as np
import pytest

from nas_core.errors import UsageError
from training.data import load
from training.data.labels import absent, class_labels, listed
from training.data.source import image_source
from training.data.split import Split

COUNT = 30
NUMBERS = np.arange(COUNT) % 3


def read(labels, **options):
    return class_labels(np.asarray(labels), len(labels), "samples", "here", **options)


@pytest.mark.parametrize(
    "labels",
    [
        NUMBERS,
        NUMBERS[:, None],
        NUMBERS.astype(np.uint8),
        np.eye(3)[NUMBERS],
        np.eye(3, dtype=bool)[NUMBERS],
        np.array(["cat", "dog", "eel"])[NUMBERS],
        np.array(["cat", "dog", "eel"])[NUMBERS][:, None],
        np.array([b"cat", b"dog", b"eel"])[NUMBERS],
    ],
)
def test_every_form_of_the_same_labels_gives_the_same_numbers(labels):
    found = read(labels)
    assert np.array_equal(found.numbers, NUMBERS)
    assert found.numbers.dtype == np.int64
    assert found.outputs == 3
    assert found.warnings == ()
    if labels.dtype.kind in "US":
        assert found.classes == ("cat", "dog", "eel")


def test_texts_are_numbered_by_the_names_of_the_classes_where_these_are_given():
    found = read(["dog", "cat", "dog"], classes=("dog", "eel", "cat"))
    assert found.numbers.tolist() == [0, 2, 0]
    assert (found.outputs, found.classes) == (3, ("dog", "eel", "cat"))


def test_a_class_that_one_hot_rows_have_no_sample_of_is_a_class():
    found = read(np.eye(4)[NUMBERS])
    assert (found.outputs, found.classes) == (4, ("0", "1", "2", "3"))


@pytest.mark.parametrize(
    ("labels", "outputs", "said"),
    [
        (NUMBERS + 1, 4, "the labels start at 1: 1 of the 4 outputs"),
        (NUMBERS * 2, 5, "the labels leave out 1, 3: 2 of the 5 outputs"),
        (NUMBERS + 10, 13, "the labels start at 10: 10 of the 13 outputs"),
        ((NUMBERS + 1) * 2, 7, "the labels leave out 0, 1, 3, 5: 4 of the 7 outputs"),
    ],
)
def test_labels_with_gaps_stay_what_they_are_and_that_is_said(labels, outputs, said):
    found = read(labels)
    assert np.array_equal(found.numbers, labels)
    assert (found.outputs, found.classes) == (outputs, ())
    (text,) = found.warnings
    assert text.startswith(said)
    assert "number the classes from 0 without gaps, or add ?labels=renumber" in text
    closed = read(labels, renumber=True)
    assert np.array_equal(closed.numbers, NUMBERS)
    assert closed.classes == tuple(str(number) for number in sorted(set(labels.tolist())))
    assert (closed.outputs, closed.warnings) == (3, ())


def test_renumbering_keeps_nodes_without_a_label():
    found = read(np.where(np.arange(COUNT) < 5, -1, NUMBERS + 7), unlabelled=True, renumber=True)
    assert found.numbers[:5].tolist() == [-1] * 5
    assert np.array_equal(found.numbers[5:], NUMBERS[5:])
    assert found.classes == ("7", "8", "9")
    for labels in (np.array(["", "a", "b"]), np.array([[0, 0], [1, 0], [0, 1]])):
        assert read(labels, unlabelled=True).numbers.tolist() == [-1, 0, 1]
    assert read([-5, 2, -5], renumber=True).numbers.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([[1, 1], [1, 0]], {}, "row 0 has 2 ones"),
        ([[0, 1], [0, 0]], {}, "row 1 has 0 ones"),
        ([[0.5, 0.5], [0, 1]], {}, "row 0 has 0 ones"),
        ([[0, 1], [1, 0]], {"classes": ("a",)}, "one-hot labels of 2 classes; 1 classes are named"),
        (["cat", ""], {}, "the label of sample 1 is an empty text"),
        (["cat", "dgo"], {"classes": ("cat", "dog")}, "label 'dgo' is none of the classes; did you mean 'dog'"),
        (["a", "b"], {"classes": ("a", "a", "b")}, "two of the 3 classes have the same name"),
        ([1, 2, 3], {"classes": ("a", "b", "c")}, "label 3 has no name; 3 classes are named .the least label is 1"),
        ([0, 1], {"classes": ("a", "b"), "renumber": True}, "its classes have names"),
        ([0, 900], {}, "label 900 among 2 samples; number the classes from 0 without gaps, or add .labels=renumber"),
        ([0, -1], {}, "label -1 is negative; classes are numbered from 0$"),
        ([0, -2], {"unlabelled": True}, "label -2 is negative; .* -1 stands for no label"),
        ([4, 4], {"renumber": True}, "only one class"),
        ([[["a"]]], {}, "labels are <U1 .1, 1, 1.; needed are whole numbers or texts"),
        ([1.5, 2], {}, "labels are float64"),
    ],
)
def test_what_is_no_label_is_explained(labels, options, message):
    with pytest.raises(UsageError, match=f"here: .*{message}"):
        read(labels, **options)


def test_classes_without_a_sample_are_told_part_by_part():
    counts = {"train": (5, 0, 3, 0), "valid": (1, 0, 0, 0), "test": (2, 4, 1, 0)}
    assert absent(counts, "abcd") == [
        "class 'd' has no sample in any part",
        "class 'b' has no training sample (0 in valid, 4 in test), so no network can learn it",
        "classes 'b', 'c' have no validation sample (3 in train, 5 in test)",
    ]
    assert len(absent(counts, "abcd", told_before=(3,))) == 2
    assert absent({"train": (1, 2), "test": (1, 1)}, "ab") == []
    assert absent({"train": (0, 0, 1), "test": (1, 1, 0)}, "abc")[0].endswith("so no network can learn them")
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_the_hash_of_plain_labels_does_not_depend_on_their_form(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 4, 4)).astype(np.uint8)
    hashes = {
        image_source("made", images, labels, Split()).split_hash
        for labels in (NUMBERS, NUMBERS[:, None], np.eye(3)[NUMBERS], np.array(["a", "b", "c"])[NUMBERS])
    }
    assert hashes == {"a60b8c056057b144"}


def test_npz_takes_texts_in_both_parts(tmp_path):
    path, names = tmp_path / "made.npz", np.array(["dog", "tapir"])
    made = {"images": np.zeros((20, 4, 4)), "labels": names[np.arange(20) % 2], "test_images": np.zeros((4, 4, 4))}
    np.savez(path, **made, test_labels=names[[1, 1, 0, 1]])
    source = load(f"npz:{path}")
    assert source.classes == ("dog", "tapir")
    assert source.labels[source.parts.test].tolist() == [1, 1, 0, 1]
    np.savez(path, **made, test_labels=[1, 1, 0, 1])
    with pytest.raises(UsageError, match=r"labels are <U5 .20,., test_labels int64 .4,.; both need the same kind"):
        load(f"npz:{path}")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("valid_images", "unknown key 'valid_images'.*validation images are drawn from images"),
        ("x_train", "unknown key 'x_train'"),
        ("clases", "unknown key 'clases'; did you mean 'classes'"),
        ("Layout", "unknown key 'Layout'; did you mean 'layout'"),
    ],
)
def test_npz_keys_that_could_mean_something_are_refused(tmp_path, key, said):
    np.savez(tmp_path / "made.npz", images=np.zeros((20, 4, 4)), labels=np.arange(20) % 2, **{key: np.zeros(3)})
    with pytest.raises(UsageError, match=said):
        load(f"npz:{tmp_path / 'made.npz'}")


def test_other_npz_keys_are_told_of_and_objects_are_named(tmp_path):
    path, made = tmp_path / "made.npz", {"images": np.zeros((20, 4, 4)), "labels": np.arange(20) % 2}
    np.savez(path, **made, source=np.array("a camera"), bag=np.array([{}]))
    (text,) = load(f"npz:{path}").warnings
    assert text.startswith("not used: source, bag (known: images, labels")
    np.savez(path, images=made["images"], labels=np.array(["a", "b"] * 10, dtype=object))
    with pytest.raises(UsageError, match=r"'labels' holds Python objects .* np.asarray\(labels.tolist\(\)\)"):
        load(f"npz:{path}")
