"""Splits: disjoint, complete, stratified, bounded by a limit, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.seeds import generator
from training.data.split import Split, divide, split_hash, stratified

LABELS = st.lists(st.integers(0, 5), min_size=30, max_size=300).map(lambda values: np.array(values, dtype=np.int64))
SPLITS = st.builds(
    Split, valid=st.floats(0.05, 0.5), test=st.floats(0.05, 0.5), seed=st.integers(0, 2**31), limit=st.none()
)


@given(LABELS, SPLITS)
@settings(max_examples=60, deadline=None)
def test_parts_are_disjoint_complete_and_hold_every_class_that_is_large_enough(labels, split):
    parts = divide(labels, split)
    together = np.concatenate([part for _, part in parts.items()])
    assert sorted(together) == list(range(len(labels)))
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        held = {name: int((labels[part] == label).sum()) for name, part in parts.items()}
        assert held["train"] >= 1
        assert held["valid"] >= min(1, count - 1)
        assert held["test"] >= min(1, max(count - 2, 0))


@given(LABELS, SPLITS, st.integers(12, 60))
@settings(max_examples=60, deadline=None)
def test_limit_bounds_training_and_validation_and_leaves_test_alone(labels, split, limit):
    whole, limited = divide(labels, split), divide(labels, split.model_copy(update={"limit": limit}))
    assert np.array_equal(whole.test, limited.test)
    assert set(limited.train) <= set(whole.train)
    assert set(limited.valid) <= set(whole.valid)
    assert len(limited.train) + len(limited.valid) == min(limit, len(whole.train) + len(whole.valid))
    assert set(labels[limited.train]) == set(labels[whole.train])
    assert set(labels[limited.valid]) == set(labels[whole.valid])


def test_every_class_is_drawn_in_proportion():
    labels = np.repeat([0, 1, 2], [1000, 500, 100])
    rest, drawn = stratified(labels, 0.1, generator(0))
    assert np.bincount(labels[drawn]).tolist() == [100, 50, 10]
    assert np.bincount(labels[rest]).tolist() == [900, 450, 90]
    assert (np.diff(drawn) > 0).all()


def test_remainders_go_to_the_classes_that_lack_most():
    labels = np.repeat([0, 1, 2], [14, 13, 13])
    _, drawn = stratified(labels, 0.1, generator(0))
    assert np.bincount(labels[drawn]).tolist() == [2, 1, 1]


def test_a_class_of_one_sample_stays_in_training():
    labels = np.array([0] * 20 + [1])
    parts = divide(labels, Split(valid=0.5, test=0.5))
    assert 20 in parts.train


def test_seed_decides_which_samples_are_drawn():
    labels = np.repeat(np.arange(4), 50)
    first, again, other = (divide(labels, Split(seed=seed)) for seed in (0, 0, 1))
    assert np.array_equal(first.test, again.test)
    assert np.array_equal(first.valid, again.valid)
    assert not np.array_equal(first.test, other.test)


def test_given_parts_are_kept_and_unlabelled_samples_are_in_none():
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, -1, -1, 0, 1])
    parts = divide(labels, Split(valid=0.25), test=np.array([11, 10]))
    assert parts.test.tolist() == [10, 11]
    assert sorted([*parts.train, *parts.valid]) == list(range(8))
    assert np.bincount(labels[parts.valid]).tolist() == [1, 1]


def test_too_small_a_limit_says_how_many_are_needed():
    with pytest.raises(UsageError, match="limit 7 is too small: 8 samples"):
        divide(np.repeat(np.arange(4), 50), Split(limit=7))


def test_too_few_samples_are_refused():
    with pytest.raises(UsageError, match="the train part has 1 of 3"):
        divide(np.array([0, 0, 1]), Split(), valid=np.array([0]), test=np.array([1]))


def test_hash_is_stable_and_depends_on_everything():
    labels = np.repeat(np.arange(3), 20)
    data = np.arange(60, dtype=np.uint8)
    parts = divide(labels, Split())
    name = split_hash(labels, parts, data)
    assert name == "4acae0febba351e2"
    assert name != split_hash(labels, divide(labels, Split(seed=1)), data)
    assert name != split_hash(labels[::-1].copy(), parts, data)
    assert name != split_hash(labels, parts, data[::-1])
    assert name != split_hash(labels, parts, data.reshape(6, 10))


def test_unknown_keys_and_bad_fractions_are_explained():
    with pytest.raises(UsageError, match="unknown key 'vaild'; did you mean 'valid'"):
        validate(Split, {"vaild": 0.2}, "split")
    with pytest.raises(UsageError, match=r"split: valid: .* \(got 1.5\)"):
        validate(Split, {"valid": 1.5}, "split")


@given(
    LABELS.filter(lambda labels: np.bincount(labels)[np.unique(labels)].min() >= 5),
    st.integers(3, 5),
    st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_folds_hold_every_sample_once_and_every_class_evenly(labels, folds, seed):
    parts = [divide(labels, Split(folds=folds, fold=fold, seed=seed)) for fold in range(folds)]
    assert sorted(np.concatenate([each.test for each in parts])) == list(range(len(labels)))
    sizes = [len(each.test) for each in parts]
    assert max(sizes) - min(sizes) <= 1
    for label in np.unique(labels):
        counts = [int((labels[each.test] == label).sum()) for each in parts]
        assert min(counts) >= 1
        assert max(counts) - min(counts) <= 1
    for fold, each in enumerate(parts):
        assert np.array_equal(each.valid, parts[(fold + 1) % folds].test)
        assert sorted(np.concatenate([each.train, each.valid, each.test])) == list(range(len(labels)))


def test_folds_leave_out_what_has_no_label_and_are_another_with_another_seed():
    labels = np.array([0, 1, -1] * 20)
    parts = divide(labels, Split(folds=4, fold=2))
    assert (labels[np.concatenate([parts.train, parts.valid, parts.test])] >= 0).all()
    assert not np.array_equal(parts.test, divide(labels, Split(folds=4, fold=2, seed=1)).test)
    assert len(divide(labels, Split(folds=4, fold=2, limit=10)).test) == len(parts.test)


def test_strata_that_are_no_classes_may_be_smaller_than_the_folds():
    strata = np.repeat(np.arange(10), 3)
    parts = [divide(strata, Split(folds=6, fold=fold), classes=False).test for fold in range(6)]
    assert sorted(np.concatenate(parts)) == list(range(30))
    with pytest.raises(UsageError, match="6 folds: class 0 has 3 samples"):
        divide(strata, Split(folds=6))
    with pytest.raises(UsageError, match="40 folds: there are 30 samples"):
        divide(strata, Split(folds=40), classes=False)


def test_a_split_is_stored_with_what_it_is_made_by():
    assert Split(seed=3).model_dump(mode="json") == {"valid": 0.1, "test": 0.2, "seed": 3, "limit": None}
    stored = Split(folds=10).model_dump(mode="json")
    assert stored == {"seed": 0, "limit": None, "folds": 10, "fold": 0}
    assert Split(**stored) == Split(folds=10, fold=0)
