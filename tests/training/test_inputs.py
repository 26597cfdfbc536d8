"""What a network needs to know of its inputs: a property of every source, in the units of the deployed input."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas_core.errors import UsageError
from training.data import load
from training.data.loading import Loading
from training.data.source import graph_source, image_source
from training.data.split import Split
from training.inputs import ImageInputs, inputs_from
from training.inputs.images import observed_range
from training.inputs.pictures import Unreadable, pixels, read_file


def _gradient(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 16], np.uint8), (0, 16)),
        (np.array([0.0, 16.0]), (0, 16)),
        (np.array([3, 200], np.uint8), (0, 255)),
        (np.array([0, 1], np.uint8), (0, 1)),
        (np.array([0.1, 0.4]), (0, 1)),
        (np.array([0, 60000], np.uint16), (0, 65535)),
        (np.array([0.0, 1e6]), (0, 1e6)),
        (np.array([-0.9, 0.5]), (-1, 1)),
        (np.array([-2.1, 2.6]), (-2.1, 2.6)),
    ],
)
def test_black_and_white_are_read_off_the_numbers(values: np.ndarray, expected: tuple[float, float]) -> None:
    assert observed_range(values) == expected


@pytest.mark.parametrize("low_high", [(0, 255), (0, 16), (-1, 1), (-2.5, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_from_0_to_1_becomes_what_the_network_was_trained_on(
    channels: int, low_high: tuple[float, float]
) -> None:
    low, high = low_high
    share = np.random.default_rng(1).random((40, channels, 6, 5)).astype(np.float32)
    stored = (share * (high - low) + low).astype(np.float32)
    labels = np.arange(40) % 4
    source = image_source("s", stored, labels, Split(), value_range=low_high, classes=["a", "b", "c", "d"])
    inputs = source.inputs
    batch = next(iter(source.bind("cpu", Loading(batch_size=40)).batches("valid", 0, 0)))
    mean, deviation = (torch.tensor(values).view(1, -1, 1, 1) for values in (inputs.mean, inputs.deviation))
    seen = (torch.from_numpy(share[source.parts.valid]) - mean) / deviation
    assert torch.allclose(seen, batch.inputs[0], atol=1e-5)
    assert (inputs.mode, inputs.height, inputs.width) == ("L" if channels == 1 else "RGB", 6, 5)
    assert inputs.classes == ("a", "b", "c", "d")


def test_inputs_are_plain_data_of_every_source(tmp_path: Path) -> None:
    digits = load("digits")
    assert inputs_from(json.loads(json.dumps(digits.inputs.model_dump(mode="json")))) == digits.inputs
    assert isinstance(digits.inputs, ImageInputs)
    assert digits.inputs.value_range == (0, 16)
    karate = load("karate")
    assert inputs_from(json.loads(json.dumps(karate.inputs.model_dump(mode="json")))) == karate.inputs
    assert karate.inputs.classes == ("0", "1", "2", "3")
    for number, name in enumerate("ab" * 12):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        # Dark files: what the numbers show must not be taken for white.
        Image.new("L", (4, 3), number).save(tmp_path / "set" / name / f"{number}.png")
    own = load(f"folder:{tmp_path / 'set'}").inputs
    assert isinstance(own, ImageInputs)
    assert (own.mode, own.value_range, own.classes) == ("L", (0, 255), ("a", "b"))
    with pytest.raises(UsageError, match="unknown kind of inputs 'None'"):
        inputs_from({})


def test_rows_of_features_are_normalised_and_said_so() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((30, 5)) - 0.2
    features[3] = 0
    edges = rng.integers(0, 30, (2, 50))
    source = graph_source(
        "g", features, np.arange(30) % 3, edges, Split(), normalise="rows", feature_names=list("vwxyz")
    )
    sums = np.abs(source.features).sum(axis=1)
    assert sums[3] == 0
    assert np.allclose(np.delete(sums, 3), 1, atol=1e-6)
    assert (source.inputs.normalise, source.inputs.feature_names) == ("rows", tuple("vwxyz"))
    assert source.split_hash != graph_source("g", features, np.arange(30) % 3, edges, Split()).split_hash


def test_pixels_are_upright_converted_and_brought_to_size() -> None:
    image = _gradient(20, 30)
    assert np.array_equal(pixels(image), np.asarray(image))
    assert np.array_equal(pixels(image, mode="L")[:, :, 0], np.asarray(image.convert("L")))
    wanted = np.asarray(image.resize((8, 6), Image.Resampling.BICUBIC))
    assert np.array_equal(pixels(image, (6, 8)), wanted)
    cut = image.resize((10, 10), Image.Resampling.BICUBIC, box=(5, 0, 25, 20))
    assert np.array_equal(pixels(image, (10, 10), "crop"), np.asarray(cut))
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(file, "png", exif=exif)
    assert np.array_equal(pixels(Image.open(file)), np.rot90(np.asarray(image), -1))


def test_a_file_is_read_upright_and_its_oddities_are_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png", exif=exif)
    found = read_file(tmp_path / "a.png", (30, 20))
    assert (found.pixels.shape, found.shown, found.remarks) == ((3, 30, 20), (30, 20), ())
    frames = [Image.new("RGB", (4, 3), (number, 0, 0)) for number in range(2)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    odd = read_file(tmp_path / "b.gif")
    assert (odd.shown, odd.remarks) == ((3, 4), ("more than one frame, of which the first is used",))
    (tmp_path / "c.png").write_bytes(b"")
    with pytest.raises(Unreadable, match="not a readable image"):
        read_file(tmp_path / "c.png")
