"""A trained network from outside, an export or one of the user's own with weights, as a training of no epochs.

What follows (compressing, exporting, showing) has one path: a study whose one trial is the architecture, and a run that
has left the weights. Nothing is stored before the weights are in the network and it answers the data.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.architecture import Architecture
from nas_core.errors import NotFoundError, UsageError
from nas_core.evaluation import Budget, Context, Report
from nas_core.job import Result
from nas_core.model import UNCHANGED, Changes
from nas_core.proposal import Proposal
from nas_core.records import RETRAIN, Run
from studies.address import is_object, is_path
from studies.analysis.trained import start_of
from studies.jobs import own_network, train
from studies.jobs.stored import IMPORTED, WEIGHTS
from studies.records import Study
from studies.store.store import Store

if TYPE_CHECKING:
    from torch import nn

    from studies.search.start import Planned
    from training.data.protocol import Source
    from training.data.split import Split
    from training.evaluators.train import Train

RECIPE = "standard"  # of trainings that follow, where none is named
SAMPLES = 2  # that the network must answer before it is stored
FILE = "weights.safetensors"


@dataclass(frozen=True)
class Import:
    """A network with its weights, measured as it is (`nas_core.job.Job`); its one report is that of step 0."""

    evaluator: Train
    network: nn.Module
    changes: Changes
    settings: Mapping[str, Any]
    about: Mapping[str, Any]

    kind: ClassVar[str] = RETRAIN
    steps: ClassVar[float] = 0.0

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """Raises TrialError."""
        from compressors.methods import costs_of
        from training.checkpoint import write_tensors

        write_tensors(context.workdir / FILE, self.network.state_dict())
        with self.evaluator.computing():
            network = copy.deepcopy(self.network).to(self.evaluator.device)
            metrics = self.evaluator.measure(network, "valid", "test")
        yield Report(0, {**metrics, **costs_of(self.network, self.evaluator.task)})

    def result(self, workdir: Path) -> Result:
        return Result({WEIGHTS: workdir / FILE}, self.changes)


def is_outside(text: str) -> bool:
    """Whether a text means a network that is no study's."""
    return is_object(text) or is_path(text)


def imported(
    store: Store, text: str, weights: str | None, data: str | None, device: str | None = None
) -> tuple[Study, Run, Import]:
    """What takes in the network of an export's `.json`, or of `FILE.py:OBJECT` with `weights`, on the data of the
    export or `data`; with the study and the trial that it belongs to, as they are stored, or new.

    Raises UsageError for what does not fit together, NotFoundError for a missing file.
    """
    found = _own if is_object(text) else _exported
    plan, arch, job = found(store, text, weights, data, device)
    _check_answer(text, job)
    return *own_network.stored(store, plan, arch), job


def _own(
    store: Store, text: str, weights: str | None, data: str | None, device: str | None
) -> tuple[Planned, Architecture, Import]:
    from training.networks import build

    plan = own_network.planned(store, text, data, device)
    space = plan.objects.space
    arch = own_network.architecture_of(space, text)
    training = train.training(plan.spec, RECIPE, {}, None, None, device)
    evaluator = training.evaluator
    network = build(space, arch, evaluator.task, evaluator.size, 0)
    if weights is None:
        if not own_network.has_weights(space):
            raise UsageError(
                f"'{text}' makes a network without trained weights; name them by --weights FILE.safetensors"
            )
        given = {"from": text, "sha256": plan.spec.space_hash}
    else:
        start = start_of(store, weights)
        start.fill(network)
        given = {"from": start.reference, "sha256": start.sha256}
    settings = {**training.settings, "weights": given, IMPORTED: text}
    return plan, arch, Import(evaluator, network.eval(), UNCHANGED, settings, training.about)


