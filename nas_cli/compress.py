"""`nas compress`: make a trained network of a study smaller, and train what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nas_cli import complete
from nas_cli.driving import drive, interrupted
from nas_cli.options import DEFAULT_DB, Db, Files, Json, open_store
from nas_cli.search_options import Executor, GpuMemory, PerGpu
from studies.executors.where import AUTO, Where

if TYPE_CHECKING:
    from compressors.compressor import Plan


def compress(
    address: Annotated[
        str,
        typer.Argument(
            metavar="STUDY[:N]|EXPORT.json|FILE.py:OBJECT",
            help="A study, its trial number N, an exported network, or one of your own (--weights, --data).",
            autocompletion=complete.studies,
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(help="A name (nas compressors list), or FILE.py:CLASS.", autocompletion=complete.compressors),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may cost: COST<=NUMBER, or COST<=SHAREx of before (macs<=0.5x); several hold at once."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Of the training after a round [default: that of the run].", autocompletion=complete.recipes),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=0, help="After every round, 0: none [default: a tenth of the recipe's].")
    ] = None,
    distill: Annotated[
        bool, typer.Option("--distill", help="Learn from the network before, too (-s recipe.distillation.alpha=0.5).")
    ] = False,
    recover: Annotated[
        str, typer.Option(help="What is trained: weights, or spa: adapters of low rank (-s recipe.adapters.rank=8).")
    ] = "weights",
    quantize: Annotated[
        str | None,
        typer.Option(help="int8 or fp16: an ONNX program of that kind too, alone or after a method."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Of a network of your own: FILE.safetensors, or a state dictionary in .pt or .pth."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Of a network that is no study's [default: those of the export].", autocompletion=complete.data
        ),
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(help="FILE.py:FUNCTION of tensors to trace the network with, instead of random ones.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="A module that stays as it is; several.")] = None,
    round_to: Annotated[int, typer.Option(min=1, help="Widths that are kept are multiples of it, where they can.")] = 1,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what could be made smaller, and what it would come to; do nothing.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="How many compressions, each with its own seed.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Compressions at a time, each in a process.")] = 1,
    executor: Executor = AUTO,
    per_gpu: PerGpu = None,
    gpu_memory: GpuMemory = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=complete.devices)
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("-s", help="KEY=VALUE of the method, recipe.KEY=VALUE of the recipe.")
    ] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> int:
    """Make a trained network smaller: that of STUDY:N/train-K (or /compress-K), of STUDY:N its best training's, of an
    export, or of a file of yours."""
    from nas_cli.ending import places
    from nas_cli.outside import taken_in
    from nas_cli.render import Cell, document, emit, table
    from nas_core.config import parse_assignments
    from nas_core.errors import UsageError
    from studies.address import address_of
    from studies.analysis.trained import addressed_training
    from studies.documents import View, training_document
    from studies.jobs.commands import compress as again
    from studies.jobs.compress import Asked, compression
    from studies.jobs.imported import is_outside
    from training.quantized import beside

    settings = parse_assignments(setting or [])
    changes = settings.pop("recipe", {})
    if not isinstance(changes, dict):
        raise UsageError(f"recipe is {changes!r}; write --recipe NAME, or -s recipe.KEY=VALUE")
    asked = Asked(method, settings, target or (), ignore or (), round_to, distill, recover, quantize, inputs)
    outside, where = is_outside(address), Where(workers, executor, per_gpu, gpu_memory)
    if not outside and (weights or data):
        raise UsageError(f"--weights and --data are for networks that are no study's; leave them out for '{address}'")
    asked.check(epochs)  # before a network is taken in
    with open_store(db, files, create=outside) as store:
        if outside:
            study, trial, run = taken_in(store, address, weights, data, device)
        else:
            study, trial, run = addressed_training(store, address)
        address = address_of(study, trial, run)
        job = compression(store, study, trial, run, asked, recipe, changes, epochs, device)
        if plan:
            return _planned(address, job.settings["method"], job.plan(), as_json)
        done, code = drive(store, study, trial, job, seeds, where, parent=run)
        if len(done) < seeds:
            interrupted(address, again(address, job.settings, seeds), places(store), done, as_json)
            return code
        view = View.of(study)
        runs = [training_document(view, store, trial, one) for one in done]
        if as_json:
            document({"of": address, "runs": runs})
            return 0
        for one in done:
            names = [name.removeprefix("base_") for name in one.metrics if name.startswith("base_")]
            rows: list[list[Cell]] = [
                [name, one.metrics[f"base_{name}"], one.metrics[name]] for name in names if name in one.metrics
            ]
            emit(f"{address_of(study, trial, one)}: {address} by {job.settings['method']}")
            table(["metric", "before", "after"], rows, right=["before", "after"])
            if quantize is not None:
                emit("")
                rows = [[name, *values] for name, values in beside(one.metrics, quantize).items()]
                rows += [[name, None, one.metrics[f"{quantize}_{name}"]] for name in ("agreement", "share")]
                table([f"by onnxruntime, {quantize}", "float", quantize], rows, right=["float", quantize])
        emit(f"\nnext:\n  nas export {address_of(study, trial, done[0])}{places(store)}")
    return 0


def _planned(address: str, method: str, plan: Plan | None, as_json: bool) -> int:
    """Say what a method would do. Raises UsageError for one that has no plan."""
    from dataclasses import asdict

    from nas_cli.render import Cell, document, emit, table
    from nas_core.errors import UsageError

    if plan is None:
        raise UsageError(f"compression method '{method}' has no plan; leave --plan out")
    if as_json:
        document({"of": address, "method": method, **asdict(plan)})
        return 0
    costs = list(plan.reachable)
    emit(f"{address} by {method}: nothing is done")
    rows: list[list[Cell]] = [[name, plan.costs.get(name), *plan.reachable[name]] for name in costs]
    table(["cost", "planned", "least", "middle", "now"], rows, right=["planned", "least", "middle", "now"])
    saved = list(dict.fromkeys(name for part in plan.parts for name in part.saves))
    rows = [
        [part.name, part.units, part.least, *(part.saves.get(name) for name in saved), part.note] for part in plan.parts
    ]
    columns = ["units", "least", *(f"{name} saved" for name in saved)]
    emit("")
    table(["part", *columns, "note"], rows, right=columns)
    if plan.notes:
        emit("", *plan.notes)
    if plan.fixed:
        emit("")
        rows = [[one.name, one.units, one.operator, one.at, one.reason] for one in plan.fixed]
        table(["fixed", "units", "operator", "in", "why"], rows, right=["units"])
    return 0
