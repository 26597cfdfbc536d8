"""`nas generate`: new architectures from a generator that a study's results have trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli.options import DEFAULT_DB, Db, Files, Json, StudyName, open_store

if TYPE_CHECKING:
    from nas_core.space import SearchSpace
    from studies.analysis.generate import Drawn, Generated


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
    is guided to the constraints and targets; what misses a constraint is left out. Nothing is evaluated.
    """
    from nas_cli import render
    from nas_core.config import validate
    from nas_core.errors import UsageError
    from studies.address import parse_trial
    from studies.analysis import generate as generation
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
    if as_json:
        render.document(_document(found.name, result, parts.space))
    else:
        _page(found.name, result, parts.space)


def _page(name: str, found: Generated, space: SearchSpace) -> None:
    from nas_cli import render
    from nas_cli.architecture import text_of
    from nas_cli.predict import rounded

    metric = found.objective.metric
    less = ", less is better" if found.objective.goal == "min" else ""
    whose = "its generator" if found.own else f"a generator of '{found.strategy}'"
    render.emit(
        f"study {name}: {whose} and {found.model} learned from {found.observed:,} architectures, best {metric} "
        f"{render.number(found.best)}{less}",
        _shares(found.drawn, bool(found.constraints)),
    )
    if found.constraints:
        render.emit(f"left out what misses {', '.join(map(str, found.constraints))}")
    shown = len(found.ranking)
    if shown < found.asked:
        render.emit(f"only {shown:,} of the {found.asked:,} asked for were found: draw with another --seed")
    elif found.candidates > shown:
        render.emit(f"the best {shown:,} of {found.candidates:,} new ones, by prediction")
    if found.random is not None:
        mean = sum(candidate.prediction.mean for candidate in found.ranking) / shown
        render.emit(f"their mean {metric} is predicted as {mean:.6g}, of random ones in their place {found.random:.6g}")
    if found.reached is not None:
        aims = ", ".join(str(one) for one in found.targets if one.metric == metric)
        render.emit(f"{found.reached:,} of {shown:,} are predicted to reach {aims}")
    render.emit("")
    names = list(dict.fromkeys(cost for candidate in found.ranking for cost in candidate.costs))
    rows = [
        [
            str(place),
            *rounded(one.prediction.mean, one.prediction.std),
            *(render.number(one.costs.get(cost)) for cost in names),
            text_of(space, one.prediction.arch),
        ]
        for place, one in enumerate(found.ranking, 1)
    ]
    heads = ["rank", metric, "std", *names, "architecture"]
    render.table(heads, rows, right=heads[:-1])


def _shares(drawn: Drawn, constrained: bool) -> str:
    """`100 drawn: 100% legal, 93% within the constraints, 88% unique, 97% of these new`"""
    parts = [f"{drawn.legal / drawn.count:.0%} legal"]
    if drawn.legal:
        if constrained:
            parts.append(f"{drawn.satisfied / drawn.legal:.0%} within the constraints")
        parts.append(f"{drawn.unique / drawn.legal:.0%} unique")
        parts.append(f"{drawn.new / drawn.unique:.0%} of these new")
    return f"{drawn.count:,} drawn: {', '.join(parts)}"


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
