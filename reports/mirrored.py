"""Optuna's pictures of a study, drawn on a mirror of it in memory: plain data, of which renderers make Optuna's study.

A mirror has the study's first objective, at most `MOST` trials, and names and options as they are stored.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from nas_core.choice import Value
from nas_core.strategy import State

if TYPE_CHECKING:
    import optuna

MOST = 2_000
WORDS: Mapping[str, str] = {
    "Hyperparameter Importance": "importance",
    "Hyperparameter": "choice",
    "Cumulative Probability": "share of trials",
    "Datetime": "time",
    "Trial": "trial",
}
"""Titles of axes and scales of Optuna's pictures, and what they are called here."""
Plot = Literal["param_importances", "parallel_coordinate", "slice", "rank", "edf", "timeline"]


class Named(str):
    """A text that Optuna shows as it is, where it shows the `repr` of an option."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class MirroredTrial:
    """`value` in the metric's own unit; `started` and `ended` in seconds since 1970."""

    number: int
    state: State
    value: float | None
    feasible: bool
    params: Mapping[str, Value]
    started: float | None
    ended: float | None


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A figure that is drawn by `optuna.visualization`. `options`: of every choice what it may be; `params`: the
    choices that are drawn, None for a plot without any; `size`: in inches of 96 pixels."""

    kind: str
    title: str
    caption: str
    plot: Plot
    metric: str
    goal: Literal["max", "min"]
    trials: Sequence[MirroredTrial]
    options: Mapping[str, Sequence[Value]]
    params: Sequence[str] | None = None
    size: tuple[float, float] = (9.0, 6.0)


def escaped(figure: Mirrored) -> Mirrored:
    """The same with all names and options as HTML has them, for pages."""

    def plain(value: Value) -> Value:
        return html.escape(value, quote=False) if isinstance(value, str) else value

    def name(text: str) -> str:
        return html.escape(text, quote=False)

    return replace(
        figure,
        metric=name(figure.metric),
        trials=[
            replace(one, params={name(key): plain(value) for key, value in one.params.items()}) for one in figure.trials
        ],
        options={name(key): [plain(value) for value in values] for key, values in figure.options.items()},
        params=None if figure.params is None else [name(key) for key in figure.params],
    )


def study(figure: Mirrored) -> optuna.Study:
    """Optuna's study of the mirror."""
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import FrozenTrial, TrialState

    from strategies.parts import optuna_view

    states = {
        State.COMPLETE: TrialState.COMPLETE,
        State.REUSED: TrialState.COMPLETE,
        State.PRUNED: TrialState.PRUNED,
        State.RUNNING: TrialState.RUNNING,
        State.WAITING: TrialState.WAITING,
    }
    distributions = {
        name: CategoricalDistribution([_named(option) for option in options])
        for name, options in figure.options.items()
    }
    # Without any that is infeasible nothing is told of feasibility, and no legend does.
    limited = not all(one.feasible for one in figure.trials)

    def shown(one: MirroredTrial) -> FrozenTrial:
        state = states.get(one.state, TrialState.FAIL)
        if state == TrialState.COMPLETE and one.value is None:
            state = TrialState.FAIL
        return FrozenTrial(
            number=one.number,
            trial_id=one.number,
            state=state,
            value=one.value if state == TrialState.COMPLETE else None,
            datetime_start=None if one.started is None else datetime.fromtimestamp(one.started),
            datetime_complete=None if one.ended is None else datetime.fromtimestamp(one.ended),
            params={name: _named(value) for name, value in one.params.items()},
            distributions={name: distributions[name] for name in one.params},
            user_attrs={},
            system_attrs={"constraints": [0.0 if one.feasible else 1.0]} if limited else {},
            intermediate_values={},
        )

    direction = "maximize" if figure.goal == "max" else "minimize"
    return optuna_view.study([shown(one) for one in figure.trials], directions=[direction])


def _named(value: Value) -> Value:
    return Named(value) if isinstance(value, str) else value


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Optuna says of itself, and of few trials or equal values, of which importances are equal."""
    from strategies.parts import optuna_view

    with optuna_view.quiet():  # keeps the filters of warnings
        warnings.filterwarnings("ignore", "Target and region quantiles select the same")
        yield


def plotted(figure: Mirrored, module: Any) -> Any:
    """What the function of `optuna.visualization`, or of its Matplotlib part, makes of the mirror."""
    draw: Callable[..., Any] = getattr(module, f"plot_{figure.plot}")
    with _quiet():
        if figure.plot == "timeline":
            return draw(study(figure))
        given = {} if figure.params is None else {"params": list(figure.params)}
        return draw(study(figure), target_name=figure.metric, **given)


def importances(figure: Mirrored) -> dict[str, float]:
    """Per choice its importance by PED-ANOVA (Watanabe et al. 2023), the largest first; choices that never differ are
    left out."""
    import optuna

    with _quiet():
        return dict(optuna.importance.get_param_importances(study(figure)))
