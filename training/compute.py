"""How a network is run, what of its answer is minimised, and how a part is evaluated: once for trainings, supernets and
shared weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nas_core.batch import Batch
from nas_core.traits import Extra, HasLoads

N = TypeVar("N", bound=nn.Module)


class Forward:
    """A device, a number format and a memory layout: `forward(network, batch)` are the answers in float32.

    Under "bf16" what autocast knows is computed so; weights and answers are float32. `channels_last` is the layout of
    weights and of inputs with four dimensions.
    """

    def __init__(self, device: torch.device, precision: str, *, channels_last: bool) -> None:
        self.device = device
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self._bf16 = precision == "bf16"

    def place(self, network: N) -> N:
        """The network on the device, in the layout."""
        placed: N = network.to(self.device).to(memory_format=self.layout)
        return placed

    def __call__(self, network: Callable[..., Any], batch: Batch) -> Any:
        """What `network(*inputs)` answers; several answers are a tuple."""
        # Nothing is copied where the data have this layout already.
        inputs = [x.contiguous(memory_format=self.layout) if x.dim() == 4 else x for x in batch.inputs]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            output = network(*inputs)
        return _float32(output)


def weighted(network: Any, losses: Sequence[Tensor]) -> Tensor:
    """The loss of a network's logits and, where there is a second one, that of its auxiliary head by its weight
    (`nas_core.traits.HasAuxiliary`)."""
    loss, *auxiliary = losses
    return loss + network.auxiliary_weight * auxiliary[0] if auxiliary else loss


class Extras:
    """What the modules of a network have to minimise beside its answer (`nas_core.traits.Extra`)."""

    def __init__(self, network: nn.Module) -> None:
        self._modules: list[Any] = [module for module in network.modules() if _hands_over(module)]
        self._loaded = {name: module for name, module in network.named_modules() if isinstance(module, HasLoads)}

    def drop(self) -> None:
        """Forget what a pass left that came to no end, for want of memory."""
        for module in self._modules:
            module.take()

    def take(self) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The sum of all terms of a pass, None without any; and by name the mean over the modules of each term and each
        statistic, of the latter also the largest, as `NAME_max`, detached."""
        all_terms: list[Tensor] = []
        found: dict[str, list[Tensor]] = {}
        told: set[str] = set()
        for module in self._modules:
            terms, statistics = module.take()
            all_terms += terms.values()
            told |= statistics.keys()
            for name, value in {**terms, **statistics}.items():
                found.setdefault(name, []).append(value.detach().float())
        by_name = {name: torch.stack(values) for name, values in found.items()}
        means = {name: values.mean() for name, values in by_name.items()}
        largest = {f"{name}_max": by_name[name].max() for name in by_name if name in told}
        return (torch.stack(all_terms).sum() if all_terms else None), {**means, **largest}

    def loads(self) -> dict[str, Tensor]:
        """How the last pass divided its work among the experts of each layer, by the layer's name."""
        return {name: module.loads for name, module in self._loaded.items()}


def answers_alone(network: N) -> N:
    """The network, whose modules let go at once of what they would hand over beside the answer: for whoever looks at
    that alone, and copies networks after a pass."""
    for module in network.modules():
        if _hands_over(module):
            module.register_forward_hook(_let_go)
    return network


def _hands_over(module: nn.Module) -> bool:
    return isinstance(module, Extra)


def _let_go(module: Any, *_: object) -> None:
    module.take()


def _float32(output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(map(_float32, output))
    return output.float() if isinstance(output, Tensor) else output


def add(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    """Add sums over samples to those of the batches before, on the device."""
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def means(measured: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """The means over all samples, from the sums of every batch and their `count` (`nas_core.batch.Data.metrics`); the
    device is waited for once."""
    sums: dict[str, Tensor] = {}
    for one in measured:
        add(sums, one)
    count = float(sums.pop("count"))
    return {name: float(value) / count for name, value in sums.items()}
