"""Augmentation: what happens to each image, read off images whose pixels know their place."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from training.data.augment import PLAIN, Augment, apply

N, C, H, W = 200, 3, 9, 7


def numbered() -> torch.Tensor:
    """[N, C, H, W]; every pixel of an image has another positive value."""
    pixels = torch.arange(1.0, C * H * W + 1).view(1, C, H, W)
    return pixels + 1000 * torch.arange(N).view(N, 1, 1, 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifts_of(image: torch.Tensor, result: torch.Tensor, pad: int) -> list[tuple[int, int]]:
    """Every (top, left) at which `result` is a window of the padded image."""
    padded = functional.pad(image, (pad,) * 4)
    places = [(top, left) for top in range(2 * pad + 1) for left in range(2 * pad + 1)]
    return [(top, left) for top, left in places if torch.equal(result, padded[:, top : top + H, left : left + W])]


def test_nothing_is_done_by_default():
    images = numbered()
    assert apply(images, PLAIN, seeded()) is images


def test_flip_mirrors_some_images_whole_and_leaves_the_others():
    images = numbered()
    result = apply(images, Augment(flip=True), seeded())
    same = [torch.equal(result[i], images[i]) for i in range(N)]
    mirrored = [torch.equal(result[i], images[i].flip(2)) for i in range(N)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 0.35 * N < sum(mirrored) < 0.65 * N


def test_crop_is_a_window_of_the_zero_padded_image():
    images = numbered()
    result = apply(images, Augment(crop=2), seeded())
    found = [shifts_of(images[i], result[i], 2) for i in range(N)]
    assert all(len(places) == 1 for places in found)
    tops, lefts = zip(*(places[0] for places in found), strict=True)
    assert set(tops) == set(lefts) == set(range(5))
    assert len({places[0] for places in found}) == 25


def test_crop_and_flip_together_mirror_the_content_of_the_window():
    images = numbered()
    result = apply(images, Augment(crop=2, flip=True), seeded())
    kinds = set()
    for i in range(N):
        plain, mirrored = shifts_of(images[i], result[i], 2), shifts_of(images[i], result[i].flip(2), 2)
        assert len(plain) + len(mirrored) == 1
        kinds.add("plain" if plain else "mirrored")
    assert kinds == {"plain", "mirrored"}


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_cutout_zeroes_exactly_one_square_clipped_at_the_border(side):
    images = numbered()
    result = apply(images, Augment(cutout=side), seeded())
    centres = set()
    for i in range(N):
        gone = result[i] == 0
        assert torch.equal(result[i][~gone], images[i][~gone])
        assert torch.equal(gone[0], gone[1])
        expected = []
        for row in range(H):
            for column in range(W):
                square = torch.zeros(H, W, dtype=torch.bool)
                top, left = row - side // 2, column - side // 2
                square[max(top, 0) : top + side, max(left, 0) : left + side] = True
                if torch.equal(square, gone[0]):
                    expected.append((row, column))
        assert len(expected) >= 1
        centres.update(expected)
    assert {row for row, _ in centres} == set(range(H))
    assert {column for _, column in centres} == set(range(W))


@pytest.mark.parametrize("augment", [Augment(cutout=3), Augment(flip=True), Augment(crop=2, flip=True, cutout=3)])
def test_the_images_given_are_not_changed(augment):
    images = numbered()
    assert not torch.equal(apply(images, augment, seeded()), images)
    assert torch.equal(images, numbered())


def test_draws_depend_on_the_generator_alone():
    images, everything = numbered(), Augment(crop=2, flip=True, cutout=3)
    first = apply(images, everything, seeded(1))
    assert torch.equal(first, apply(images, everything, seeded(1)))
    assert not torch.equal(first, apply(images, everything, seeded(2)))
    generator = seeded(1)
    assert torch.equal(first, apply(images, everything, generator))
    assert not torch.equal(first, apply(images, everything, generator))


def test_layout_and_number_type_do_not_change_the_result():
    images, everything = numbered() % 251, Augment(crop=2, flip=True, cutout=3)
    expected = apply(images, everything, seeded())
    assert torch.equal(expected, apply(images.contiguous(memory_format=torch.channels_last), everything, seeded()))
    small = apply(images.to(torch.uint8), everything, seeded())
    assert small.dtype == torch.uint8
    assert torch.equal(expected, small.float())


def test_padding_is_black_as_normalisation_makes_it() -> None:
    """Cropping before normalising, as usual, and after it, as here, are the same."""
    raw = torch.arange(1.0, 1 + 6 * 2 * 5 * 5).view(6, 2, 5, 5)
    mean, deviation = torch.tensor([3.0, 7.0]).view(1, 2, 1, 1), torch.tensor([2.0, 4.0]).view(1, 2, 1, 1)
    augment = Augment(crop=2, flip=True)
    before = (apply(raw, augment, torch.Generator().manual_seed(3)) - mean) / deviation
    black = -mean / deviation
    after = apply((raw - mean) / deviation, augment, torch.Generator().manual_seed(3), black)
    assert torch.allclose(before, after)
    assert not torch.allclose(before, apply((raw - mean) / deviation, augment, torch.Generator().manual_seed(3)))
