"""Derived randomness: the same words give the same numbers, on every machine and in every release."""

from __future__ import annotations

from nas_core.seeds import derive, generator


def test_values_are_pinned() -> None:
    """A change here changes every stored study on resume."""
    assert generator(7, 3, "mutate").integers(1000, size=4).tolist() == [451, 857, 12, 413]
    assert generator(0).random() == 0.6369616873214543  # numpy's own default_rng(0)
    assert derive(7, 3, "mutate") == 3187238666561045270
    assert derive("a") == 1564643057648950735
    assert derive(0) == 7896617691693857887


def test_every_word_counts_and_so_does_their_order() -> None:
    words: list[tuple[int | str, ...]] = [
        (1, 2),
        (2, 1),
        (1, 2, "a"),
        (1, 2, "b"),
        ("a", 1, 2),
        (1,),
        ("1", "2"),
        (12,),
    ]
    assert len({derive(*each) for each in words}) == len(words)
    assert len({generator(*each).integers(2**60) for each in words}) == len(words)


def test_seeds_fit_into_63_bits() -> None:
    seeds = [derive(number) for number in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 2000
    assert max(seeds) > 2**62
