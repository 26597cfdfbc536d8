"""Classifier guidance of masked diffusion: models that read architectures of which some choices are undecided.

They are noise-aware predictors as in DiffusionNAG (An et al., ICLR 2024, section 3.2) for discrete noise: MASK is a
token like any other, and training masks part of its sequences, so that what is learned is E[y | decided tokens].
`Guide` learns the objective of a search, `PropertyBound` whether a number will be as it is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from nas_core.errors import UsageError
from nas_core.seeds import derive, generator
from nas_core.strategy import Wanted
from predictors.surrogates.neural import Parameters, batches, train
from strategies.diffusion.config import GuideConfig
from strategies.diffusion.slots import Slots
from training.threads import thread_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from strategies.diffusion.slots import Masks, Tokens

    Floats = NDArray[numpy.float64]

CHUNK = 16_384
"""Sequences that are predicted at a time."""

WIDE = 256
"""Columns from which a first layer is looked up and summed in predictions: faster there, by a factor of about ten; in
training the product with one-hot columns is as fast up to a thousand of them."""

NUMBER = GuideConfig(members=5, steps=1_200, batch=128, clean=0.5)
"""How a number is learned from examples of it; undecided choices keep the networks smooth."""

CHANCE = GuideConfig(members=2, steps=1_200, batch=256, clean=0.2, rate=5e-3)
"""How the chances of partly decided architectures are learned."""

COMPLETIONS = 8_000
"""Random architectures from which chances are learned."""

LEAST_ERROR = 1e-3
"""Of a standardised number."""

NEAR = 50
"""Examples next to the limit, at least, that say how far predictions are off there; or a tenth of all."""

SURE = 1e6
"""Standard deviations from the limit beyond which nothing changes."""

RIDGES = (1e-3, 1e-1, 3.0)
"""Penalties of the line, of which the one that predicts best is taken."""


class Perceptrons(Parameters):
    """An ensemble of perceptrons on one-hot tokens with MASK: [n, L] to [members, n, outputs]."""

    def __init__(self, slots: Slots, config: GuideConfig, outputs: int, seed: int) -> None:
        super().__init__(config.members, seed)
        self._tokens = slots.width + 1
        columns, hidden = slots.count * self._tokens, config.hidden
        gain = math.sqrt(2 * self._tokens)  # one in so many columns is not zero
        self.weights = torch.nn.ParameterList(
            [self.weight(columns, hidden, gain), self.weight(hidden, hidden), self.weight(hidden, outputs, 1.0)]
        )
        self.biases = torch.nn.ParameterList([self.bias(hidden), self.bias(hidden), self.bias(outputs)])

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens` [n, L], or [members, n, L] where every member reads its own."""
        if self.weights[0].shape[1] > WIDE and not torch.is_grad_enabled():
            state = self._looked_up(tokens) + self.biases[0]
        else:
            columns = torch.zeros(*tokens.shape, self._tokens)
            columns.scatter_(-1, tokens.unsqueeze(-1), 1.0)
            state = torch.baddbmm(self.biases[0], columns.flatten(-2).expand(self.members, -1, -1), self.weights[0])
        for weight, bias in list(zip(self.weights, self.biases, strict=True))[1:]:
            state = torch.baddbmm(bias, torch.relu(state), weight)
        return state

    def _looked_up(self, tokens: Tensor) -> Tensor:
        """The product of one-hot columns with the first weights [members, n, hidden], as a sum of their rows."""
        columns = tokens + self._tokens * torch.arange(tokens.shape[-1])
        columns = columns.expand(self.members, -1, -1)
        return torch.stack(
            [functional.embedding_bag(*pair, mode="sum") for pair in zip(columns, self.weights[0], strict=True)]
        )


def _learn(
    network: Perceptrons,
    tokens: Tensor,
    mask: int,
    config: GuideConfig,
    seed: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    places: Tensor | None = None,
) -> None:
    """`loss(outputs [members, b, outputs], rows [b])`; of the sequences [n, L] a share stays clean, and of each other
    one every token is masked with a rate that is uniform on (0, 1). With `places` [n, L], the step at which a
    slot is decided, what comes after a step is masked, any step as likely: what a sampler meets on its way."""
    random = torch.Generator().manual_seed(derive(seed, "masks"))
    count = tokens.shape[1]

    def masked(rows: Tensor) -> Tensor:
        shape = (network.members, len(rows), 1)
        rate = torch.rand(shape, generator=random) * (torch.rand(shape, generator=random) >= config.clean)
        if places is None:
            hidden = torch.rand(*shape[:2], count, generator=random) < rate
        else:
            hidden = places[rows] >= ((1 - rate) * (count + 1)).floor()
        return loss(network(tokens[rows].masked_fill(hidden, mask)), rows)

    positions = batches(len(tokens), config.batch, config.steps, seed)
    with thread_count(1):
        train(network, masked, positions, config.steps, config.rate, config.decay)


