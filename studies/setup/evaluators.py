"""Evaluators: from a user's configuration to settings that are stored, and from those to live objects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.config import SizeConfig, size_text
from nas_core.errors import NotFoundError, UsageError, VerificationError, unknown
from nas_core.records import StudySpec
from nas_core.space import SearchSpace
from training import evaluators
from training.data.split import Split
from training.latency import ONE_PASS, LatencyConfig
from training.reading import once
from training.recipe import Recipe, recipe

if TYPE_CHECKING:
    from studies.setup.config import SearchConfig
    from training.evaluators.train import Train


@dataclass(frozen=True)
class TrainedSupernet:
    """The trained supernet of a study: what `--evaluator supernet:STUDY` evaluates with."""

    study: str
    spec: StudySpec
    weights: str  # path
    sha256: str


def evaluator_from(
    config: SearchConfig,
    space: SearchSpace,
    size: SizeConfig,
    shared: TrainedSupernet | None,
    file_hash: str | None,
) -> tuple[Any, dict[str, Any], str]:
    """The evaluator of a user's configuration, its settings as plain data, and the hash of what it reads."""
    name = "table" if config.table else config.evaluator
    settings: dict[str, Any]
    if name == "table":
        if config.table is None:
            raise UsageError("the table evaluator needs --table FILE (csv or csv.gz)")
        settings = {
            "name": "table",
            "table": config.table,
            "data": config.data,
            "mapping": config.mapping,
            "level": config.epochs,
        }
    elif name == "train":
        from training.data import load

        task = load(config.data, config.split).task
        changes = config.recipe_config if config.epochs is None else {**config.recipe_config, "epochs": config.epochs}
        settings = {
            "name": "train",
            "data": config.data,
            "split": config.split.model_dump(mode="json"),
            "recipe": recipe(config.recipe, task, **changes).model_dump(mode="json"),
            "device": config.device,
            "threads": config.threads,
            "deterministic": config.deterministic,
            "checkpoint_seconds": config.checkpoint_seconds,
        }
        settings |= judging(config.metrics, config.objectives or (), settings["recipe"])
    elif shared is not None:
        settings = _shared_from(config, size, shared, file_hash)
    else:
        raise unknown("evaluator", name, evaluators.BUILTIN)
    if config.metrics and name != "train":
        raise UsageError(
            f"--metric {config.metrics[0]} is for candidates that are trained; evaluator '{name}' has what it recorded"
        )
    if config.costs is not None:
        settings["costs"] = config.costs
    if config.latency != ONE_PASS:  # what is not said is not stored, as in studies of before
        if name == "table":
            raise UsageError("latency settings are for measuring; a table has recorded its latencies")
        settings["latency"] = config.latency.model_dump(mode="json")
    evaluator, split_hash = evaluator_of(settings, space, size, None)
    if name == "train":  # 'auto' becomes what this machine has, so that a resume trains in the same way
        settings |= resolved(evaluator) | files_of(evaluator)
        if config.threads is None:  # the workers share the processor
            settings["threads"] = max(1, settings["threads"] // config.workers)
    if name == "table" and config.epochs is not None:
        levels = evaluator.fidelity.levels if evaluator.fidelity else ()
        if config.epochs not in levels:
            raise UsageError(
                f"--epochs {config.epochs}: the table has {', '.join(f'{level:g}' for level in levels) or 'one level'}"
            )
    if name != "table":
        config.latency.check(evaluator.task, evaluator.device.type)
    settings["trial_seconds"] = config.trial_time
    return evaluator, settings, split_hash


def judging(metrics: Sequence[str], objectives: Sequence[str], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a training is judged by beyond accuracy and loss: own metrics, and, where the recipe tells good epochs from
    bad, the first objective that is measured on the validation part."""
    monitor = next((text for text in objectives if text.startswith("val_")), None)
    selects = Recipe(**recipe).selects
    return {
        **({"metrics": list(metrics)} if metrics else {}),
        **({"monitor": monitor} if selects and monitor is not None else {}),
    }


def files_of(evaluator: Train) -> dict[str, Any]:
    """The hashes of the user's files that metrics and loss come from."""
    return {"files": dict(evaluator.files)} if evaluator.files else {}


def check_files(then: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raises UsageError where a user's file of metrics or loss is not what it was."""
    for reference, file_hash in then.items():
        if now.get(reference) != file_hash:
            raise UsageError(
                f"the file of '{reference}' has changed since the study was made "
                f"(then {file_hash}, now {now.get(reference)}); restore it, or start another --study"
            )


def _shared_from(
    config: SearchConfig, size: SizeConfig, shared: TrainedSupernet, file_hash: str | None
) -> dict[str, Any]:
    """The settings of an evaluator on a trained supernet. Raises UsageError where the study is about something else."""
    source = shared.spec
    assert source.supernet is not None
    if (source.space, source.space_hash) != (config.space, file_hash):
        raise UsageError(
            f"the supernet of study '{shared.study}' is of space '{source.space}', not '{config.space}'; "
            f"search with --space {source.space}"
        )
    if size.fitted(source.task).model_dump(mode="json") != source.size:
        raise UsageError(
            f"the supernet of study '{shared.study}' has another size; search with --size {size_text(source.size)}"
        )
    return {
        "name": "supernet",
        "study": shared.study,
        "weights": shared.weights,
        "sha256": shared.sha256,
        **{
            key: source.supernet[key]
            for key in ("data", "split", "split_hash", "precision", "threads", "deterministic")
        },
        "device": config.device if config.device != "auto" else source.supernet["device"],
    }


def resolved(evaluator: Train) -> dict[str, Any]:
    """What "auto" has come to on this machine."""
    from training.evaluators.train import default_threads

    threads = evaluator.threads or default_threads(evaluator.task)
    return {"device": str(evaluator.device), "threads": threads, "precision": evaluator.precision}


def latency_of(settings: Mapping[str, Any]) -> LatencyConfig:
    """How an evaluator with these settings measures latencies."""
    return LatencyConfig(**settings.get("latency", {}))


def evaluator_of(
    settings: Mapping[str, Any], space: SearchSpace, size: SizeConfig, final_size: SizeConfig | None
) -> tuple[Any, str]:
    """An evaluator from its stored settings, with their table of costs, and the hash of what both read. Costs are those
    of the network at `final_size`, None: `size`."""
    evaluator, read = _plain_evaluator(settings, space, size, final_size)
    if "costs" not in settings:
        return evaluator, read
    from training.evaluators.joined import CostTable, Joined
    from training.evaluators.table_mapping import hashed

    table = CostTable(space, Path(settings["costs"]))
    content = read.encode() + table.file.read_bytes() + hashed(table.mapping_file)
    return Joined(evaluator, table), hashlib.sha256(content).hexdigest()[:16]


def _plain_evaluator(
    settings: Mapping[str, Any], space: SearchSpace, size: SizeConfig, final_size: SizeConfig | None
) -> tuple[Any, str]:
    if settings["name"] == "table":
        from training.evaluators.table import Table
        from training.evaluators.table_mapping import hashed

        asked = settings["table"], settings["data"], settings["mapping"]
        table = once(("table", id(space), asked, Path.cwd()), lambda: Table(space, Path(asked[0]), *asked[1:]))
        content = table.file.read_bytes() + hashed(table.mapping_file) + settings["data"].encode()
        return table, hashlib.sha256(content).hexdigest()[:16]
    if settings["name"] == "supernet":
        return _supernet_evaluator(settings, space, size, final_size)
    from training.data import load
    from training.evaluators.train import Train

    source = load(settings["data"], Split(**settings["split"]))
    chosen = Recipe(**settings["recipe"])
    evaluator = Train(
        space,
        source,
        size,
        chosen if "precision" not in settings else chosen.model_copy(update={"precision": settings["precision"]}),
        final_size=final_size,
        latency=latency_of(settings),
        device=settings["device"],
        threads=settings["threads"],
        deterministic=settings["deterministic"],
        checkpoint_seconds=settings["checkpoint_seconds"],
        metrics=settings.get("metrics", ()),
        monitor=settings.get("monitor"),
    )
    check_files(settings.get("files", {}), evaluator.files)
    return evaluator, source.split_hash


def _supernet_evaluator(
    settings: Mapping[str, Any], space: SearchSpace, size: SizeConfig, final_size: SizeConfig | None
) -> tuple[Any, str]:
    from training.data import load
    from training.evaluators.supernet import SupernetEvaluator

    path = Path(settings["weights"])
    if not path.is_file():
        raise NotFoundError(f"the weights of the supernet of study '{settings['study']}' are not at '{path}' any more")
    if hashlib.sha256(path.read_bytes()).hexdigest() != settings["sha256"]:
        raise VerificationError(f"'{path}' does not hold the weights that the study was made with")
    source = load(settings["data"], Split(**settings["split"]))
    evaluator = SupernetEvaluator(
        space,
        source,
        size,
        path,
        final_size=final_size,
        latency=latency_of(settings),
        device=settings["device"],
        threads=settings["threads"],
        precision=settings["precision"],
    )
    read = hashlib.sha256(f"{source.split_hash} {settings['sha256']}".encode()).hexdigest()[:16]
    return evaluator, read
