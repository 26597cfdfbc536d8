"""Knowledge distillation: a network learns from a trained one beside the labels.

Hinton, Vinyals and Dean, 2015 (arXiv 1503.02531), section 2: with teacher's and student's logits softened by a
temperature T, `(1 - alpha) loss + alpha T^2 KL(softmax(teacher / T) || softmax(student / T))`; the factor keeps the
size of the gradient whatever T is. Where outputs are numbers, the squared error to the teacher's takes the place of
the divergence, without a temperature.

Romero et al., "FitNets", ICLR 2015, equation 3: `features / 2` times the squared error between a layer of the teacher
(the hint) and a regressor of one of the student (the guided layer), which is trained with it. Deviations: the term is
added in one stage, not in one before; the error is a mean over the features, so that its weight does not depend on how
many there are; the regressor is a linear map of each position (a 1 x 1 convolution); by default both layers are what
the classifiers read. Maps of different sizes are averaged to the smaller one.

The teacher is in evaluation mode and learns nothing; it sees what the student sees, augmentation and mixup included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from nas_core.errors import UsageError, nearest
from nas_core.seeds import derive
from training.regimes.regime import Regime, Settings
from training.tasks import kind_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas_core.batch import Batch
    from training.compute import Forward
    from training.teacher import Teacher


class Distillation(Settings):
    """Learn from a teacher's outputs and features too."""

    alpha: float = Field(
        default=0.9, ge=0, le=1, description="share of the teacher in the loss; 0.5 where labels are few"
    )
    temperature: float = Field(default=4.0, gt=0, le=100, allow_inf_nan=False, description="that softens both outputs")
    features: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="weight of the error of features; 0: none"
    )
    hint: str | None = Field(default=None, description="module of the teacher [default: what its classifier reads]")
    guided: str | None = Field(default=None, description="module of the student [default: what its classifier reads]")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("hint", "guided"):
            if getattr(self, name) is not None and self.features == 0:
                raise ValueError(f"{name} is for features, whose weight is 0; give features too, 1 for example")
        return self

    def regime(self, teacher: Teacher | None) -> Regime:
        if teacher is None:
            raise UsageError("recipe: distillation needs a teacher; name a trained network by --teacher of 'nas train'")
        return Taught(self, teacher)


class Taught(Regime):
    """The terms of the loss, and the regressor of the features."""

    def __init__(self, settings: Distillation, teacher: Teacher) -> None:
        self._settings, self._teacher = settings, teacher
        self._kind = kind_of(teacher.task)
        self._regressor: nn.Module | None = None

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        self._forward = forward
        self._network = forward.place(self._teacher.load()).eval().requires_grad_(False)
        if self._settings.features == 0:
            return
        self._hint = tap(self._network, self._settings.hint, f"teacher '{self._teacher.reference}'", forward, example)
        self._guided = tap(network, self._settings.guided, "the network", forward, example)
        wanted, given = (_width(one.seen(), one) for one in (self._hint, self._guided))
        self._regressor = forward.place(_regressor(given, wanted, derive(seed, "regressor")))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [] if self._regressor is None else [{"params": list(self._regressor.parameters())}]

    @contextmanager
    def watching(self) -> Iterator[None]:
        if self._regressor is None:
            yield
            return
        with self._guided:
            yield

    def objective(self, loss: Tensor, piece: Batch, logits: Tensor) -> Tensor:
        import torch

        settings = self._settings
        if self._regressor is None:
            with torch.no_grad():
                taught = self._answer(piece)
        else:
            with torch.no_grad(), self._hint:
                taught = self._answer(piece)
        student, teacher = piece.scored(logits)[0], piece.scored(taught)[0]
        loss = (1 - settings.alpha) * loss
        loss = loss + settings.alpha * self._kind.divergence(student, teacher, settings.temperature)
        if self._regressor is not None:
            wanted, given = piece.scored(self._hint.seen())[0], piece.scored(self._guided.seen())[0]
            loss = loss + settings.features / 2 * _error(self._regressor, given, wanted)
        return loss

    def tensors(self) -> Mapping[str, Tensor]:
        return {} if self._regressor is None else self._regressor.state_dict()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        if self._regressor is not None:
            self._regressor.load_state_dict(dict(tensors))

    def description(self) -> Mapping[str, Any]:
        return {"teacher": self._teacher.sha256}

    def _answer(self, piece: Batch) -> Tensor:
        answer: Tensor = self._forward(self._network, piece)
        return answer


