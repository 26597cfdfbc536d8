"""Train an architecture of a study from scratch with a full recipe, with several seeds, and keep the weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.architecture import Architecture
from nas_core.config import SizeConfig, restore, validate
from nas_core.errors import Notice, UsageError, VerificationError
from nas_core.evaluation import Budget, Context, Report
from nas_core.job import Result
from nas_core.proposal import Proposal
from nas_core.records import RETRAIN
from nas_core.refs import hashes
from nas_core.space import HasHosts, SearchSpace
from studies.analysis.trained import start_of
from studies.jobs.stored import INPUTS, WEIGHTS
from studies.jobs.teacher import teacher_of
from studies.records import StudySpec, final_size_of
from studies.setup.spaces import load_space, size_of
from studies.store.store import Store
from training.data.split import Split
from training.evaluators.hosts import at_first, labels, listed, of_mean
from training.evaluators.train import check_files, check_undecided
from training.recipe import Recipe, decided
from training.recipe import recipe as named_recipe

if TYPE_CHECKING:
    from training.evaluators.train import Train
    from training.start import Start
    from training.teacher import Teacher


@dataclass(frozen=True)
class Training:
    """What is trained, and how (`nas_core.job.Job`)."""

    evaluator: Train  # one that keeps weights and reports the test metrics
    settings: Mapping[str, Any]
    about: Mapping[str, Any]

    kind: ClassVar[str] = RETRAIN

    @property
    def size(self) -> SizeConfig:
        return self.evaluator.size

    @property
    def steps(self) -> float:
        return min(self.evaluator.epochs, self.evaluator.recipe.epochs)

    def of(self, arch: Architecture) -> Training:
        """The training of an architecture, which may decide fields of the recipe (`SearchSpace.recipe`). Epochs that
        were asked for end it at the horizon that it decides at the latest. Raises UsageError for a field that was
        changed too."""
        evaluator, settings = self.evaluator, self.settings
        fields = dict(evaluator.space.recipe(arch))
        if not fields:
            return self
        given = {**settings["changes"], **_taught(settings["changes"], evaluator.teacher)}
        asked = given.pop("epochs", None) if "epochs" in fields else None
        check_undecided(evaluator.space, fields, list(given))
        named = named_recipe(settings["recipe_name"], evaluator.task, **given)
        chosen = decided(named, fields, evaluator.task, evaluator.space.name)
        mine = evaluator.by(chosen)
        mine.epochs = asked or chosen.epochs
        about = {"recipe": chosen.model_dump(mode="json"), "decided": fields, **({"budget": asked} if asked else {})}
        return replace(self, evaluator=mine, settings={**settings, **about})

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        return self.evaluator.evaluate(proposal, budget, context)

    def result(self, workdir: Path) -> Result:
        return Result({WEIGHTS: workdir / "weights.safetensors"})


def training(
    spec: StudySpec,
    recipe: str,
    changes: Mapping[str, Any],
    size: str | Mapping[str, Any] | None,
    data: str | None,
    device: str | None,
    metrics: Sequence[str] = (),
    start: Start | None = None,
    teacher: Teacher | None = None,
    host: str | None = None,
    split: Split | None = None,
) -> Training:
    """A training with a full recipe, on the study's data or on `data`, measured by the study's own metrics and
    `metrics`, from fresh weights or those of `start`, by a `teacher` too where one is given; `size` None: the study's
    final size; `host` None: that of the size (`hosts_of`); `split` None: that of the study (`split_of`). Raises
    UsageError for what does not fit."""
    from training.data import load
    from training.devices import default_threads
    from training.evaluators.train import monitor_of, resolved

    space = _space(spec)
    facts = spec.evaluator.facts
    if data is None and facts.looks_up:
        raise UsageError("the study looked its results up in a table; name data to train on by --data")
    reference = data or facts.data
    if reference is None:
        raise UsageError(f"evaluator '{spec.evaluator.kind}' says no data to train on; name some by --data")
    split = split_of(spec, data, {}) if split is None else split
    source = load(reference, split)
    if source.task.kind not in space.tasks:
        raise UsageError(f"space '{space.name}' is not for {source.task.kind}, which the data '{reference}' is")
    chosen = named_recipe(recipe, source.task, **{**changes, **_taught(changes, teacher)})
    sized = size_of(space, final_size_of(spec) if size is None else size)
    sized = at_first(sized, [] if host is None else [host]).fitted(source.task)
    for line in () if size is None else sized.unused_fields(size, source.task):
        warnings.warn(Notice(line), stacklevel=2)
    _check_host(spec, sized)
    inherited = [metric for metric in facts.metrics if metric not in metrics]
    objectives = [of_mean(text, labels(facts.hosts)) for text in spec.objectives]
    measured, monitor = [*inherited, *metrics], monitor_of(objectives, chosen)
    settings = {
        "recipe_name": recipe,
        "changes": dict(changes),
        "recipe": chosen.model_dump(mode="json"),
        "size": sized.model_dump(mode="json"),
        "data": reference,
        "split": split.model_dump(mode="json"),
        "split_hash": source.split_hash,
        "device": device or facts.device or "auto",
        "threads": facts.threads or default_threads(source.task),
        **({"metrics": measured} if measured else {}),
        **({} if monitor is None else {"monitor": monitor}),
    }
    evaluator = evaluator_of(spec, settings, start, teacher)
    check_files({metric: facts.files[metric] for metric in inherited if metric in facts.files}, evaluator.files)
    settings |= {
        **resolved(evaluator),
        **({"files": dict(evaluator.files)} if evaluator.files else {}),
        **({} if start is None else {"weights": {"from": start.reference, "sha256": start.sha256}}),
        **({} if teacher is None else {"teacher": {"from": teacher.reference, "sha256": teacher.sha256}}),
    }
    inputs = getattr(source, "inputs", None)  # a source of a class of one's own may not say
    return Training(evaluator, settings, {INPUTS: None if inputs is None else inputs.model_dump(mode="json")})


def split_of(spec: StudySpec, data: str | None, changes: Mapping[str, Any]) -> Split:
    """How the study's data, or `data`, are divided, with changes: `{"folds": 10, "fold": 3}`. Raises UsageError."""
    facts = spec.evaluator.facts
    own = facts.split if not facts.looks_up and data in (None, facts.data) else Split()
    if not changes:
        return own
    values = own.model_dump(mode="json")
    if "folds" in changes and own.folds is None:  # these are the parts then, not fractions
        values = {name: value for name, value in values.items() if name not in ("valid", "test")}
    return validate(Split, {**values, **changes}, "split")


