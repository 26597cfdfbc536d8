"""One configuration out of flags, `-s`, environment, file and defaults, in that order of precedence."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.errors import NotFoundError, UsageError, unknown

if TYPE_CHECKING:
    from studies.records import StudySpec
    from studies.setup.config import SearchConfig

# Keys that may be a name, or a mapping with a `name` and further settings: `-s strategy.population=20`.
_NAMED = {
    "strategy": "strategy_config",
    "evaluator": "evaluator_config",
    "recipe": "recipe_config",
    "early_stop": "early_stop_config",
}
_LISTS = ("objectives", "constraints", "metrics")
# Options of the command and of `nas.search` whose key has another name.
_KEYS = {"objective": "objectives", "constraint": "constraints", "metric": "metrics", "search_on": "supernet.data"}


def gather(file: Path | Mapping[str, Any] | None, assignments: Sequence[str], flags: Mapping[str, Any]) -> SearchConfig:
    """The configuration of a search; `file` may be what one would hold. Raises UsageError for unknown keys (with the
    nearest) and bad values."""
    from nas_core.config import parse_assignments, validate
    from studies.setup.config import SearchConfig

    layers = [
        _read(file) if isinstance(file, Path) else dict(file or {}),
        {
            key: _list_or_text(key, value)
            for key, value in environment([*SearchConfig.model_fields, *SearchConfig.earlier_keys]).items()
        },
        parse_assignments(assignments),
        {key: value for key, value in flags.items() if value not in (None, [], ())},
    ]
    merged: dict[str, Any] = {}
    for layer in layers:
        named_now = {SearchConfig.earlier_keys.get(key, key): value for key, value in layer.items()}
        merged = _merge(merged, {key: _as_mapping(key, value) for key, value in named_now.items()})
    for key, settings in _NAMED.items():
        if key in merged:
            named = dict(merged.pop(key))
            if "name" in named:
                merged[key] = named.pop("name")
            merged[settings] = _merge(merged.get(settings, {}), named)
    for key in _LISTS:
        if isinstance(merged.get(key), str):
            merged[key] = [merged[key]]
    return validate(SearchConfig, merged, "configuration")


def document(config: SearchConfig, spec: StudySpec) -> dict[str, Any]:
    """The configuration as a file that asks for the same study, whatever the defaults of another version are: strategy,
    recipe and early stopping with all of their settings, the size with all of its fields. What is not said is left out.
    """
    facts = spec.evaluator.facts
    recipe = {} if facts.recipe is None else facts.recipe.model_dump(mode="json")
    settings: dict[str, Mapping[str, Any]] = {
        "strategy": spec.strategy_config,
        "recipe": recipe,
        "early_stop": {} if spec.early_stop is None else spec.early_stop.config,
        "evaluator": config.evaluator_config,
    }
    found = config.model_dump(mode="json", exclude_none=True, exclude={*_NAMED.values(), "guard", "warm_up"})
    found |= {"size": dict(spec.size), "strategy": spec.strategy}
    if spec.final_size is not None:
        found["final_size"] = dict(spec.final_size)
    if recipe:  # the number of epochs is the recipe's
        found.pop("epochs", None)
    for key, values in settings.items():
        if key in found and values:
            found[key] = {"name": found[key], **values}
    return {key: found[key] for key in type(config).model_fields if found.get(key) not in (None, [], {})}


def commented() -> str:
    """A configuration file with every key and its default, as comments: what is not said stays the default of whoever
    searches."""
    import yaml

    from studies.setup.config import SearchConfig

    blank = SearchConfig()
    lines = [
        "# What 'nas search FILE' asks for; take the '#' off the keys that you set. All: 'nas search --print-config'."
    ]
    for key, field in SearchConfig.model_fields.items():
        if key in _NAMED.values() or key == "then":
            continue
        value = yaml.safe_dump(blank.model_dump(mode="json")[key], default_flow_style=True, width=1_000)
        lines += ["", f"# {field.description}", f"#{key}: {value.removesuffix('...' + chr(10)).strip()}"]
    return "\n".join(lines) + "\n"


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the configuration from options as they are called, `objective` or `search_on`. Those that are None, empty
    or False are not said. Raises UsageError for an unknown one."""
    from studies.setup.config import SearchConfig

    found: dict[str, Any] = {}
    for name, value in given.items():
        key, _, below = _KEYS.get(name, name).partition(".")
        if key not in SearchConfig.model_fields or name in _KEYS.values():
            known = {name: key for key, name in _KEYS.items()}
            raise unknown("option", name, [known.get(field, field) for field in SearchConfig.model_fields])
        if value is None or value is False or value in ([], ()):
            continue
        if key in _LISTS and isinstance(value, str):
            value = [value]
        found[key] = {below: value} if below else value
    return found


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise NotFoundError(f"there is no configuration file '{path}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"configuration file '{path}' cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"configuration file '{path}' is not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"configuration file '{path}' must hold keys and values, such as 'space: nasbench201'")
    return {str(key): value for key, value in content.items()}


def environment(fields: Sequence[str]) -> dict[str, str]:
    """`NAS_SPACE=regnet` and so on, for every key of the configuration."""
    named = {field: os.environ.get(f"NAS_{field.upper()}") for field in fields}
    return {field: value for field, value in named.items() if value}


def _list_or_text(key: str, value: str) -> Any:
    return value.split(",") if key in _LISTS else value


def _as_mapping(key: str, value: Any) -> Any:
    if key not in _NAMED or isinstance(value, Mapping):
        return value
    if not isinstance(value, str):
        raise UsageError(f"configuration: {key} is {value!r}; write a name, or a mapping with a name and settings")
    return {"name": value}


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merge key by key; anything else of the upper layer replaces the lower."""
    result = dict(lower)
    for key, value in upper.items():
        old = result.get(key)
        result[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