def _outputs(network: Perceptrons, tokens: Tokens) -> Floats:
    """[members, n, outputs]"""
    with torch.inference_mode(), thread_count(1):
        rows = torch.from_numpy(tokens)
        found = torch.cat([network(rows[start : start + CHUNK]) for start in range(0, max(len(rows), 1), CHUNK)], 1)
        return found.double().numpy()


class Guide:
    """E[y | decided tokens] of targets of about unit scale; the mean of an ensemble, and its disagreement."""

    def __init__(self, slots: Slots, config: GuideConfig, seed: int) -> None:
        self._slots, self._config, self._seed = slots, config, seed
        self._network = Perceptrons(slots, config, 1, seed)

    def fit(self, tokens: Tokens, targets: Floats) -> None:
        """Learn from sequences [n, L] and their targets [n]; one fit per instance."""
        wanted = torch.from_numpy(targets).float()

        def loss(outputs: Tensor, rows: Tensor) -> Tensor:
            return ((outputs[..., 0] - wanted[rows]) ** 2).mean(1).sum()

        _learn(self._network, torch.from_numpy(tokens), self._slots.mask, self._config, self._seed, loss)

    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """Mean and standard deviation over the members, [m] each, for sequences [m, L] with MASK."""
        found = _outputs(self._network, tokens)[..., 0]
        return found.mean(axis=0), found.std(axis=0)


