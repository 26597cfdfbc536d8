"""Folders of image files as people have them: what is read, what is passed over, and what is said of it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nas_core.errors import MachineError, NotFoundError, UsageError
from training.data import items, load
from training.data.split import Split

ORIENTATION = 0x0112


def write_images(folder: Path, names: tuple[str, ...], mode: str = "RGB", count: int = 6, side: int = 4) -> None:
    """`count` images per class; all pixels of an image of class k have the value 10 * k + its number."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for position in range(count):
            colour = 10 * number + position
            image = Image.new(mode, (side, side), (colour,) * 3 if mode == "RGB" else colour)
            image.save(folder / name / f"{position}.png")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with six images of each of the classes a and b."""
    write_images(tmp_path / "two", ("a", "b"))
    return tmp_path / "two"


def test_folder_of_classes(tmp_path):
    write_images(tmp_path, ("cat", "ant"))
    source = load(f"folder:{tmp_path}", Split(test=0.25, valid=0.25))
    assert source.classes == ("ant", "cat")
    assert source.task.input_shape == (3, 4, 4)
    assert source.sizes == {"train": 7, "valid": 2, "test": 3}
    assert source.class_counts["valid"] == (1, 1)
    assert sorted(source.images[source.labels == 1, 0, 0, 0]) == [0, 1, 2, 3, 4, 5]
    assert sorted(source.images[source.labels == 0, 0, 0, 0]) == [10, 11, 12, 13, 14, 15]
    assert source.warnings == ()
    assert source.split_hash == "6898594a0b5ce5aa"  # stored studies refer to it


PARTS = [
    ("train", "test", None),
    ("train", "test", "val"),
    ("train", "test", "valid"),
    ("Train", "TEST", "Validation"),
    ("training", "Testing", "Val"),
]


@pytest.mark.parametrize(("train", "test", "valid"), PARTS)
def test_folder_with_parts(tmp_path, train, test, valid):
    for part in filter(None, (train, test, valid)):
        write_images(tmp_path / part, ("a", "b"), mode="L", count=3 if part == test else 8)
    source = load(f"folder:{tmp_path}", Split(valid=0.25))
    assert source.task.input_shape == (1, 4, 4)
    expected = {"train": (8, 8), "valid": (8, 8)} if valid else {"train": (6, 6), "valid": (2, 2)}
    assert source.class_counts == {**expected, "test": (3, 3)}
    if valid:
        assert {source.files[number].split("/")[0] for number in source.parts.valid} == {valid}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train/a", "train/b", "val/a", "valid/a"), "holds 'val' and 'valid', both of them the valid part; keep one"),
        (("train/a", "train/b", "Training/a"), "holds 'Training' and 'train', both of them the train part"),
        (("Test/a", "Test/b"), "holds 'Test' and no folder of training images; name that 'train'"),
        (("train/a", "train/b", "dev/a"), "holds 'dev', which is no part of the data"),
        (("train/a", "train/b", "tets/a"), "holds 'tets', which is no part of the data; did you mean 'test'"),
        (("train/a", "train/b", "test"), "holds 'test' without folders of classes"),
    ],
)
def test_folders_that_can_be_misunderstood_are_refused(tmp_path, folders, message):
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / name / "one.png")
    with pytest.raises(UsageError, match=message):
        load(f"folder:{tmp_path}")


def test_a_class_may_have_the_name_of_a_part(tmp_path):
    write_images(tmp_path, ("car", "train", "test"))
    assert load(f"folder:{tmp_path}").classes == ("car", "test", "train")


def test_other_folders_and_missing_classes_are_told(tmp_path):
    write_images(tmp_path / "train", ("a", "b", "c"))
    write_images(tmp_path / "test", ("a", "b", "d"), count=2)
    write_images(tmp_path / "unlabelled", ("x",))
    (tmp_path / "train" / "empty").mkdir()
    source = load(f"folder:{tmp_path}")
    assert source.classes == ("a", "b", "c", "d", "empty")
    assert source.warnings == (
        "folders beside 'train' are not used: unlabelled",
        "class 'empty' has no sample in any part",
        "class 'd' has no training sample (0 in valid, 2 in test), so no network can learn it",
        "class 'd' has no validation sample (0 in train, 2 in test)",
        "class 'c' has no test sample (5 in train, 1 in valid)",
    )


def test_hidden_files_and_what_systems_leave_behind_are_passed_over(two):
    plain = load(f"folder:{two}")
    for place in ("a/.ipynb_checkpoints", "a/__MACOSX", "__MACOSX/a", "@eaDir/a", ".git/a", "a/.Trash/deeper"):
        (two / place).mkdir(parents=True)
        shutil.copy(two / "a" / "0.png", two / place / "copy.png")
    for name in ("a/._0.png", "b/.hidden.png", ".DS_Store", "a/Thumbs.db", "b/desktop.ini"):
        (two / name).write_bytes(b"\0\5\26\7\0\2")
    found = load(f"folder:{two}")
    assert found.warnings == ()
    assert found.split_hash == plain.split_hash


def test_every_spelling_of_an_image_ending_is_read(two):
    for ending in ("jfif", "jpe", "JPEG", "PNG", "Jpg", "TIF"):
        with open(two / "a" / f"more.{ending}", "wb") as file:
            Image.new("RGB", (4, 4)).save(file, "png" if ending == "PNG" else "tiff" if ending == "TIF" else "jpeg")
    (two / "a" / "below" / "deeper").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(two / "a" / "below" / "deeper" / "one.png")
    source = load(f"folder:{two}")
    assert len(source.images) == 12 + 6 + 1
    assert source.warnings == ()


def test_files_that_are_left_out_are_counted_and_named(two):
    for name in ("README.md", "a/photo.heic", "b/list.csv", "outside.png"):
        (two / name).write_bytes(b"text")
    (two / "b" / "gone.png").symlink_to(two / "nowhere.png")
    (two / "b" / "linked").symlink_to(two / "a")
    source = load(f"folder:{two}")
    assert len(source.images) == 12
    (text,) = source.warnings
    assert text == (
        "left out 6 files that are no images of a class: README.md, a/photo.heic, b/gone.png, b/linked, b/list.csv and "
        "1 more"
    )


def test_two_ways_to_write_a_name_are_one_class(tmp_path):
    composed, decomposed = "bl\u00e5", "bla\u030a"
    write_images(tmp_path / "train", (composed, "r\u00f8d"))
    write_images(tmp_path / "test", (decomposed, "r\u00f8d"), count=2)
    source = load(f"folder:{tmp_path}")
    assert source.classes == (composed, "r\u00f8d")
    assert source.class_counts["test"] == (2, 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_viewers_turn_them(tmp_path, orientation):
    tag, pixels = Image.Exif(), np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    tag[ORIENTATION] = orientation
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png", exif=tag)
    source = load(f"folder:{tmp_path}")
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a" / "0.png")))
    assert (source.images == shown.transpose(2, 0, 1)).all()
    if orientation != 1:
        assert shown.shape != pixels.shape or (shown != pixels).any()


def test_kinds_of_pixels(two):
    """Palette and transparency, CMYK, two levels, 16 bits; none of them with a Python warning."""
    for name in ("rgba", "palette", "cmyk", "two-levels", "deep", "moving"):
        (two / name).mkdir()
    half = np.full((4, 4, 4), (200, 100, 50, 128), dtype=np.uint8)
    Image.fromarray(half).save(two / "rgba" / "0.png")
    palette = Image.fromarray(half[:, :, :3]).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    palette.save(two / "palette" / "0.png", transparency=bytes([0, 128, 255]))
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(two / "cmyk" / "0.tif")
    Image.new("1", (4, 4), 1).save(two / "two-levels" / "0.png")
    deep = np.full((4, 4), 1000, dtype=np.uint16)
    Image.fromarray(deep).save(two / "deep" / "0.png")
    Image.fromarray(deep.astype(">u2")).save(two / "deep" / "1.tif")
    frames = [Image.new("RGB", (4, 4), (number * 50, 0, 0)) for number in range(3)]
    frames[1].save(two / "moving" / "0.gif", save_all=True, append_images=frames[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = load(f"folder:{two}")
    assert source.images.dtype == np.float32
    seen = {name: source.images[source.labels == number][0, :, 0, 0] for number, name in enumerate(source.classes)}
    assert seen["rgba"].tolist() == seen["palette"].tolist() == [200, 100, 50]
    assert seen["cmyk"].tolist() == [255, 0, 0]
    assert seen["two-levels"].tolist() == [255] * 3
    assert np.allclose(seen["deep"], 1000 / 257)
    assert (source.images[source.labels == source.classes.index("deep")] == seen["deep"][0]).all()
    assert seen["moving"].tolist() == [50, 0, 0]
    assert "more than one frame, of which the first is used: moving/0.gif" in source.warnings
    assert source.inputs.value_range == (0, 255)


def test_deep_images_lose_nothing_when_they_are_turned_and_resized(tmp_path):
    tag, pixels = Image.Exif(), np.arange(24, dtype=np.uint16).reshape(4, 6)
    tag[ORIENTATION] = 6
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.fromarray(pixels * (1 + number)).save(tmp_path / name / f"{number}.png", exif=tag)
    whole = load(f"folder:{tmp_path}").images
    assert whole.shape[1:] == (1, 6, 4)
    assert np.allclose(whole[0, 0], np.rot90(pixels, -1) / 257)
    small = load(f"folder:{tmp_path}?size=2").images
    assert small.shape[1:] == (1, 2, 2)
    assert abs(small[0].mean() - pixels.mean() / 257) < 0.01


def test_a_palette_with_transparency_is_read_as_before(two):
    """The split hash of such data stays: transparency is dropped, as Pillow's direct conversion drops it."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).convert("P", colors=16)
    image.save(two / "a" / "0.png", transparency=bytes(range(0, 256, 17)))
    found = load(f"folder:{two}", Split(seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        direct = np.asarray(Image.open(two / "a" / "0.png").convert("RGB"))
    assert (found.images[found.files.index("a/0.png")] == direct.transpose(2, 0, 1)).all()


def test_folder_resizes_on_request(tmp_path):
    write_images(tmp_path, ("a", "b"))
    for name in ("odd", "other"):
        Image.new("L", (6, 5)).save(tmp_path / "b" / f"{name}.png")
    with pytest.raises(UsageError, match=r"2 of 14 images .*odd\.png has 6x5 pixels, a/0\.png 4x4 .* add \?size=32"):
        load(f"folder:{tmp_path}")
    assert load(f"folder:{tmp_path}?size=8").task.input_shape == (3, 8, 8)
    with pytest.raises(UsageError, match="unknown option 'siez'; did you mean 'size'"):
        load(f"folder:{tmp_path}?siez=8")
    with pytest.raises(UsageError, match=r"size: Input should be a valid integer.*\(got 'big'\)"):
        load(f"folder:{tmp_path}?size=big")
    with pytest.raises(UsageError, match="option 'size' is given twice"):
        load(f"folder:{tmp_path}?size=8&size=9")
    with pytest.raises(UsageError, match="option 'size' has no value; write size=VALUE"):
        load(f"folder:{tmp_path}?size")
    with pytest.raises(UsageError, match="fit says how images come to a size; add size=PIXELS"):
        load(f"folder:{tmp_path}?fit=crop")


def test_how_images_come_to_a_size(tmp_path):
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    pixels[:, 2:6] = 255  # the largest centred square is white
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    stretched, cut = load(f"folder:{tmp_path}?size=4"), load(f"folder:{tmp_path}?size=4&fit=crop")
    assert (cut.images == 255).all()
    assert not (stretched.images == 255).all()
    assert (stretched.inputs.fit, cut.inputs.fit) == ("stretch", "crop")


def test_a_folder_with_a_question_mark_in_its_name(tmp_path):
    write_images(tmp_path / "what?", ("a", "b"))
    assert load(f"folder:{tmp_path / 'what?'}").task.input_shape == (3, 4, 4)
    assert load(f"folder:{tmp_path / 'what?'}?size=8").task.input_shape == (3, 8, 8)


def test_images_that_cannot_be_read_are_listed_all_at_once_and_may_be_skipped(two):
    good = (two / "a" / "0.png").read_bytes()
    for name, content in (("a/cut.png", good[:-30]), ("a/empty.png", b""), ("b/text.jpg", b"no image")):
        (two / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load(f"folder:{two}")
    head, *lines = str(caught.value).splitlines()
    assert head.endswith("3 of 15 samples cannot be read; add ?skip=unreadable to go on without them")
    assert [line.split(":")[0] for line in lines] == ["a/cut.png", "a/empty.png", "b/text.jpg"]
    assert all("not a readable image (" in line for line in lines)
    source = load(f"folder:{two}?size=4&skip=unreadable")
    assert len(source.images) == 12
    assert source.warnings == ("3 of 15 cannot be read and are left out: a/cut.png, a/empty.png, b/text.jpg",)
    with pytest.raises(UsageError, match=r"skip: Input should be 'unreadable'"):
        load(f"folder:{two}?skip=broken")


def test_skipping_keeps_every_image_in_its_part(tmp_path):
    for part in ("train", "valid", "test"):
        write_images(tmp_path / part, ("a", "b"))
        (tmp_path / part / "a" / "0.png").write_bytes(b"")
    source = load(f"folder:{tmp_path}?skip=unreadable")
    assert source.sizes == {"train": 11, "valid": 11, "test": 11}
    for number, file in enumerate(source.files):
        assert (source.images[number] == 10 * source.labels[number] + int(Path(file).stem)).all()
    for part, numbers in source.parts.items():
        assert {source.files[number].split("/")[0] for number in numbers} == {part}
        assert {source.files[number].split("/")[1] == "b" for number in numbers if source.labels[number]} == {True}


def test_reading_gives_up_where_nothing_can_be_read(two, monkeypatch):
    for path in two.rglob("*.png"):
        path.write_bytes(b"")
    monkeypatch.setattr(items, "SHOWN", 5)
    with pytest.raises(
        UsageError, match=r"none of the first 5 of 12 samples can be read\na/0.png: not a readable image"
    ):
        load(f"folder:{two}")
    with pytest.raises(UsageError, match="none of the first 12 of 12"):
        load(f"folder:{two}?skip=unreadable")


def test_images_that_do_not_fit_into_memory_are_refused_before_they_are_read(two, monkeypatch):
    monkeypatch.setattr(items, "free_bytes", lambda: 12 * 3 * 4 * 4 - 1)
    with pytest.raises(
        MachineError, match=r"12 images of 4x4 pixels take .* GiB, and .* GiB are free; add \?stream=yes"
    ):
        load(f"folder:{two}")
    monkeypatch.setattr(items, "free_bytes", lambda: None)
    load(f"folder:{two}")


def test_grey_images_among_coloured_ones_and_the_other_way_round(tmp_path):
    write_images(tmp_path / "grey-first", ("a",), mode="L")
    write_images(tmp_path / "grey-first", ("b",))
    write_images(tmp_path / "grey-last", ("a",))
    write_images(tmp_path / "grey-last", ("b",), mode="L")
    for name in ("grey-first", "grey-last"):
        source = load(f"folder:{tmp_path / name}")
        assert source.images.shape == (12, 3, 4, 4)
        for number, file in enumerate(source.files):
            assert (source.images[number] == int(Path(file).stem)).all()


def test_folder_errors(tmp_path):
    with pytest.raises(NotFoundError, match="holds no class folders"):
        load(f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    with pytest.raises(NotFoundError, match="holds no images"):
        load(f"folder:{tmp_path}")
    (tmp_path / "a" / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"broken\.jpg: not a readable image"):
        load(f"folder:{tmp_path}")
    (tmp_path / "a" / "broken.jpg").unlink()
    Image.new("F", (4, 4)).save(tmp_path / "a" / "deep.tif")
    with pytest.raises(UsageError, match=r"deep\.tif: .* more than 16 bits"):
        load(f"folder:{tmp_path}")
    (tmp_path / "a" / "deep.tif").unlink()
    Image.new("L", (4, 4)).save(tmp_path / "a" / "one.png")
    with pytest.raises(UsageError, match="there is only one class"):
        load(f"folder:{tmp_path}")


def test_what_decoders_complain_of_is_told_once_and_not_as_a_python_warning(two):
    for number in range(3):
        exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\0" * number
        Image.new("RGB", (4, 4)).save(two / "a" / f"tag{number}.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (text,) = load(f"folder:{two}").warnings
    assert text == ("Corrupt EXIF data.  Expecting to read N bytes but only got N: a/tag0.jpg, a/tag1.jpg, a/tag2.jpg")
