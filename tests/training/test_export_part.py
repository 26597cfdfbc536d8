"""Parts of networks as files of source: what they compute, what they say, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import VerificationError
from nas_core.seeds import generator
from nas_core.task import image_task
from search_spaces.evonorm.layer import EvoNormLayer
from search_spaces.evonorm.space import EvoNorm
from training.export.part import BATCHES, _cases, export_part, written
from training.export.python.check_part import answers

SPACE = EvoNorm()


def differences(arch: Architecture, channels: int) -> dict[str, float]:
    """How far the written layer is from ours, relative to the largest value: values and gradients."""
    part = EvoNormLayer(SPACE.layer(arch), channels)
    made = SPACE.part_source(part, arch, "layer")
    scope: dict[str, Any] = {}
    exec(written(made, "Title.", ()), scope)
    layer: nn.Module = eval(made.made, scope).double()
    cases = _cases(part, made.shape)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(cases[f"parameter/{name}"])
    found = answers(layer, cases, BATCHES)
    assert {f"{mode}/0/value" for mode in ("training", "evaluation")} < found.keys()
    scales = {name: float(cases[name].abs().max()) + 1e-9 for name in found}
    return {name: float((value - cases[name]).abs().max()) / scales[name] for name, value in found.items()}


@pytest.mark.parametrize("name", SPACE.named)
def test_named_layers_as_source(name: str) -> None:
    """In groups of one channel, of two, and of three."""
    for channels in (16, 64, 96):
        assert max(differences(SPACE.named[name], channels).values()) < 1e-6


def test_sound_layers_as_source() -> None:
    """Mutants of the named ones, among which every kind of node occurs."""
    rng, archs = generator("written"), []
    for arch in SPACE.named.values():
        for _ in range(60):
            mutant = SPACE.mutate(SPACE.mutate(arch, rng), rng)
            archs += [mutant] if SPACE.unsound(mutant) is None else []
    archs = list({SPACE.identity(arch): arch for arch in archs}.values())
    assert len(archs) > 40
    for arch in archs:
        found = differences(arch, 64)
        assert max(found.values()) < 1e-4, (SPACE.to_text(arch), found)


@pytest.mark.parametrize("op", sorted({str(option) for choice in SPACE.choices[:1] for option in choice.options}))
def test_every_operation_as_source(op: str) -> None:
    """Alone, so that nothing hides what it computes; its value is added to x, which keeps gradients apart."""
    two = op in ("add", "mul", "div", "max")
    inner = {"add": "(x + v1)", "mul": "x*v1", "div": "x / v1", "max": "max(x, v0)", "neg": "(-x)"}
    text = inner[op] if two or op == "neg" else f"{op}(x)"
    found = differences(SPACE.from_text(f"x + tanh({text})"), 64)
    assert max(found.values()) < 1e-6


@pytest.mark.parametrize("shape", [(8,), (4, 6, 5, 3)])
def test_written_layers_say_what_they_take(shape: tuple[int, ...]) -> None:
    arch, scope = SPACE.named["gn-relu"], dict[str, Any]()
    made = SPACE.part_source(EvoNormLayer(SPACE.layer(arch), 8), arch, "layer")
    exec(written(made, "Title.", ()), scope)
    with pytest.raises(ValueError, match=r"\] is not \[n, 8, \*positions\]$"):
        eval(made.made, scope)(torch.zeros(shape))


def test_source_that_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    arch = SPACE.named["evonorm-b1"]
    part = EvoNormLayer(SPACE.layer(arch), 8)
    made = SPACE.part_source(part, arch, "layer")
    wrong = replace(made, code=made.code.replace("correction=0", "correction=1"))
    assert wrong != made
    with pytest.raises(VerificationError, match=r"'layer.py' failed its verification.*training/0/value differs by"):
        export_part(part, wrong, "Title.", (), tmp_path / "layer.py")
    assert not list(tmp_path.iterdir())


def test_source_that_needs_this_program_is_not_kept(tmp_path: Path) -> None:
    arch = SPACE.named["gn-silu"]
    part = EvoNormLayer(SPACE.layer(arch), 8)
    made = SPACE.part_source(part, arch, "layer")
    own = replace(made, code=f"import search_spaces\n\n\n{made.code}")
    with pytest.raises(VerificationError, match="No module named 'search_spaces'"):
        export_part(part, own, "Title.", (), tmp_path / "layer.py")
    assert not list(tmp_path.iterdir())


def test_parts_of_a_network() -> None:
    arch = moves.sample(SPACE, generator("parts"))
    network = SPACE.build(arch, image_task((3, 8, 8), 5), SPACE.Size.parse("width=4"))
    assert SPACE.parts(arch) == ("layer",)
    assert SPACE.part(network, arch, "layer") in list(network.modules())
