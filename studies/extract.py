"""Extraction: the stand-alone network of an architecture, with the weights that it has in a trained supernet."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core import distribution
from nas_core.architecture import Architecture
from nas_core.errors import MachineError, NotFoundError, UsageError, VerificationError
from nas_core.public import public
from nas_core.records import Run
from nas_core.relax import Style
from nas_core.space import builds
from studies.address import parse_trial
from studies.analysis.queries import addressed_trial, state_counts
from studies.records import Study
from studies.setup.spaces import load_space, size_of
from studies.store import supernets
from studies.store.store import Store

if TYPE_CHECKING:
    from torch import nn

    from training.evaluators.settings import TrainedOn
    from training.evaluators.supernet import SupernetEvaluator

WEIGHTS, DESCRIPTION, CARD = "weights.safetensors", "architecture.json", "card.json"
SPACE = "architecture.space.py"


def load_extracted(folder: str | Path) -> nn.Module:
    """The network that `extract` wrote to a folder, in evaluation mode on the CPU. It is what
    `space.network(FixedPicker(space.assignment(arch), Style.SUPERNET), task, size)` makes, with the weights loaded.

    A space of the user's own is loaded from the copy of its Python file in the folder, so that code is run: load only
    what you trust. Raises NotFoundError for a missing file, UsageError for one that is damaged.
    """
    from training.export import load_network

    return load_network(Path(folder) / DESCRIPTION, Path(folder) / WEIGHTS)


def trial_to_extract(store: Store, address: str) -> tuple[Study, Run]:
    """The study and trial of `STUDY:N`, or the best trial of `STUDY`.

    Raises UsageError for a study without a supernet, or whose supernet alone is the result; and like `best_trial`.
    """
    name, number = parse_trial(address)
    study = store.study(name)
    _check_shares(study)
    if number is None and study.spec.supernet is not None and not state_counts(store, study):
        found = supernets.find(store, study)
        if found is not None and found.result == ():
            raise UsageError(
                f"study '{name}' has trained a supernet and derived no architecture from it; search on it "
                f"(nas search --evaluator supernet:{name} --study OTHER), then name a trial of that study: OTHER:N"
            )
    return addressed_trial(store, address)


def extract(store: Store, study: Study, arch: Architecture, folder: Path, trial: int | None = None) -> list[Path]:
    """Write the network of an architecture with its weights in the study's supernet; returns the paths.

    The supernet is the one that the study trained, or the one that its candidates were evaluated on. Running statistics
    are the network's own, as the evaluator on shared weights takes them, and its accuracy is written to the card.
    Files: `weights.safetensors`, `architecture.json`, `card.json`, and a copy of a user's own space. All or none: they
    are loaded again and compared before they are moved to `folder`, where older ones are replaced.

    Raises UsageError for a study without a supernet, or where space or data are not what they were; NotFoundError
    before the supernet is trained; VerificationError for weights that are gone or damaged, or where the files do not
    answer as the network does; MachineError where the folder cannot be written.
    """
    settings, weights = _shared(store, study)
    evaluator, inherited = _evaluator(study, settings, weights), study.spec.evaluator.facts.supernet
    facts = {
        "title": f"{study.spec.space_name} {study.name}" + ("" if trial is None else f":{trial}"),
        "study": study.name,
        "trial": trial,
        "supernet_of": study.name if study.spec.supernet is not None or inherited is None else inherited.study,
        "data": settings.data,
        "split_hash": settings.split_hash,
    }
    return write(evaluator, study.spec.space, arch, folder, facts)


def write(
    evaluator: SupernetEvaluator, reference: str, arch: Architecture, folder: Path, facts: Mapping[str, Any]
) -> list[Path]:
    """Write the network that the evaluator makes of an architecture of the space `reference`; `facts` begin the card.

    Raises UsageError for an architecture that the space does not hold; VerificationError and MachineError as `extract`.
    """
    from training.cost import params
    from training.export.rebuild import describe, origin
    from training.export.write import safetensors_bytes

    source = origin(reference)
    if reason := source.space.illegal(arch):
        raise UsageError(f"the space '{reference}' does not hold this architecture: {reason}")
    network, metrics = evaluator.inherit(arch)
    network = network.cpu()
    size = evaluator.size.model_dump(mode="json")
    inputs = getattr(evaluator.source, "inputs", None)
    copied = SPACE if source.file else None
    description = describe(source, copied, arch, size, evaluator.task, Style.SUPERNET, inputs=inputs)
    content = safetensors_bytes(network)
    card = {
        **public(facts),
        **description,
        "metrics": {**metrics, "params": params(network)},
        "recalibration": f"{evaluator.batches} batches of {evaluator.batch_size} from the training part",
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "software": f"nas {distribution.version()}",
        "load": "studies.extract.load_extracted(FOLDER)",
    }
    contents = {WEIGHTS: content, DESCRIPTION: _json(description), CARD: _json(card)}
    contents |= source.copies(SPACE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".extract-", dir=folder) as aside:
            for name, written in contents.items():
                (Path(aside) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(aside) / name).write_bytes(written)
            _verify(Path(aside), network, evaluator)
            for name in contents:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(aside) / name, folder / name)
    except OSError as error:
        raise MachineError(f"cannot write to '{folder}': {error.strerror or error}") from error
    return [folder / name for name in contents]


def _check_shares(study: Study) -> None:
    if study.spec.supernet is None and study.spec.evaluator.facts.supernet is None:
        raise UsageError(
            f"study '{study.name}' has no shared weights: strategy '{study.spec.strategy}' trains no supernet, and its "
            f"candidates were evaluated by '{study.spec.evaluator.kind}'; retrained networks leave by 'nas export'"
        )


def _shared(store: Store, study: Study) -> tuple[TrainedOn, Path]:
    """What the study's supernet was trained on and with, and the file of its weights."""
    _check_shares(study)
    settings: TrainedOn
    if study.spec.supernet is None:
        inherited = study.spec.evaluator.facts.supernet
        assert inherited is not None
        settings, path, digest = inherited, Path(inherited.weights), inherited.sha256
    else:
        settings = study.spec.supernet
        found = supernets.find(store, study)
        if found is None or found.weights is None:
            raise NotFoundError(f"the supernet of study '{study.name}' is not trained yet; nas resume {study.name}")
        path, digest = found.weights, str(found.sha256)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        state = "damaged" if path.is_file() else "gone"
        raise VerificationError(f"the weights of the supernet at '{path}' are {state}; put them back from a copy")
    return settings, path


