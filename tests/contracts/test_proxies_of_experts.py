"""Every zero-cost proxy on a small network of experts with every router: a score, or why there is none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core import refs
from nas_core.batch import Batch
from nas_core.task import Task
from predictors import GROUP, PROXIES
from predictors.experts import WHY_NOT
from predictors.forward_pass import ForwardPass
from predictors.need import Need
from predictors.proxy import Unscorable
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.operators.experts import EXPERT
from search_spaces.operators.routers import ROUTER, facts_of
from search_spaces.operators.routers.facts import CONDITION, ONE

SAMPLES, WIDTH, EXPERTS, CLASSES = 8, 8, 4, 10
TASK = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=CLASSES, metric="accuracy")
NO_BLOCKS = "no body of at least two blocks"
NO_PATHS = "paths through|no ReLU network|path-norm is too large"
UNSCORABLE = {"naswot": WHY_NOT, "linear_regions": WHY_NOT, "az_nas": NO_BLOCKS, "path_norm": NO_PATHS}
MERGING = [name for name in ROUTER.table if facts_of(ROUTER.operator(name)).computes == ONE]
BY_ROUTER = {
    **{(name, router): None for name in ("naswot", "linear_regions") for router in MERGING},  # rows of samples in order
    ("synflow", "grkan"): "too large for float64",
    ("logsynflow", "grkan"): "too large for float64",
}


class Patches(nn.Module):
    """Tokens of an image, one layer of experts with a residual, a head."""

    def __init__(self, router: str, active: int = 2) -> None:
        super().__init__()
        operator = ROUTER.operator(router)
        conditional = CONDITION in facts_of(operator).needs
        options = {"tasks": 3} if conditional and router != "attributes" else {}
        made = operator.make(WIDTH, EXPERTS, min(active, facts_of(operator).most or active), **options)
        self.by_task, self.by_attributes = bool(options), router == "attributes"
        self.stem = nn.Conv2d(1, WIDTH, 2, 2)
        self.moe = MixtureOfExperts(made, EXPERT.operator("gelu").make(EXPERTS, WIDTH, 16, WIDTH))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).flatten(2).transpose(1, 2)
        condition = torch.arange(len(x)) % 3 if self.by_task else None
        if self.by_attributes:
            condition = torch.arange(8.0).sin().expand(len(x), -1)
        answer: Tensor = self.head((h + self.moe(h, condition)).mean(1))
        return answer


def passed(router: str, needs: Need, active: int = 2, samples: int = SAMPLES) -> ForwardPass:
    images = torch.randn(samples, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = Batch((images,), torch.arange(samples) % CLASSES)
    return ForwardPass(lambda: Patches(router, active), batch, loss, TASK, needs=needs)


def loss(output: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(output, batch.target)


@pytest.mark.parametrize("router", ROUTER.table)
def test_proxies_score_networks_of_experts_or_say_why_not(router: str) -> None:
    for name in PROXIES:
        kind: Any = refs.find(name, PROXIES, GROUP, "proxy")
        proxy, forward = kind(kind.Config()), passed(router, kind.needs)
        before = {key: value.clone() for key, value in forward.model.state_dict().items()}
        why_not = BY_ROUTER.get((name, router), UNSCORABLE.get(name))
        if why_not is None:
            found = proxy.score(forward)
            assert all(math.isfinite(value) for value in found.values()), (name, found)
            assert found == kind(kind.Config()).score(passed(router, kind.needs)), name
        else:
            with pytest.raises(Unscorable, match=why_not):
                proxy.score(forward)
        assert all(torch.equal(value, before[key]) for key, value in forward.model.state_dict().items()), name


@pytest.mark.parametrize("router", ["switch", "noisy-top-k"])
def test_weights_of_experts_without_tokens_have_gradients_of_zero(router: str) -> None:
    needs = Need.GRADIENTS | Need.CURVATURE | Need.CHANNELS
    forward = passed(router, needs, active=1, samples=1)
    with torch.no_grad():  # all tokens to the first two: equal logits of the two, and far smaller ones
        gate, stem = forward.model.moe.router.gate, forward.model.stem
        gate.weight[:2], gate.weight[2:] = 1.0, -1.0
        stem.bias += 10
    found = forward.passed
    for name in ("moe.experts.up.weight", "moe.experts.down.weight"):
        gradient = found.gradients[name]
        assert gradient.shape == dict(forward.model.named_parameters())[name].shape
        assert gradient[2:].abs().max() == 0
        assert gradient.abs().max() > 0
        assert torch.isfinite(found.curvature[name])


def test_zen_sees_the_same_maps_whatever_chooses_the_experts() -> None:
    kind: Any = refs.find("zen", PROXIES, GROUP, "proxy")
    routers = ("switch", "expert-choice", "softmax")
    scores = [kind(kind.Config()).score(passed(router, kind.needs))["zen"] for router in routers]
    assert scores == pytest.approx(scores[:1] * 3)