def _exported(
    store: Store, text: str, weights: str | None, data: str | None, device: str | None
) -> tuple[Planned, Architecture, Import]:
    from nas_core.config import validate
    from nas_core.task import Task
    from training.export.rebuild import located
    from training.fits import check_fits
    from training.infer.model import weights_beside
    from training.inputs import inputs_from
    from training.start import start_from

    path = Path(text)
    if path.suffix != ".json":
        raise UsageError(f"'{text}' is no trained network; name an export's .json, FILE.py:OBJECT or STUDY:NUMBER")
    if weights is not None:
        raise UsageError(f"--weights '{weights}': the weights of '{text}' lie beside it; leave it out")
    found = located(path)
    if "style" in found.description:
        raise UsageError(f"'{text}' is a network of a supernet, whose layers are others; train its architecture first")
    if "part" in found.description:
        raise UsageError(
            f"'{text}' is the part {found.description['part']} of a network; name the export of the whole one"
        )
    start = start_from(weights_beside(path), text)
    start.fill(found.network)
    described, task = found.description, validate(Task, found.description["task"], "task")
    source, split = _source(text, described.get("data"), data)
    inputs = inputs_from(described["inputs"]) if "inputs" in described else None
    check_fits(f"'{text}'", task, inputs, source.task, getattr(source, "inputs", None))
    plan = own_network.plan(store, found.reference, source.reference, device, split)
    training = train.training(plan.spec, RECIPE, {}, described["size"], None, device)
    given = {"from": text, "sha256": start.sha256}
    settings = {**training.settings, "weights": given, IMPORTED: text}
    return plan, found.arch, Import(training.evaluator, found.network.eval(), found.changes, settings, training.about)


def _source(text: str, described: Mapping[str, Any] | None, data: str | None) -> tuple[Source, Split]:
    """The data that an export was trained on, in the same parts, or those that are named.

    Raises UsageError where they are not there or not the same any more.
    """
    from nas_core.config import validate
    from training.data import load
    from training.data.split import Split

    if described is None:
        if data is None:
            raise UsageError(f"'{text}' does not say what it was trained on; name it by --data")
        return load(data, Split()), Split()
    split = validate(Split, described["split"], f"'{text}': split")
    reference = described["reference"] if data is None else data
    try:
        source = load(reference, split)
    except (UsageError, NotFoundError) as error:
        if data is not None:
            raise
        raise UsageError(
            f"'{text}' was trained on '{reference}', which cannot be read; name it by --data: {error}"
        ) from error
    if source.split_hash == described["split_hash"]:
        return source, split
    if data is None:
        raise UsageError(
            f"the data '{reference}' are not what '{text}' was trained on (split {described['split_hash']} then, "
            f"{source.split_hash} now); restore them, or name others by --data"
        )
    return load(data, Split()), Split()


def _check_answer(text: str, job: Import) -> None:
    """Raises UsageError where a network does not run on the data, or answers with another number of outputs."""
    import torch

    from training.tasks import kind_of

    evaluator, kind = job.evaluator, kind_of(job.evaluator.task)
    inputs = next(iter(evaluator.data.batches("valid", 0, 0))).inputs
    given = [tensor.cpu().contiguous() for tensor in kind.first(inputs, SAMPLES)]
    try:
        with torch.no_grad():
            answer: Any = job.network(*given)
    except Exception as error:  # whatever the user's code raises
        said = next(iter(str(error).strip().splitlines()), "")
        raise UsageError(f"'{text}' does not run on the data: {type(error).__name__}: {said}") from error
    shape, wanted = tuple(getattr(answer, "shape", ())), (evaluator.task.rows(given), *evaluator.task.answer)
    if shape != wanted:
        alike = len(shape) == len(wanted) == 2
        gives, needed = (f"{shape[1]} {kind.answers}", wanted[1]) if alike else (f"shape {shape}", f"shape {wanted}")
        raise UsageError(
            f"'{text}' gives {gives}, the data '{evaluator.source.reference}' have {needed}; take data or a network "
            "that fit"
        )