def _evaluator(study: Study, settings: TrainedOn, weights: Path) -> SupernetEvaluator:
    """The evaluator on those weights, on CUDA where they were trained there and it is at hand."""
    from training.data import load
    from training.evaluators.supernet import SupernetEvaluator

    spec = study.spec
    space, file_hash = load_space(spec.space)
    if file_hash != spec.space_hash or not builds(space, spec.space_version):
        raise UsageError(f"space '{spec.space}' has changed since the study was made; restore it")
    source = load(settings.data, settings.split)
    if source.split_hash != settings.split_hash:
        raise UsageError(
            f"the data '{settings.data}' of the supernet is not what the study was made with (split "
            f"{settings.split_hash} then, {source.split_hash} now); restore it"
        )
    return SupernetEvaluator(
        space,
        source,
        size_of(space, spec.size),
        weights,
        device="auto" if settings.device.startswith("cuda") else "cpu",
        threads=settings.threads,
        precision=settings.precision,
    )


def _verify(folder: Path, network: nn.Module, evaluator: SupernetEvaluator) -> None:
    """Load the files and compare the answers with the network's, bit for bit. Raises VerificationError."""
    import torch

    from training.data.loading import Loading
    from training.tasks import kind_of
    from training.threads import thread_count

    batch = next(iter(evaluator.source.bind("cpu", Loading(batch_size=2)).batches("valid", 0, 0)))
    inputs = kind_of(evaluator.task).first(batch.inputs, 4)
    try:
        loaded = load_extracted(folder)
    except (NotFoundError, UsageError) as error:
        raise VerificationError(f"the extracted network cannot be loaded again: {error}") from error
    with torch.no_grad(), thread_count(1):
        if not torch.equal(loaded(*inputs), network.to(memory_format=torch.contiguous_format)(*inputs)):
            raise VerificationError("the extracted network, loaded again, does not answer as before")


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, allow_nan=False).encode() + b"\n"
