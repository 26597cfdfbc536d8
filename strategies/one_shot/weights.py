"""The shared weights of a supernet in training: SGD with a rate that falls over the epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nas_core.batch import Batch, Data
from nas_core.errors import TrialError, UsageError
from nas_core.one_shot import Compute, OneShotConfig
from nas_core.relax import Mix
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet, relaxable
from training.checkpoint import optimizer_state, restore_optimizer
from training.compute import Extras, Forward, means, weighted
from training.optimizer import parameter_groups


class WeightsConfig(OneShotConfig):
    """How the weights are trained. The defaults are those of DARTS (Liu et al., ICLR 2019, section 3.1.1)."""

    lr: float = Field(default=0.025, gt=0, le=10, description="of the weights, at the start of the schedule")
    lr_end: float = Field(default=0.001, ge=0, le=10, description="of the weights, at the end")
    schedule: Literal["cosine", "linear"] = Field(default="cosine", description="how the rate falls, epoch by epoch")
    restart_epochs: int | None = Field(
        default=None, ge=1, description="warm restarts: epochs after which the schedule starts over for the first time"
    )
    restart_factor: int = Field(
        default=2, ge=1, le=100, description="by which each period is longer than the one before"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=3e-4, ge=0, le=1)
    decay_all: bool = Field(default=True, description="false: no weight decay of biases and normalisations")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    grad_clip: float | None = Field(default=5.0, gt=0, description="largest norm of the weights' gradient; null: any")

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of an epoch: from `lr` to `lr_end` over all epochs, or over each period between restarts
        (SGDR: Loshchilov and Hutter, ICLR 2017, equation 5)."""
        start, length = 0, self.epochs
        if self.restart_epochs is not None:
            length = min(self.restart_epochs, self.epochs)
            while epoch >= start + length:
                start, length = start + length, length * self.restart_factor
        done = (epoch - start) / length
        part = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.lr_end + (self.lr - self.lr_end) * part


class SharedWeights:
    """A supernet on its device with its optimiser. `loss` is differentiable in the weights and in the mix."""

    def __init__(self, supernet: Supernet, data: Data, config: WeightsConfig, compute: Compute) -> None:
        self.data, self.config, self.compute = data, config, compute
        self.device = torch.device(compute.device)
        images = len(data.task.input_shape) == 3
        self._forward = Forward(self.device, compute.precision, channels_last=images)
        self.supernet = self._forward.place(supernet)
        self._extras = Extras(self.supernet)
        self.optimizer = torch.optim.SGD(
            parameter_groups(self.supernet, decay_all=config.decay_all),
            config.lr,
            config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
        )

    def begin(self, epoch: int) -> float:
        """Set the learning rate of an epoch and the mode; returns the rate."""
        rate = self.config.learning_rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.supernet.train()
        return rate

    def forward(self, batch: Batch, mix: Mix) -> Tensor:
        """Logits in float32."""
        return self._outputs(batch, mix)[0]

    def loss(self, batch: Batch, mix: Mix) -> Tensor:
        """That of the logits, and what the network adds to it: a second classifier, terms of its modules."""
        losses = [self._loss(output, batch) for output in self._outputs(batch, mix)]
        loss, (extra, _) = weighted(self.supernet.network, losses), self._extras.take()
        return loss if extra is None else loss + extra

    def _outputs(self, batch: Batch, mix: Mix) -> tuple[Tensor, ...]:
        output = self._forward(lambda *inputs: self.supernet(inputs, mix), batch)
        return output if isinstance(output, tuple) else (output,)

    def _loss(self, output: Tensor, batch: Batch) -> Tensor:
        smoothing = self.config.label_smoothing
        loss = self.data.loss(output, batch)
        if smoothing == 0:
            return loss
        logits, _ = batch.scored(output)
        return (1 - smoothing) * loss - smoothing * logits.log_softmax(1).mean()

    def step(self, batch: Batch, mix: Mix) -> Tensor:
        """One step of the weights alone; the loss before it, on the device. Gradients of the mix come as well, where
        its weights want them."""
        self.supernet.zero_grad(set_to_none=True)
        loss = self.loss(batch, mix)
        loss.backward()
        self.update()
        return loss.detach()

    def update(self) -> None:
        """Clip the gradients that the weights have, and step. Weights without one stay as they are, bit for bit."""
        if self.config.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.grad_clip)
        self.optimizer.step()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """No gradients of the weights: a step of the architecture needs none."""
        parameters = [parameter for parameter in self.supernet.parameters() if parameter.requires_grad]
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)

    def metrics(self, part: str, mix: Mix, batches: int | None = None) -> dict[str, float]:
        """Mean accuracy and loss of a part (of its first `batches`) with the running statistics."""
        self.supernet.eval()
        with torch.no_grad():
            seen = islice(self.data.batches(part, 0, 0), batches)
            found = means(self.data.metrics(self.forward(batch, mix), batch) for batch in seen)
        self.supernet.train()
        return found

    def state_dict(self) -> dict[str, Any]:
        tensors, plain = optimizer_state(self.optimizer)
        return {"supernet": dict(self.supernet.state_dict()), "tensors": tensors, "plain": plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.supernet.load_state_dict(state["supernet"])
        restore_optimizer(self.optimizer, state["tensors"], state["plain"])


def unconstrained(setting: Setting, name: str) -> None:
    """Raise UsageError for a space that is not relaxable, and for constraints, which strategy `name` does not know."""
    relaxable(setting.space)
    if setting.constraints:
        raise UsageError(
            f"strategy '{name}' does not know constraints ({', '.join(map(str, setting.constraints))}); "
            "leave them out, or use rc-darts"
        )


def mean(losses: Tensor, count: int, what: str) -> float:
    """The mean of a summed loss. Raises TrialError where it is not finite."""
    value = float(losses) / max(count, 1)
    if not math.isfinite(value):
        raise TrialError("nan-loss", f"the {what} is {value}; lower the learning rate")
    return value
