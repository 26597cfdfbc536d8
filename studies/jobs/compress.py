"""What a compression is asked for, and the job that it becomes (`studies.jobs.rounds`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from compressors.methods import METHOD, costs_of, file_hash, method
from compressors.target import parse_targets
from nas_core.config import validate
from nas_core.errors import UsageError, unknown
from nas_core.records import COMPRESS, RETRAIN, Run
from studies.address import address_of
from studies.analysis.trained import addressed_training, trained_weights
from studies.jobs import train
from studies.jobs.rounds import Base, Compression
from studies.jobs.stored import EXAMPLE, seed_of
from studies.jobs.teacher import teacher_of
from studies.records import Study, StudySpec
from studies.setup.spaces import load_space
from studies.store.file_cache import cached_in
from studies.store.store import Store
from training.data.split import Split

if TYPE_CHECKING:
    from torch import nn

    from training.evaluators.train import Train

UNCHANGED = "unchanged"
"""The method where none is asked for, but a quantised program."""

RECOVERIES: Mapping[str, str] = {
    "weights": "all weights are trained on",
    "spa": "structured pruning adapters: low-rank corrections are trained, and biases and normalisations",
}
"""What may be trained after a round."""
ONCE = ("distillation", "adapters")
"""Changes of a recipe that are meant for one training, not for those of what it has left."""


@dataclass(frozen=True)
class Asked:
    """What a compression is asked for, beside its training. `targets` are texts like `macs<=0.5x`; `distill`: whether
    the network before teaches the smaller one; `recover`: what is trained of that (`RECOVERIES`); `quantize`: how the
    program is quantised in the end (`int8`, `fp16`); `inputs`: a user's function of example inputs
    (`training.example`)."""

    method: str | None
    config: Mapping[str, Any]
    targets: Sequence[str] = ()
    ignore: Sequence[str] = ()
    round_to: int = 1
    distill: bool = False
    recover: str = "weights"
    quantize: str | None = None
    inputs: str | None = None

    def check(self, epochs: int | None) -> None:
        """Raises UsageError for what no network could be asked for."""
        if self.method is None:
            if self.quantize is None:
                raise UsageError("name a method (nas compressors list), or what to quantise to (--quantize int8)")
            if epochs:
                raise UsageError(f"epochs {epochs}: without a method nothing is trained; leave it out")
        else:
            method(self.method)
        parse_targets(self.targets)
        if self.recover not in RECOVERIES:
            raise unknown("recovery", self.recover, RECOVERIES)
        asks = "distill" if self.distill else "recover spa" if self.recover != "weights" else None
        if asks and (self.method is None or epochs == 0):
            raise UsageError(f"{asks}: nothing is trained without a method and epochs; leave it out, or ask for both")


def compression(
    store: Store,
    study: Study,
    trial: Run,
    run: Run,
    asked: Asked,
    recipe: str | None = None,
    changes: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    device: str | None = None,
) -> Compression:
    """A compression of the network that a run has left, trained on the data of that run after every round for `epochs`
    (None: a tenth of the recipe's, 0: not at all) by a recipe (None: that of the run, as it was changed there).

    Raises UsageError for what does not fit, VerificationError where the weights of the run are gone or damaged.
    """
    from training.example import hash_of

    asked.check(epochs)
    if asked.method is None:
        epochs = 0
    name = asked.method or UNCHANGED
    kind, given = method(name), dict(run.recipe or {})
    if asked.recover == "spa":
        changes = {"adapters": {}, **(changes or {})}
    if asked.quantize is not None:
        from training.export.formats import check_quantized

        check_quantized(asked.quantize, study.spec.task)
    own = {} if recipe is not None else {key: one for key, one in given["changes"].items() if key not in ONCE}
    decided = dict(load_space(study.spec.space)[0].recipe(trial.arch))
    address = address_of(study, trial, run)
    teacher = teacher_of(store, address) if asked.distill or "distillation" in (changes or {}) else None

    def trained_by(**epochs: int) -> train.Training:
        changed = {**decided, **own, **(changes or {}), **epochs}
        plan = study.spec, recipe or given["recipe_name"], changed, given["size"], given["data"]
        split = Split(**given["split"])  # the run's own, which may be another fold than the study's
        return train.training(*plan, device or given["device"], given.get("metrics", ()), teacher=teacher, split=split)

    training = trained_by()
    if epochs is None:
        epochs = max(1, training.evaluator.recipe.epochs // 10)
    if epochs:
        training = trained_by(epochs=epochs)
    validated = validate(kind.Config, asked.config, f"{METHOD} {name}")
    weights = hashlib.sha256(trained_weights(store, study, trial, run).read_bytes()).hexdigest()
    settings = {
        **training.settings,
        "method": name,
        "method_hash": file_hash(name),
        "config": validated.model_dump(mode="json"),
        "targets": list(map(str, parse_targets(asked.targets))),
        "ignore": list(asked.ignore),
        "round_to": asked.round_to,
        "epochs": epochs,
        **({} if asked.quantize is None else {"quantize": asked.quantize}),
        **({} if asked.inputs is None else {EXAMPLE: {"from": asked.inputs, "file_hash": hash_of(asked.inputs)}}),
        "from": address,
        "of": weights,
    }
    made = _opened(store, study, trial, run, training.evaluator, settings, training.about)
    _check(made.base.network, address, asked.ignore)
    rounds = made.made(made.first_seed).rounds
    made.plan()  # says now what cannot be
    lasting = [epochs if one.epochs is None else min(one.epochs, epochs) for one in rounds]
    if asked.quantize is not None and any(lasting):  # what cannot be written is not trained
        from training.export.compared import float_program

        float_program(made.base.network, training.evaluator.source)
    return replace(made, settings={**settings, "rounds": lasting})


def _check(network: nn.Module, address: str, ignored: Sequence[str]) -> None:
    """Raises UsageError for weights that are no numbers, and for modules to ignore that there are not."""
    import torch

    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"the weights of {address} are no numbers: '{name}' has NaN or infinity; train it again")
    modules = [name for name, _ in network.named_modules() if name]
    for name in ignored:
        if name not in modules:
            raise unknown("module to ignore", name, modules)


def opened(store: Callable[[], Store], spec: StudySpec, settings: Mapping[str, Any]) -> Compression:
    """The compression of stored settings, for a process of its own. Raises as `compression`."""
    study, trial, run = addressed_training(store(), settings["from"])
    teacher = teacher_of(store(), settings["teacher"]["from"]) if "teacher" in settings else None
    return _opened(store(), study, trial, run, train.evaluator_of(spec, settings, teacher=teacher), settings, {})


def _opened(
    store: Store,
    study: Study,
    trial: Run,
    run: Run,
    evaluator: Train,
    settings: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Compression:
    from training.networks import build, load_trained

    weights = trained_weights(store, study, trial, run)
    network = load_trained(evaluator.space, trial.arch, evaluator.task, evaluator.size, weights, run.changes)
    learned = {name: value for name, value in run.metrics.items() if name.startswith(("val_", "test_"))}
    initial = None
    if run.kind == RETRAIN and "weights" not in (run.recipe or {}):
        seed = seed_of(study, trial, RETRAIN, run.repeat)
        initial = partial(build, evaluator.space, trial.arch, evaluator.task, evaluator.size, seed)
    costs = costs_of(network, evaluator.task)
    base = Base(network, weights, run.changes, {**learned, **costs}, costs, initial)
    plan = evaluator, study.spec.space, method(settings["method"]), trial.arch, base, settings, about
    return Compression(*plan, cached_in(store), seed_of(study, trial, COMPRESS, 0))
