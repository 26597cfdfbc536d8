"""Stems of the convolutional spaces by the size of the images, and what is stored of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nas_core import moves
from nas_core.config import SizeConfig
from nas_core.seeds import generator
from nas_core.space import builds
from nas_core.task import Task
from search_spaces.darts.network import ImageNetHead
from search_spaces.supernet.supernet import Supernet
from studies.setup.spaces import load_space
from training.cost import macs, params
from training.tasks import sample_inputs

SMALL = {
    "nasbench201": {"channels": 4, "cells": 1},
    "darts": {"channels": 4, "layers": 5},
    "nasnet": {"cells": 1, "filters": 96, "stem_filters": 8},
    "regnet": {"stem_width": 8, "width_scale": 0.25},
    "ae-cnn": {"width_scale": 0.1, "depth_scale": 0.1},
}
CHOSEN = ("stem", "stem_stride", "auxiliary_head")
REDUCED = {"nasbench201": 4, "darts": 8, "nasnet": 8, "regnet": 2, "ae-cnn": 4}


def task(side: int, channels: int = 3) -> Task:
    return Task(kind="image-classification", input_shape=(channels, side, side + 6), outputs=5)


def asked(name: str) -> tuple[Any, SizeConfig]:
    space, _ = load_space(name)
    return space, space.Size.preset("search", **SMALL[name])


def without_stem(size: SizeConfig) -> dict[str, Any]:
    """As the fields of a size were stored before stems could be chosen."""
    return {key: value for key, value in size.model_dump().items() if key not in CHOSEN}


def built(name: str, side: int, size: SizeConfig | None = None) -> tuple[Any, Any, nn.Module]:
    space, wanted = asked(name)
    arch = moves.sample(space, generator("stem", name))
    return space, arch, space.build(arch, task(side), wanted if size is None else size)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_are_reduced_and_costs_follow_without_building(name: str, channels: int) -> None:
    space, size = asked(name)
    arch, large = moves.sample(space, generator("stem", name)), task(128, channels)
    network = space.build(arch, large, size)
    costs = space.costs(arch, large, size)
    assert costs == {"params": params(network), "macs": macs(network, sample_inputs(large))}
    assert costs == space.costs(arch, large, size.fitted(large))
    plain = space.costs(arch, large, space.Size(**without_stem(size)))
    assert costs["macs"] < plain["macs"] / REDUCED[name]


@pytest.mark.parametrize("name", SMALL)
def test_the_side_decides_and_what_is_stored_is_what_it_was(name: str) -> None:
    space, size = asked(name)
    small, large = size.fitted(task(127)), size.fitted(task(128))
    before = without_stem(size)
    existing = {"darts": {"stem": "cifar"}, "nasnet": {"stem": "cifar"}, "regnet": {"stem_stride": 1}}.get(name, {})
    assert small.model_dump() == {**before, **existing}
    assert large.model_dump() != small.model_dump()
    assert space.Size(**large.model_dump()) == large
    assert (space.version, builds(space, 1), builds(space, 2), builds(space, 3)) == (2, True, True, False)


@pytest.mark.parametrize("name", SMALL)
def test_a_stored_size_of_version_1_keeps_its_network(name: str) -> None:
    """Stored fields of large images had no stem to choose; the network is the one of small images, bit for bit."""
    _, size = asked(name)
    stored = type(size)(**size.fitted(task(32)).model_dump())
    torch.manual_seed(3)
    small = built(name, 127)[2]
    torch.manual_seed(3)
    large = built(name, 128, stored)[2]
    shapes = {key: value.shape for key, value in small.state_dict().items()}
    if name != "ae-cnn":  # its classifier is as large as the image
        assert {key: value.shape for key, value in large.state_dict().items()} == shapes
        state = small.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in large.state_dict().items())
    assert len(large.state_dict()) == len(small.state_dict())


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_a_supernet_has_the_stem_of_its_networks(name: str) -> None:
    space, size = asked(name)
    large = task(128)
    supernet = Supernet(space, large, size)
    arch = moves.sample(space, generator("stem", name))
    supernet.eval()
    x = torch.randn(2, *large.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(
            supernet.extract(arch)(x), supernet((x,), supernet.mix_of(arch)), rtol=1e-4, atol=1e-5
        )


def test_the_second_classifier_for_photographs_is_that_of_the_published_program() -> None:
    space, _ = load_space("darts")
    imagenet = Task(kind="image-classification", input_shape=(3, 224, 224), outputs=1000)
    with torch.device("meta"):
        network: Any = space.build(space.named["DARTS_V2"], imagenet, space.Size.preset("imagenet"))
        assert isinstance(network.auxiliary, ImageNetHead)
        assert sum(parameter.numel() for parameter in network.auxiliary.parameters()) == 1_260_776
        assert params(network) == 4_718_752
    # Reference: the same layers, one by one, on the 7x7 map that comes before it.
    head = ImageNetHead(8, (7, 7), 5)
    x = torch.randn(2, 8, 7, 7)
    pooled = torch.nn.functional.avg_pool2d(x.relu(), 5, 2)
    assert pooled.shape[2:] == (2, 2)
    narrow = torch.nn.functional.batch_norm(head[2](pooled), None, None, training=True).relu()
    wide = torch.einsum("bcij,ocij->bo", narrow, head[5].weight).relu()
    torch.testing.assert_close(head(x), head[8](wide), rtol=1e-4, atol=1e-5)
    # A size that was stored before keeps the head that it had.
    fields = space.Size.preset("imagenet").fitted(imagenet).model_dump()
    del fields["auxiliary_head"]
    with torch.device("meta"):
        old: Any = space.build(space.named["DARTS_V2"], imagenet, space.Size(**fields))
    assert not isinstance(old.auxiliary, ImageNetHead)
