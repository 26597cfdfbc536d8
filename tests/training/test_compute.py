"""Running a network and averaging over a part, which trainings, supernets and shared weights have in common."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas_core.batch import Batch
from training.compute import Forward, means

IMAGES = Batch((torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0)),), torch.zeros(3, dtype=torch.long))


class Seen(nn.Module):
    """A convolution that remembers what it was given; answers twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 4, 3)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.last = x
        answer = self.convolution(x)
        return answer, answer.mean((2, 3))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_layout_and_answers(precision: str, channels_last: bool) -> None:
    forward = Forward(torch.device("cpu"), precision, channels_last=channels_last)
    network = forward.place(Seen())
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert network.convolution.weight.is_contiguous(memory_format=layout)
    answers = forward(network, IMAGES)
    assert network.last is not None
    assert network.last.is_contiguous(memory_format=layout)
    assert [one.dtype for one in answers] == [torch.float32, torch.float32]
    exact = network(IMAGES.inputs[0])
    near = 0.0 if precision == "float32" else 0.05
    for answer, wanted in zip(answers, exact, strict=True):
        assert (answer - wanted).abs().max() <= near
    if precision == "bf16":
        assert not torch.equal(answers[0], exact[0])  # computed in fewer digits


def test_what_is_no_tensor_passes_through() -> None:
    forward = Forward(torch.device("cpu"), "float32", channels_last=True)
    assert forward(lambda x: {"logits": x.sum()}, IMAGES).keys() == {"logits"}
    edges = torch.tensor([[0, 1], [1, 0]])
    assert forward(lambda x, e: e, Batch((torch.ones(2, 3), edges), edges[0])).dtype == torch.float32


def test_means_are_over_samples_and_not_over_batches() -> None:
    batches = [(torch.tensor([1.0, 0.0, 1.0]), 3), (torch.tensor([0.0]), 1)]
    measured = [{"accuracy": values.sum(), "count": torch.tensor(count)} for values, count in batches]
    assert means(measured) == {"accuracy": 0.5}
    assert measured[0]["accuracy"] == 2  # what was given stays