class Number:
    """A number of complete architectures: a line through one-hot tokens, and an ensemble of what that leaves.

    It is standardised, and its logarithm is learned where all examples are positive and that makes a better line. Each
    member leaves out a part of the examples, by which predictions are judged.
    """

    def __init__(self, slots: Slots, tokens: Tokens, values: Floats, seed: int) -> None:
        members = NUMBER.members
        turn = generator(seed, "folds").permutation(len(values)) % members
        left = turn[None, :] == numpy.arange(members)[:, None]
        columns = _one_hot(slots, tokens)
        self._slots = slots
        found = []
        for logarithmic in (False, True) if values.min() > 0 else (False,):
            scaled = numpy.log(values) if logarithmic else values
            mean, scale = float(scaled.mean()), float(scaled.std()) or 1.0
            for ridge in RIDGES:
                lines = _lines(columns, (scaled - mean) / scale, left, ridge)
                off = (columns @ lines.T).T - (scaled - mean) / scale
                found.append((float((off[left] ** 2).mean()), logarithmic, mean, scale, lines, off))
        _, self._logarithmic, self._mean, self._scale, self._lines, off = min(found, key=lambda one: one[0])
        spread = float(off.std()) or 1.0
        learned, rest = torch.from_numpy(~left).float(), torch.from_numpy(-off / spread).float()
        self._spread = spread
        self._network = Perceptrons(slots, NUMBER, 1, derive(seed, "number"))

        def loss(outputs: Tensor, rows: Tensor) -> Tensor:
            return (learned[:, rows] * (outputs[..., 0] - rest[:, rows]) ** 2).mean(1).sum()

        _learn(self._network, torch.from_numpy(tokens), slots.mask, NUMBER, derive(seed, "number"), loss)
        self._left = self._members(tokens)[left], numpy.broadcast_to(self.standard(values), left.shape)[left]

    def standard(self, values: Any) -> Any:
        """Values as they are learned."""
        if self._logarithmic:
            values = numpy.log(numpy.maximum(values, numpy.finfo(float).tiny))
        return (values - self._mean) / self._scale

    def error(self, about: float) -> float:
        """How far predictions of about this standardised number are off, root mean square: numbers that spread over
        orders of magnitude are not equally well known everywhere."""
        predicted, true = self._left
        near = numpy.argsort(numpy.abs(predicted - about), kind="stable")[: max(NEAR, len(true) // 10)]
        return max(float(numpy.sqrt(((predicted - true)[near] ** 2).mean())), LEAST_ERROR)

    def predict(self, tokens: Tokens) -> Floats:
        """Standardised [m], of sequences [m, L] without MASK."""
        return numpy.asarray(self._members(tokens).mean(axis=0))

    def _members(self, tokens: Tokens) -> Floats:
        """[members, m]"""
        lines = self._lines @ _one_hot(self._slots, tokens).T
        return numpy.asarray(lines + self._spread * _outputs(self._network, tokens)[..., 0])


class CompleteBound:
    """How likely a number of complete architectures is as it is wanted, by what `Number` learns from the examples.

    Raises UsageError where no example is a finite number.
    """

    def __init__(self, slots: Slots, wanted: Wanted, seed: int) -> None:
        self._at_most = wanted.at_most
        values = numpy.array(wanted.values, dtype=numpy.float64)
        finite = numpy.isfinite(values)
        if not finite.any():
            raise UsageError(
                f"a limit of {wanted.limit:g} on a number of which none of {len(values)} examples is finite"
            )
        self._number = Number(slots, slots.encode(wanted.archs)[finite], values[finite], seed)
        self._limit = float(self._number.standard(_between(wanted, values[finite])))
        self._error = self._number.error(self._limit)

    def log_probability(self, tokens: Tokens) -> Floats:
        """[m], for sequences [m, L] without MASK."""
        from scipy.special import log_ndtr

        room = ((self._limit - self._number.predict(tokens)) / self._error).clip(-SURE, SURE)
        return numpy.asarray(log_ndtr(room if self._at_most else -room))


class PropertyBound:
    """How likely a number will be as it is wanted, given the decided tokens, if all others are drawn at random.

    `CompleteBound` says of any complete architecture how likely the number is as wanted. An ensemble learns the mean of
    that over the completions of partly decided architectures, from `COMPLETIONS` random ones, decided in the orders in
    which a sampler does it. Added to the log-probabilities of an unguided generator that is Bayes' rule. Raises
    UsageError where no example is a finite number.
    """

    def __init__(self, slots: Slots, wanted: Wanted, seed: int) -> None:
        self._slots, self._absence = slots, Absence(slots)
        self._complete = CompleteBound(slots, wanted, seed)
        random = slots.walk(COMPLETIONS, generator(seed, "completions"))
        for step in range(slots.count):
            allowed = random.allowed(step)
            draws = generator(seed, "completions", step).random(allowed.shape)
            random.decide(step, numpy.argmax(numpy.where(allowed, draws, -1.0), axis=1))
        self._chance = Perceptrons(slots, CHANCE, 1, derive(seed, "chance"))
        chances = torch.from_numpy(numpy.exp(self._complete.log_probability(random.tokens))).float()

        def loss(outputs: Tensor, rows: Tensor) -> Tensor:
            likely = chances[rows].expand(outputs.shape[:2])
            return functional.binary_cross_entropy_with_logits(outputs[..., 0], likely)

        places = torch.from_numpy(self._absence.places(random.tokens, random.orders))
        _learn(self._chance, torch.from_numpy(random.tokens), slots.mask, CHANCE, derive(seed, "chance"), loss, places)

    def log_probability(self, tokens: Tokens) -> Floats:
        """[m], for sequences [m, L] with MASK."""
        from scipy.special import log_expit

        tokens = self._absence.filled(tokens)
        found = numpy.asarray(log_expit(_outputs(self._chance, tokens)[..., 0].mean(axis=0)))
        complete = numpy.flatnonzero((tokens != self._slots.mask).all(axis=1))
        if len(complete):
            found[complete] = self._complete.log_probability(tokens[complete])
        return found


class Absence:
    """Undecided slots that are known to be absent, because a condition of theirs does not hold.

    So an architecture whose last choices depend on others may be complete, and judged as such, long before its last
    slot is decided.
    """

    def __init__(self, slots: Slots) -> None:
        self._mask = slots.mask
        choices = slots.space.choices
        place = {choice.name: slot for slot, choice in enumerate(choices)}
        self._fails: list[tuple[int, int, Masks]] = []  # slot, the slot that it depends on, tokens of that [W + 1]
        for slot, choice in enumerate(choices):
            for condition in choice.when:
                fails = numpy.zeros(slots.width + 1, dtype=bool)
                options = choices[place[condition.name]].options
                fails[: 1 + len(options)] = [True, *(option not in condition.values for option in options)]
                self._fails.append((slot, place[condition.name], fails))

    def filled(self, tokens: Tokens) -> Tokens:
        """Sequences [m, L] with 0 instead of MASK where a slot is absent."""
        found = tokens.copy()
        for slot, other, fails in self._fails:  # in the order of the space: what is absent makes others absent
            found[fails[found[:, other]] & (found[:, slot] == self._mask), slot] = 0
        return found

    def places(self, tokens: Tokens, orders: Tokens) -> Tokens:
        """The step [n, L] at which the token of a slot is known, of complete sequences decided in `orders` [n, L]."""
        found = numpy.argsort(orders, axis=1)
        for slot, other, fails in self._fails:
            earlier = numpy.minimum(found[:, slot], found[:, other])
            found[:, slot] = numpy.where(fails[tokens[:, other]], earlier, found[:, slot])
        return found


def _one_hot(slots: Slots, tokens: Tokens) -> Floats:
    """[n, L W + 1], the last column constant."""
    found = numpy.ones((len(tokens), slots.count * slots.width + 1))
    found[:, :-1] = (tokens[:, :, None] == numpy.arange(slots.width)).reshape(len(tokens), -1)
    return found


def _lines(columns: Floats, numbers: Floats, left: Masks, ridge: float) -> Floats:
    """Ridge regressions [members, columns], each without the rows that it leaves out."""
    found = []
    for out in left:
        rows, wanted = columns[~out], numbers[~out]
        found.append(numpy.linalg.solve(rows.T @ rows + ridge * numpy.eye(rows.shape[1]), rows.T @ wanted))
    return numpy.stack(found)


def _between(wanted: Wanted, values: Floats) -> float:
    """The limit, moved to the middle between the examples next to it: one that just meets it is not a doubtful one."""
    met = values <= wanted.limit if wanted.at_most else values >= wanted.limit
    if met.all() or not met.any():
        return wanted.limit
    pair = (values[met].max(), values[~met].min()) if wanted.at_most else (values[met].min(), values[~met].max())
    return float(sum(pair)) / 2
