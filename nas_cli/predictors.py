"""What there is to guess results with: `nas predictors list|show|check`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nas_cli.command import Commands
from nas_cli.options import Json

predictors = Commands(help="Zero-cost proxies and surrogates.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="PREDICTOR", help="A name, FILE.py:CLASS or PACKAGE.MODULE:CLASS.")]

PROXY, SURROGATE, RANKING = "proxy", "surrogate", "ranking"


@predictors.command("list")
def list_predictors(as_json: Json = False) -> None:
    """List them: built in and from packages."""
    import predictors as package
    from nas_cli import describe, render
    from nas_core import refs
    from predictors.ranking import RANKINGS

    names = refs.names({**package.PROXIES, **package.SURROGATES}, package.GROUP)
    found = describe.each(names, lambda name: _facts(*_load(name)))
    found += [
        {"name": name, "kind": RANKING, "scores": ranking.scores, "what": "ranks within a pool, joined"}
        for name, ranking in RANKINGS.items()
    ]
    if as_json:
        render.document(found)
        return
    rows = [
        [
            fact["name"],
            fact.get("kind", ""),
            ", ".join(fact.get("tasks", ())),
            ", ".join(fact.get("scores", ())),
            describe.what(fact),
        ]
        for fact in found
    ]
    render.table(["predictor", "kind", "tasks", "scores", "what"], rows)


@predictors.command("show")
def show_predictor(predictor: Name, as_json: Json = False) -> None:
    """Show what it does, its paper, and its settings."""
    from nas_cli import describe, render
    from predictors import PROXIES
    from predictors.ranking import RANKINGS

    if predictor in RANKINGS and predictor not in PROXIES:
        _show_ranking(predictor, RANKINGS[predictor].scores, as_json)
        return
    loaded, kind = _load(predictor)
    facts = _facts(loaded, kind)
    fields = describe.fields(loaded.Config)
    if as_json:
        render.document({"name": predictor, **facts, "what": describe.text(loaded), "settings": fields})
        return
    render.emit(describe.text(loaded), "")
    render.pairs({"kind": kind, "tasks": ", ".join(facts["tasks"]), "scores": ", ".join(facts["scores"])})
    render.emit("")
    first = describe.settings_page(fields)
    if kind == PROXY:
        name = f'"{predictor}({first["name"]}={first["default"]!r})"' if first else predictor
        render.emit("", f"score by: nas score --proxies {name}")


@predictors.command("check")
def check_predictor(
    predictor: Name,
    space: Annotated[str, typer.Option(help="The space whose architectures it is given.")] = "nasbench201",
    size: Annotated[str, typer.Option(help="Size of the networks that a proxy is given.")] = "search",
    data: Annotated[str, typer.Option(help="Data that a proxy is given.")] = "digits",
    as_json: Json = False,
) -> None:
    """Run the contract suite; say what to fix."""
    from nas_cli import describe
    from nas_cli.catalog import report
    from predictors import testing
    from predictors.surrogate import Problem
    from studies.setup.spaces import load_space, size_of
    from training.data import load
    from training.data.split import Split

    with describe.foreign_code("predictor", predictor):
        _, kind = _load(predictor)
        where, _ = load_space(space)
        if kind == PROXY:
            findings = testing.check_proxy(predictor, where, size_of(where, size), load(data, Split()))
        else:
            findings = testing.check_surrogate(predictor, Problem(where))
        report("predictor", predictor, findings, as_json)


def _load(reference: str) -> tuple[Any, str]:
    """The class and its kind. Raises UsageError for what is neither a proxy nor a surrogate."""
    import predictors as package
    from nas_core import refs
    from nas_core.errors import UsageError

    target, _ = refs.split(reference, "predictor")
    found = refs.find(target, {**package.PROXIES, **package.SURROGATES}, package.GROUP, "predictor")
    for kind, needed in (
        (PROXY, ("Config", "tasks", "needs", "components", "score")),
        (SURROGATE, ("Config", "fit", "predict")),
    ):
        if all(hasattr(found, name) for name in needed):
            return found, kind
    raise UsageError(
        f"predictor '{reference}' is neither a proxy (Config, tasks, needs, components, score; predictors/proxy.py) "
        "nor a surrogate (Config, fit, predict; predictors/surrogate.py)"
    )


def _facts(loaded: Any, kind: str) -> dict[str, Any]:
    from nas_cli import describe

    proxy = kind == PROXY
    return {
        "kind": kind,
        "tasks": sorted(loaded.tasks) if proxy else [],
        "scores": list(loaded.components) if proxy else [],
        "settings": [field["name"] for field in describe.fields(loaded.Config)],
        "what": describe.line(loaded),
    }


def _show_ranking(name: str, scores: tuple[str, ...], as_json: bool) -> None:
    from nas_cli import describe, render
    from predictors.ranking import ranking

    text = describe.text(ranking)
    if as_json:
        render.document({"name": name, "kind": RANKING, "scores": scores, "what": text, "settings": []})
        return
    render.emit(text, "")
    render.pairs({"kind": RANKING, "joins": ", ".join(scores)})
    render.emit("", f"score by: nas score --proxies {name}")
