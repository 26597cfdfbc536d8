"""The recurrent controller that reinforce, ppo and agnn-rl share: an LSTM that reads and writes architectures.

Zoph, Vasudevan, Shlens and Le, "Learning Transferable Architectures for Scalable Image Recognition" (NASNet), CVPR
2018, appendix A.1: one layer of 100 units, all weights uniform in +-0.1. Every decision is a softmax over the
options, the embedding of a decision is the next input, and the probability of an architecture is the product of
its softmaxes:

    log pi(a) = sum_t log softmax(W h_t + b)[a_t],    h_t, c_t = LSTM(value(a_{t-1}) + choice_t, h_{t-1}, c_{t-1}).

It works on any space. Choices are walked in order, inactive ones are skipped, and the softmax is over the options
that the space allows after the earlier decisions. Choices of one kind share embeddings and heads by option, also
where they offer different options. Deviations: the paper has a head per position; here `choice_t`, a learned
embedding of the choice that comes next, tells positions apart.

Numbers are float64. Sampling is numpy without BLAS, gradients are torch in one thread, so results depend neither
on the number of threads nor on torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.space import SearchSpace
from training.threads import thread_count

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor

    Array = NDArray[numpy.float64]
    Loss = Callable[[Tensor, Tensor], Tensor]

UNITS = 100
SPREAD = 0.1
BETAS = (0.9, 0.999)
EPSILON = 1e-8
EMPTY: Mapping[str, Value] = MappingProxyType({})


class Vocabulary:
    """One token per kind and option. Token 0 is the start; a choice without a kind is a kind of its own."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.positions = {choice.name: position for position, choice in enumerate(choices)}
        self._tokens: dict[tuple[object, ...], int] = {}
        for choice in choices:
            for option in choice.options:
                self._tokens.setdefault(self._key(choice, option), 1 + len(self._tokens))
        self.size = 1 + len(self._tokens)

    def token(self, choice: Choice, option: Value) -> int:
        return self._tokens[self._key(choice, option)]

    @staticmethod
    def _key(choice: Choice, option: Value) -> tuple[object, ...]:
        # True, 1 and 1.0 are one key of a dictionary, but three options.
        return (bool(choice.kind), choice.kind or choice.name, type(option).__name__, option)


@dataclass(frozen=True, slots=True)
class Script:
    """What the controller reads or writes, in `T` steps: `choices` `[T]` (positions), `tokens` `[T]`, and `allowed`
    `[T, V]`, the tokens of each softmax. A step that allows none is read: it has no probability."""

    choices: NDArray[numpy.int64]
    tokens: NDArray[numpy.int64]
    allowed: NDArray[numpy.bool_]


