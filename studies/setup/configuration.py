"""One configuration out of flags, `-s`, environment, file and defaults, in that order of precedence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core import refs
from nas_core.errors import NotFoundError, UsageError, unknown
from studies.setup.options import EARLIER, LISTS, OPTIONS, flat_keys, meaning, merged, nested

if TYPE_CHECKING:
    from pydantic import BaseModel

    from studies.records import Study, StudySpec
    from studies.setup.config import SearchConfig

_FILE, _ENVIRONMENT, _ASSIGNED, _FLAGS = range(4)


def gather(file: Path | Mapping[str, Any] | None, assignments: Sequence[str], flags: Mapping[str, Any]) -> SearchConfig:
    """The configuration of a search; `file` may be what one would hold. Raises UsageError for unknown keys (with the
    nearest) and bad values."""
    from nas_core.config import parse_assignments, validate
    from studies.setup.config import SearchConfig

    given = [
        _read(file) if isinstance(file, Path) else dict(file or {}),
        environment([*SearchConfig.keys, *flat_keys(), *EARLIER]),
        parse_assignments(assignments),
        {key: value for key, value in flags.items() if value not in (None, [], ())},
    ]
    result: dict[str, Any] = {}
    for layer in _fitting([nested(layer, SearchConfig.keys) for layer in given]):
        result = merged(result, layer)
    return validate(SearchConfig, result, "configuration")


def _fitting(layers: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The layers without what they say about another evaluator than the one that a higher layer names. The environment
    is for whatever can use it."""
    from training.evaluators import BUILTIN, kinds

    asked = [layer.get("evaluator", {}) for layer in layers]
    named = [number for number, one in enumerate(asked) if "kind" in one]
    chosen = str(asked[named[-1]]["kind"]) if named else "train"
    known = {"kind", *kinds.known_keys(chosen)}
    for number, (layer, one) in enumerate(zip(layers, asked, strict=True)):
        kind = next((str(asked[lower]["kind"]) for lower in reversed(named) if lower <= number), "train")
        if number == _ENVIRONMENT:
            others = one.keys() - known
        elif kind != chosen and named and number < named[-1]:
            others = {*one} - known if kind not in BUILTIN else {*one} & kinds.known_keys(kind) - known
        else:
            others = set()
        kept = {key: value for key, value in one.items() if key not in others}
        yield {**layer, "evaluator": kept} if "evaluator" in layer else layer


def document(config: SearchConfig, spec: StudySpec) -> dict[str, Any]:
    """The configuration as a file that asks for the same study, whatever the defaults of another version are: strategy,
    recipe and early stopping with all of their settings, the size with all of its fields. What is not said is left out.
    """
    from studies.setup.config import SPLIT

    found = config.model_dump(mode="json", exclude_none=True, exclude={*SPLIT.values(), "guard", "warm_up", "enqueue"})
    found |= {"size": dict(spec.size), "strategy": {"name": spec.strategy, **spec.strategy_config}}
    if spec.final_size is not None:
        found["final_size"] = dict(spec.final_size)
    if spec.early_stop is not None:
        found["early_stop"] = {"name": spec.early_stop.name, **spec.early_stop.config}
    whole = config.evaluator.with_all(spec.evaluator)
    found["evaluator"] = _said(whole.model_dump(mode="json", exclude_none=True))
    return _said({key: found[key] for key in type(config).model_fields if key in found})


