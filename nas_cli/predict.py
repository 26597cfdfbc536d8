"""`nas predict`: what a study's results say about architectures that it has not evaluated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli.options import DEFAULT_DB, Db, Files, Json, StudyName, open_store

if TYPE_CHECKING:
    from nas_cli.render import Rounded
    from nas_core.space import SearchSpace
    from studies.analysis.predict import Predicted, Validation
    from studies.records import StudySpec

_COMMAS = re.compile(r",(?![^()]*\))")  # one within settings separates nothing


def predict(
    study: StudyName,
    top: Annotated[int, typer.Option("--top", min=1, help="Show this many.")] = 20,
    model: Annotated[str, typer.Option(help="Surrogate: a name (nas predictors list), or FILE.py:CLASS.")] = "auto",
    setting: Annotated[list[str] | None, typer.Option("-s", help="KEY=VALUE of the surrogate.")] = None,
    pool: Annotated[
        int | None, typer.Option(min=1, help="Candidates [default: all of a space up to 50,000, else 5,000].")
    ] = None,
    folds: Annotated[int, typer.Option(min=0, help="Parts of the cross-validation; 0 for none.")] = 5,
    proxies: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Zero-cost proxies that the surrogate reads too.")
    ] = None,
    scores: Annotated[Path | None, typer.Option(help="Table with recorded scores of these proxies.")] = None,
    score_on: Annotated[str | None, typer.Option(help="Data on which untrained networks are scored.")] = None,
    warm_start: Annotated[
        str | None, typer.Option(metavar="STUDY", help="Another study of the space, whose results help.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the model, the candidates and the folds.")] = 0,
    data: Annotated[str | None, typer.Option(help="The study's data or table at another place.")] = None,
    costs: Annotated[str | None, typer.Option(help="The same table of costs at another place.")] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Rank architectures that a study has not evaluated.

    A surrogate is fitted to the study's complete trials; cross-validation says how well it ranks, and how well its
    standard deviations fit. With constraints only architectures with allowed costs are shown.
    """
    from nas_cli import render
    from nas_core.config import parse_assignments, validate
    from nas_core.errors import UsageError
    from studies.address import parse_trial
    from studies.analysis import predict as prediction
    from studies.setup.assemble import build, moved

    given: dict[str, Any] = {
        "model": model,
        "settings": parse_assignments(setting or []),
        "top": top,
        "pool": pool,
        "folds": folds,
        "seed": seed,
        "proxies": [name.strip() for name in _COMMAS.split(proxies or "") if name.strip()],
    }
    config = validate(prediction.PredictConfig, given, "predict")
    with open_store(db, files) as store:
        name, number = parse_trial(study)
        if number is not None:
            raise UsageError(f"'{study}' is one trial; name the study: nas predict {name}")
        found = store.study(name)
        source = None if warm_start is None else store.study(warm_start)
        spec = moved(found.spec, data, costs)
        parts = build(spec)
        if scores is not None or score_on is not None:
            parts = build(_scored_by(spec, parts.space, scores, score_on))
        result = prediction.predict(store, found, parts.cached_in(store), config, source)
    if as_json:
        render.document(_document(found.name, result, parts.space, warm_start))
    else:
        _page(found.name, result, parts.space, warm_start)


def _scored_by(spec: StudySpec, space: SearchSpace, scores: Path | None, score_on: str | None) -> StudySpec:
    """The study's configuration with another source of scores."""
    from studies.records import NetworkScores
    from studies.setup.scores import DEFAULT_BATCH, ScoringConfig, settings_of

    table = None if scores is None else str(scores)
    batch = spec.scoring.batch if isinstance(spec.scoring, NetworkScores) else DEFAULT_BATCH
    settings = settings_of(space, spec.evaluator.facts.data, ScoringConfig(table=table, data=score_on, batch=batch))
    return spec.model_copy(update={"scoring": settings})


def _page(name: str, found: Predicted, space: SearchSpace, warm_start: str | None) -> None:
    from nas_cli import render
    from nas_cli.architecture import text_of

    metric = found.objective.metric
    less = ", less is better" if found.objective.goal == "min" else ""
    every = "all " if found.whole else ""
    render.emit(
        f"study {name}: {found.model} fitted to {found.observed:,} architectures, best {metric} "
        f"{render.number(found.best)}{less}; {every}{found.candidates:,} unseen ones predicted"
    )
    if warm_start is not None:
        used = "corrects what it learned of" if found.source_used else "does without, as the results disagree with,"
        render.emit(f"the prediction {used} study {warm_start}")
    if found.infeasible:
        render.emit(f"{found.infeasible:,} better ones are left out: their costs are not allowed")
    _validated(found.validation, metric)
    render.emit("")
    rows: list[list[render.Cell]] = [
        [place, *rounded(one.mean, one.std), text_of(space, one.arch)] for place, one in enumerate(found.ranking, 1)
    ]
    heads = ["rank", metric, "std", "architecture"]
    render.table(heads, rows, right=heads[:-1])


def _validated(found: Validation | None, metric: str) -> None:
    from nas_cli import render

    if found is None:
        return
    spearman, kendall = found.correlation.spearman, found.correlation.kendall
    render.emit(
        "",
        f"held out in {found.folds} folds, by function, {found.correlation.count:,} results:",
    )
    render.pairs(
        {
            "Spearman": f"{spearman.value:.3f} [{spearman.low:.3f}, {spearman.high:.3f}]",
            "Kendall": f"{kendall.value:.3f} [{kendall.low:.3f}, {kendall.high:.3f}]",
            "within one std": f"{found.covered:.0%} (68% where the standard deviations fit)",
            f"regret of the top {found.picked}": f"{render.number(found.regret)} {metric} behind the best result",
        },
        "  ",
    )


def rounded(mean: float, std: float) -> tuple[Rounded, Rounded]:
    """Both to the second digit of the standard deviation."""
    import math

    from nas_cli.render import Rounded

    if not std > 0:
        return Rounded(mean, f"{mean:.6g}"), Rounded(std, f"{std:.2g}")
    digits = max(0, 1 - math.floor(math.log10(std)))
    return Rounded(mean, f"{mean:.{digits}f}"), Rounded(std, f"{std:.{digits}f}")


def _document(name: str, found: Predicted, space: SearchSpace, warm_start: str | None) -> dict[str, Any]:
    from dataclasses import asdict

    from nas_cli.architecture import text_of

    return {
        "study": name,
        "model": found.model,
        "settings": found.settings,
        "objective": str(found.objective),
        "warm_start": warm_start,
        "source_used": found.source_used,
        "observed": found.observed,
        "best": found.best,
        "candidates": found.candidates,
        "whole_space": found.whole,
        "infeasible": found.infeasible,
        "cross_validation": None if found.validation is None else asdict(found.validation),
        "predictions": [
            {
                "rank": place,
                "mean": one.mean,
                "std": one.std,
                "key": one.arch.key,
                "notation": text_of(space, one.arch),
                "architecture": dict(one.arch.values),
            }
            for place, one in enumerate(found.ranking, 1)
        ],
    }
