"""The one list of what a search can be asked for by a word of its own: flag, keyword, environment, flat key of a file.

A configuration is nested as a stored study is. What lies deeper in it (`evaluator.epochs`) has one entry here, by
which `nas search` has a flag, `nas.search` a keyword, the environment a variable (`NAS_EPOCHS`) and a file a flat key.
What it means is said here too, for the help and for `nas init`; what has no entry says it in its field. Nothing is
imported that would make help and completion slow; a test holds that types and paths are those of the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Option:
    """`name`: with underscores, as `nas.search` calls it. `path`: of the field, with dots. `means`: in words. `type`:
    of one value; `several`: of any number of them. `flags`: of `nas search`, none where it has no flag. `words`: what
    the shell offers (`nas_cli.complete`). `key`: what a file calls it, where that is not `name`."""

    name: str
    path: str
    means: str
    type: type = str
    several: bool = False
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    words: str | None = None
    key: str | None = None


def _flag(name: str, means: str, path: str = "", kind: type = str, *more: str, **rest: Any) -> Option:
    return Option(name, path or name, means, kind, flags=(f"--{name.replace('_', '-')}", *more), **rest)


def _key(name: str, path: str) -> Option:
    """What has no flag, as it is no single value."""
    return Option(name, path, "")


_SCORE_ON = "Data on which untrained networks are scored [default: what candidates are trained on]."
_FINAL = "Of the network that you get, whose costs count [default: --size; one-shot: full]."
_METRICS = "More metrics: f1, balanced_accuracy, roc_auc, average_precision, FILE.py:FUNCTION."
_SCREENS = "Turn candidates down before or while they train: finite, blind, quality, stability, ..."
_HOSTS = "Networks in which every layer is trained: resnet,vgg, FILE.py:OBJECT; for spaces of layers."
_COMPRESS = "Make every candidate smaller after its training, by this method (nas compressors list)."
_COMPRESS_TO = "What a candidate may cost then: macs<=0.5x; repeat for several."
_ENQUEUE = "Named architectures that are evaluated first, and told to the strategy."
_BASELINES = "Named architectures (or 'named': all) to compare with, which the strategy is not told."
_ORDER = "strict: timing changes nothing; free: tell as they come."
_EXECUTOR = "inline, processes, queue (for nas worker), ray[:HOST:PORT], or auto: processes where there are several."
_SEARCH_ON = "Data that a supernet is trained on, where it is not --data."

OPTIONS = (
    _flag("space", "Search space: a name, or FILE.py:OBJECT.", words="spaces"),
    _flag("size", "search, full, or changes such as channels=8,cells=1.", words="sizes"),
    _flag("final_size", _FINAL, words="sizes"),
    _flag("strategy", "Search strategy: a name, or FILE.py:CLASS.", words="strategies"),
    _flag("data", "Data reference (see 'nas data list'); of a table: its part.", "evaluator.data", words="data"),
    _key("split", "evaluator.split"),
    _flag("table", "Look results up in this table instead of training.", "evaluator.table", Path),
    _key("mapping", "evaluator.mapping"),
    _flag("costs", "Table with more cost metrics, e.g. latencies.", "evaluator.costs", Path),
    _flag("scores", "Table with recorded scores of zero-cost proxies.", "scoring.table", Path),
    _key("scores_mapping", "scoring.mapping"),
    _flag("score_on", _SCORE_ON, "scoring.data", words="data"),
    _key("score_batch", "scoring.batch"),
    _flag("evaluator", "train, table, supernet:STUDY, or FILE.py:CLASS.", words="evaluators"),
    _flag("early_stop", "Stop single trainings early: median, percentile, ...", "", str, "--pruner", words="pruners"),
    _flag("objective", "Metric, or METRIC:min; repeat for several.", "objectives", several=True, words="objectives"),
    _flag("constraint", "Such as params<=5e5; repeat for several.", "constraints", several=True, words="constraints"),
    _flag("metric", _METRICS, "evaluator.metrics", several=True, key="metrics"),
    _flag("screen", _SCREENS, "evaluator.screens", several=True, key="screens"),
    _flag("hosts", _HOSTS, "evaluator.hosts", several=True, metavar="NAME,...", words="hosts"),
    _flag("compress", _COMPRESS, "evaluator.compress", words="compressors"),
    _flag("compress_to", _COMPRESS_TO, "evaluator.compress_to", several=True),
    _flag("compress_epochs", "Of the training after that.", "evaluator.compress_epochs", int),
    _flag("trials", "Stop after this many evaluations.", "", int, "-n"),
    _flag("time", "Stop after this many seconds.", "", float),
    _flag("spend", "Stop when budgets come to this many full evaluations.", "", float),
    _flag("trial_time", "Seconds that one trial may take.", "evaluator.trial_seconds", float),
    _flag("recipe", "Training recipe: quick, standard, paper or ae-cnn.", "evaluator.recipe", words="recipes"),
    _flag("epochs", "Epochs per trial; of a table: the level.", "evaluator.epochs", int),
    _flag("device", "auto, cpu, cuda or cuda:N.", "evaluator.device", words="devices"),
    _flag("threads", "CPU threads of a training.", "evaluator.threads", int),
    _flag("seed", "Seed of everything random.", "", int),
    _flag("workers", "Candidates evaluated at a time, each in a process.", "", int),
    _flag("executor", _EXECUTOR, words="executors"),
    _flag("per_gpu", "Candidates at a time on one GPU.", "", int),
    _flag("gpu_memory", "GiB of a GPU that one candidate may take: as many share it as fit.", "", float),
    _flag("lag", "Ask k sees outcomes up to k-lag [default: 4 per worker].", "", int),
    _flag("order", _ORDER, words="orders"),
    _flag("deterministic", "Bitwise repeatable on a GPU.", "evaluator.deterministic", bool),
    _key("latency", "evaluator.latency"),
    _key("checkpoint_seconds", "evaluator.checkpoint_seconds"),
    _flag("warm_up", "Begin with the best-scored of N random architectures.", metavar="PREDICTOR:N"),
    _flag("enqueue", _ENQUEUE, several=True, metavar="NAME,..."),
    _flag("baselines", _BASELINES, several=True, metavar="NAME,..."),
    _flag("guard", "hessian: stop a one-shot search before it collapses.", words="guards"),
    _flag("search_on", _SEARCH_ON, "supernet.data", metavar="DATA", words="data"),
    _flag("study", "Name of the study [default: made up]."),
)

EARLIER = {"pruner": "early_stop", "pruner_config": "early_stop_config"}
"""Keys by the names that they had before."""

NAMED = ("strategy", "early_stop", "evaluator.recipe")
"""What may be a name, or a mapping with a `name` and further settings: `-s strategy.population=20`."""

LISTS = (
    "objectives",
    "constraints",
    "evaluator.metrics",
    "evaluator.screens",
    "evaluator.hosts",
    "evaluator.compress_to",
    "enqueue",
    "baselines",
)

_PATHS = {key: option.path for option in OPTIONS for key in (option.name, option.key or option.name)}


def flat_keys() -> list[str]:
    """What files and the environment call what lies deeper."""
    return [option.key or option.name for option in OPTIONS if "." in option.path]


def nested(layer: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """What is asked for, each at its place; `known` are the keys that a configuration has itself.

    Raises UsageError for unknown keys, with the nearest, and for what is said at two places.
    """
    found: dict[str, Any] = {}
    for name, value in sorted(layer.items(), key=lambda item: EARLIER.get(item[0], item[0]) not in known):
        key = EARLIER.get(name, name)
        path = key if key in known else _PATHS.get(key)
        if path is None:
            raise _unknown(name, known)
        if key == "evaluator":
            value = _evaluator(value)
        if path in NAMED and not isinstance(value, str | Mapping):
            raise UsageError(f"configuration: {key} is {value!r}; write a name, or a mapping with a name and settings")
        if path in LISTS and isinstance(value, str):
            value = [value]
        _put(found, path, value, key)
    asked = found.get("evaluator", {})
    if "table" in asked and asked.get("kind", "train") == "train":
        asked["kind"] = "table"
    return found


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested mappings merge key by key; anything else of the upper layer replaces the lower."""
    result = dict(lower)
    for key, value in upper.items():
        place = f"{path}.{key}" if path else key
        old = result.get(key)
        if place in NAMED:
            old, value = _named(old), _named(value)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merged(old, value, place)
        result[key] = value
    return result


