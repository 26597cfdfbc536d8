"""The space suite finds nothing in a good space, and each of its checks catches the defect it is there for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.graph import ArchGraph
from nas_core.space import SearchSpace
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from nas_core.testing.findings import Reference
from nas_core.testing.space import check, check_fresh
from training.tasks import sample_inputs

TASK = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 4, 4), outputs=3)
TASKS = {TASK: sample_inputs(TASK, 4)}


class Good(SearchSpace):
    """A conditional choice, a coupled one, costs and a notation."""

    name = "good"
    tasks = frozenset({IMAGE_CLASSIFICATION})
    choices: tuple[Choice, ...] = (
        Choice("width", (2, 4, 8), ordered=True),
        Choice("deep", (False, True)),
        Choice("hidden", (2, 4, 8), ordered=True, when=(When("deep", (True,)),)),
        Choice("activation", ("relu", "tanh")),
    )

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        if choice.name == "hidden":  # a hidden layer is no wider than the first
            return tuple(option for option in choice.options if option <= prefix["width"])
        return choice.options

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        activation = nn.ReLU if arch.values["activation"] == "relu" else nn.Tanh
        widths = [value for name, value in arch.values.items() if name in ("width", "hidden")]
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = 16
        for width in widths:
            layers += [nn.Linear(inputs, int(width)), activation()]
            inputs = int(width)
        return nn.Sequential(*layers, nn.Linear(inputs, task.outputs))

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        widths = [16, *(int(v) for n, v in arch.values.items() if n in ("width", "hidden")), task.outputs]
        macs = sum(a * b for a, b in itertools.pairwise(widths))
        return {"params": macs + sum(widths[1:]), "macs": macs}

    def to_text(self, arch: Architecture) -> str:
        return ",".join(map(str, arch.values.values()))

    def from_text(self, text: str) -> Architecture:
        from nas_core.moves import enumerate_all

        for arch in enumerate_all(self):
            if self.to_text(arch) == text:
                return arch
        raise ValueError(f"'{text}' is no architecture")


def test_nothing_is_found_in_a_good_space() -> None:
    assert list(check(Good(), TASKS)) == []


class NoName(Good):
    name = ""


class RepeatedName(Good):
    choices = (*Good.choices, Choice("width", (1, 2)))


class ForwardCondition(Good):
    choices = (Good.choices[2], *Good.choices[:2], Good.choices[3])


class ImpossibleCondition(Good):
    choices = (*Good.choices, Choice("slope", (0.1, 0.2), when=(When("activation", ("gelu",)),)))


class NoPreset(Good):
    class Size(SizeConfig):
        presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {}}


class WrongPreset(Good):
    class Size(SizeConfig):
        presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {"chanels": 3}, "full": {}}


class UnstableChoices(Good):
    @property
    def choices(self) -> tuple[Choice, ...]:  # type: ignore[override]
        return (*Good.choices, Choice(f"at {id(object())} {next(COUNT)}", (1, 2)))


COUNT = itertools.count()


class DeadEnd(Good):
    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        if choice.name == "hidden":
            return tuple(option for option in choice.options if option < prefix["width"])
        return choice.options


class ForeignOption(Good):
    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        return (1, 3) if choice.name == "width" else super().allowed(choice, prefix)


class RandomlyAllowed(Good):
    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        return choice.options[: 1 + next(COUNT) % len(choice.options)]


class ChangesPrefix(Good):
    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        prefix.pop("nothing", None)  # type: ignore[attr-defined]
        return super().allowed(choice, prefix)


class CallsEverythingLegal(Good):
    def illegal(self, arch: Architecture) -> str | None:
        return None


class ComparesLoosely(Good):
    """1 and True, 2 and 2.0 are equal in Python, but they are other architectures in a store."""

    def illegal(self, arch: Architecture) -> str | None:
        options = {choice.name: choice.options for choice in self.choices}
        loose = {name: next((o for o in options.get(name, ()) if o == v), v) for name, v in arch.values.items()}
        return super().illegal(Architecture(arch.space, loose))


class ForgetsOrder(Good):
    def illegal(self, arch: Architecture) -> str | None:
        ordered = {choice.name: arch.values[choice.name] for choice in self.choices if choice.name in arch.values}
        return super().illegal(Architecture(arch.space, {**ordered, **arch.values}))


class CallsSomeIllegal(Good):
    def illegal(self, arch: Architecture) -> str | None:
        return "too wide" if arch.values.get("width") == 8 else super().illegal(arch)


class IdentityOfObject(Good):
    def identity(self, arch: Architecture) -> str:
        return f"{next(COUNT)}"


class EmptyIdentity(Good):
    def identity(self, arch: Architecture) -> str:
        return ""


class RecipeAsList(Good):
    def recipe(self, arch: Architecture) -> Mapping[str, Value]:
        return ["lr"]  # type: ignore[return-value]


class RandomRecipe(Good):
    def recipe(self, arch: Architecture) -> Mapping[str, Value]:
        return {"lr": 0.1 + next(COUNT)}


class CyclicGraph(Good):
    def graph(self, arch: Architecture) -> ArchGraph:
        return ArchGraph(("a", "b"), ((0, 1), (1, 0)))


class WrongTopology(Good):
    def graph(self, arch: Architecture) -> ArchGraph:
        chain = super().graph(arch)
        return ArchGraph(chain.nodes, chain.edges, fixed_topology=True)


class RepeatedEdge(Good):
    def graph(self, arch: Architecture) -> ArchGraph:
        return ArchGraph(("a", "b"), ((0, 1), (0, 1)))


class LossyNotation(Good):
    def to_text(self, arch: Architecture) -> str:
        return ",".join(str(value) for name, value in arch.values.items() if name != "activation")


class GreedyNotation(Good):
    def from_text(self, text: str) -> Architecture:
        return super().from_text(text.strip("?"))


class CrashingNotation(Good):
    def from_text(self, text: str) -> Architecture:
        return super().from_text(text) if text.count(",") in (2, 3) else self.choices[text]  # type: ignore[call-overload]


class OtherTask(Good):
    tasks = frozenset({NODE_CLASSIFICATION})


class WrongOutputs(Good):
    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        return super().build(arch, task.model_copy(update={"outputs": 10}), size)


class Unlearnable(Good):
    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        class Constant(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.ones(len(x), task.outputs, requires_grad=True)

        return Constant()


class Unseeded(Good):
    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        model = super().build(arch, task, size)
        model.register_buffer("noise", torch.tensor([float(next(COUNT))]))
        return model


class NoisyWhenEvaluated(Good):
    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        class Noisy(nn.Sequential):
            def forward(self, input: torch.Tensor) -> torch.Tensor:
                return super().forward(input + torch.randn_like(input))

        return Noisy(*super().build(arch, task, size).children())


class NotFinite(Good):
    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        model = super().build(arch, task, size)
        with torch.no_grad():
            next(model.parameters())[0, 0] = float("nan")
        return model


class CrashesWhenBuilt(Good):
    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        raise KeyError("channels")


class WrongCosts(Good):
    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        return {**super().costs(arch, task, size), "params": 1}


class NoMacs(Good):
    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        return {"params": super().costs(arch, task, size)["params"]}


class WrongAssignment(Good):
    def assignment(self, arch: Architecture) -> Mapping[str, Value | None]:
        return [("width", 2)]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (NoName, "declaration: the name is ''"),
        (RepeatedName, "two choices are called 'width'"),
        (ForwardCondition, "names 'deep', which is no earlier choice"),
        (ImpossibleCondition, "asks for values that 'activation' does not have"),
        (NoPreset, "declaration: raised UsageError: unknown size preset 'full'"),
        (WrongPreset, "declaration: raised UsageError: size: unknown key 'chanels'"),
        (UnstableChoices, "choices differ from one access to the next"),
        (DeadEnd, "allowed: empty for 'hidden' after {'width': 2, 'deep': True}"),
        (ForeignOption, "has others than the choice's own"),
        (RandomlyAllowed, "another one when asked again"),
        (ChangesPrefix, "allowed: raised AttributeError"),
        (CallsEverythingLegal, "illegal: another space's name goes unnoticed"),
        (ComparesLoosely, "illegal: value 8.0 of 'width' goes unnoticed"),
        (ForgetsOrder, "illegal: another order goes unnoticed"),
        (CallsSomeIllegal, "legality: a sampled architecture is called illegal (too wide)"),
        (IdentityOfObject, "identity: '"),
        (EmptyIdentity, "identity: '', then ''"),
        (WrongAssignment, "identity: assignment is no mapping"),
        (RecipeAsList, "recipe: ['lr'] are no plain values by name"),
        (RandomRecipe, "and another when asked again"),
        (CyclicGraph, "graph: raised ValueError: the graph has a cycle"),
        (WrongTopology, "graph: is declared to have a fixed topology"),
        (RepeatedEdge, "graph: repeats an edge"),
        (LossyNotation, "notation: '"),
        (GreedyNotation, "?' is accepted as"),
        (CrashingNotation, "notation: raised TypeError"),
        (OtherTask, "build: none of the 1 tasks is of a kind in ['node-classification']"),
        (WrongOutputs, "the output has shape (4, 10) instead of (4, 3)"),
        (Unlearnable, "no parameter gets a gradient"),
        (Unseeded, "two networks built from the same seed differ"),
        (NoisyWhenEvaluated, "two passes in eval mode differ"),
        (NotFinite, "an output or gradient is not finite"),
        (CrashesWhenBuilt, "raised KeyError: 'channels' (test_space_suite.py:"),
        (WrongCosts, "costs say 1 parameters, the built network has"),
        (NoMacs, "costs lack params or macs"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_defects_are_found(space: type[SearchSpace], message: str) -> None:
    assert message in "\n".join(check(space(), TASKS))


def test_wrong_moves_and_enumeration_are_found() -> None:
    """A space whose legality and `allowed` disagree shows in what is derived from them."""

    class Disagreeing(Good):
        def illegal(self, arch: Architecture) -> str | None:
            return "a wide tanh" if arch.values.get("activation") == "tanh" else super().illegal(arch)

    found = "\n".join(check(Disagreeing(), TASKS))
    assert "moves: " in found
    assert "enumeration: an illegal architecture is enumerated (a wide tanh)" in found
    assert "round trip: raised ValueError" in found


HEAVY = """
import PIL
from nas_core.choice import Choice
from nas_core.space import SearchSpace
class Space(SearchSpace):
    name = "heavy"
    tasks = frozenset({"image-classification"})
    choices = (Choice("a", (1, 2)), Choice("b", (1, 2, 3)))
space = Space()
"""
HASHED = """
print("a file may print")
from nas_core.choice import Choice
from nas_core.space import SearchSpace
class Space(SearchSpace):
    name = "hashed"
    tasks = frozenset({"image-classification"})
    choices = (Choice("a", ("x", "y")), Choice("b", ("x", "y", "z")))
    def identity(self, arch):
        return str(hash(arch))
space = Space()
"""


def test_a_fresh_interpreter_shows_imports_and_hash_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "listed_space.py"
    path.write_text(HASHED, encoding="utf-8")
    assert "another hash seed gives" in "\n".join(check_fresh(Reference(f"{path}:space", kind="space")))
    # What is listed by its name must load quickly; a file of one's own may import what it likes.
    path.write_text(HEAVY, encoding="utf-8")
    assert list(check_fresh(Reference(f"{path}:space", kind="space"))) == []
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    listed = Reference("heavy", {"heavy": "listed_space:space"}, kind="space")
    assert "listing the space imports PIL" in "\n".join(check_fresh(listed))
    path.write_text("import sys; space = sys.exit('not today')", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"a fresh interpreter failed: .*SystemExit: not today"):
        list(check_fresh(Reference(f"{path}:space", kind="space")))
