"""The weights of a network before its training, for methods that are defined on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from compressors.compressor import Change, Subject
from compressors.importance.passes import differentiable
from compressors.masks.masking import Masking, Scored
from nas_core.errors import UsageError
from nas_core.seeds import derive
from training.fit import seed_torch

Start = Literal["initial", "trained"]


class AtStart(Scored):
    """Of what weights a method takes its scores, and which ones are trained on."""

    weights: Start = Field(
        default="initial",
        description="initial: the weights before the training, as published; trained: those that there are",
    )


class StartMasking(Masking):
    """A method whose setting `weights` says whether it goes back to the weights before the training."""

    def __init__(self, subject: Subject, config: Any) -> None:
        super().__init__(subject, config)
        known(subject, config.weights)

    def compress(self, network: nn.Module, round: int) -> Change:
        if self.config.weights == "initial":
            load(network, initial(self.subject))
        return super().compress(network, round)


def known(subject: Subject, start: Start) -> None:
    """Raises UsageError where the weights before the training are asked for and not known."""
    if start == "initial" and subject.initial is None:
        raise UsageError(
            "the weights before the training of this network are not known; take -s weights=trained, or a method that "
            "needs none, such as mask-magnitude"
        )


def initial(subject: Subject) -> nn.Module:
    """A network as it was before its training, on the device. Raises UsageError where that is not known."""
    known(subject, "initial")
    assert subject.initial is not None
    return subject.initial().to(subject.device)


@contextmanager
def starting(network: nn.Module, subject: Subject) -> Iterator[tuple[nn.Module, dict[str, nn.Parameter]]]:
    """A copy as in the first step of a training, with its parameters by name, all of which take part in derivatives
    (`compressors.importance.passes`): normalisations go by the statistics of the batch; dropout is off, anything else
    that is random comes from the seed."""
    copied = copy.deepcopy(network)
    with differentiable(copied) as parameters, torch.random.fork_rng(devices=_cuda(subject.device)):
        seed_torch(derive(subject.seed, "masks"), subject.device)
        for module in copied.train().modules():
            if isinstance(module, _DropoutNd):
                module.eval()
            elif isinstance(module, nn.RNNBase):
                module.dropout = 0.0
        yield copied, parameters


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def load(network: nn.Module, other: nn.Module) -> None:
    """Give a network the tensors of another one, in place. Raises UsageError for other shapes."""
    given = other.state_dict()
    for name, tensor in network.state_dict().items():
        shape = given[name].shape if name in given else None
        if shape != tensor.shape:
            raise UsageError(
                f"'{name}' has shape {tuple(tensor.shape)} and had {shape and tuple(shape)} before the training; "
                "weights of the start do not fit a network that has been made smaller"
            )
    network.load_state_dict(given)
