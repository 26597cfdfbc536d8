"""Images that are read while they are needed: the same batches as from memory, whoever reads them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas_core.errors import UsageError
from training.data import bound_stream, load, stream
from training.data.augment import Augment
from training.data.check import equal_images
from training.data.loading import Loading
from training.data.source import ImageSource
from training.data.split import Split
from training.data.stream import StreamSource

FILE = '''
import random
import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

BAD = 40

class Made(Dataset):
    def __init__(self, count=60, targets=True):
        self.images = torch.from_numpy(np.random.default_rng(7).integers(0, 256, (count, 3, 6, 5), dtype=np.uint8))
        self.labels_of_mine = [number % 3 for number in range(count)]
        if targets:
            self.targets = list(self.labels_of_mine)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        if number == getattr(self, "bad", None):
            raise OSError("bad sector")
        return self.images[number], self.labels_of_mine[number]

class Random(Made):
    def __getitem__(self, number):
        noise = torch.rand(1) + random.random() + np.random.rand()
        return self.images[number] * noise, self.labels_of_mine[number]

class Noise(Made):
    """Its images show what was drawn, and nothing else."""
    def __getitem__(self, number):
        return torch.rand(1) * torch.ones(1, 6, 5), number % 3

class Moved(Made):
    """Its targets are not the labels of its items."""
    def __getitem__(self, number):
        image, label = super().__getitem__(number)
        return image, (label + 1) % 3

class Grey(Made):
    """One colour image that nobody expects."""
    def __getitem__(self, number):
        image, label = super().__getitem__(number)
        return (image if number == BAD else image[:1]), label

noise = Noise()
data, no_targets, random_ones, moved, grey = Made(), Made(targets=False), Random(), Moved(), Grey()
subset, joined = Subset(Made(80), range(10, 70)), ConcatDataset([Made(30), Made(30)])
broken = Made()
broken.bad = BAD
both = {"train": Made(60), "test": Made(20)}
'''
EVERYTHING = Augment(flip=True, crop=1, cutout=2)


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "my_data.py").write_text(FILE)
    return str(tmp_path / "my_data.py")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of 60 items is as one of a million is: most are not looked at when it is loaded."""
    monkeypatch.setattr(stream, "SAMPLED", 12)


def streamed(reference: str, split: Split | None = None) -> StreamSource:
    source = load(reference, split or Split())
    assert isinstance(source, StreamSource)
    return source


def batches(data, part: str = "train", epoch: int = 3, seed: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(batch.inputs[0], batch.target) for batch in data.batches(part, epoch, seed)]


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        torch.equal(image, other) and torch.equal(label, another)
        for (image, label), (other, another) in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["data", "both"])
def test_batches_are_those_of_images_in_memory(own, name, workers):
    memory, stream_ = load(f"{own}:{name}"), streamed(f"{own}:{name}?stream=yes&workers={workers}")
    assert isinstance(memory, ImageSource)
    for attribute in ("task", "sizes", "class_counts", "statistics", "inputs", "classes"):
        assert getattr(stream_, attribute) == getattr(memory, attribute)
    bound, other = (
        source.bind("cpu", Loading(batch_size=16, augment=EVERYTHING, channels_last=True))
        for source in (memory, stream_)
    )
    for part in ("train", "valid", "test", "weights", "alphas"):
        assert same(batches(bound, part), batches(other, part))
        assert torch.equal(bound.targets(part), other.targets(part))
    assert not same(batches(other), batches(other, epoch=4))


def test_a_pass_depends_on_seed_and_epoch_and_on_nothing_else(own):
    """Random transforms of the user's included: with other workers, in another order, after a resume."""
    alone, helped = (
        streamed(f"{own}:random_ones?stream=yes&workers={workers}").bind("cpu", Loading(batch_size=16))
        for workers in (0, 2)
    )
    state = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    later = batches(alone, epoch=5)
    for epoch in range(4, 6):  # a search that was never interrupted
        last = batches(helped, epoch=epoch)
    assert same(later, last)
    assert not same(later, batches(alone, epoch=6))
    assert not same(later, batches(alone, epoch=5, seed=5))
    noise = streamed(f"{own}:noise?stream=yes&workers=0").bind("cpu", Loading(batch_size=16))
    drawn = {tuple(batches(noise, epoch=epoch)[0][0][:, 0, 0, 0].tolist()) for epoch in (0, 0, 1, 2)}
    assert len(drawn) == 3
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]
    assert any("changed at random too" in text for text in load(f"{own}:random_ones?stream=yes").warnings)


def test_a_pass_that_is_left_early_leaves_no_process(own):
    import multiprocessing

    data = streamed(f"{own}:data?stream=yes&workers=2").bind("cpu", Loading(batch_size=4))
    before = multiprocessing.active_children()
    now = data.batches("train", 0, 0)
    next(now)
    assert len(multiprocessing.active_children()) == len(before) + 2
    now.close()
    assert multiprocessing.active_children() == before


