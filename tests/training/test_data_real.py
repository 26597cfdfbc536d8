"""The loaders on real data sets, and the conversion of JPEG images; skipped where the files are absent."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from nas_core.errors import MachineError, NotFoundError, UsageError
from training.data import load
from training.data.convert import convert_jpeg
from training.data.split import Split


def write_jpegs(path, count: int = 6, side: int = 16, **changes):
    """An npz file of JPEG images that all start with the same bytes; the images as they decode."""
    bodies, decoded = [], []
    for number in range(count):
        stream = io.BytesIO()
        Image.new("RGB", (side, side), (40 * number, 10, 200)).save(stream, "JPEG", quality=75)
        bodies.append(stream.getvalue())
        decoded.append(np.asarray(Image.open(io.BytesIO(bodies[-1]))))
    shared = next(place for place, values in enumerate(zip(*bodies, strict=False)) if len(set(values)) > 1)
    rest = [body[shared:] for body in bodies]
    made = {
        "header": np.frombuffer(bodies[0][:shared], np.uint8),
        "data": np.frombuffer(b"".join(rest), np.uint8),
        "offsets": np.cumsum([0, *map(len, rest)]),
        "labels": (np.arange(count) % 2).astype(np.uint8),
    } | changes
    np.savez(path, **made)
    return np.stack(decoded)


def test_conversion_decodes_every_image(tmp_path):
    images, tests = write_jpegs(tmp_path / "train.npz"), write_jpegs(tmp_path / "test.npz", 4)
    shapes = convert_jpeg(tmp_path / "train.npz", tmp_path / "test.npz", tmp_path / "out.npz")
    assert shapes["images"] == (6, 16, 16, 3)
    assert shapes["test_labels"] == (4,)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as made:
        assert np.array_equal(made["images"], images)
        assert np.array_equal(made["test_images"], tests)
        assert made["labels"].tolist() == [0, 1, 0, 1, 0, 1]
    source = load(f"npz:{tmp_path / 'out.npz'}", Split(valid=0.3))
    assert source.sizes == {"train": 4, "valid": 2, "test": 4}
    convert_jpeg(tmp_path / "train.npz", None, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as made:
        assert sorted(made) == ["images", "labels"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "test.npz", "train.npz"]


def test_conversion_errors_leave_nothing_behind(tmp_path, monkeypatch):
    train, out = tmp_path / "train.npz", tmp_path / "out.npz"
    with pytest.raises(NotFoundError, match=r"train\.npz does not exist"):
        convert_jpeg(train, None, out)
    write_jpegs(train)
    with pytest.raises(UsageError, match="is the input"):
        convert_jpeg(train, None, train)
    with pytest.raises(UsageError, match=r"must end in \.npz"):
        convert_jpeg(train, None, tmp_path / "out.bin")
    with pytest.raises(NotFoundError, match="there is no folder"):
        convert_jpeg(train, None, tmp_path / "absent" / "out.npz")
    write_jpegs(tmp_path / "test.npz", side=8)
    with pytest.raises(UsageError, match=r"\(16, 16, 3\), .* of \(8, 8, 3\)"):
        convert_jpeg(train, tmp_path / "test.npz", out)
    for changes, message in (
        ({"offsets": np.arange(6)}, "offsets do not cut"),
        ({"offsets": np.array([0, 5, 4, 6, 7, 8, 9])}, "offsets do not cut"),
        ({"labels": np.array(1)}, "offsets do not cut"),
        ({"header": np.zeros(3)}, "header and data need uint8"),
        ({"header": np.zeros(600, dtype=np.uint8)}, "image 0 is no readable JPEG"),
    ):
        write_jpegs(tmp_path / "bad.npz", **changes)
        with pytest.raises(UsageError, match=rf"bad\.npz: {message}"):
            convert_jpeg(tmp_path / "bad.npz", None, out)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="the disk is full"):
        convert_jpeg(train, None, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.npz", "test.npz", "train.npz"]


def test_fashion_mnist(shared_data):
    source = load(f"idx:{shared_data / 'fashion-mnist'}", Split(limit=1000))
    assert source.task.input_shape == (1, 28, 28)
    assert source.class_counts == {"train": (90,) * 10, "valid": (10,) * 10, "test": (1000,) * 10}
    mean, deviation = (values[0] / 255 for values in source.statistics)
    assert mean == pytest.approx(0.286, abs=0.01)
    assert deviation == pytest.approx(0.353, abs=0.01)


def test_cora(shared_data):
    source = load(f"graph:{shared_data / 'planetoid_cora.npz'}")
    task = source.task
    assert (task.input_shape, task.outputs, task.nodes, task.edges) == ((1433,), 7, 2708, 10556)
    assert source.class_counts["train"] == (20,) * 7
    assert source.sizes == {"train": 140, "valid": 500, "test": 1000}
    assert set(np.unique(source.features)) == {0.0, 1.0}


def test_adult(shared_data):
    """32,561 and 16,281 people as UCI has them; 24.1 and 23.6% of them earn more."""
    adult, more = (shared_data / f"adult_{part}.csv.gz" for part in ("train", "test"))
    source = load(f"csv:{adult}?header=no&target=c14&missing=?&test={more}")
    assert source.inputs.classes == ("<=50K", ">50K")
    assert source.class_counts == {"train": (22248, 7057), "valid": (2472, 784), "test": (12435, 3846)}
    columns = {column.name: column for column in source.inputs.columns}
    numbers = [name for name, column in columns.items() if column.type == "number"]
    assert numbers == ["c0", "c2", "c4", "c10", "c11", "c12"]
    assert [name for name, column in columns.items() if "" in getattr(column, "levels", ())] == ["c1", "c6", "c13"]
    assert source.task.table() == (1, 9, 1, 16, 1, 7, 15, 6, 5, 2, 1, 1, 1, 41)
    assert len(source.warnings) == 1  # the dots


def test_california_housing(shared_data):
    source = load(f"csv:{shared_data / 'california_housing.csv.gz'}?target=median_house_value")
    assert source.sizes == {"train": 14861, "valid": 1651, "test": 4128}
    missing = [column.name for column in source.inputs.columns if getattr(column, "indicator", False)]
    assert missing == ["total_bedrooms"]
    assert source.inputs.columns[-1].levels == ("<1H OCEAN", "INLAND", "NEAR BAY", "NEAR OCEAN")
    assert source.inputs.columns[-1].rare  # five houses on an island
    assert source.targets.max() == 500_001
    for part in ("valid", "test"):
        assert source.targets[getattr(source.parts, part)].mean() == pytest.approx(206_855.8, rel=0.01)


def test_cifar10_jpeg_images(shared_data, tmp_path):
    """The first images of two classes; all 60,000 take half a minute."""
    with np.load(shared_data / "cifar10_jpeg_test.npz", allow_pickle=False) as stored:
        header, data, offsets, labels = (stored[key] for key in ("header", "data", "offsets", "labels"))
    chosen = [*range(10), *range(1000, 1010)]
    pieces = [data[offsets[number] : offsets[number + 1]] for number in chosen]
    few = {"offsets": np.cumsum([0, *map(len, pieces)]), "labels": labels[chosen]}
    np.savez(tmp_path / "few.npz", header=header, data=np.concatenate(pieces), **few)
    assert convert_jpeg(tmp_path / "few.npz", None, tmp_path / "out.npz")["images"] == (20, 32, 32, 3)
    source = load(f"npz:{tmp_path / 'out.npz'}")
    assert source.task.input_shape == (3, 32, 32)
    assert np.bincount(source.labels).tolist() == [10, 10]
    # Planes fly in a blue sky: the blue channel of the first class is the brightest on average.
    assert source.images[source.labels == 0].mean((0, 2, 3)).argmax() == 2
