"""Recipes: how a network is trained, as typed configuration. The named ones belong to the kinds of task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from nas_core.config import Config, validate
from nas_core.errors import UsageError, nearest, unknown
from nas_core.task import Task
from training import tasks
from training.data.augment import PLAIN, Augment
from training.regimes.adapters import Adapters
from training.regimes.distillation import Distillation
from training.regimes.orthonormality import Orthonormality
from training.regimes.regime import Settings

CYCLIC = ("triangular", "triangular2", "exp_range")
CYCLE_EPOCHS = 4  # Smith's CIFAR-10 runs: 2,000 iterations of 500 per epoch
# Of each of these schedules; another one refuses them, and records of a recipe without them leave them out.
_OWN = {
    "lr_base": CYCLIC,
    "cycle_epochs": CYCLIC,
    "gamma": ("exp_range",),
    "milestones": ("step",),
    "plateau_factor": ("plateau",),
    "plateau_patience": ("plateau",),
}
PLATEAU = (0.1, 10)  # factor and patience of torch's ReduceLROnPlateau
THRESHOLD = 1e-4  # by which share a loss must be lower to be better, as there
# Left out of records at these values, as the records from before the field are; and where they are None, but for
# fields of the first version.
_UNUSED: Mapping[str, Any] = {"loss": "cross_entropy", "label_smoothing": 0.0, "mixup": 0.0, "keep": "last"}
_FIRST = ("grad_clip",)

# What an architecture may decide. What is minimised, kept and reported is one thing in all of a study.
DECIDED = (
    *("epochs", "optimizer", "lr", "lr_end", "momentum", "nesterov", "weight_decay", "schedule", "warmup_epochs"),
    *(
        "lr_base",
        "cycle_epochs",
        "gamma",
        "plateau_factor",
        "plateau_patience",
        "batch_size",
        "grad_clip",
        "mixup",
        "label_smoothing",
        "ema",
    ),
)


def losses() -> Mapping[str, tuple[str, ...]]:
    """Losses of all kinds of task, which need no file, each with the fields that it knows for one kind or another."""
    found: dict[str, tuple[str, ...]] = {}
    for kind in tasks.all_kinds():
        for name, fields in kind.losses.items():
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *fields)))
    return found


class Recipe(Config):
    """One training: optimiser, schedule, batches, augmentation, number format."""

    epochs: int = Field(ge=1, le=100_000, description="length of the full training, and horizon of the schedule")
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0, le=10, description="highest learning rate")
    lr_end: float = Field(default=0.0, ge=0, le=10, description="rate at which the cosine ends; lowest of plateau")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd; beta 1 of adam and adamw")
    nesterov: bool = Field(default=False, description="Nesterov momentum, sgd only")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="L2 for sgd and adam, decoupled for adamw")
    schedule: Literal["cosine", "constant", "step", "plateau", "triangular", "triangular2", "exp_range"] = Field(
        default="cosine", description="the last three are cycles, stepped every iteration; the others every epoch"
    )
    warmup_epochs: int = Field(default=0, ge=0, description="epochs of linear rise to lr before the schedule")
    milestones: tuple[tuple[int, float], ...] = Field(
        default=(), description="step: (epoch, factor); from that epoch (the first is 0) on, lr times factor"
    )
    lr_base: float | None = Field(default=None, gt=0, le=10, description="lowest rate of a cycle [default: lr / 4]")
    cycle_epochs: int | None = Field(
        default=None, ge=1, le=50_000, description="epochs of half a cycle (Smith: 2 to 10) [default: 4]"
    )
    gamma: float | None = Field(default=None, gt=0, le=1, description="exp_range: the height's factor per iteration")
    plateau_factor: float | None = Field(
        default=None, gt=0, lt=1, description="plateau: what lr is multiplied by where val_loss falls no more [0.1]"
    )
    plateau_patience: int | None = Field(
        default=None, ge=0, description="plateau: epochs without a lower val_loss before lr falls [10]"
    )
    batch_size: int = Field(
        default=64, ge=1, le=65_536, description="samples of a batch; one graph is a batch as a whole, without fan_out"
    )
    fan_out: tuple[int, ...] | None = Field(
        default=None,
        description="of one graph: batches of batch_size nodes, with so many neighbours per hop (-1: all)",
    )
    grad_clip: float | None = Field(default=None, gt=0, description="largest norm of all gradients together")
    augment: Augment = Field(default=PLAIN, description="of training images")
    mixup: float = Field(
        default=0.0,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="alpha of mixup, usually 0.2 to 1 (Zhang et al. 2018)",
    )
    loss: str = Field(default="cross_entropy", description="cross_entropy, multi_margin_loss or FILE.py:FUNCTION")
    class_weights: Literal["balanced", "complement"] | None = Field(
        default=None,
        description="balanced: of a class inversely to its training samples; complement: the share of each batch that "
        "is of other classes",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target spread over all classes")
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="decay per step of averaged weights, which are evaluated and kept"
    )
    keep: Literal["last", "best"] = Field(default="last", description="the epoch whose weights and figures count")
    patience: int | None = Field(
        default=None, ge=1, description="end the training after so many epochs without a better one"
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast where the processor is faster with it"
    )
    orthonormality: Orthonormality | None = Field(
        default=None, description="a term of the loss for deep plain networks"
    )
    distillation: Distillation | None = Field(default=None, description="what is learned of a teacher, and how")
    adapters: Adapters | None = Field(
        default=None, description="low-rank corrections are trained, and biases, instead of all weights"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimizer sgd and a momentum above 0")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} leaves none of {self.epochs} epochs to train")
        if self.fan_out is not None and (not self.fan_out or any(most < 1 and most != -1 for most in self.fan_out)):
            raise ValueError(
                f"fan_out {list(self.fan_out)}: say for every hop how many neighbours are drawn of a node, 1 or more, "
                "or -1 for all, for example [10, 5]"
            )
        if self.lr_end > self.lr:
            raise ValueError(f"lr_end {self.lr_end:g} is above lr {self.lr:g}")
        for name, schedules in _OWN.items():
            if getattr(self, name) not in (None, ()) and self.schedule not in schedules:
                raise ValueError(f"{name} is for schedule {' or '.join(schedules)}, not for {self.schedule}")
        if self.schedule == "step":
            self._check_milestones()
        if self.cyclic:
            self._check_cycles()
        self._check_loss()
        return self

    def _check_loss(self) -> None:
        known = losses()
        if self.loss not in known and ":" not in self.loss:
            raise ValueError(
                f"unknown loss '{self.loss}'{nearest(self.loss, known)} ({', '.join(known)}, FILE.py:NAME)"
            )
        for name in ("class_weights", "label_smoothing"):
            if getattr(self, name) and name not in known.get(self.loss, ()):
                able = " or ".join(loss for loss, fields in known.items() if name in fields)
                raise ValueError(f"{name} is for loss {able}, not for {self.loss}, which has its own way with targets")

    def _check_milestones(self) -> None:
        epochs = [epoch for epoch, _ in self.milestones]
        if not epochs:
            raise ValueError("schedule step needs milestones, for example [[30, 0.1], [60, 0.01]]")
        if epochs != sorted(set(epochs)) or epochs[0] < 0:
            raise ValueError(f"the epochs of milestones must rise from 0 or more, not {epochs}")
        if epochs[-1] >= self.epochs:
            raise ValueError(
                f"milestone {epochs[-1]} is never reached in {self.epochs} epochs; give milestones that fit them"
            )
        wrong = [factor for _, factor in self.milestones if not 0 < factor <= 1]
        if wrong:
            raise ValueError(f"factor {wrong[0]:g} of milestones is not above 0 and at most 1; lr is the highest rate")

    def _check_cycles(self) -> None:
        half, base = self.half_cycle, self.lowest
        if base >= self.lr:
            raise ValueError(f"lr_base {base:g} is not below lr {self.lr:g}, the top of the cycle")
        if self.warmup_epochs or self.lr_end:
            name = "warmup_epochs" if self.warmup_epochs else "lr_end"
            raise ValueError(f"{name} must be 0 with {self.schedule}: a cycle starts and ends at lr_base")
        if self.schedule == "exp_range" and self.gamma is None:
            raise ValueError("schedule exp_range needs gamma, the factor per iteration, for example 0.9999")
        if self.epochs % (2 * half):
            below = self.epochs // (2 * half) * 2 * half
            fitting = f"{below} or {below + 2 * half}" if below else str(2 * half)
            raise ValueError(
                f"{self.epochs} epochs are no whole number of cycles of 2 x cycle_epochs = {2 * half} epochs, so the "
                f"training would end at a high rate; take epochs {fitting}, or another cycle_epochs"
            )

    @model_serializer(mode="wrap")
    def _without_the_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A recipe that does not use a setting is stored as it was before the setting existed.
        return {
            name: value
            for name, value in handler(self).items()
            if (value is not None or name in _FIRST)
            and not (name in _OWN and value in ((), []))
            and not (name in _UNUSED and value == _UNUSED[name])
        }

    @property
    def regimes(self) -> tuple[Settings, ...]:
        """What the training does beyond the ordinary step, in the order of the fields."""
        fields = (getattr(self, name) for name in type(self).model_fields)
        return tuple(value for value in fields if isinstance(value, Settings))

    @property
    def ordinary(self) -> Recipe:
        """The same without anything beyond the ordinary step."""
        names = (name for name in type(self).model_fields if isinstance(getattr(self, name), Settings))
        return self.model_copy(update=dict.fromkeys(names))

    @property
    def selects(self) -> bool:
        """Whether one epoch is told from another by a validation metric."""
        return self.keep == "best" or self.patience is not None

    @property
    def cyclic(self) -> bool:
        """Whether the learning rate changes with every iteration."""
        return self.schedule in CYCLIC

    @property
    def half_cycle(self) -> int:
        """Epochs from the lowest to the highest rate of a cycle."""
        return self.cycle_epochs or CYCLE_EPOCHS

    @property
    def lowest(self) -> float:
        """Learning rate at the ends of a cycle."""
        return self.lr / 4 if self.lr_base is None else self.lr_base


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int = 1, losses: Sequence[float] = ()) -> float:
    """The learning rate of optimiser step `step` (from 0); by default steps are epochs. `losses` are the validation
    losses of the epochs before, which "plateau" goes by.

    Cycles (Smith, WACV 2017, section 3) have a rate for every step. With stepsize s = half_cycle * steps_per_epoch,
    cycle = floor(1 + step / 2s) and x = |step / s - 2 cycle + 1| it is base + (lr - base) (1 - x) scale, where scale is
    1 (triangular), 2^(1 - cycle) (triangular2) or gamma^step (exp_range).

    The others are constant within an epoch, as NAS-Bench-201 trains. Warm-up over w epochs: lr (epoch + 1) / (w + 1).
    Cosine (Loshchilov and Hutter, ICLR 2017, equation 5) over the remaining T epochs:
    lr_end + (lr - lr_end) (1 + cos(pi (epoch - w) / T)) / 2. Step: lr times the factor of the last milestone. Plateau:
    lr times the factor each time that so many epochs in a row were not better than the best one before.
    """
    if recipe.cyclic:
        return _cyclical(recipe, step, recipe.half_cycle * steps_per_epoch)
    epoch, warmup = step // steps_per_epoch, recipe.warmup_epochs
    if epoch < warmup:
        return recipe.lr * (epoch + 1) / (warmup + 1)
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "plateau":
        return _on_plateaus(recipe, losses)
    if recipe.schedule == "step":
        factors = [factor for milestone, factor in recipe.milestones if milestone <= epoch]
        return recipe.lr * (factors[-1] if factors else 1.0)
    done = (epoch - warmup) / (recipe.epochs - warmup)
    return recipe.lr_end + (recipe.lr - recipe.lr_end) * (1 + math.cos(math.pi * done)) / 2


def _on_plateaus(recipe: Recipe, losses: Sequence[float]) -> float:
    """As `torch.optim.lr_scheduler.ReduceLROnPlateau`, told the losses of these epochs, leaves it."""
    factor = PLATEAU[0] if recipe.plateau_factor is None else recipe.plateau_factor
    patience = PLATEAU[1] if recipe.plateau_patience is None else recipe.plateau_patience
    rate, best, waited = recipe.lr, math.inf, 0
    for loss in losses:
        better = loss < best * (1 - THRESHOLD)
        best, waited = (loss, 0) if better else (best, waited + 1)
        if waited > patience:
            rate, waited = max(rate * factor, recipe.lr_end), 0
    return rate


def _cyclical(recipe: Recipe, step: int, stepsize: int) -> float:
    cycle, within = divmod(step, 2 * stepsize)  # cycles count from 0 here
    height = 1 - abs(within / stepsize - 1)
    if recipe.schedule == "triangular2":
        height = math.ldexp(height, -cycle)
    elif recipe.schedule == "exp_range":
        assert recipe.gamma is not None  # validated
        height *= recipe.gamma**step
    return recipe.lowest + (recipe.lr - recipe.lowest) * height


def whole_cycles(epochs: int, usual: int = CYCLE_EPOCHS) -> tuple[int, int]:
    """The fewest epochs, but at least `epochs`, that are whole cycles, and the epochs of half a cycle.

    Of those between half and twice `usual` (2 to 10 by default, as Smith advises), the nearest to `usual` that fits.
    """
    total = epochs
    while True:  # ends at a multiple of 2 x usual at the latest
        fitting = [half for half in range(max(usual // 2, 1), 2 * usual + 3) if total % (2 * half) == 0]
        if fitting:
            return total, min(fitting, key=lambda half: abs(half - usual))
        total += 1


def _shrunk(values: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """Warm-up and milestones of a named recipe in a shorter training: a share of it as before, rounded up."""
    usual = values["epochs"]
    if not 1 <= epochs < usual:
        return {}

    def scaled(epoch: int) -> int:
        return -(-epoch * epochs // usual)

    shrunk: dict[str, Any] = {}
    if "warmup_epochs" in values:
        shrunk["warmup_epochs"] = min(scaled(values["warmup_epochs"]), epochs - 1)
    if "milestones" in values:  # of several that fall on one epoch the last counts
        rising = {scaled(epoch): factor for epoch, factor in values["milestones"]}
        shrunk["milestones"] = tuple((epoch, factor) for epoch, factor in rising.items() if epoch < epochs)
    return shrunk


def recipe(name: str, task: Task, **changes: Any) -> Recipe:
    """The named recipe for a task, with some fields changed (`augment` may be changed in part).

    "standard" augments images by what suits them: padding of an eighth of the height, and a flip where they have
    colours (mirrored digits are other characters). Those of a space ("darts") are for 32 pixels: for other images
    padding and cutout are in proportion, and there is no flip without colours. With fewer epochs than the named recipe
    has, its warm-up and its milestones shrink. A cyclic schedule does without the warm-up.
    Raises UsageError for an unknown name, field or kind of task.
    """
    kind = tasks.kind_of(task)
    if name not in kind.recipes:
        raise unknown("recipe", name, kind.recipes)
    values = _fitted(kind.fitted(name, kind.recipes[name], task), changes)
    if isinstance(changes.get("augment"), Mapping):
        changes["augment"] = {**values.get("augment", {}), **changes["augment"]}
    made = validate(Recipe, {**values, **changes}, "recipe")
    _check_kind(made, task)
    return made


def decided(recipe: Recipe, fields: Mapping[str, Any], task: Task, space: str) -> Recipe:
    """The recipe with the fields that an architecture of a space decides (`nas_core.space.SearchSpace.recipe`).

    With fewer epochs than the recipe has, its warm-up and its milestones shrink; of another optimiser or schedule, what
    belonged to the recipe's own is left out. Raises UsageError for a field that no architecture decides, and for values
    that are none.
    """
    for name in fields:
        if name not in DECIDED:
            raise unknown(f"field of the recipe that an architecture of space '{space}' decides", name, DECIDED)
    values = _fitted(recipe.model_dump(mode="json"), fields)
    if fields.get("optimizer", "sgd") != "sgd":
        values.pop("nesterov")
    schedule = fields.get("schedule", recipe.schedule)
    for name in (name for name, schedules in _OWN.items() if schedule not in schedules):
        values.pop(name, None)
    made = validate(Recipe, {**values, **fields}, f"recipe of an architecture of space '{space}'")
    _check_kind(made, task)
    return made


def _fitted(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values without what belongs to their own schedule and not to that of the changes; given as a change, it is
    refused where it does not fit. With fewer epochs warm-up and milestones shrink."""
    kept = dict(values)
    schedule = changes.get("schedule", kept.get("schedule"))
    for field in ("warmup_epochs", "lr_end") if schedule in CYCLIC else ():
        kept.pop(field, None)
    if schedule != "step":
        kept.pop("milestones", None)
    for field in ("plateau_factor", "plateau_patience") if schedule != "plateau" else ():
        kept.pop(field, None)
    if isinstance(epochs := changes.get("epochs"), int):
        kept |= _shrunk(kept, epochs)
    return kept


def _check_kind(made: Recipe, task: Task) -> None:
    """Raises UsageError for what a recipe says that is not for the task's kind."""
    kind = tasks.kind_of(task)
    if not kind.images and (made.augment.active or made.mixup):
        name = "mixup" if made.mixup else "augment"
        raise UsageError(f"recipe: {name} is for images; the task is {task.kind}")
    if made.fan_out is not None and not kind.sampled:
        raise UsageError(f"recipe: fan_out is for nodes of one graph; the task is {task.kind}")
    if made.mixup and task.heads:
        raise UsageError(f"recipe: mixup blends images, and of {task.kind} two of one batch may have different tasks")
    if made.loss in losses() and made.loss not in kind.losses:
        raise UsageError(f"recipe: loss {made.loss} is not for {task.kind}; take {' or '.join(kind.losses)}")
    for name in ("class_weights", "label_smoothing"):
        if getattr(made, name) and name not in kind.losses.get(made.loss, (name,)):
            why = "it would smooth over the classes of all tasks" if task.heads else "its answers are no classes"
            raise UsageError(f"recipe: {name} is not for {task.kind}: {why}")