class Controller:
    """An LSTM over the choices of a space, with its Adam optimiser.

    All weights lie in one vector, so that a snapshot is four entries. `spread` 0 makes every softmax uniform.
    """

    def __init__(self, space: SearchSpace, rng: Generator, units: int = UNITS, learning_rate: float = 0.01) -> None:
        self.vocabulary = Vocabulary(space.choices)
        self._space = space
        self.units = units
        self._learning_rate = learning_rate
        words = self.vocabulary.size
        self.shapes = {
            "value": (words, units),
            "choice": (len(space.choices), units),
            "input": (units, 4 * units),
            "recurrent": (units, 4 * units),
            "gates": (4 * units,),
            "head": (units, words),
            "bias": (words,),
        }
        self.weights: Array = rng.uniform(-SPREAD, SPREAD, sum(map(math.prod, self.shapes.values())))
        self._moments = numpy.zeros((2, len(self.weights)))
        self.steps = 0

    def parts(self) -> dict[str, Array]:
        """The weights by name, as views of the vector."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            found[name] = self.weights[start : start + size].reshape(shape)
            start += size
        return found

    def sample(self, rng: Generator) -> tuple[Architecture, float]:
        """An architecture, and its log-probability under the current weights."""
        reader = Reader(self)
        arch = moves.complete(self._space, {}, lambda choice, options: reader.write(choice, options, rng))
        return arch, reader.log_probability

    def log_probability(self, arch: Architecture) -> float:
        """That of an architecture under the current weights: what `sample` reports where it draws it."""
        reader = Reader(self)
        moves.complete(
            self._space, {}, lambda choice, options: reader.write_as(choice, options, arch.values[choice.name])
        )
        return reader.log_probability

    def script(
        self, arch: Architecture, given: Mapping[str, Value] = EMPTY, written: Collection[str] | None = None
    ) -> Script:
        """The steps in which the controller reads `given` and then writes `arch`, or the choices `written` of it."""
        steps: list[tuple[Choice, Value, tuple[Value, ...]]] = []
        for choice in self._space.choices:
            if choice.name in given:
                steps.append((choice, given[choice.name], ()))
        prefix: dict[str, Value] = {}
        for choice in self._space.choices:
            if choice.name not in arch.values:
                continue
            value = arch.values[choice.name]
            if written is None or choice.name in written:
                steps.append((choice, value, self._space.allowed(choice, prefix)))
            prefix[choice.name] = value
        words = self.vocabulary
        allowed = numpy.zeros((len(steps), words.size), dtype=bool)
        for row, (choice, _, options) in enumerate(steps):
            allowed[row, [words.token(choice, option) for option in options]] = True
        return Script(
            numpy.array([words.positions[choice.name] for choice, _, _ in steps], dtype=numpy.int64),
            numpy.array([words.token(choice, value) for choice, value, _ in steps], dtype=numpy.int64),
            allowed,
        )

    # -- learning -----------------------------------------------------------------------------------------

    def log_probabilities(self, scripts: Sequence[Script], parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Joint log-probability and summed entropy of the softmaxes of each script, `[B]` and `[B]`, under the
        weights `parts` (tensors of the shapes in `shapes`)."""
        import torch

        length = max(len(script.tokens) for script in scripts)
        choices = numpy.zeros((len(scripts), length), dtype=numpy.int64)
        tokens = numpy.zeros((len(scripts), length), dtype=numpy.int64)
        allowed = numpy.zeros((len(scripts), length, self.vocabulary.size), dtype=bool)
        for row, script in enumerate(scripts):
            steps = len(script.tokens)
            choices[row, :steps], tokens[row, :steps] = script.choices, script.tokens
            allowed[row, :steps] = script.allowed
        previous = torch.from_numpy(numpy.pad(tokens, ((0, 0), (1, 0)))[:, :-1])
        inputs = parts["value"][previous] + parts["choice"][torch.from_numpy(choices)]
        gates = inputs @ parts["input"] + parts["gates"]
        hidden = cell = gates.new_zeros(len(scripts), self.units)
        states = []
        for step in range(length):
            entry, forget, update, output = (gates[:, step] + hidden @ parts["recurrent"]).chunk(4, dim=-1)
            cell = forget.sigmoid() * cell + entry.sigmoid() * update.tanh()
            hidden = output.sigmoid() * cell.tanh()
            states.append(hidden)
        logits = torch.stack(states, dim=1) @ parts["head"] + parts["bias"]
        mask = torch.from_numpy(allowed)
        written = mask.any(dim=-1)
        mask = mask | ~written[..., None]  # the softmax of a step that is only read is not used, but must be finite
        logs = logits.masked_fill(~mask, -torch.inf).log_softmax(dim=-1)
        taken = logs.gather(-1, torch.from_numpy(tokens)[..., None])[..., 0]
        terms = torch.where(mask, logs.exp() * logs.masked_fill(~mask, 0.0), 0.0).sum(dim=-1)
        return torch.where(written, taken, 0.0).sum(dim=-1), -torch.where(written, terms, 0.0).sum(dim=-1)

    def gradient(self, scripts: Sequence[Script], loss: Loss) -> Array:
        """The gradient of `loss(log-probabilities, entropies)` in the weights."""
        import torch

        with thread_count(1):
            parts = {name: torch.from_numpy(part).requires_grad_() for name, part in self.parts().items()}
            found = torch.autograd.grad(loss(*self.log_probabilities(scripts, parts)), list(parts.values()))
            return numpy.concatenate([part.numpy().ravel() for part in found])

    def learn(self, scripts: Sequence[Script], loss: Loss) -> None:
        """One step of Adam (Kingma and Ba, ICLR 2015, Algorithm 1) down the gradient of `loss`."""
        gradient = self.gradient(scripts, loss)
        self.steps += 1
        first, second = self._moments
        first += (1 - BETAS[0]) * (gradient - first)
        second += (1 - BETAS[1]) * (gradient * gradient - second)
        scale = self._learning_rate / (1 - BETAS[0] ** self.steps)
        self.weights -= scale * first / (numpy.sqrt(second / (1 - BETAS[1] ** self.steps)) + EPSILON)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.copy(), "moments": self._moments.copy(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights = numpy.array(state["weights"], dtype=numpy.float64)
        self._moments = numpy.array(state["moments"], dtype=numpy.float64)
        self.steps = int(state["steps"])


class Reader:
    """The controller while it reads and writes one architecture: `log_probability` is that of what it wrote so far,
    `entropy` the sum over the softmaxes that it drew from."""

    def __init__(self, controller: Controller) -> None:
        self._words = controller.vocabulary
        self._parts = controller.parts()
        self._hidden = self._cell = numpy.zeros(controller.units)
        self._previous = 0
        self.log_probability = 0.0
        self.entropy = 0.0

    def read(self, choice: Choice, value: Value) -> None:
        self._advance(choice)
        self._previous = self._words.token(choice, value)

    def write(self, choice: Choice, options: Sequence[Value], rng: Generator) -> Value:
        """One of the options, drawn from the softmax over them."""
        tokens, logs = self._softmax(choice, options)
        drawn = int(numpy.searchsorted(numpy.exp(logs).cumsum(), rng.random(), side="right"))
        drawn = min(drawn, len(tokens) - 1)  # the sum may round to less than 1
        self._take(tokens, logs, drawn)
        return options[drawn]

    def write_as(self, choice: Choice, options: Sequence[Value], value: Value) -> Value:
        """The same for a value that is not drawn but known."""
        self._take(*self._softmax(choice, options), options.index(value))
        return value

    def _softmax(self, choice: Choice, options: Sequence[Value]) -> tuple[list[int], Array]:
        """The tokens of the options, and their log-probabilities."""
        self._advance(choice)
        tokens = [self._words.token(choice, option) for option in options]
        logits = numpy.einsum("i,ij->j", self._hidden, self._parts["head"][:, tokens]) + self._parts["bias"][tokens]
        logits -= logits.max()
        logs: Array = logits - numpy.log(numpy.exp(logits).sum())
        return tokens, logs

    def _take(self, tokens: list[int], logs: Array, taken: int) -> None:
        self.log_probability += float(logs[taken])
        self.entropy -= float((numpy.exp(logs) * logs).sum())
        self._previous = tokens[taken]

    def _advance(self, choice: Choice) -> None:
        parts = self._parts
        inputs = parts["value"][self._previous] + parts["choice"][self._words.positions[choice.name]]
        gates = numpy.einsum("i,ij->j", inputs, parts["input"]) + parts["gates"]
        gates += numpy.einsum("i,ij->j", self._hidden, parts["recurrent"])
        entry, forget, update, output = gates.reshape(4, -1)
        self._cell = _sigmoid(forget) * self._cell + _sigmoid(entry) * numpy.tanh(update)
        self._hidden = _sigmoid(output) * numpy.tanh(self._cell)


def _sigmoid(values: Array) -> Array:
    return 0.5 * numpy.tanh(0.5 * values) + 0.5