def meaning(path: str) -> str:
    """What the field at a path means, where that is said here; else nothing."""
    return next((option.means for option in OPTIONS if option.path == path), "")


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _unknown(name: str, known: tuple[str, ...]) -> UsageError:
    from nas_core.errors import nearest

    names = [*known, *(key for key in flat_keys() if key not in known)]
    return UsageError(f"configuration: unknown key '{name}'{nearest(name, names)} (known: {', '.join(names)})")


def _put(found: dict[str, Any], path: str, value: Any, key: str) -> None:
    *parents, last = path.split(".")
    node = found
    for parent in parents:
        node = node.setdefault(parent, {})
    old = node.get(last)
    if isinstance(old, Mapping) and isinstance(value, Mapping):
        for name, one in value.items():
            _put(found, f"{path}.{name}", one, key)
        return
    if last in node and old != value:
        raise UsageError(f"configuration: '{key}' and '{path}' are one setting, and say {value!r} and {old!r}")
    node[last] = dict(value) if isinstance(value, Mapping) else value


def _evaluator(value: Any) -> dict[str, Any]:
    """`train`, `supernet:STUDY` or `FILE.py:CLASS`, or a mapping with a `kind`, as a mapping. What is around another
    evaluator (`inner`) is told by its keys."""
    if isinstance(value, str):
        kind, separator, study = value.partition(":")
        return {"kind": kind, "study": study} if kind == "supernet" and separator else {"kind": value}
    if not isinstance(value, Mapping):
        raise UsageError(f"configuration: evaluator is {value!r}; write a kind, or a mapping with a kind and settings")
    inner = value.get("inner")
    if inner is None:
        return dict(value)
    around = {key: one for key, one in value.items() if key not in ("kind", "inner")}
    return {**_evaluator(inner), **around}
