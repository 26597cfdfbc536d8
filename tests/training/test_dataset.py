"""A `torch.utils.data.Dataset` of a user's own as data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nas_core.errors import NotFoundError, UsageError
from training.data import load
from training.data.split import Split
from training.reading import reading

FILE = '''
import random
import numpy as np
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

class Made(Dataset):
    """`count` items; all pixels of item i have the value i."""

    def __init__(self, count=30, classes=("a", "b", "c"), first=0):
        self.count, self.first = count, first
        if classes:
            self.classes = list(classes)

    def __len__(self):
        return self.count

    def image(self, i):
        return torch.full((3, 6, 4), self.first + i, dtype=torch.uint8)

    def __getitem__(self, i):
        if i >= self.count:
            raise IndexError(i)
        return self.image(i), i % 3

class Pictures(Made):
    def image(self, i):
        return Image.new("RGB", (4, 6), (self.first + i,) * 3)

class Floats(Made):
    def image(self, i):
        return torch.full((6, 4), i / 30)

class Random(Made):
    def image(self, i):
        return torch.rand(1, 6, 4) + random.random() + np.random.rand()

class Broken(Made):
    def __getitem__(self, i):
        if i in (3, 7):
            raise OSError("bad sector")
        return super().__getitem__(i)

class Wrong(Made):
    def __init__(self, item):
        super().__init__()
        self.item = item

    def __getitem__(self, i):
        return self.item

class Stream(IterableDataset):
    def __iter__(self):
        yield from ()

later = TensorDataset(torch.zeros(30, 1, 4, 4), torch.arange(30) % 2 + 1)
data, pictures, floats, random_ones, broken = Made(), Pictures(), Floats(), Random(), Broken()
two = {"train": Made(20), "test": Made(9, first=100)}
three = {"Train": Made(20), "val": Made(6, first=50), "testing": Made(9, first=100)}
subset = Subset(Made(60), range(0, 60, 2))
joined = ConcatDataset([Made(15), Made(15, first=15)])
texts = Wrong((torch.zeros(1, 4, 4), "cat"))
tensors = TensorDataset(torch.arange(30).view(30, 1, 1, 1).expand(30, 1, 5, 5), torch.arange(30) % 2)
stream, empty, a_list = Stream(), Made(0), [1, 2]
twice = {"val": Made(), "valid": Made(), "train": Made()}
lookalike = {"train": Made(), "tests": Made()}
unknown = {"train": Made(), "extra": Made()}
no_train = {"test": Made()}
no_data = {"train": [1, 2]}
other_classes = {"train": Made(), "test": Made(classes="abd")}
bad_classes = Made(classes=None)
bad_classes.classes = {0: "a"}
mixed = ConcatDataset([Made(), Pictures()])
sizes = ConcatDataset([Made(), TensorDataset(torch.zeros(3, 3, 5, 5, dtype=torch.uint8), torch.arange(3))])
wrong = [
    Wrong(item)
    for item in (
        7,
        (torch.zeros(1, 4, 4), 0, 0),
        (np.zeros((4, 4)), 0),
        (torch.zeros(4), 0),
        (torch.zeros(32, 32, 3), 0),
        (torch.zeros(1, 4, 4), 0.5),
        (torch.zeros(1, 4, 4), torch.zeros(3)),
    )
]
wrong_number, wrong_three, wrong_array, wrong_axes, wrong_order, wrong_label, wrong_row = wrong

def function():
    return two

def nothing():
    return None

def fails():
    return 1 / 0

def loader(argument, split):
    return Made(int(argument))
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    """The path of a file with data sets."""
    (tmp_path / "my_data.py").write_text(FILE)
    return str(tmp_path / "my_data.py")


def test_a_data_set_of_tensors(own):
    source = load(f"{own}:data", Split(test=0.2, valid=0.25))
    assert source.reference == f"{own}:data"
    assert source.task.input_shape == (3, 6, 4)
    assert source.classes == ("a", "b", "c")
    assert source.sizes == {"train": 18, "valid": 6, "test": 6}
    assert source.images.dtype == np.uint8
    assert source.warnings == ()
    for number in range(30):
        assert (source.images[number] == number).all()
        assert source.labels[number] == number % 3


@pytest.mark.parametrize("name", ["pictures", "subset", "joined", "Made"])
def test_other_data_sets_of_the_same_kind(own, name):
    source = load(f"{own}:{name}")
    values = source.images[:, 0, 0, 0].tolist()
    assert values == (list(range(0, 60, 2)) if name == "subset" else list(range(30)))
    assert source.classes == ("a", "b", "c")
    assert sum(source.sizes.values()) == 30


def test_pillow_images_are_read_as_files_are(own):
    source = load(f"{own}:pictures?size=5")
    assert source.task.input_shape == (3, 5, 5)
    assert source.inputs.value_range == (0, 255)  # though no image is white
    cut = load(f"{own}:pictures?size=5&fit=crop")
    assert cut.inputs.fit == "crop"


def test_float_tensors_and_tensor_data_sets(own):
    floats = load(f"{own}:floats")
    assert floats.task.input_shape == (1, 6, 4)
    assert floats.images.dtype == np.float32
    assert floats.inputs.value_range == (0, 1)
    tensors = load(f"{own}:tensors")
    assert (tensors.task.input_shape, tensors.task.outputs, tensors.classes) == ((1, 5, 5), 2, ())


@pytest.mark.parametrize(("name", "sizes"), [("two", (17, 3, 9)), ("function", (17, 3, 9)), ("three", (20, 6, 9))])
def test_parts_of_ones_own(own, name, sizes):
    source = load(f"{own}:{name}")
    assert tuple(source.sizes.values()) == sizes
    assert source.images[source.parts.test][:, 0, 0, 0].tolist() == list(range(100, 109))
    if name == "three":
        assert source.images[source.parts.valid][:, 0, 0, 0].tolist() == list(range(50, 56))


def test_a_module_names_its_parts(tmp_path):
    path = tmp_path / "parts.py"
    path.write_text(FILE + "\ntrain, Test, valid = Made(20), Made(9, first=100), Made(6, first=50)\n")
    source = load(str(path))
    assert tuple(source.sizes.values()) == (20, 6, 9)
    assert load(f"{path}?skip=unreadable").split_hash == source.split_hash
    path.write_text(FILE + "\ntrain, holdout = Made(20), Made(9)\n")
    with pytest.raises(UsageError, match="holds 'holdout', which is no part of the data"):
        load(str(path))
    path.write_text("number = 3\n")
    with pytest.raises(UsageError, match="names no data set 'train'"):
        load(str(path))
    with pytest.raises(NotFoundError, match="there is no file"):
        load(str(tmp_path / "missing.py"))


def test_a_loader_may_return_data_sets(own):
    assert sum(load(f"{own}:loader:45").sizes.values()) == 45


def test_random_transforms_are_drawn_once_and_told(own):
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    first, second = load(f"{own}:random_ones"), load(f"{own}:random_ones")
    assert first.split_hash == second.split_hash
    assert any("random transforms are drawn once" in text for text in first.warnings)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_items_that_cannot_be_read_are_listed_and_may_be_skipped(own):
    with pytest.raises(UsageError) as caught:
        load(f"{own}:broken")
    head, *lines = str(caught.value).splitlines()
    assert head.endswith("2 of 30 samples cannot be read; add ?skip=unreadable to go on without them")
    assert lines == ["train[3]: OSError: bad sector", "train[7]: OSError: bad sector"]
    source = load(f"{own}:broken?skip=unreadable")
    assert source.images[:, 0, 0, 0].tolist() == [number for number in range(30) if number not in (3, 7)]
    assert "2 of 30 cannot be read and are left out: train[3], train[7]" in source.warnings


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stream", "Stream has no length"),
        ("empty", "the data set 'train' is empty"),
        ("a_list", "'a_list' is list; needed is a torch.utils.data.Dataset, a mapping"),
        ("twice", "holds 'val' and 'valid', both of them the valid part"),
        ("lookalike", "holds 'tests', which is no part of the data; did you mean 'test'"),
        ("unknown", "holds 'extra', which is no part of the data .known: train, valid, test"),
        ("no_train", "holds no 'train' .test"),
        ("no_data", "'train' is list of 2; needed is a torch.utils.data.Dataset"),
        ("other_classes", "the classes of 'test' are a, b, d, those of 'train' a, b, c"),
        ("bad_classes", "its classes are dict; needed is a list of texts"),
        ("mixed", r"train\[30\]: the image is Image.*, unlike the first one"),
        ("sizes", r"3 of 33 images have another size .train\[30\] has 5x5 pixels, train\[0\] 4x6 pixels"),
        ("texts", "label 'cat' is none of the classes; did you mean 'c'"),
        ("nothing", "'nothing' is NoneType; needed is"),
        ("fails", "the loader fails: ZeroDivisionError"),
        ("data:1", "a data set takes no argument; options are written"),
        ("data?size=8", "the image is a tensor, and size= is for Pillow images"),
        ("loader?size=8", "options are for data sets; a loader gets its argument as"),
        ("data?sise=8", "unknown option 'sise'; did you mean 'size'"),
        ("wrong_number", r"train\[0\]: is int; items are \(image, label\)"),
        ("wrong_three", "is tuple of 3; items are"),
        ("wrong_array", r"the image is ndarray \(4, 4\); items are"),
        ("wrong_axes", r"the image is a tensor \(4,\); items are"),
        ("wrong_order", r"looks like \[height, width, channels\]"),
        ("wrong_label", "the label is float; items are"),
        ("wrong_row", r"the label is Tensor \(3,\); items are"),
    ],
)
def test_what_is_no_data_set_is_explained(own, name, message):
    with pytest.raises(UsageError, match=message):
        load(f"{own}:{name}")


@pytest.mark.parametrize("options", ["", "&stream=yes"])
def test_labels_with_gaps_are_told_and_renumbered(own, options):
    (text,) = load(f"{own}:later{options.replace('&', '?')}").warnings[-1:]
    assert text.startswith("the labels start at 1: 1 of the 3 outputs")
    source = load(f"{own}:later?labels=renumber{options}")
    assert (source.classes, source.labels[:2].tolist(), source.task.outputs) == (("1", "2"), [0, 1], 2)
    with pytest.raises(UsageError, match="its classes have names"):
        load(f"{own}:data?labels=renumber")


def test_the_reading_is_counted(own):
    class Heard:
        counts: list[tuple[str, int, int]] = []  # noqa: RUF012

        def warn(self, text):
            raise AssertionError(text)

        def progress(self, what, done, total):
            self.counts.append((what, done, total))

    with reading(Heard()):
        load(f"{own}:data")
    assert Heard.counts == [(f"{own}:data", done, 30) for done in range(31)]
