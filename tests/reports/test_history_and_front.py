"""What figures of trials hold, against queries of the store that know nothing of them."""

from __future__ import annotations

import numpy
import pytest

from nas_core.errors import NotFoundError, UsageError
from nas_core.evaluation import Report
from nas_core.pareto import hypervolume
from nas_core.records import BASELINE, RETRAIN, Verdict
from nas_core.strategy import Proposal, State
from reports import make, trials
from reports.addressed import addressed
from reports.figure import Figure, Line, Panel, Points
from tests.reports.conftest import Made


def figure(made: Made, name: str, kind: str) -> Figure:
    found = make.figures(addressed(made.store, name), [kind])[0]
    assert isinstance(found, Figure)
    return found


def points(panel: Panel, name: str) -> list[tuple[float, float]]:
    return [
        pair
        for mark in panel.marks
        if isinstance(mark, Points) and mark.name == name
        for pair in zip(mark.x, mark.y, strict=True)
    ]


def line(panel: Panel, name: str) -> list[tuple[float, float]]:
    (found,) = [mark for mark in panel.marks if isinstance(mark, Line) and mark.name.startswith(name)]
    return list(zip(found.x, found.y, strict=True))


def test_a_history_has_every_trial_where_it_belongs(made: Made) -> None:
    study = made.study("s", ["loss:min"])
    for number, value in enumerate([5.0, 3.0, 4.0, 2.0]):
        made.trial(study, number, [value], feasible=number != 3)
    made.trial(study, 4, [1.0], budget=2.0)  # a part of the full budget
    made.trial(study, 5, state=State.FAILED)
    made.trial(study, 6, state=State.RUNNING, curve={1.0: {"loss": 9.0}, 2.0: {"loss": 8.0}})
    found = figure(made, "s", "history")
    values, states = found.panels
    assert points(values, "trials") == [(0, 5.0), (1, 3.0), (2, 4.0)]
    assert points(values, "infeasible") == [(3, 2.0)]
    assert points(values, "smaller budget") == [(4, 1.0)]
    assert points(values, "running") == [(6, 8.0)]  # at its last step
    assert line(values, "best so far") == [(0, 5.0), (1, 3.0), (6, 3.0)]
    assert line(states, "complete") == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 5), (6, 5)]
    assert line(states, "failed")[-1] == (6, 1)
    assert "All 5 measured trials drawn; lower is better." in found.caption
    texts = [text for mark in values.marks if isinstance(mark, Points) for text in mark.texts]
    assert "s:1  loss 3" in texts


def test_incumbents_that_were_trained_again_have_their_interval(made: Made) -> None:
    study = made.study("s", ["acc:max"])
    runs = [made.trial(study, number, [value]) for number, value in enumerate([0.5, 0.4, 0.7])]
    trained = {0: [0.5, 0.6, 0.7], 1: [0.1, 0.2], 2: [0.8]}  # 1 is no incumbent, 2 has one training
    for trial, accuracies in trained.items():
        for repeat, accuracy in enumerate(accuracies, start=1):
            proposal = Proposal(made.store.trial(study, trial).arch)
            run = made.store.propose(
                study, repeat, proposal, "i", Verdict(State.RUNNING), kind=RETRAIN, parent=runs[trial], repeat=repeat,
                recipe={"epochs": 2},
            )  # fmt: skip
            made.store.report(run, Report(1, {"acc": 0.0}))
            made.store.finish(run, Verdict(State.COMPLETE), Report(2, {"acc": accuracy}))
    values = figure(made, "s", "history").panels[0]
    (again,) = [mark for mark in values.marks if isinstance(mark, Points) and mark.errors]
    assert (list(again.x), list(again.y)) == ([0], [pytest.approx(0.6)])
    # Student's t of two degrees of freedom at 97.5% is 4.3027; the deviation is 0.1.
    assert again.errors == [pytest.approx(4.302653 * 0.1 / 3**0.5)]


