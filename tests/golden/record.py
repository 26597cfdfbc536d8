"""What `golden.json` holds, computed by the code as it is now.

A change in it changes what stored studies do when they are resumed, or makes them lose what they have learned.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import search_spaces
import strategies
from nas_core import moves, refs
from nas_core.config import validate
from nas_core.evaluation import Constraint, Objective
from nas_core.seeds import derive, generator
from nas_core.space import SearchSpace
from nas_core.strategy import Setting
from nas_core.testing.findings import Reference
from nas_core.testing.strategy import trajectory
from tests.golden.calls import purposes
from training.data.loading import Loading

GOLDEN = Path(__file__).with_name("golden.json")

TINY = {"layers": 1, "width": 8, "heads": 2, "hidden": 8, "steps": 4, "samples": 40, "batch": 8}
SCORE = {"blocks": 1, "width": 16, "heads": 2, "hidden": 16, "head": 16, "steps": 40, "batch": 16, "noise": "laplace"}
SCORE |= {"rate": 0.03, "warm_up": 5, "mean": 0.9}
NOISY = {"members": 2, "layers": 1, "hidden": 8, "linear": 8, "steps": 3, "batch": 8}

# Settings with which a few trials go through every phase. What is learned by torch is learned briefly, so that
# processors that round differently propose the same.
CONFIGS: Mapping[str, dict[str, Any]] = {
    "regularized-evolution": {"population": 4, "sample": 2},
    "ae-cnn": {"population": 4},
    "nsga2": {"population": 4},
    "nsga3": {"population": 4, "divisions": 3},
    "hyperband": {"inner": "regularized-evolution", "inner_config": {"population": 3, "sample": 2}},
    "asha": {"eta": 2},
    "evonorm": {"window": 6, "tournament": 0.5, "founders": 3},
    "tpe": {"startup": 5},
    "gp": {"startup": 4},
    "reinforce": {"units": 8, "batch": 3},
    "ppo": {"units": 8, "batch": 4, "epochs": 2},
    "agnn-rl": {"units": 8, "founders": 4},
    "bananas": {"initial": 4, "mutants": 10, "centres": 1, "uniform": 5, "local": 3, "surrogate": "ridge"},
    "diffusion": {"initial": 4, "pool": 12, "mutants": 4, "guide": {"steps": 4}, "generator": TINY},
    "diffusion-nag": {"initial": 4, "pool": 12, "steps": 5, "samples": 50, "network": SCORE, "predictor": NOISY},
    "proxy-filter": {"candidates": 3, "scored": 45},
    "genetic-predictor": {"population": 4, "surplus": 3, "surrogate_config": {"trees": 5}},
    "warm-up": {"pool": 20, "first": 4},
}
TRIALS: Mapping[str, int] = {"gp": 6, "bananas": 7, "diffusion": 7, "diffusion-nag": 7, "genetic-predictor": 9}

# Beside nasbench201: lists with conditions, and the space that agnn-rl is for.
ELSEWHERE = {
    **dict.fromkeys(("regularized-evolution", "ae-cnn", "local-search", "reinforce"), "ae-cnn"),
    "agnn-rl": "nasbench_graph",
}

# Architecture parameters move so far in one epoch that rounding decides nothing.
LEARNING = {"epochs": 2, "batch_size": 32, "alpha_lr": 0.1}
BOUNDED = (Constraint("params", "<=", 3500),)
ONE_SHOT_CONFIGS: Mapping[str, dict[str, Any]] = {
    "spos": {"epochs": 2, "batch_size": 32},
    "enas": {"epochs": 2, "batch_size": 32, "controller_steps": 2, "aggregate": 2, "candidates": 3, "units": 8},
    "hessian-guard": {"inner": "darts", "inner_config": LEARNING},
}
ON_IMAGES: tuple[str, str, dict[str, Any]] = ("nasbench201", "digits", {"channels": 2, "cells": 1})
ONE_SHOT_ELSEWHERE = {"argnp": ("argnp(vertices=4)", "karate", {"node": 3, "relation": 2})}


def draws() -> dict[str, list[int]]:
    """Of every call in the code that draws for a purpose: how often it is there, and the first draw where what is no
    text is 7, 3 and 1."""
    return {call: [count, _draw(call)] for call, count in sorted(purposes().items())}


def _draw(call: str) -> int:
    numbers = iter((7, 3, 1))
    name, _, rest = call.partition("(")
    words = [next(numbers) if word == "*" else word[1:-1] for word in re.findall(r"\*|'[^']*'", rest)]
    if name == "derive":
        return derive(*words)
    if name == "_seeded":  # of a one-shot search
        return derive(7, *words, "one-shot")
    return int(generator(*words).integers(2**53))


def architectures() -> dict[str, list[str]]:
    """Of each space three architectures drawn at random: key, identity, and the hash of the graph."""
    found = {}
    for name in search_spaces.BUILTIN:
        space = _space(name)
        drawn = [moves.sample(space, generator("golden", number)) for number in range(3)]
        found[name] = [f"{arch.key} {space.identity(arch)} {space.graph(arch).wl_hash()}" for arch in drawn]
    return found


def hashes() -> dict[str, Any]:
    """Names under which results and trained generators are found again, and parts of data."""
    from strategies.diffusion import nag, prior
    from strategies.diffusion.config import DenoiserConfig, ScoreConfig
    from strategies.diffusion.operation_matrix import OperationMatrix
    from strategies.diffusion.slots import Slots
    from training.data import load
    from training.data.split import Split

    digits = load("digits", Split(limit=120))
    passes = digits.bind("cpu", Loading(batch_size=8))
    return {
        "prior": prior._key(Slots(_space("ae-cnn")), DenoiserConfig()),
        "score network": nag._key(OperationMatrix(_space("nasbench201")), 100, ScoreConfig()),
        "split of digits": digits.split_hash,
        "split of karate": load("karate", Split()).split_hash,
        "targets of the first batch": {
            part: next(iter(passes.batches(part, 1, 7))).target.tolist() for part in ("train", "weights", "alphas")
        },
    }


def strategy_cases() -> list[tuple[str, str]]:
    """Strategies and the space that each searches."""
    cases = [(name, "nasbench201") for name in strategies.BUILTIN if name != "agnn-rl"]
    return [*cases, *ELSEWHERE.items()]


def proposals(name: str, space: str) -> list[str]:
    """What a strategy proposes in two simulated studies: keys, budgets and notes, but no number of a note that was
    computed in floating point."""
    strategy = Reference(name, strategies.BUILTIN, strategies.GROUP, "strategy")
    searched = Reference(space, search_spaces.BUILTIN, search_spaces.GROUP, "space")
    return [_short(line) for line in trajectory(strategy, searched, CONFIGS.get(name, {}), TRIALS.get(name, 10))]


def _short(line: str) -> str:
    number, _, proposal = line.partition(": ")
    match = re.fullmatch(r"(\{.*\}) budget (.*) continues (.*) note (\{.*\})", proposal)
    if match is None:
        return line
    arch, budget, continues, note = match.groups()
    shown = {key: "float" if isinstance(value, float) else value for key, value in json.loads(note).items()}
    return f"{number} {hashlib.sha256(arch.encode()).hexdigest()[:16]} {budget} {continues} {json.dumps(shown)}"


def one_shot(name: str) -> dict[str, Any]:
    """The loss, the scores of candidates and what is derived after one epoch on a toy supernet."""
    import torch

    from nas_core.testing.one_shot import Case, Run
    from search_spaces.supernet.supernet import Supernet
    from training.data import load
    from training.data.split import Split

    where, source, size = ONE_SHOT_ELSEWHERE.get(name, ON_IMAGES)
    space = _space(where)
    data = load(source, Split(limit=160 if source == "digits" else None)).bind("cpu", Loading(batch_size=32))
    kind = refs.find(name, strategies.ONE_SHOT, strategies.GROUP, "strategy")
    config = ONE_SHOT_CONFIGS.get(name, LEARNING)

    def make(other: SearchSpace | None = None) -> Supernet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Supernet(other or space, data.task, space.Size.preset("search", **size))

    setting = Setting(space, 5, (Objective("accuracy", "max"),), BOUNDED if name == "rc-darts" else ())
    case = Case(
        lambda setting: kind(setting, validate(kind.Config, config, "strategy")), setting, make, data, dict, False
    )
    run = Run(case, 0)
    progress = run.step(0)
    scores = {group: [round(weight, 4) for weight in weights] for group, weights in progress.strengths.items()}
    return {
        "derived": None if progress.arch is None else progress.arch.key,
        "result": [arch.key for arch in run.result()],
        "train_loss": round(progress.metrics["train_loss"], 4),
        "scores": scores,
    }


def _space(name: str) -> Any:
    return refs.load(name, search_spaces.BUILTIN, search_spaces.GROUP, "space").object


def everything() -> dict[str, Any]:
    """The content of the file."""
    return {
        "draws": draws(),
        "architectures": architectures(),
        "hashes": hashes(),
        "strategies": {f"{name} on {space}": proposals(name, space) for name, space in strategy_cases()},
        "one-shot": {name: one_shot(name) for name in strategies.ONE_SHOT},
    }
