"""Configuration refuses what it does not know, in words that lead to the right key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError, model_validator

from nas_core.config import Config, SizeConfig, parse_assignments, parse_value, validate
from nas_core.errors import (
    InfeasibleError,
    MachineError,
    NasError,
    NotFoundError,
    TrialError,
    UsageError,
    VerificationError,
    nearest,
    unknown,
)


class Schedule(Config):
    warmup: int = Field(0, ge=0)


class Recipe(Config):
    epochs: int = Field(8, ge=1, le=1000)
    schedule: Schedule = Schedule()

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.schedule.warmup > self.epochs:
            raise ValueError(f"warmup {self.schedule.warmup} is longer than {self.epochs} epochs")
        return self


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epohcs": 3}, "recipe: unknown key 'epohcs'; did you mean 'epochs'? (known: epochs, schedule)"),
        ({"zzz": 3}, "recipe: unknown key 'zzz' (known: epochs, schedule)"),
        (
            {"schedule": {"warmpu": 1}},
            "recipe: unknown key 'schedule.warmpu'; did you mean 'warmup'? (known: warmup)",
        ),
        ({"epochs": 0}, "recipe: epochs: Input should be greater than or equal to 1 (got 0)"),
        ({"epochs": "many"}, "recipe: epochs: Input should be a valid integer"),
        ({"schedule": {"warmup": 9}}, "recipe: warmup 9 is longer than 8 epochs (got "),
    ],
)
def test_a_wrong_value_is_explained_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        validate(Recipe, values, "recipe")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_at_most_two_problems_are_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        validate(Recipe, {"a": 1, "b": 2, "c": 3, "epochs": 0}, "recipe")
    assert len(str(caught.value).splitlines()) == 2


def test_configuration_never_changes() -> None:
    recipe = validate(Recipe, {"epochs": 3}, "recipe")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.epochs = 4
    assert validate(Recipe, recipe.model_dump(), "recipe") == recipe


class Size(SizeConfig):
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {"cells": 1}, "full": {}}
    channels: int = 16
    cells: int = 5


def test_presets_can_be_changed_in_part() -> None:
    assert Size.preset("search") == Size(cells=1)
    assert Size.preset("search", channels=8) == Size(cells=1, channels=8)
    assert Size.preset("full", cells=2) == Size(cells=2)
    with pytest.raises(UsageError, match=r"unknown size preset 'ful'; did you mean 'full'\? \(known: search, full\)"):
        Size.preset("ful")
    with pytest.raises(UsageError, match="size: unknown key 'chanels'; did you mean 'channels'"):
        Size.preset("full", chanels=3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-4", 3e-4),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("True", "True"),
        ("", ""),
        ("a b", "a b"),
    ],
)
def test_values_are_json_or_text(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_assignments_make_a_tree() -> None:
    texts = ["strategy.population=20", "strategy.sample = 5", "seed=1", "name=a=b", "recipe.augment.flip=true"]
    assert parse_assignments(texts) == {
        "strategy": {"population": 20, "sample": 5},
        "seed": 1,
        "name": "a=b",
        "recipe": {"augment": {"flip": True}},
    }
    assert parse_assignments([]) == {}
    for wrong, message in (
        (["seed"], "'seed' is not an assignment; write key=value"),
        (["=3"], "'=3' is not an assignment"),
        (["a=1", "a.b=2"], "'a.b=2': 'a' was already given a value"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_assignments(wrong)


def test_exit_codes_are_an_interface() -> None:
    codes = {kind: kind.exit_code for kind in (NasError, UsageError, NotFoundError, InfeasibleError, MachineError)}
    assert list(codes.values()) == [1, 2, 3, 4, 5]
    assert VerificationError.exit_code == 7
    assert TrialError("nan-loss", "at epoch 3").reason == "nan-loss"
    assert str(TrialError("nan-loss", "at epoch 3")) == "nan-loss: at epoch 3"


def test_the_nearest_name_is_offered_only_when_it_is_near() -> None:
    assert nearest("regent", ["regnet", "darts"]) == "; did you mean 'regnet'?"
    assert nearest("xyz", ["regnet", "darts"]) == ""
    assert nearest("x", []) == ""
    assert (
        str(unknown("metric", "acc", ["accuracy"]))
        == "unknown metric 'acc'; did you mean 'accuracy'? (known: accuracy)"
    )
