"""What is known of a study, in words: names and values for pages, comparisons with baselines, warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas_core.strategy import State
from reports.texts import budget_text, moment, number, settings_text, shape, value_text
from studies.documents import View
from studies.records import final_size_of

if TYPE_CHECKING:
    from nas_core.task import Task
    from studies.analysis.baselines import Comparison
    from studies.analysis.queries import Rejection

_APART = ("kind", "classes", "columns")  # of a network's inputs: what a page shows elsewhere
LISTED = 20  # names of classes
TOO_LOW = 0.5  # a Kendall's tau below this means that a bracket promotes by chance as much as by merit
EQUAL = 0.02  # as near are parameters that are called equal
MOST_DROPPED = 0.05  # of what routers choose

Loads = Mapping[str, Sequence[float]]
"""Per layer the share of its work that each expert does; experts are counted from 0, as in the stacked weights."""


def study_facts(
    view: View, states: Mapping[str, int], correlation: Mapping[float, float], rejected: Sequence[Rejection]
) -> dict[str, str]:
    """The configuration of a study, and where it stands; empty texts are of what it does not have."""
    spec = view.study.spec
    inputs: Mapping[str, Any] = spec.inputs or {}
    evaluated = states.get(State.COMPLETE, 0) + states.get(State.FAILED, 0)
    return {
        "study": view.study.name,
        "created": moment(view.study.created),
        "space": f"{spec.space} (version {spec.space_version})",
        "size": settings_text(spec.size),
        "final size": settings_text(final_size_of(spec)),
        "strategy": f"{spec.strategy} {settings_text(spec.strategy_config)}".strip(),
        **_evaluator(spec.evaluator.model_dump(mode="json")),
        "task": f"{spec.task.kind}, {shape(spec.task.input_shape)} to {spec.task.outputs} {_answers(spec.task)}",
        "inputs": settings_text({key: value for key, value in inputs.items() if key not in _APART}),
        "classes": _listed(inputs.get("classes", ())),
        "columns": _listed([column["name"] for column in inputs.get("columns", ())]),
        "split hash": spec.split_hash,
        "objectives": ", ".join(spec.objectives),
        "constraints": ", ".join(spec.constraints),
        "seed": str(spec.seed),
        "lag": str(spec.lag),
        "evaluated": budget_text(view.study.stop_at.trials, view.study.stop_at.seconds, evaluated),
        "trials": ", ".join(f"{count:,} {state}" for state, count in states.items()) or "none yet",
        "rejected": ", ".join(map(str, rejected)),
        "rank correlation": _correlation(correlation),
    }


def _evaluator(stored: Mapping[str, Any]) -> dict[str, str]:
    """The settings of an evaluator, line by line; those of a wrapper after what it wraps."""
    own = {name: value for name, value in stored.items() if name not in ("kind", "inner")}
    lines = {
        name: settings_text(value) if isinstance(value, Mapping) else value_text(value) for name, value in own.items()
    }
    first = _evaluator(stored["inner"]) if "inner" in stored else {"evaluator": str(stored["kind"])}
    return {**first, **lines}


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names):,} in all)" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _answers(task: Task) -> str:
    """The word for what networks answer; a study may be of a kind whose package is not here."""
    from training import tasks

    return tasks.kind_of(task).answers if task.kind in tasks.names() else "outputs"


def _correlation(found: Mapping[float, float]) -> str:
    """`tau 0.38 at 12 and 0.71 at 36`, and what a low one means."""
    if not found:
        return ""
    text = "tau " + ", ".join(f"{tau:.2f} at {budget:g}" for budget, tau in found.items())
    low = " and ".join(f"{budget:g}" for budget, tau in found.items() if tau < TOO_LOW)
    return f"{text} (below {TOO_LOW:g} at {low}: too aggressive, lower eta or raise minimum)" if low else text


def sized(sizes: Mapping[str, float]) -> str:
    """How large a baseline is beside the best: ` of equal active parameters`, ` of 0.5x the active, 2x all parameters`;
    nothing where a sample passes all of both."""
    if not sizes:
        return ""
    active, every = sizes["active_params"], sizes["params"]
    same = [name for name, share in (("active", active), ("total", every)) if abs(share - 1) <= EQUAL]
    if same:
        return f" of equal {' and '.join(same)} parameters"
    return f" of {active:.3g}x the active, {every:.3g}x the total parameters"


def comparison(name: str, one: Comparison) -> str:
    """`resnet: val_accuracy 0.91, best +0.012 (95% +0.002 to +0.022, 3 and 3 seeds): better`."""
    difference = one.difference
    if difference is None:
        return f"{name}: no {one.metric} to compare with"
    spread = "one evaluation each"
    if one.interval is not None:
        low, high = one.interval
        spread = f"95% {low:+.4g} to {high:+.4g}, {one.seeds[0]} and {one.seeds[1]} seeds"
    return f"{name}: {one.metric} {number(one.value)}, best {difference:+.4g} ({spread}): {one.says}"


def remarks(metrics: Mapping[str, float], loads: Loads) -> Iterator[str]:
    """Experts that get no token of a batch, by name where it is none of the epoch, and tokens that experts have no room
    for."""
    dead, worst = metrics.get("train_dead_share", 0.0), metrics.get("train_dead_share_max", 0.0)
    if dead > 0:
        yield (
            f"dead experts: {dead:.1%} get no token of a batch, {worst:.1%} in the worst layer{_dead(loads)}; take "
            "fewer, or a larger weight of the balance loss"
        )
    dropped, worst = metrics.get("train_dropped_share", 0.0), metrics.get("train_dropped_share_max", 0.0)
    if max(dropped, worst) > MOST_DROPPED:
        yield (
            f"the capacity drops {dropped:.1%} of what routers choose, {worst:.1%} in the worst layer; raise it, or "
            "take drops=false"
        )


def _dead(loads: Loads) -> str:
    """` (none of the whole epoch: 3, 5 of blocks.0.layer; 1 of ...)`."""
    found = {name: [str(number) for number, share in enumerate(shares) if share == 0] for name, shares in loads.items()}
    named = "; ".join(f"{', '.join(numbers)} of {name}" for name, numbers in found.items() if numbers)
    return f" (none of the whole epoch: {named})" if named else ""
