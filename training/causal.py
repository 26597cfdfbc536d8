"""Whether what a network answers at a position of a sequence depends on what comes after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_core.errors import TrialError

if TYPE_CHECKING:
    from torch import nn

    from nas_core.task import Task

SEES_THE_FUTURE = "sees-the-future"
TOLERANCE = 1e-4  # of the largest answer: sums may be added up in another order


def check_causal(network: nn.Module, task: Task) -> None:
    """Change what comes from the middle of a random sequence on, and look at the answers before it, in evaluation mode.

    Raises TrialError `sees-the-future` where they change. A network whose answers are all the same, for example because
    its last layer begins with zeros, shows nothing.
    """
    import torch

    length, vocabulary = task.tokens()
    if length < 2 or vocabulary < 2:
        return
    middle = length // 2
    draws = torch.Generator().manual_seed(0)
    first = torch.randint(vocabulary, (1, length), generator=draws)
    second = first.clone()
    second[:, middle:] = (second[:, middle:] + 1) % vocabulary
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    was = network.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            network.eval()
            answers = [network(tokens.to(device)) for tokens in (first, second)]
    finally:
        network.train(was)
    if not all(isinstance(answer, torch.Tensor) and answer.dim() == 3 for answer in answers):
        return  # whoever trains it says what is wrong
    before = [answer[:, :middle].float() for answer in answers]
    if float((before[0] - before[1]).abs().max()) > TOLERANCE * max(float(before[0].abs().max()), 1e-6):
        raise TrialError(
            SEES_THE_FUTURE,
            f"the network's answers to the first {middle} characters change with those after them, so that it is given "
            "what it should predict; mask its attention, pad its convolutions on the left",
        )
