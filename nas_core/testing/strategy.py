"""The contract of a strategy: `check` drives it through simulated studies and yields what is wrong.

The rule it holds: after construction and tells in recorded order a strategy cannot be told apart, through
`ask`, from one that lived all along. So every ask of a study is repeated, mixed with asks that must change
nothing, and asked again of instances that were made anew and only told what the store would tell them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.evaluation import Constraint, Fidelity, Objective
from nas_core.seeds import generator
from nas_core.space import SearchSpace, unsound
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State, Strategy
from nas_core.testing.findings import Reference, ask_fresh, collect

Factory = Callable[[Setting], Strategy]
Answer = Proposal | str | None  # a text: why there is nothing left

ENUMERABLE = 2_000  # up to this size of a space it is known when everything has been proposed

EPOCHS = Fidelity("epoch", 1, 9, continues=True)  # a training
SCHEDULES = Fidelity("epoch", 12, 200, levels=(12, 200))  # a table of two trainings of each architecture


@dataclass(frozen=True)
class Scenario:
    """One simulated study: what is asked for, in which order outcomes come, and what goes wrong."""

    name: str
    objectives: tuple[Objective, ...] = (Objective("quality", "max"),)
    constraints: tuple[Constraint, ...] = ()
    lag: int = 1  # ask number n sees all outcomes but the last lag - 1
    shuffled: bool = False  # outcomes come in any order
    start: int = 0
    gaps: bool = False  # some numbers belong to others
    failing: float = 0.1  # the part of candidates whose evaluation fails
    screened: float = 0.0  # the part that screens turn down, beside what its space knows as unsound
    fidelity: Fidelity | None = EPOCHS
    prior: int = 0  # architectures of another study that are known


SCENARIOS = (
    Scenario("one at a time"),
    Scenario("one at a time, minimising", (Objective("price", "min"),), (Constraint("quality", ">=", 0.3),), prior=8),
    Scenario("four at a time", constraints=(Constraint("price", "<=", 0.7),), lag=4, start=100, gaps=True),
    Scenario(
        "four at a time in any order, two objectives",
        (Objective("quality", "max"), Objective("price", "min")),
        (Constraint("price", "<=", 0.9),),
        lag=4,
        shuffled=True,
        start=7,
        gaps=True,
        fidelity=SCHEDULES,
    ),
    Scenario("every trial fails", lag=2, failing=1.0),
    Scenario("every trial is rejected", constraints=(Constraint("price", "<=", -1.0),), lag=2),
)


SCREENED = Scenario("screened, three at a time", lag=3, screened=0.7)
"""As where most of what is not unsound is turned down after seconds."""


@dataclass(frozen=True)
class Asked:
    """One ask of a study: what had been told before, what was pending, and the answer."""

    number: int
    told: int
    pending: tuple[Pending, ...]
    answer: Answer


@dataclass(frozen=True)
class History:
    """A simulated study: its asks, and its outcomes in the order in which they were told."""

    asked: tuple[Asked, ...]
    told: tuple[Outcome, ...]


def check(
    factory: Factory,
    space: SearchSpace,
    trials: int = 40,
    replays: int = 5,
    scenarios: Sequence[Scenario] = SCENARIOS,
) -> Iterator[str]:
    """What is wrong with the strategies that `factory` makes, when they search `space`.

    Each scenario has `trials` trials and is replayed into `replays` fresh instances.
    """
    yield from collect("config", _config, factory, space)
    for scenario in scenarios:
        yield from collect(scenario.name, _scenario, factory, space, scenario, trials, replays)
    yield from collect("one budget only", _one_budget, factory, space, min(trials, 12))
    yield from collect("no scores", _no_scores, factory, space)


def check_fresh(*cases: tuple[Reference, Reference, dict[str, Any]], trials: int = 30) -> Iterator[str]:
    """Whether a new interpreter with another hash seed searches in the same way: strategies, spaces, and configs as
    plain data. One interpreter is asked about all cases, because most of its time is its start."""
    code = (
        "from nas_core.testing.strategy import trajectory\n"
        "cases = zip(*[iter(ARGUMENTS)] * 3)\n"
        f"print(json.dumps([trajectory(*case, {trials}) for case in cases]))\n"
    )
    answers = ask_fresh(code, *(part for case in cases for part in case), seconds=600.0)
    for case, there in zip(cases, answers, strict=True):
        strategy, space, _ = case
        for mine, other in zip(trajectory(*case, trials), there, strict=True):
            if mine != other:
                who = f"{strategy.text} on {space.text}"
                yield f"{who}: another interpreter with another hash seed proposes {other} instead of {mine}"
                break


def trajectory(strategy: Reference, space: Reference, config: dict[str, Any], trials: int = 30) -> list[str]:
    """The proposals of two simulated studies as text, the same in every interpreter."""
    kind, loaded = strategy.find(), space.load()
    lines = []
    for scenario in (SCENARIOS[0], SCENARIOS[3]):
        setting = simulated(loaded, scenario)
        history = simulate(kind(setting, validate(kind.Config, config, "strategy")), setting, scenario, trials)
        lines += [f"{asked.number}: {_text(asked.answer)}" for asked in history.asked]
    return lines


def simulate(
    strategy: Strategy,
    setting: Setting,
    scenario: Scenario,
    trials: int,
    ask: Callable[[Strategy, int, tuple[Pending, ...]], Answer] | None = None,
    tell: Callable[[Outcome], None] | None = None,
) -> History:
    """A study of `trials` trials. A trial's values depend on its candidate and its budget alone; what was evaluated
    before is told as reused. Ends early at `Exhausted`, or when None is answered with nothing pending.

    `ask` replaces the plain ask, `tell` listens to the outcomes.
    """
    ask = ask or answer
    order = generator("order", scenario.name)
    asked: list[Asked] = []
    told: list[Outcome] = []
    pending: list[Pending] = []
    known: dict[str, Outcome] = {}
    origins: dict[int, int] = {}  # of what was reused: the trial that was evaluated

    def evaluation(trial: Pending) -> str:
        """What is equal for two trials that are one evaluation."""
        trials = (trial.proposal.continues, trial.proposal.transfer)
        return f"{_candidate(setting, trial.proposal)} {[n if n is None else origins.get(n, n) for n in trials]}"

    def finish() -> None:
        """Tell one pending outcome; a duplicate of a pending trial waits for that one."""
        ready: dict[str, Pending] = {}
        for waiting in pending:
            ready.setdefault(evaluation(waiting), waiting)
        trial = list(ready.values())[int(order.integers(len(ready))) if scenario.shuffled else 0]
        pending.remove(trial)
        first = known.get(evaluation(trial))
        if first is None:
            told.append(_outcome(trial, setting, scenario))
            if told[-1].state in (State.COMPLETE, State.REJECTED):
                known[evaluation(trial)] = told[-1]
        else:
            origins[trial.number] = first.number
            told.append(replace(first, number=trial.number, proposal=trial.proposal, state=State.REUSED))
        strategy.tell(told[-1])
        if tell:
            tell(told[-1])

    number = scenario.start
    for _ in range(trials):
        while True:
            found = ask(strategy, number, tuple(pending))
            asked.append(Asked(number, len(told), tuple(pending), found))
            if found is not None or not pending:
                break
            finish()
        if not isinstance(found, Proposal):
            break
        pending.append(Pending(number, found))
        number += 1 + (int(order.integers(3)) if scenario.gaps else 0)
        if len(pending) >= scenario.lag:
            finish()
    while pending:
        finish()
    return History(tuple(asked), tuple(told))


def answer(strategy: Strategy, number: int, pending: tuple[Pending, ...]) -> Answer:
    """What `ask` says, with `Exhausted` as a text."""
    try:
        return strategy.ask(number, pending)
    except Exhausted as error:
        return f"exhausted: {error}"


def simulated(space: SearchSpace, scenario: Scenario = SCENARIOS[0]) -> Setting:
    """What a strategy is told of a simulated study."""
    rng = generator("prior", scenario.name)
    known = [moves.sample(space, rng) for _ in range(scenario.prior)]
    return Setting(
        space,
        5,
        scenario.objectives,
        scenario.constraints,
        space.identity,
        scenario.fidelity,
        _scores,
        tuple((arch, 100 * _drawn(f"prior of {arch.key}")) for arch in known),
    )


def _scores(predictor: str, archs: Sequence[Architecture]) -> list[float]:
    """Numbers that look random; now and then the worst score that there is."""
    drawn = [_drawn(f"{predictor} of {arch.key}") for arch in archs]
    return [-math.inf if value < 0.05 else value for value in drawn]


def _candidate(setting: Setting, proposal: Proposal) -> str:
    return f"{setting.identity(proposal.arch)} {proposal.budget}"


def _measure(setting: Setting, proposal: Proposal, metric: str) -> float:
    """A number in [0, 1) that looks random and depends on the candidate; quality also on the budget, somewhat."""
    identity = setting.identity(proposal.arch)
    if metric == "price":
        return _drawn(f"price of {identity}")
    here = _drawn(f"{metric} of {_candidate(setting, proposal)}")
    return 0.7 * _drawn(f"quality of {identity}") + 0.3 * here if metric == "quality" else here


def _drawn(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _outcome(trial: Pending, setting: Setting, scenario: Scenario) -> Outcome:
    proposal = trial.proposal
    metrics = {name: _measure(setting, proposal, name) for name in ("quality", "price")}
    violations = tuple(constraint.violation(metrics[constraint.metric]) for constraint in setting.constraints)
    if any(
        constraint.metric == "price" and violation > 0
        for constraint, violation in zip(setting.constraints, violations, strict=True)
    ):
        return Outcome(trial.number, proposal, State.REJECTED, None, violations, {"price": metrics["price"]})
    if unsound(setting.space, proposal.arch) is not None or (
        scenario.screened and _drawn(f"screen of {setting.identity(proposal.arch)}") < scenario.screened
    ):
        return Outcome(trial.number, proposal, State.REJECTED, None)
    if _measure(setting, proposal, "luck") < scenario.failing:
        return Outcome(trial.number, proposal, State.FAILED, None)
    values = tuple(objective.orient(metrics[objective.metric]) for objective in setting.objectives)
    return Outcome(trial.number, proposal, State.COMPLETE, values, violations, metrics)


def _config(factory: Factory, space: SearchSpace) -> Iterator[str]:
    config = type(factory(simulated(space, SCENARIOS[0]))).Config
    if not issubclass(config, BaseModel) or config.model_config.get("extra") != "forbid":
        yield "Config does not refuse unknown keys; derive it from nas_core.config.Config"
    elif not config.model_config.get("frozen"):
        yield "Config is not frozen; derive it from nas_core.config.Config"
    for name, described in config.model_fields.items():
        if not described.description:
            yield f"'{name}' has no description; give it Field(description=...)"


def _one_budget(factory: Factory, space: SearchSpace, trials: int) -> Iterator[str]:
    """Where the evaluator has no fidelity a strategy searches without naming budgets, or it refuses."""
    scenario = Scenario("one budget only", fidelity=None)
    setting = simulated(space, scenario)
    try:
        strategy = factory(setting)
    except UsageError:
        return
    yield from _answers(simulate(strategy, setting, scenario, trials), setting)


def _no_scores(factory: Factory, space: SearchSpace) -> Iterator[str]:
    """Where there are no scores a strategy searches without them, or it refuses."""
    scenario = Scenario("no scores")
    setting = replace(simulated(space, scenario), score=None)
    try:
        strategy = factory(setting)
    except UsageError:
        return
    yield from _answers(simulate(strategy, setting, scenario, 3), setting)


def _scenario(factory: Factory, space: SearchSpace, scenario: Scenario, trials: int, replays: int) -> Iterator[str]:
    setting = simulated(space, scenario)
    findings: list[str] = []
    states: list[Any] = []
    live = factory(setting)

    def nosy(strategy: Strategy, number: int, pending: tuple[Pending, ...]) -> Answer:
        """Ask three times, with other questions between."""
        first = answer(strategy, number, pending)
        answer(strategy, number + 1, pending)
        second = answer(strategy, number, pending)
        answer(strategy, number + 1000, ())
        answer(strategy, number, (*pending, Pending(number + 5000, _decoy(space))))
        third = answer(strategy, number, pending)
        if not _text(first) == _text(second) == _text(third):
            findings.append(f"ask({number}) answers {_text(first)}, then {_text(second)}, then {_text(third)}")
        return first

    def snap(outcome: Outcome) -> None:
        if hasattr(live, "state_dict"):
            states.append(copy.deepcopy(live.state_dict()))

    if hasattr(live, "state_dict"):
        states.append(copy.deepcopy(live.state_dict()))
    history = simulate(live, setting, scenario, trials, nosy, snap)
    yield from findings
    yield from _answers(history, setting)
    last = len(history.asked) - 1
    points = sorted({round(index * last / max(1, replays - 1)) for index in range(replays)})
    yield from _follow(factory(setting), history, 0, "an instance that was told the same outcomes")
    for point in points:
        yield from _follow(factory(setting), history, 0, "a fresh instance after a replay of the tells", point)
    for point in range(len(history.asked)) if states else ():
        told = history.asked[point].told
        restored: Any = factory(setting)
        restored.load_state_dict(copy.deepcopy(states[told]))
        only = None if point in points else point  # now and then the whole rest of the study
        yield from _follow(restored, history, told, "an instance restored from a snapshot", only)


def _follow(strategy: Strategy, history: History, told: int, who: str, only: int | None = None) -> Iterator[str]:
    """Tell the outcomes from `told` on, as they come back from a store, and compare asks (or one of them)."""
    for position, asked in enumerate(history.asked):
        if asked.told < told or (only is not None and position != only):
            continue
        while told < asked.told:
            strategy.tell(replace(history.told[told], proposal=_stored(history.told[told].proposal)))
            told += 1
        pending = tuple(Pending(trial.number, _stored(trial.proposal)) for trial in asked.pending)
        found = answer(strategy, asked.number, pending)
        if _text(found) != _text(asked.answer):
            yield f"{who} answers ask({asked.number}) with {_text(found)} instead of {_text(asked.answer)}"
            return


def _stored(proposal: Proposal) -> Proposal:
    """The proposal as it comes back from a store: through JSON."""
    note = json.loads(json.dumps(dict(proposal.note)))
    return replace(proposal, arch=Architecture.from_json(proposal.arch.to_json()), note=note)


def _text(found: Answer) -> str:
    if not isinstance(found, Proposal):
        return str(found)
    begun = "" if found.transfer is None else f"transfer {found.transfer} "
    return (
        f"{found.arch.to_json()} budget {found.budget} continues {found.continues} {begun}"
        f"note {json.dumps(dict(found.note))}"
    )


def _decoy(space: SearchSpace) -> Proposal:
    return Proposal(moves.sample(space, generator("decoy")))


def _answers(history: History, setting: Setting) -> Iterator[str]:
    """Legal proposals with budgets that there are, plain notes, None and Exhausted only where they may be."""
    space = setting.space
    proposed: set[str] = set()
    for asked in history.asked:
        if isinstance(asked.answer, Proposal):
            proposed.add(space.identity(asked.answer.arch))
            yield from _proposal(asked.number, asked.answer, space)
            yield from _spending(asked.number, asked.answer, setting.fidelity, history.told[: asked.told])
            yield from _begun_with(asked.number, asked.answer, history.told[: asked.told])
        elif asked.answer is None and not asked.pending:
            yield f"ask({asked.number}) answers None though nothing is pending: the search would wait for ever"
        elif isinstance(asked.answer, str):
            count = moves.size(space, ENUMERABLE)
            every = count is not None and count <= ENUMERABLE
            if not every or not {space.identity(arch) for arch in moves.enumerate_all(space)} <= proposed:
                yield f"ask({asked.number}) raises Exhausted after {len(proposed)} candidates, but there are more"


def _proposal(number: int, proposal: Proposal, space: SearchSpace) -> Iterator[str]:
    reason = space.illegal(proposal.arch)
    if reason:
        yield f"ask({number}) proposes an illegal architecture: {reason}"
    for name, value in proposal.note.items():
        if not isinstance(name, str) or not isinstance(value, str | int | float | bool):
            yield f"ask({number}): note {name!r} = {value!r} is no text, number or truth value; a store cannot keep it"


def _begun_with(number: int, proposal: Proposal, told: Sequence[Outcome]) -> Iterator[str]:
    """The trial whose weights a training begins with has some."""
    if proposal.transfer is None:
        return
    first = next((outcome for outcome in told if outcome.number == proposal.transfer), None)
    if proposal.continues is not None:
        yield f"ask({number}) continues a training and begins it with other weights"
    if first is None or first.state not in (State.COMPLETE, State.REUSED):
        yield f"ask({number}) begins with the weights of trial {proposal.transfer}, which " + (
            "has not been told" if first is None else f"is {first.state}"
        )


def _spending(number: int, proposal: Proposal, fidelity: Fidelity | None, told: Sequence[Outcome]) -> Iterator[str]:
    """The budget is one of the fidelity's, and what is continued can be."""
    budget, continues = proposal.budget, proposal.continues
    if fidelity is None:
        if budget is not None or continues is not None:
            yield f"ask({number}) proposes budget {budget} and to continue {continues}, but there is one budget only"
        return
    unit = fidelity.unit
    if budget is not None and not fidelity.low <= budget <= fidelity.high:
        yield f"ask({number}) proposes the budget {budget}; it goes from {fidelity.low:g} to {fidelity.high:g} {unit}"
    elif budget is not None and fidelity.levels and budget not in fidelity.levels:
        yield f"ask({number}) proposes the budget {budget}, which is none of the levels {fidelity.levels}"
    if continues is None:
        return
    what = f"ask({number}) continues trial {continues}"
    first = next((outcome for outcome in told if outcome.number == continues), None)
    if not fidelity.continues:
        yield f"{what}, but the evaluator cannot continue"
    elif first is None:
        yield f"{what}, which has not been told"
    elif first.proposal.arch != proposal.arch:
        yield f"{what}, which is another architecture"
    elif first.values is None:
        yield f"{what}, which is {first.state} without a result"
    elif _spent(first.proposal, fidelity) >= _spent(proposal, fidelity):
        yield f"{what} to {_spent(proposal, fidelity):g} {unit}, but it has had {_spent(first.proposal, fidelity):g}"


def _spent(proposal: Proposal, fidelity: Fidelity) -> float:
    return fidelity.high if proposal.budget is None else proposal.budget