def test_a_long_history_is_thinned_and_says_so(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials.thinned, "__defaults__", (40,))
    study = made.study("s")
    rng = numpy.random.default_rng(1)
    values = rng.normal(size=200).tolist()
    for number, value in enumerate(values):
        made.trial(study, number, [value])
    found = figure(made, "s", "history")
    drawn = points(found.panels[0], "trials")
    best = [number for number in range(200) if values[number] > max(values[:number], default=-9)]
    assert 10 < len(drawn) <= 40 + len(best)
    assert {number for number, _ in drawn} >= set(best)
    assert all(values[int(number)] == value for number, value in drawn)
    assert f"{len(drawn):,} of 200 measured trials drawn" in found.caption
    assert line(found.panels[0], "best so far")[:-1] == [(n, values[n]) for n in best]


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_front_is_what_nothing_dominates(made: Made, objectives: int) -> None:
    goals = ["acc:max", "ms:min", "params:min"][:objectives]
    study = made.study("s", goals)
    rng = numpy.random.default_rng(objectives)
    values = rng.normal(size=(30, objectives)).round(1)
    bad = {3, 8, 21}
    for number, value in enumerate(values.tolist()):
        made.trial(study, number, value, feasible=number not in bad)
    found = figure(made, "s", "front")
    signs = numpy.array([1, -1, -1][:objectives])
    oriented, allowed = values * signs, [number for number in range(30) if number not in bad]
    front = {
        number
        for number in allowed
        if not any((oriented[o] >= oriented[number]).all() and (oriented[o] > oriented[number]).any() for o in allowed)
    }
    pairs = [(a, b) for a in range(objectives) for b in range(a + 1, objectives)]
    assert len(found.panels) == len(pairs) + 1
    for panel, (a, b) in zip(found.panels, pairs, strict=False):
        assert set(points(panel, "front")) == {(values[n, a], values[n, b]) for n in front}
        assert sorted(points(panel, "infeasible")) == sorted((values[n, a], values[n, b]) for n in bad)
        assert goals[a].partition(":")[0] in panel.x.label
    volumes = dict(zip(*(list(axis) for axis in zip(*line(found.panels[-1], ""), strict=True)), strict=True))
    corner = oriented[allowed].min(0)
    for number in (0, 10, 29):
        known = [oriented[n] for n in allowed if n <= number]
        shown = [volume for at, volume in volumes.items() if at <= number][-1]
        assert shown == pytest.approx(hypervolume(known, corner))


def test_the_stairs_of_a_front_bound_what_it_dominates(made: Made) -> None:
    study = made.study("s", ["acc:max", "ms:min"])
    for number, value in enumerate([(0.9, 30.0), (0.5, 10.0), (0.7, 20.0)]):
        made.trial(study, number, value)
    (stairs,) = [mark for mark in figure(made, "s", "front").panels[0].marks if isinstance(mark, Line)]
    assert list(zip(stairs.x, stairs.y, strict=True)) == [
        (0.5, 10.0), (0.5, 20.0), (0.7, 20.0), (0.7, 30.0), (0.9, 30.0),
    ]  # fmt: skip


def test_baselines_stand_beside_the_front(made: Made) -> None:
    study = made.study("s", ["acc:max", "ms:min"])
    made.trial(study, 0, (0.9, 30.0))
    proposal = Proposal(made.store.trial(study, 0).arch)
    recipe = {"name": "resnet"}
    run = made.store.propose(study, 1, proposal, "i", Verdict(State.RUNNING), kind=BASELINE, recipe=recipe)
    made.store.finish(run, Verdict(State.COMPLETE, None, (0.8, -25.0)), Report(1, {"acc": 0.8, "ms": 25.0}))
    assert points(figure(made, "s", "front").panels[0], "baselines") == [(0.8, 25.0)]


def test_what_cannot_be_drawn_says_why(made: Made) -> None:
    study = made.study("s")
    with pytest.raises(NotFoundError, match="no trials yet"):
        figure(made, "s", "history")
    made.trial(study, 0, state=State.FAILED)
    assert len(figure(made, "s", "history").panels) == 2  # states alone
    with pytest.raises(UsageError, match="'s' has 1 objective, and a front is drawn of 2 or 3; it could have: history"):
        figure(made, "s", "front")
    with pytest.raises(UsageError, match="did you mean 'history'"):
        figure(made, "s", "histroy")
