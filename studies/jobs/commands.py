"""The commands that make stored runs again, in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nas_core.config import parse_value, size_text
from nas_core.records import COMPRESS, RETRAIN
from studies.jobs.stored import EXAMPLE, IMPORTED


def command(kind: str, address: str, settings: Mapping[str, Any], seeds: int) -> list[str]:
    """The command that makes runs of a kind with these settings, on what is at the address."""
    return _COMMANDS[kind](address, settings, seeds)


def train(address: str, settings: Mapping[str, Any], seeds: int) -> list[str]:
    """The words of the `nas train` that makes trainings with these settings."""
    if IMPORTED in settings:
        words = ["nas", "train", settings[IMPORTED], "--epochs", "0", "--data", settings["data"]]
        given = settings["weights"]["from"]
        words += [] if given == settings[IMPORTED] else ["--weights", given]
        return [*words, "--device", settings["device"]]
    words = ["nas", "train", address, "--recipe", settings["recipe_name"], "--size", size_text(settings["size"])]
    words += ["--seeds", str(seeds)]
    words += ["--data", settings["data"], "--device", settings["device"]]
    if "weights" in settings:
        words += ["--weights", settings["weights"]["from"]]
    if "teacher" in settings:
        words += ["--teacher", settings["teacher"]["from"]]
    for metric in settings.get("metrics", ()):
        words += ["--metric", metric]
    folds = {name: value for name, value in settings["split"].items() if name in ("folds", "fold")}
    return words + _assignments({**settings["changes"], **({"split": folds} if folds else {})})


def compress(address: str, settings: Mapping[str, Any], seeds: int) -> list[str]:
    """The words of the `nas compress` that makes compressions with these settings."""
    words = ["nas", "compress", address, "--method", settings["method"], "--recipe", settings["recipe_name"]]
    words += ["--epochs", str(settings["epochs"]), "--seeds", str(seeds), "--device", settings["device"]]
    for flag, values in (("--target", settings["targets"]), ("--ignore", settings["ignore"])):
        words += [word for value in values for word in (flag, value)]
    if settings["round_to"] != 1:
        words += ["--round-to", str(settings["round_to"])]
    if "teacher" in settings:
        words += ["--distill"]
    if settings["changes"].get("adapters") is not None:
        words += ["--recover", "spa"]
    if EXAMPLE in settings:
        words += ["--inputs", settings[EXAMPLE]["from"]]
    if "quantize" in settings:
        words += ["--quantize", settings["quantize"]]
    changes = {name: value for name, value in settings["changes"].items() if name != "epochs"}
    return words + _assignments({**settings["config"], "recipe": changes})


def _assignments(values: Mapping[str, Any]) -> list[str]:
    """`-s` for every setting."""
    words = []
    for path, value in _flat(values):
        plain = isinstance(value, str) and parse_value(value) == value  # needs no quotes to be read as text
        words += ["-s", f"{path}={value if plain else json.dumps(value)}"]
    return words


def _flat(changes: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """`{"augment": {"crop": 2}}` as `("augment.crop", 2)`."""
    for key, value in changes.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


_COMMANDS: Mapping[str, Callable[[str, Mapping[str, Any], int], list[str]]] = {RETRAIN: train, COMPRESS: compress}