def folds_of(spec: StudySpec, data: str | None, changes: Mapping[str, Any]) -> tuple[Split, ...]:
    """The same, with every fold as the test part in turn. Raises UsageError where the data are not divided into
    folds, or one of these is chosen."""
    if "fold" in changes:
        raise UsageError(f"--folds trains on every fold in turn; leave out split.fold={changes['fold']}")
    first = split_of(spec, data, changes)
    if first.folds is None:
        raise UsageError("--folds: the study's data are not divided into folds; say how many, as in -s split.folds=10")
    return tuple(first.model_copy(update={"fold": fold}) for fold in range(first.folds))


def _taught(changes: Mapping[str, Any], teacher: Teacher | None) -> dict[str, Any]:
    return {} if teacher is None else {"distillation": changes.get("distillation") or {}}


def hosts_of(spec: StudySpec, asked: Sequence[str], size: str | None) -> tuple[str | None, ...]:
    """The networks that a layer of a study is trained in: those that are asked for, that of the size where it names
    one, else those of the study; None: that of its final size. Raises UsageError where both name some, and for a space
    without hosts."""
    space, asked = _space(spec), listed(asked)
    if asked and not isinstance(space, HasHosts):
        raise UsageError(
            f"--hosts {','.join(asked)} are networks in which a layer is tried, and the architectures of space "
            f"'{space.name}' are no layers; leave it out"
        )
    own = None if size is None else getattr(size_of(space, size), "host", None)
    if own is not None and asked:
        raise UsageError(f"--size has the host '{own}', and --hosts {','.join(asked)}; name hosts at one of them")
    if own is not None:
        return (None,)
    labels(asked)  # raises for two of one name
    return tuple(asked) or spec.evaluator.facts.hosts or (None,)


def _check_host(spec: StudySpec, size: SizeConfig) -> None:
    """Raises UsageError where a host in a user's file is not the one that the study was made with."""
    now = hashes(size.model_dump(mode="json"))
    then = {**(spec.files or {}), **spec.evaluator.facts.files}
    check_files({path: then[path] for path in now if path in then}, now)


def opened(store: Callable[[], Store], spec: StudySpec, settings: Mapping[str, Any]) -> Training:
    """The training of stored settings, for a process of its own. Raises as `training`, and VerificationError where the
    weights or the teacher are not what they were."""
    start = start_of(store(), settings["weights"]["from"]) if "weights" in settings else None
    teacher = teacher_of(store(), settings["teacher"]["from"]) if "teacher" in settings else None
    for found, name in ((start, "weights"), (teacher, "teacher")):
        if found is not None and found.sha256 != settings[name]["sha256"]:
            raise VerificationError(f"'{found.reference}' is not what it was when the training was asked for")
    return Training(evaluator_of(spec, settings, start, teacher), settings, {})


def evaluator_of(
    spec: StudySpec, settings: Mapping[str, Any], start: Start | None = None, teacher: Teacher | None = None
) -> Train:
    """What trains by these settings."""
    from training.data import load
    from training.evaluators.train import Train

    space = _space(spec)
    return Train(
        space,
        load(settings["data"], Split(**settings["split"])),
        size_of(space, settings["size"]),
        restore(Recipe, settings["recipe"], "recipe"),
        epochs=settings.get("budget"),
        device=settings["device"],
        threads=settings["threads"],
        keep_weights=True,
        test=True,
        metrics=settings.get("metrics", ()),
        monitor=settings.get("monitor"),
        start=start,
        teacher=teacher,
    )


def _space(spec: StudySpec) -> SearchSpace:
    space, file_hash = load_space(spec.space)
    if file_hash != spec.space_hash:
        raise UsageError(f"the file of space '{spec.space}' has changed since the study was made; restore it")
    return space