def asking_for(study: Study) -> dict[str, Any]:
    """A file that asks for a stored study again, under its name; what other studies had a part in, and what was
    enqueued, no file holds. Raises UsageError for a study that no file can ask for."""
    from nas_core.config import validate
    from studies.setup.config import SearchConfig
    from training.evaluators import kinds

    spec, stop_at = study.spec, study.stop_at
    scoring, supernet = spec.scoring, spec.supernet
    asked: dict[str, Any] = {
        "study": study.name,
        "space": spec.space,
        "size": dict(spec.size),
        "strategy": spec.strategy,
        "objectives": list(spec.objectives),
        "constraints": list(spec.constraints),
        "trials": stop_at.trials,
        "time": stop_at.seconds,
        "spend": stop_at.spent,
        "seed": spec.seed,
        "lag": spec.lag,
        "order": spec.ordering,
        "early_stop": None if spec.early_stop is None else spec.early_stop.name,
    }
    fields = SearchConfig.model_fields
    for key, stored in (("scoring", scoring), ("supernet", supernet)):
        if stored is not None:
            known = fields[key].default.model_dump().keys()
            asked[key] = {name: value for name, value in stored.model_dump(mode="json").items() if name in known}
    config = validate(SearchConfig, {key: value for key, value in asked.items() if value is not None}, "study")
    return document(config.model_copy(update={"evaluator": kinds.asking_for(spec.evaluator)}), spec)


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, [], {})}


def commented() -> str:
    """A configuration file with every key and its default, as comments: what is not said stays the default of whoever
    searches."""
    from studies.setup.config import SPLIT, SearchConfig

    lines = [
        "# What 'nas search FILE' asks for; take the '#' off the keys that you set. All: 'nas search --print-config'.",
        "# What has a flag may stand alone under its name: 'epochs: 5' is 'evaluator: {epochs: 5}'.",
    ]
    lines += _comments(SearchConfig(), "", ("then", *SPLIT.values()))
    return "\n".join(lines) + "\n"


def _comments(blank: BaseModel, parent: str, left_out: Sequence[str] = ()) -> Iterator[str]:
    """The fields of a configuration, each under what it means; those of one within another are indented."""
    import yaml

    values, indent = blank.model_dump(mode="json"), "  " if parent else ""
    for key, field in type(blank).model_fields.items():
        if key in left_out:
            continue
        means = field.description or meaning(f"{parent}.{key}" if parent else key)
        yield from ("", f"# {means}") if not parent else (f"#  # {means}",) if means else ()
        if key in ("evaluator", "scoring", "supernet"):
            yield f"#{key}:"
            yield from _comments(getattr(blank, key), key)
        else:
            value = yaml.safe_dump(values[key], default_flow_style=True, width=1_000)
            yield f"#{indent}{key}: {value.removesuffix('...' + chr(10)).strip()}"


def asked_by(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is said by options as they are called, `objective` or `search_on`. Those that are None, empty or False are
    not said. Raises UsageError for an unknown one."""
    names = option_names()
    for name in given:
        if name not in names:
            raise unknown("option", name, names)
    said = {name: value for name, value in given.items() if not (value is None or value is False or value in ([], ()))}
    return {EARLIER.get(name, name): list(value) if isinstance(value, tuple) else value for name, value in said.items()}


def option_names() -> list[str]:
    """What `nas.search` calls what can be asked for."""
    from studies.setup.config import SPLIT, SearchConfig

    listed = {option.path for option in OPTIONS}
    return [
        *(option.name for option in OPTIONS),
        *(key for key in SearchConfig.keys if key not in listed and key not in SPLIT.values()),
    ]


def _read(path: Path) -> dict[str, Any]:
    from training.yaml_text import from_yaml

    try:
        content = from_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"there is no configuration file '{path}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"configuration file '{path}' cannot be read: {error}") from None
    except ValueError as error:
        raise UsageError(f"configuration file '{path}' is not YAML that can be used: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"configuration file '{path}' must hold keys and values, such as 'space: nasbench201'")
    return {str(key): value for key, value in content.items()}


def environment(fields: Sequence[str]) -> dict[str, Any]:
    """`NAS_SPACE=regnet` and so on, for every key of the configuration; of several values with commas between them."""
    lists = {*LISTS, *(option.key or option.name for option in OPTIONS if option.path in LISTS)}
    named = {field: os.environ.get(f"NAS_{field.upper()}") for field in fields}
    return {field: _values(field, value) if field in lists else value for field, value in named.items() if value}


def _values(field: str, text: str) -> list[str]:
    """What commas separate, but those within brackets: `blind,quality(steps=20,bar=2)`."""
    try:
        return refs.separated(text)
    except ValueError:
        raise UsageError(f"NAS_{field.upper()}: brackets of '{text}' do not match") from None