@pytest.mark.usefixtures("few")
def test_the_hash_covers_length_labels_parts_and_the_first_items(own, tmp_path):
    first = streamed(f"{own}:data?stream=yes")
    assert streamed(f"{own}:data?stream=yes&workers=0").split_hash == first.split_hash
    assert streamed(f"{own}:data?stream=yes", Split(seed=1)).split_hash != first.split_hash
    for number, change in enumerate(("Made(61)", "Made(); data.images[11] += 1", "Made(); data.images[40] += 1")):
        path = tmp_path / f"other{number}.py"
        path.write_text(f"{FILE}\ndata = {change}\n")
        expected = number == 2  # beyond the sample
        assert (streamed(f"{path}:data?stream=yes").split_hash == first.split_hash) is expected


@pytest.mark.usefixtures("few")
def test_mean_and_deviation_are_those_of_training_images_evenly_spread(own):
    source = streamed(f"{own}:data?stream=yes")
    chosen = source.parts.train[np.linspace(0, len(source.parts.train) - 1, 12).astype(int)]
    images = source.stored(chosen.tolist(), 0).astype(np.float64)
    assert np.allclose(source.statistics[0], images.mean((0, 2, 3)))
    assert np.allclose(source.statistics[1], images.std((0, 2, 3)))


def test_labels_without_targets_are_read_from_the_items(own):
    plain = streamed(f"{own}:data?stream=yes")
    assert plain.warnings == ()
    for name in ("no_targets", "moved"):
        source = streamed(f"{own}:{name}?stream=yes")
        assert any("all items are read for their labels" in text for text in source.warnings)
        assert source.labels.tolist() == [(number + (name == "moved")) % 3 for number in range(60)]


@pytest.mark.parametrize(("name", "first"), [("subset", 10), ("joined", 0)])
def test_targets_of_parts_of_data_sets(own, name, first):
    source = streamed(f"{own}:{name}?stream=yes")
    assert source.warnings == ()
    assert source.labels.tolist() == [(first + number) % 3 for number in range(60)]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "OSError: bad sector$"),
        ("grey", "3 x 6 x 5, the first images are 1 x 6 x 5; one shape is needed$"),
    ],
)
def test_what_goes_wrong_while_training_names_the_item(own, name, message, workers):
    number = int(streamed(f"{own}:data?stream=yes").parts.test[-1])  # looked at by nobody before
    Path(own).write_text(FILE.replace("BAD = 40", f"BAD = {number}"))
    data = streamed(f"{own}:{name}?stream=yes&workers={workers}").bind("cpu", Loading(batch_size=64))
    batches(data)
    with pytest.raises(UsageError, match=rf"train\[{number}\].*{message}"):
        batches(data, "test")


def test_what_cannot_be_read_at_the_start_is_listed_without_wrong_advice(own):
    with pytest.raises(UsageError, match=r"1 of 60 samples cannot be read\ntrain\[40\]: OSError: bad sector$"):
        load(f"{own}:broken?stream=yes")


def test_options_that_do_not_go_together(own):
    for options, message in (
        ("stream=yes&skip=unreadable", "leave out skip or stream"),
        ("workers=2", "workers read ahead while streaming; add stream=yes"),
        ("stream=maybe", "stream: Input should be a valid boolean"),
        ("stream=yes&workers=-1", "workers: Input should be greater than or equal to 0"),
    ):
        with pytest.raises(UsageError, match=message):
            load(f"{own}:data?{options}")


def test_a_folder_is_streamed_with_the_batches_of_the_same_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        place = (
            tmp_path / ("test" if number % 4 == 0 else "train") / "ab"[number % 2 if number % 4 else number // 4 % 2]
        )
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4 + number % 3, 5, 3), dtype=np.uint8)).save(place / f"{number}.png")
    (tmp_path / "test" / "a" / "notes.txt").write_text("left out")
    memory, other = load(f"folder:{tmp_path}?size=6"), streamed(f"folder:{tmp_path}?size=6&stream=yes&workers=1")
    assert other.warnings == memory.warnings
    assert other.inputs == memory.inputs
    for part in ("train", "test"):
        assert same(
            batches(memory.bind("cpu", Loading(batch_size=8)), part),
            batches(other.bind("cpu", Loading(batch_size=8)), part),
        )
    for source in (memory, other):
        number = int(source.parts.test[0])
        assert source.name(number).startswith("test/")
    assert equal_images(other) == []
    (tmp_path / "test" / "a" / "copy.png").write_bytes((tmp_path / "train" / "b" / "1.png").read_bytes())
    assert "test/a/copy.png = train/b/1.png" in equal_images(streamed(f"folder:{tmp_path}?size=6&stream=yes"))[0]


def test_items_are_made_again_in_another_process(own):
    """Where processes are not forked, the source is pickled, and classes of a user's file cannot be."""
    source = streamed(f"{own}:both?stream=yes")
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.stored([3, 70], 0) == source.stored([3, 70], 0)).all()


def test_processes_side_by_side_start_no_others(monkeypatch):
    assert bound_stream.worker_count(3) == 3
    assert 1 <= bound_stream.worker_count(None) <= bound_stream.MOST_WORKERS

    class Daemon:
        daemon = True

    monkeypatch.setattr(bound_stream.multiprocessing, "current_process", Daemon)
    assert bound_stream.worker_count(3) == 0
