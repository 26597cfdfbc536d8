"""Networks of hosts with known layers: what can be removed is proved, and what cannot says why and where."""

from __future__ import annotations

import pytest

from compressors.groups.trace import trace
from search_spaces.evonorm.space import EvoNorm
from search_spaces.hosts import HOSTS
from tests.compressors.test_groups import disturbed, proved
from tests.compressors.test_groups_of_spaces import GRAPH, IMAGES, TABLE
from training.networks import build
from training.tasks import sample_inputs

SPACE = EvoNorm()


@pytest.mark.parametrize("layer", ["bn-relu", "evonorm-b0", "evonorm-s0", "evonorm-s2"])
@pytest.mark.parametrize("host", HOSTS)
def test_what_can_be_removed_is_proved_and_what_cannot_is_named(host: str, layer: str) -> None:
    task = next(task for task in (IMAGES, GRAPH, TABLE) if task.kind in HOSTS[host].kinds)
    size = SPACE.Size.preset("search", host=host, depth=1)
    network = disturbed(build(SPACE, SPACE.named[layer], task, size, 1))
    inputs = sample_inputs(task, 2)
    groups = trace(network, inputs)
    assert all(fixed.reason for fixed in groups.fixed)
    assert all(fixed.name for fixed in groups.fixed)
    assert groups.groups or groups.fixed
    if layer == "bn-relu":
        assert any(group.exact for group in groups.groups)
    proved(network, groups, inputs)
