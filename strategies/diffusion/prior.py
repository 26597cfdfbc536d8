"""How the network of masked diffusion is trained, and what it learns of a space before anything is evaluated.

The losses are the negative evidence bounds of Ou et al., ICLR 2025 (RADD), equal in expectation: lambda-DCE masks every
slot with a probability lambda that is uniform on (0, 1); k-DCE masks exactly k slots, k uniform on 1 to L, which has
less variance.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from nas_core import moves
from nas_core.seeds import derive, generator
from strategies.diffusion.config import CLASSES, DenoiserConfig
from strategies.diffusion.denoiser import Denoiser
from strategies.diffusion.slots import Slots
from training.steps import Plan, Steps, trained

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from strategies.diffusion.slots import Tokens

    Floats = NDArray[numpy.float64]
    Arrays = dict[str, NDArray[numpy.float32]]

DECAY = 1e-2
"""Weight decay, that of AdamW's paper."""

DROPOUT = 0.15
"""Share of the sequences that are learned without their condition, so that there is a distribution without one."""

CHECKPOINT = 50
"""Training steps after which a prior is kept, to go on from there."""

FORMAT = 1
"""To be raised where the same configuration would be trained to other weights."""


def k_dce(
    denoiser: Denoiser,
    tokens: Tensor,
    random: torch.Generator,
    condition: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """(L / k) times the sum over k masked slots of -log c, k uniform on 1 to L and the slots uniform; eq. 3.9 there.

    The mean over the sequences [n, L], by their `weights` [n]. `condition` as in `Denoiser.forward`.
    """
    n, count = tokens.shape
    drawn = torch.randint(1, count + 1, (n,), generator=random)
    order = torch.rand(n, count, generator=random).argsort(1).argsort(1)
    return _loss(denoiser, tokens, order < drawn[:, None], count / drawn, condition, weights)


def lambda_dce(
    denoiser: Denoiser,
    tokens: Tensor,
    random: torch.Generator,
    condition: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """(1 / lambda) times the sum over the masked slots of -log c, each masked with probability lambda; arguments as in
    `k_dce`. The lambdas of a batch are stratified: one in each n-th of (0, 1)."""
    n, count = tokens.shape
    rates = (torch.arange(n) + torch.rand(n, generator=random)) / n
    masked = torch.rand(n, count, generator=random) < rates[:, None]
    return _loss(denoiser, tokens, masked, 1 / rates, condition, weights)


def _loss(
    denoiser: Denoiser,
    tokens: Tensor,
    masked: Tensor,
    factors: Tensor,
    condition: Tensor | None,
    weights: Tensor | None,
) -> Tensor:
    """The mean of `factors` [n] times the sum of -log c over what is `masked` [n, L]."""
    shares = torch.full((len(tokens),), 1 / len(tokens)) if weights is None else weights / weights.sum()
    states = denoiser.states(tokens.masked_fill(masked, denoiser.slots.mask), condition)
    rows, slots = masked.nonzero(as_tuple=True)
    wanted = states.flatten(0, 1).index_select(0, rows * tokens.shape[1] + slots)  # what is visible needs no head
    found = denoiser.head(wanted, slots).gather(1, tokens[rows, slots].unsqueeze(1))[:, 0]
    return -(found * (shares * factors)[rows]).sum()


def training_of(
    denoiser: Denoiser,
    tokens: Tokens,
    steps: int,
    seed: int,
    *,
    condition: Tokens | None = None,
    weights: Floats | None = None,
    batch: int = 128,
    rate: float = 1e-3,
) -> Steps:
    """AdamW on the k-DCE loss of sequences [n, L], `batch` of which are drawn in each step, by their `weights` [n]
    where these are given.

    `condition` [n]: their quantile classes, which are left out of 15% of what is drawn. The learning rate rises for a
    tenth of the steps and falls by a cosine. Depends on the arguments alone, not on the number of threads.
    """
    sequences = torch.from_numpy(tokens)
    classes = None if condition is None else torch.from_numpy(condition)
    likely = None if weights is None else torch.from_numpy(weights)

    def loss(step: int) -> Tensor:
        random = torch.Generator().manual_seed(derive(seed, "denoiser", step))
        if likely is None:
            rows = torch.randint(len(sequences), (batch,), generator=random)
        else:
            rows = torch.multinomial(likely, batch, replacement=True, generator=random)
        wanted = None
        if classes is not None:
            dropped = torch.rand(len(rows), generator=random) < DROPOUT
            wanted = classes[rows].masked_fill(dropped, 0)
        return k_dce(denoiser, sequences[rows], random, wanted)

    return Steps(denoiser, loss, Plan(steps, rate, warm_up=0.1 * steps, decay=DECAY))


def quantile_classes(values: Floats) -> Tokens:
    """The quarter of the ranking [n] that each value is in; equal values share the higher one, so that `CLASSES`, the
    quarter of the highest, is never empty."""
    reached = numpy.searchsorted(numpy.sort(values), values, "right")
    return (-(-CLASSES * reached // len(values))).astype(numpy.int64)


def prior(slots: Slots, config: DenoiserConfig, cache: MutableMapping[str, Mapping[str, Any]]) -> Denoiser | None:
    """What the space allows, learned from random architectures (`moves.sample`); None where slots are free of one
    another, so that there is nothing to learn.

    It depends on the space and the configuration alone: its seed is the key that it has in `cache`, where an earlier
    one is found, and where it is put every `CHECKPOINT` steps.
    """
    if slots.free:
        return None
    steps = config.steps or steps_for(slots.count)
    key = _key(slots, config.model_copy(update={"steps": steps}))
    denoiser = Denoiser(slots, config, derive(key, "weights"))

    def begin() -> Steps:
        rng = generator(key, "samples")
        tokens = slots.encode([moves.sample(slots.space, rng) for _ in range(config.samples)])
        return training_of(denoiser, tokens, steps, derive(key, "steps"), batch=config.batch, rate=config.rate)

    def finished(training: Steps) -> Mapping[str, Any]:
        return {"step": steps, "parameters": training.weights()}

    load(denoiser, trained(cache, key, begin, finished, steps, CHECKPOINT)["parameters"])
    return denoiser


def steps_for(slots: int) -> int:
    """Training steps of a prior where none are given."""
    return min(1_500, max(200, 20 * slots))


def arrays(denoiser: Denoiser) -> Arrays:
    """The weights, by name."""
    return {name: parameter.detach().numpy().copy() for name, parameter in denoiser.named_parameters()}


def load(denoiser: Denoiser, weights: Mapping[str, Any]) -> None:
    """Take the weights that `arrays` gave."""
    denoiser.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()})


def _key(slots: Slots, config: DenoiserConfig) -> str:
    """Names what a prior depends on."""
    space = slots.space
    choices = [
        [choice.name, choice.options, choice.kind, [[w.name, w.values] for w in choice.when]]
        for choice in space.choices
    ]
    text = json.dumps([FORMAT, choices, config.model_dump()])
    return f"diffusion/prior/{space.name}/{space.version}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"
