"""A search space of your own with layers of experts: images as patches, one block dense or of experts.

nas search --space examples/my_experts.py:space --data digits
"""

from typing import ClassVar

from torch import nn

from nas_core.choice import Choice, When
from nas_core.config import SizeConfig
from nas_core.space import SearchSpace
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.operators.experts import EXPERT
from search_spaces.operators.routers import ROUTER

CHOOSING_TWO = ("noisy-top-k", "gshard", "grin", "loss-free", "random")
ROUTERS = (*CHOOSING_TWO, "switch", "smear", "expert-choice")


class Patches(nn.Module):
    """`[n, channels, height, width]` to `[n, outputs]`, by tokens `[n, patches, width]`."""

    def __init__(self, task, size, block):
        super().__init__()
        self.stem = nn.Conv2d(task.input_shape[0], size.width, size.patch, size.patch)
        self.norm, self.block, self.head = nn.LayerNorm(size.width), block, nn.Linear(size.width, task.outputs)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head((tokens + self.block(self.norm(tokens))).mean(1))


class MyExperts(SearchSpace):
    name = "my-experts"
    tasks = frozenset({"image-classification"})
    choices = (
        Choice("block", ("dense", *ROUTERS)),
        Choice("experts", (2, 4, 8), ordered=True, when=(When("block", ROUTERS),)),
        Choice("expert", ("gelu", "glu", "kan"), when=(When("block", ROUTERS),)),
    )

    class Size(SizeConfig):
        presets: ClassVar = {"search": {}, "full": {"width": 64, "hidden": 256}}
        width: int = 32
        hidden: int = 64
        patch: int = 2

    def build(self, arch, task, size):
        router, width, hidden = arch.values["block"], size.width, size.hidden
        if router == "dense":
            block = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            return Patches(task, size, block)
        active, experts = 2 if router in CHOOSING_TWO else 1, arch.values["experts"]
        # Together the experts of a token are as wide as the dense block.
        kind = EXPERT.operator(arch.values["expert"]).make(experts, width, hidden // active, width)
        return Patches(task, size, MixtureOfExperts(ROUTER.operator(router).make(width, experts, active), kind))


space = MyExperts()
