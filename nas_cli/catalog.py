"""What there is to search with: `nas spaces|strategies|data list|show|check`, and `nas data convert`.

One file, because spaces, strategies and data are listed, shown and checked by the same pages.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli import complete
from nas_cli.command import Commands
from nas_cli.options import Json

if TYPE_CHECKING:
    from pydantic import BaseModel

    from nas_core.space import SearchSpace

ONE_SHOT, BLACK_BOX = "one-shot", "black-box"
AUXILIARY = 0.4  # weight of the second classifier's loss in the networks that have one
EXACT = 200_000  # spaces up to this size are counted where there is no closed form

spaces = Commands(help="Search spaces.", no_args_is_help=True, rich_markup_mode=None)
strategies = Commands(help="Search strategies.", no_args_is_help=True, rich_markup_mode=None)
data = Commands(help="Data sets.", no_args_is_help=True, rich_markup_mode=None)

SpaceName = Annotated[
    str,
    typer.Argument(
        metavar="SPACE", help="A name, FILE.py:OBJECT or PACKAGE.MODULE:OBJECT.", autocompletion=complete.spaces
    ),
]
StrategyName = Annotated[
    str,
    typer.Argument(
        metavar="STRATEGY", help="A name, FILE.py:CLASS or PACKAGE.MODULE:CLASS.", autocompletion=complete.strategies
    ),
]
DataName = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A data reference, such as digits or idx:DIR.", autocompletion=complete.data),
]


# -- spaces ---------------------------------------------------------------------------------------------------


@spaces.command("list")
def list_spaces(as_json: Json = False) -> None:
    """List them: built in and from packages."""
    import search_spaces
    from nas_cli import describe, render
    from nas_core import refs
    from studies.setup.spaces import load_space

    found = describe.each(
        refs.names(search_spaces.BUILTIN, search_spaces.GROUP), lambda name: _space_facts(load_space(name)[0])
    )
    if as_json:
        render.document(found)
        return
    rows = [
        [
            fact["name"],
            fact.get("choices"),
            _size_text(fact) if "choices" in fact else "",
            ", ".join(fact.get("tasks", ())),
            describe.what(fact),
        ]
        for fact in found
    ]
    render.table(["space", "choices", "architectures", "tasks", "what"], rows, right=["choices", "architectures"])


@spaces.command("show")
def show_space(space: SpaceName, as_json: Json = False) -> None:
    """Show choices, options and sizes."""
    from nas_cli import describe, render
    from nas_core import moves
    from nas_core.relax import not_relaxable
    from nas_core.space import HasCosts, HasNamed, HasNotation
    from studies.setup.spaces import load_space

    with describe.foreign_code("space", space):
        loaded, file_hash = load_space(space)
        example = moves.complete(loaded, {}, moves.first)
        presets = {name: loaded.Size.preset(name).model_dump() for name in loaded.Size.presets}
        facts = {
            "name": loaded.name,
            "version": loaded.version,
            "file_hash": file_hash,
            **_space_facts(loaded, exact=True),
            "costs_without_building": isinstance(loaded, HasCosts),
            "notation": loaded.to_text(example) if isinstance(loaded, HasNotation) else None,
            "named": list(loaded.named) if isinstance(loaded, HasNamed) else [],
            "not_relaxable": not_relaxable(loaded),
            "groups": len(loaded.assignment(example)) if not_relaxable(loaded) is None else None,
            "recipe": _recipe(loaded),
        }
    if as_json:
        choices = [
            {
                "name": choice.name,
                "kind": choice.kind,
                "options": choice.options,
                "ordered": choice.ordered,
                "when": {condition.name: condition.values for condition in choice.when},
            }
            for choice in loaded.choices
        ]
        sizes = {"fields": describe.fields(loaded.Size), "presets": presets}
        render.document({**facts, "choices": choices, "sizes": sizes})
        return
    render.emit(facts["what"], "")
    costs = "parameters and MACs without building" if facts["costs_without_building"] else "by building the network"
    render.pairs(
        {
            "space": f"{loaded.name} (version {loaded.version})",
            "file hash": file_hash,
            "tasks": ", ".join(facts["tasks"]),
            "architectures": _size_text(facts),
            "costs": costs,
            "relaxable": f"yes, {facts['groups']} groups"
            if facts["groups"] is not None
            else f"not relaxable: {facts['not_relaxable']}",
            "notation": facts["notation"],
            "published": ", ".join(facts["named"]),
            "recipe": _recipe_text(facts["recipe"], presets["full"]),
        }
    )
    render.emit("")
    conditional = any(choice.when for choice in loaded.choices)
    rows = [
        [
            choice.name,
            choice.kind,
            ", ".join(map(str, choice.options)),
            *(
                [" and ".join(f"{c.name} is {' or '.join(map(str, c.values))}" for c in choice.when)]
                if conditional
                else []
            ),
        ]
        for choice in loaded.choices
    ]
    render.table(["choice", "kind", "options", *(["only where"] if conditional else [])], rows)
    fields = describe.fields(loaded.Size)
    if fields:
        render.emit("")
        rows = [
            [field["name"], *(str(preset[field["name"]]) for preset in presets.values()), field["type"], field["what"]]
            for field in fields
        ]
        render.table(["size", *presets, "values", "what"], rows, right=list(presets))


@spaces.command("check")
def check_space(space: SpaceName, as_json: Json = False) -> None:
    """Run the contract suite; say what to fix."""
    import search_spaces
    from nas_cli import describe
    from nas_core.errors import UsageError
    from nas_core.testing import space as suite
    from nas_core.testing.findings import Reference, collect
    from search_spaces.own_network import OwnNetwork
    from studies.setup.spaces import load_space
    from training.tasks import example_tasks

    with describe.foreign_code("space", space):
        loaded, _ = load_space(space)
    if isinstance(loaded, OwnNetwork):
        raise UsageError(f"'{space}' is a network of your own, not a space; nas train {space} --data DATA tries it")
    reference = Reference(space, search_spaces.BUILTIN, search_spaces.GROUP, "space")
    findings = chain(suite.check(loaded, example_tasks()), collect("recipe", _undecidable, loaded))
    report("space", space, chain(findings, collect("fresh start", suite.check_fresh, reference)), as_json)


def _undecidable(space: SearchSpace) -> Iterator[str]:
    """Why architectures of the space decide what is no recipe of its kinds of task."""
    from nas_core.errors import UsageError
    from training.evaluators.train import check_decided
    from training.recipe import recipe
    from training.tasks import all_kinds

    for kind in all_kinds():
        if kind.name in space.tasks:
            try:
                check_decided(space, recipe("quick", kind.example), (), kind.example)
            except UsageError as error:
                yield f"for {kind.name}: {error}"


def _space_facts(space: SearchSpace, exact: bool = False) -> dict[str, Any]:
    """Number of choices, size, tasks and description. `exact`: count spaces without a closed form, if not too large.

    Otherwise their `architectures` is None and `at_most` the product of the numbers of options.
    """
    from nas_cli import describe
    from nas_core import moves

    most = math.prod(len(choice.options) for choice in space.choices)
    return {
        "choices": len(space.choices),
        "architectures": moves.size(space, EXACT if exact and most <= 100 * EXACT else 0),
        "at_most": most,
        "tasks": sorted(space.tasks),
        "what": describe.line(type(space)),
    }


def _recipe(space: SearchSpace) -> dict[str, Any] | None:
    """The evaluation recipe of the space's paper: the one of its name, for the kind's example (images of 32 pixels)."""
    from training.recipe import recipe
    from training.tasks import all_kinds

    for kind in all_kinds():
        if kind.name in space.tasks and space.name in kind.recipes:
            unused = set() if kind.apart else {"batch_size"}
            return {"name": space.name, **recipe(space.name, kind.example).model_dump(mode="json", exclude=unused)}
    return None


def _recipe_text(recipe: Mapping[str, Any] | None, full: Mapping[str, Any]) -> str | None:
    """In a line, with what a network at full size has beside it."""
    if recipe is None:
        return None
    augment = {name: value for name, value in recipe["augment"].items() if value}
    parts = [
        f"{recipe['epochs']} epochs",
        f"{recipe['optimizer']} {recipe['lr']:g} {recipe['schedule']}",
        *([f"{recipe['warmup_epochs']} of warm-up"] if recipe["warmup_epochs"] else []),
        f"weight decay {recipe['weight_decay']:g}",
        *([f"batch {recipe['batch_size']}"] if "batch_size" in recipe else []),
        *([f"clip {recipe['grad_clip']:g}"] if recipe["grad_clip"] else []),
        *(name if value is True else f"{name} {value}" for name, value in augment.items()),
    ]
    if full.get("drop_path"):
        parts.append(f"drop path {full['drop_path']:g} (size full)")
    if full.get("auxiliary"):
        parts.append(f"auxiliary {AUXILIARY:g} (size full)")
    return f"{recipe['name']}: {', '.join(parts)}"


def _size_text(facts: Mapping[str, Any]) -> str:
    from nas_cli import render

    exact = facts["architectures"]
    return render.count(exact) if exact is not None else f"≤ {render.count(facts['at_most'])}"


# -- strategies -----------------------------------------------------------------------------------------------


@strategies.command("list")
def list_strategies(as_json: Json = False) -> None:
    """List them: built in and from packages."""
    import strategies as package
    from nas_cli import describe, render
    from nas_core import refs

    def facts(name: str) -> dict[str, Any]:
        if name in package.ONE_SHOT:  # importing it would import torch
            what = describe.line_of_module(package.ONE_SHOT[name].partition(":")[0])
            return {"kind": ONE_SHOT, "settings": None, "what": what}
        loaded = _strategy(name)
        settings = [field["name"] for field in describe.fields(loaded.Config)]
        return {"kind": _kind(loaded), "settings": settings, "what": describe.line(loaded)}

    found = describe.each(refs.names(package.ALL, package.GROUP), facts)
    if as_json:
        render.document(found)
        return
    rows = [
        [
            fact["name"],
            fact.get("kind", ""),
            "see show" if fact.get("settings", ()) is None else ", ".join(fact.get("settings", ())),
            describe.what(fact),
        ]
        for fact in found
    ]
    render.table(["strategy", "kind", "settings", "what"], rows)


@strategies.command("show")
def show_strategy(strategy: StrategyName, as_json: Json = False) -> None:
    """Show what it does, and its settings."""
    from nas_cli import describe, render

    loaded = _strategy(strategy)
    fields = describe.fields(loaded.Config)
    if as_json:
        render.document({"name": strategy, "kind": _kind(loaded), "what": describe.text(loaded), "settings": fields})
        return
    render.emit(describe.text(loaded), "")
    kind = _kind(loaded)
    trains = ": it trains a supernet, and derives from it what is evaluated" if kind == ONE_SHOT else ""
    render.emit(f"kind: {kind}{trains}", "")
    first = describe.settings_page(fields)
    if first:
        setting = f"strategy.{first['name']}={first['default']}"
        render.emit("", f"set one by: nas search --strategy {shlex.quote(strategy)} -s {setting}")


@strategies.command("check")
def check_strategy(
    strategy: StrategyName,
    space: Annotated[str, typer.Option(help="The space that it searches in the suite.")] = "nasbench201",
    size: Annotated[str, typer.Option(help="Of the supernet, where it trains one: as in 'nas search'.")] = "search",
    setting: Annotated[list[str] | None, typer.Option("-s", help="As in 'nas search': strategy.sharing=true.")] = None,
    as_json: Json = False,
) -> None:
    """Run the contract suite; say what to fix."""
    import search_spaces
    import strategies as package
    from nas_cli import describe
    from nas_core.config import validate
    from nas_core.testing import strategy as suite
    from nas_core.testing.findings import Reference, collect
    from studies.setup.spaces import load_space, size_of

    with describe.foreign_code("strategy", strategy):
        loaded = _strategy(strategy)
        given = _given("strategy", loaded.Config, setting)
        config = validate(loaded.Config, given, "strategy")
    where, _ = load_space(space)
    if _kind(loaded) == ONE_SHOT:
        from nas_cli import check_one_shot

        report("strategy", strategy, check_one_shot.findings(loaded, where, size_of(where, size), given), as_json)
        return
    with describe.foreign_code("strategy", strategy):
        loaded(suite.simulated(where), config)  # says why it refuses the space, or a setting there
    references = (
        Reference(strategy, package.ALL, package.GROUP, "strategy"),
        Reference(space, search_spaces.BUILTIN, search_spaces.GROUP, "space"),
    )
    findings = suite.check(lambda setting: loaded(setting, config), where)
    report(
        "strategy", strategy, chain(findings, collect("fresh start", suite.check_fresh, (*references, given))), as_json
    )


def _strategy(reference: str) -> Any:
    """The class of a strategy. Raises UsageError for what has no Config, ask and tell, or start, step and result."""
    import strategies as package
    from nas_core import refs
    from nas_core.errors import UsageError

    found = refs.find(reference, package.ALL, package.GROUP, "strategy")
    one_shot = _kind(found) == ONE_SHOT
    wanted = ("Config", "step", "result", "state_dict", "load_state_dict") if one_shot else ("Config", "ask", "tell")
    missing = [name for name in wanted if not hasattr(found, name)]
    if missing:
        contract = "nas_core/one_shot.py" if one_shot else "nas_core/strategy.py"
        raise UsageError(f"strategy '{reference}' has no {', '.join(missing)}; see {contract}")
    return found


def _kind(strategy: Any) -> str:
    from studies.setup.supernets import is_one_shot

    return ONE_SHOT if is_one_shot(strategy) else BLACK_BOX


# -- data -----------------------------------------------------------------------------------------------------


@data.command("list")
def list_data(as_json: Json = False) -> None:
    """List the kinds of data references."""
    from nas_cli import render
    from training import data as package

    schemes = package.describe()
    if as_json:
        render.document([{"name": s.name, "argument": s.argument, "what": s.what} for s in schemes])
        return
    rows = [[f"{s.name}:{s.argument}" if s.argument else s.name, s.what] for s in schemes]
    render.table(["data", "what"], [*rows, ["FILE.py:FUNCTION", "a loader of your own: load(argument, split)"]])


@data.command("show")
def show_data(name: DataName, as_json: Json = False) -> None:
    """Show how data are named and stored."""
    from nas_cli import describe, render
    from nas_core import refs
    from nas_core.errors import UsageError
    from training import data as package

    target = name if ".py:" in name else name.partition(":")[0]
    loader = refs.find(target, package.BUILTIN, package.GROUP, "data")
    if not callable(loader):
        raise UsageError(f"data '{name}' is no function load(argument, split)")
    scheme = next((scheme for scheme in package.describe() if scheme.name == target), None)
    text = describe.text(loader)
    if as_json:
        argument = scheme.argument if scheme else None
        render.document({"name": target, "argument": argument, "what": scheme.what if scheme else None, "text": text})
        return
    if scheme:
        render.emit(f"{scheme.name}:{scheme.argument}" if scheme.argument else scheme.name, "")
    render.emit(text)


@data.command("check")
def check_data(
    reference: DataName,
    setting: Annotated[list[str] | None, typer.Option("-s", help="As in 'nas search': split.valid=0.2.")] = None,
    as_json: Json = False,
) -> None:
    """Load and split; print shapes, counts and what would be silently wrong."""
    from nas_cli import data_check
    from nas_core.config import validate
    from training.data import load
    from training.data.split import Split

    split = validate(Split, _given("split", Split, setting), "split")
    data_check.show(reference, load(reference, split), as_json)


def _given(key: str, model: type[BaseModel], assignments: Sequence[str] | None) -> dict[str, Any]:
    """The fields of a model that are assigned as `key.FIELD=VALUE`. Raises UsageError for another key."""
    from nas_core.config import parse_assignments
    from nas_core.errors import unknown

    settings = parse_assignments(assignments or [])
    for other in settings:
        if other != key:
            raise unknown("key", other, [f"{key}.{name}" for name in model.model_fields])
    found: dict[str, Any] = settings.get(key, {})
    return found


@data.command("convert")
def convert_data(
    train: Annotated[Path, typer.Argument(metavar="TRAIN.npz", help="JPEG images (keys in docs/data.md).")],
    out: Annotated[Path, typer.Option(metavar="FILE.npz", help="Where to write; then usable as npz:FILE.")],
    test: Annotated[Path | None, typer.Option(metavar="TEST.npz", help="The same for the test part.")] = None,
    as_json: Json = False,
) -> None:
    """Turn npz files of JPEG images into npz:FILE."""
    from nas_cli import render
    from training.data.convert import convert_jpeg

    shapes = convert_jpeg(train, test, out)
    if as_json:
        render.document({"file": str(out), "arrays": shapes})
        return
    render.pairs({name: " x ".join(map(str, shape)) for name, shape in shapes.items()})
    render.emit("", f"next: nas data check npz:{out}")


# -- shared ---------------------------------------------------------------------------------------------------


def report(kind: str, name: str, suite: Iterable[str], as_json: bool) -> None:
    """Print findings as they come, or `ok`. Raises NasError where there are any."""
    from nas_cli import render
    from nas_core.errors import NasError

    findings = []
    for finding in suite:
        findings.append(finding)
        if not as_json:
            render.emit(render.clean(finding))
    if as_json:
        render.document({kind: name, "ok": not findings, "findings": findings})
    if findings:
        raise NasError(f"{kind} '{name}' breaks its contract: {len(findings)} findings")
    if not as_json:
        render.emit("ok")
