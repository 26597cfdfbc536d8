"""`nas generate`: new architectures from a generator that a study's results have trained."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli.options import DEFAULT_DB, Db, Files, Json, StudyName, open_store

if TYPE_CHECKING:
    from nas_core.space import SearchSpace
    from studies.analysis.generate import Generated


def generate(
    study: StudyName,
    count: Annotated[int, typer.Option("--n", "-n", min=1, max=10_000, help="Different new architectures.")] = 20,
    constraint: Annotated[
        list[str] | None,
        typer.Option(metavar="COST<=NUMBER", help="Only such ones, e.g. params<=1e6; may be repeated."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC>=NUMBER", help="Aim at this, e.g. val_accuracy>=0.93; may be repeated."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Surrogate that predicts (nas predictors list), or FILE.py:CLASS.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the draws and the surrogate.")] = 0,
    data: Annotated[str | None, typer.Option(help="The study's data or table at another place.")] = None,
    costs: Annotated[str | None, typer.Option(help="The same table of costs at another place.")] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Draw new architectures from a generator that a study's results have trained, and predict what they are worth.

    The generator is the study's own where its strategy has one, else that of 'diffusion', told the study's results. It
    is guided to the constraints and targets; what misses a constraint is left out. Nothing is evaluated; what was drawn
    is kept: nas show STUDY/generator-1.
    """
    from nas_core.config import validate
    from nas_core.errors import UsageError
    from nas_core.records import GENERATOR
    from studies.address import Address, parse_trial
    from studies.analysis import generate as generation
    from studies.analysis import generated
    from studies.setup.assemble import build, moved

    given: dict[str, Any] = {
        "count": count,
        "constraints": constraint or (),
        "targets": target or (),
        "model": model,
        "seed": seed,
    }
    config = validate(generation.GenerateConfig, given, "generate")
    with open_store(db, files) as store:
        name, number = parse_trial(study)
        if number is not None:
            raise UsageError(f"'{study}' is one trial; name the study: nas generate {name}")
        found = store.study(name)
        parts = build(moved(found.spec, data, costs)).cached_in(store)
        result = generation.generate(store, found, parts, config)
        drawn = _document(found.name, result, parts.space)
        run = generated.kept(store, found, config.model_dump(mode="json"), drawn)
    address = str(Address(found.name, kind=GENERATOR, number=run.number))
    show(address, drawn, as_json)
    if not as_json:
        print(f"kept as {address}", file=sys.stderr)


def show(address: str, drawn: Mapping[str, Any], as_json: bool) -> None:
    """What was drawn, as text or JSON."""
    from nas_cli import render
    from nas_cli.predict import rounded

    if as_json:
        render.document({"address": address, **drawn})
        return
    metric, _, goal = drawn["objective"].partition(":")
    less = ", less is better" if goal == "min" else ""
    whose = "its generator" if drawn["own"] else f"a generator of '{drawn['strategy']}'"
    render.emit(
        f"study {drawn['study']}: {whose} and {drawn['model']} learned from {drawn['observed']:,} architectures, best "
        f"{metric} {render.number(drawn['best'])}{less}",
        _shares(drawn["drawn"], bool(drawn["constraints"])),
    )
    if drawn["constraints"]:
        render.emit(f"left out what misses {', '.join(drawn['constraints'])}")
    ranking, shown = drawn["architectures"], drawn["found"]
    if shown < drawn["asked"]:
        render.emit(f"only {shown:,} of the {drawn['asked']:,} asked for were found: draw with another --seed")
    elif drawn["candidates"] > shown:
        render.emit(f"the best {shown:,} of {drawn['candidates']:,} new ones, by prediction")
    if drawn["random_mean"] is not None:
        mean = sum(one["mean"] for one in ranking) / shown
        random = drawn["random_mean"]
        render.emit(f"their mean {metric} is predicted as {mean:.6g}, of random ones in their place {random:.6g}")
    if drawn["reached"] is not None:
        aims = ", ".join(one for one in drawn["targets"] if one.startswith((f"{metric}<", f"{metric}>")))
        render.emit(f"{drawn['reached']:,} of {shown:,} are predicted to reach {aims}")
    render.emit("")
    names = list(dict.fromkeys(cost for one in ranking for cost in one["costs"]))
    rows = [
        [
            one["rank"],
            *rounded(one["mean"], one["std"]),
            *(one["costs"].get(cost) for cost in names),
            one["notation"],
        ]
        for one in ranking
    ]
    heads = ["rank", metric, "std", *names, "architecture"]
    render.table(heads, rows, right=heads[:-1])


def _shares(drawn: Mapping[str, int], constrained: bool) -> str:
    """`100 drawn: 100% legal, 93% within the constraints, 88% unique, 97% of these new`"""
    parts = [f"{drawn['legal'] / drawn['count']:.0%} legal"]
    if drawn["legal"]:
        if constrained:
            parts.append(f"{drawn['satisfied'] / drawn['legal']:.0%} within the constraints")
        parts.append(f"{drawn['unique'] / drawn['legal']:.0%} unique")
        parts.append(f"{drawn['new'] / drawn['unique']:.0%} of these new")
    return f"{drawn['count']:,} drawn: {', '.join(parts)}"


def _document(name: str, found: Generated, space: SearchSpace) -> dict[str, Any]:
    from dataclasses import asdict

    from nas_cli.architecture import text_of

    return {
        "study": name,
        "strategy": found.strategy,
        "own": found.own,
        "model": found.model,
        "objective": str(found.objective),
        "observed": found.observed,
        "best": found.best,
        "constraints": [str(one) for one in found.constraints],
        "targets": [str(one) for one in found.targets],
        "asked": found.asked,
        "found": len(found.ranking),
        "drawn": asdict(found.drawn),
        "candidates": found.candidates,
        "reached": found.reached,
        "random_mean": found.random,
        "architectures": [
            {
                "rank": place,
                "mean": one.prediction.mean,
                "std": one.prediction.std,
                "costs": dict(one.costs),
                "key": one.prediction.arch.key,
                "notation": text_of(space, one.prediction.arch),
                "architecture": dict(one.prediction.arch.values),
            }
            for place, one in enumerate(found.ranking, 1)
        ],
    }
