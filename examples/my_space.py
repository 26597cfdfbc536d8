"""A search space of your own in one file: small convolutional networks for images.

nas spaces check examples/my_space.py:space
nas search --space examples/my_space.py:space
"""

from typing import ClassVar

from nas_core.choice import Choice, When
from nas_core.config import SizeConfig
from nas_core.space import SearchSpace


class MySpace(SearchSpace):
    name = "my-space"
    tasks = frozenset({"image-classification"})

    # What can be chosen. Names are stored with every study, so choose them well and keep them.
    choices = (
        Choice("depth", (1, 2, 3), ordered=True),
        Choice("width", (8, 16, 32), ordered=True),
        Choice("kernel", (3, 5), ordered=True),
        Choice("activation", ("relu", "silu", "leaky")),
        # `when`: this choice exists only in networks with a leaky activation.
        Choice("slope", (0.01, 0.1, 0.3), ordered=True, when=(When("activation", ("leaky",)),)),
    )

    class Size(SizeConfig):
        """What the search leaves alone: cheap networks while searching, large ones in the end."""

        presets: ClassVar = {"search": {"scale": 1}, "full": {"scale": 4}}
        scale: int = 1

    def build(self, arch, task, size):
        """The untrained network: images of `task.input_shape` to `task.outputs` numbers per image."""
        from torch import nn  # imported here, so that listing the space stays instant

        values = arch.values
        channels, width = task.input_shape[0], values["width"] * size.scale
        layers = []
        for _ in range(values["depth"]):
            layers += [
                nn.Conv2d(channels, width, values["kernel"], padding="same", bias=False),
                nn.BatchNorm2d(width),
                self.activation(values),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
            channels, width = width, 2 * width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, task.outputs))

    def activation(self, values):
        from torch import nn

        if values["activation"] == "leaky":
            return nn.LeakyReLU(values["slope"])
        return nn.ReLU() if values["activation"] == "relu" else nn.SiLU()


space = MySpace()