class Tap:
    """What a module gives, or reads: caught within `with`, held until it is `seen`, and by no copy of the network."""

    def __init__(self, module: nn.Module, name: str, *, reads: bool) -> None:
        self.name = name
        self._module, self._reads = module, reads
        self._caught: Tensor | None = None

    def __enter__(self) -> Tap:
        if self._reads:
            self._handle = self._module.register_forward_pre_hook(lambda _, inputs: self._catch(inputs[0]))
        else:
            self._handle = self._module.register_forward_hook(lambda _, __, output: self._catch(output))
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _catch(self, value: Tensor) -> None:
        self._caught = value

    def seen(self) -> Tensor:
        """What was caught last, in float32, which is let go. Raises UsageError where nothing was."""
        from torch import Tensor

        value, self._caught = self._caught, None
        if not isinstance(value, Tensor) or value.dim() < 2:
            raise UsageError(f"recipe: distillation: module '{self.name}' gives no features; name another one")
        return value.float()


def tap(network: nn.Module, name: str | None, who: str, forward: Forward, example: Batch) -> Tap:
    """The tap at the module of this name, by default at what the classifier reads, after one pass of `example` in
    evaluation mode. Raises UsageError where there is no such module, or no classifier."""
    import torch
    from torch import nn

    modules = dict(network.named_modules())
    if name is not None and name not in modules:
        raise UsageError(f"recipe: distillation: {who} has no module '{name}'{nearest(name, modules)}")
    called: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, __, found=found: called.append(found))
        for found, module in modules.items()
        if isinstance(module, nn.Linear)
    ]
    was = network.training
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            forward(network, example)
            found = called[-1] if name is None and called else name
            for hook in hooks:
                hook.remove()
            if found is None:
                raise UsageError(
                    f"recipe: distillation: {who} has no linear classifier whose features could be matched; name a "
                    "module by hint (of the teacher) or guided (of the network)"
                )
            made = Tap(modules[found], found, reads=name is None)
            with made:
                forward(network, example)
    finally:
        network.train(was)
    return made


def _width(features: Tensor, of: Tap) -> tuple[int, bool]:
    """Features of one position, and whether they are maps."""
    if features.dim() not in (2, 4):
        raise UsageError(
            f"recipe: distillation: module '{of.name}' gives features of shape {tuple(features.shape)}; take one that "
            "gives [n, features] or maps [n, channels, h, w]"
        )
    return features.shape[1], features.dim() == 4


def _regressor(given: tuple[int, bool], wanted: tuple[int, bool], seed: int) -> nn.Module:
    """From features of one width to those of another, with weights that depend on the seed alone."""
    import torch
    from torch import nn

    if given[1] != wanted[1]:
        raise UsageError("recipe: distillation: hint and guided must both be maps [n, channels, h, w], or both not")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made: nn.Module = nn.Conv2d(given[0], wanted[0], 1) if given[1] else nn.Linear(given[0], wanted[0])
    return made


def _error(regressor: nn.Module, given: Tensor, wanted: Tensor) -> Tensor:
    """The mean squared error of the regressor's answer."""
    from torch.nn import functional

    answer = regressor(given)
    if answer.dim() == 4 and answer.shape[2:] != wanted.shape[2:]:
        size = tuple(map(min, answer.shape[2:], wanted.shape[2:]))
        answer, wanted = (functional.adaptive_avg_pool2d(maps, size) for maps in (answer, wanted))
    return functional.mse_loss(answer, wanted)
