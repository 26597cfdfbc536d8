"""The other kinds of figures, against what was stored."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy
import pytest
from scipy import stats

from nas_core.architecture import Architecture
from nas_core.errors import NotFoundError, UsageError
from nas_core.evaluation import LOADS, Report
from nas_core.graph import ArchGraph
from nas_core.records import COMPRESS, RETRAIN, Epoch, StopAt, Verdict
from nas_core.strategy import Proposal, State
from reports import make
from reports.addressed import addressed
from reports.figure import Bars, Cells, Figure, Labels, Line, Points, Segments
from reports.kinds import architecture, bench
from reports.kinds.mirrored import BEST
from reports.mirrored import Mirrored
from studies.bench.curves import Curves
from studies.bench.standings import Standings
from studies.store import supernets
from studies.store.testing import SUPERNET
from tests.reports.conftest import Made


def figure(made: Made, name: str, kind: str) -> Figure:
    found = make.figures(addressed(made.store, name), [kind])[0]
    assert isinstance(found, Figure)
    return found


def marks(found: Figure, sort: type, panel: int = 0) -> list:  # type: ignore[type-arg]
    return [mark for mark in found.panels[panel].marks if isinstance(mark, sort)]


def test_curves_of_a_study_are_those_of_its_trials(made: Made) -> None:
    study = made.study("s")
    curves = {n: {step: {"score": n / 10 + step / 100, "other": 9.0} for step in (1.0, 2.0, 3.0)} for n in range(5)}
    for number, curve in curves.items():
        pruned = number == 4
        state = State.PRUNED if pruned else State.COMPLETE
        made.trial(study, number, None if pruned else [curve[3.0]["score"]], state, curve=curve)
    made.trial(study, 5, [9.0], curve={3.0: {"score": 9.0}})  # one step is no curve
    found = figure(made, "s", "curves")
    lines = {mark.name: mark for mark in marks(found, Line)}
    assert lines.keys() == {"best (s:3)", "complete", "pruned"}
    assert list(lines["best (s:3)"].x)[:3] == [1, 2, 3]
    assert list(lines["best (s:3)"].y)[:3] == pytest.approx([0.31, 0.32, 0.33])
    assert [value for value in lines["complete"].y if not math.isnan(value)] == pytest.approx(
        [n / 10 + step / 100 for n in (2, 1, 0) for step in (1, 2, 3)]
    )
    assert found.caption == "All 5 curves drawn; higher is better."


def test_curves_of_a_run_are_all_that_it_reported_but_costs(made: Made) -> None:
    study = made.study("s")
    losses = {step: {"train_loss": 1 / step, "val_loss": 2 / step} for step in (1.0, 2.0)}
    curve = {step: {**losses[step], "val_accuracy": step / 9, "params": 7.0} for step in (1.0, 2.0)}
    made.trial(study, 0, [1.0], curve=curve)
    made.trial(study, 1, [1.0], curve={1.0: {"val_loss": 2.0}})
    found = figure(made, "s:0", "curves")
    shown = {
        (panel.y.label, mark.name): list(mark.y)
        for panel in found.panels
        for mark in panel.marks
        if isinstance(mark, Line)
    }
    assert shown == {
        ("loss", "train_loss"): [1.0, 0.5],
        ("loss", "val_loss"): [2.0, 1.0],
        ("accuracy", "val_accuracy"): [1 / 9, 2 / 9],
    }
    with pytest.raises(NotFoundError, match="s:1 has reported 1 step; a curve needs two"):
        figure(made, "s:1", "curves")
    made.trial(study, 2, [1.0], curve={step: {"score": 0.5, "val_loss": 1.0, "macs": 1.0} for step in (1.0, 2.0)})
    panels = figure(made, "s:2", "curves").panels
    assert {mark.name for panel in panels for mark in panel.marks if isinstance(mark, Line)} == {"score", "val_loss"}


def test_a_graph_is_drawn_downwards_with_every_edge() -> None:
    graph = ArchGraph(
        ("input", "conv", "skip", "conv", "output", "a label that is much longer than a line of a box may be"),
        ((0, 1), (0, 2), (1, 3), (2, 3), (0, 4), (3, 4), (0, 5), (5, 4)),
        skips=frozenset({"skip"}),
    )
    drawn = architecture._laid_out(graph)
    found = list(architecture._marks(graph, [architecture._wrapped(label) for label in graph.nodes], drawn))
    ends = [end for mark in found if isinstance(mark, Segments) for end in zip(mark.y0, mark.y1, strict=True)]
    assert all(above > below for above, below in ends)
    arrows = sum(len(mark.x0) for mark in found if isinstance(mark, Segments) and mark.arrows)
    assert arrows == len(graph.edges)  # one arrives for each
    boxes = {
        text: (x, y)
        for mark in found
        if isinstance(mark, Labels)
        for x, y, text in zip(mark.x, mark.y, mark.texts, strict=True)
    }
    assert [boxes["input"][1], boxes["skip"][1], boxes["output"][1]] == [0, -1, -3]
    colors = {mark.texts[0]: mark.color for mark in found if isinstance(mark, Labels)}
    assert colors["conv"] != colors["skip"] != colors["input"]
    assert all(len(line) <= architecture.LABEL for text in boxes for line in text.splitlines())
    for layer in drawn.layers:  # nothing on top of another
        places = sorted(drawn.place[node] for node in layer)
        assert all(b - a >= architecture.SLIM - 1e-9 for a, b in pairwise(places))


def test_alphas_are_the_weights_of_the_epochs(made: Made) -> None:
    study = made.study("s", supernet=SUPERNET)
    with pytest.raises(NotFoundError, match="no epoch with weights"):
        figure(made, "s", "alphas")
    supernets.start(made.store, study, None)
    archs = [Architecture("letters", {"a": 1}), Architecture("letters", {"a": 2})]
    weights = [(0.5, 0.5), (0.25, 0.75), (0.0, 1.0)]
    made_epochs = [
        Epoch(n + 1, archs[n == 2], {}, {"edge": one, "other": (1.0,)}, 1.0) for n, one in enumerate(weights)
    ]
    supernets.save_epochs(made.store, study, made_epochs)
    found = figure(made, "s", "alphas")
    assert [panel.title for panel in found.panels] == ["edge", "other", "mean entropy"]
    assert [list(mark.y) for mark in marks(found, Line)] == [[0.5, 0.25, 0.0], [0.5, 0.75, 1.0]]
    (entropy,) = marks(found, Line, 2)
    assert list(entropy.y) == pytest.approx([1.0, stats.entropy([0.25, 0.75], base=2), 0.0])
    (changed,) = marks(found, Points, 2)
    assert list(changed.x) == [3.0]


def test_loads_are_a_row_per_layer(made: Made) -> None:
    study = made.study("s")
    run = made.trial(study, 0, [1.0])
    with pytest.raises(UsageError, match="'s' has no layers of experts that report loads; it could have: history"):
        figure(made, "s", "loads")
    made.store.report(
        run, Report(1, {"score": 1.0}, detail={LOADS: {"first": [0.75, 0.25], "second": [0.0, 0.5, 0.5]}})
    )
    found = figure(made, "s", "loads")
    (cells,) = marks(found, Cells)
    assert numpy.array_equal(cells.values, [[0.75, 0.25, math.nan], [0.0, 0.5, 0.5]], equal_nan=True)
    assert (cells.most, list(found.panels[0].y.names)) == (0.75, ["first", "second"])
    assert found.caption.endswith("1 did none.")


def compressed(made: Made, report: object) -> None:
    """A training of trial 0, and a compression of it."""
    study = made.study("s", ["acc:max"])
    parent = made.trial(study, 0, [0.5])
    arch = made.store.trial(study, 0).arch
    for kind, method, values in ((RETRAIN, None, (0.9, 100.0)), (COMPRESS, "magnitude", (0.8, 40.0))):
        recipe = {
            "split_hash": study.spec.split_hash,
            **({"method": method, "targets": ["macs<=0.5x"]} if method else {}),
        }
        run = made.store.propose(
            study, 1, Proposal(arch), "i", Verdict(State.RUNNING), kind=kind, parent=parent, recipe=recipe
        )
        made.store.finish(run, Verdict(State.COMPLETE), Report(1, dict(zip(("acc", "macs"), values, strict=True))))
    path = Path(made.store.files) / "compression.json"
    path.write_text(json.dumps({"rounds": report}))
    (child,) = made.store.below(made.store.trial(study, 0), COMPRESS)
    made.store.add_artifact(child, "compression", path)


def test_pruning_is_what_is_left_of_each_part(made: Made) -> None:
    rounds = [
        {"report": {"a": {"units": 8, "kept": 6}, "b": {"rank": 2, "of": 8}, "c": {"block": "gone"}}, "notes": []},
        {"report": {"a": {"units": 6, "kept": 3}, "d": {"density": 0.1}}, "notes": []},
    ]
    compressed(made, rounds)
    found = figure(made, "s:0/compress-1", "pruning")
    first, second = marks(found, Bars)
    assert list(found.panels[0].y.names) == ["a", "b", "d"]
    assert (list(first.lengths), list(second.lengths)) == ([0.75, 0.25], [0.5, 0.1])
    assert [round(at) for at in first.x] == [0, 1]
    assert [round(at) for at in second.x] == [0, 2]
    with pytest.raises(UsageError, match="is no compression"):
        figure(made, "s:0", "pruning")


def test_compressed_networks_stand_at_what_they_cost(made: Made) -> None:
    compressed(made, [])
    found = figure(made, "s", "compressed")
    shown = {mark.name: (list(mark.x), list(mark.y), list(mark.texts)) for mark in marks(found, Points)}
    assert shown == {
        "trained": ([100.0], [0.9], ["s:0/train-1"]), "magnitude": ([40.0], [0.8], ["s:0/compress-1"]),
    }  # fmt: skip
    with pytest.raises(NotFoundError, match="of no part how much"):
        figure(made, "s:0/compress-1", "pruning")


def test_ranks_hold_scores_against_what_was_measured(made: Made) -> None:
    study = made.study("s", ["loss:min"])
    with pytest.raises(NotFoundError, match="nothing whose ranks could be compared"):
        figure(made, "s", "ranks")
    values, archs = [3.0, 1.0, 2.0, 5.0], [Architecture("letters", {"a": n}) for n in range(4)]
    for number, (arch, value) in enumerate(zip(archs, values, strict=True)):
        verdict = Verdict(State.COMPLETE, None, (-value,))
        made.store.propose(study, number, Proposal(arch), f"i{number}", verdict)
    context = made.store.context({"made": "here"})
    cheap = [0.1, 0.9, 0.3, 0.2]
    made.store.save_scores(context, [(arch, "synflow", value, None) for arch, value in zip(archs, cheap, strict=True)])
    found = figure(made, "s", "ranks")
    (points,) = marks(found, Points)
    rho = stats.spearmanr(cheap, [-value for value in values]).statistic
    assert found.panels[0].title == f"synflow: Spearman {rho:.2f}, 4 pairs"
    at = dict(zip(points.texts, zip(points.x, points.y, strict=True), strict=True))
    assert at[archs[1].key] == (4, 4)  # the best of both: the smallest loss
    assert at[archs[0].key] == (1, 2)


def test_searched_values_are_held_against_trainings(made: Made) -> None:
    study = made.study("s", ["loss:min"])
    trained = [[4.0, 6.0], [1.0], [3.0]]
    for number, values in enumerate(trained):
        parent = made.trial(study, number, [float(number)])
        for repeat, value in enumerate(values, start=1):
            proposal = Proposal(made.store.trial(study, number).arch)
            run = made.store.propose(study, repeat, proposal, "i", Verdict(State.RUNNING), kind=RETRAIN, parent=parent)
            made.store.report(run, Report(1, {"loss": 0.0}))
            made.store.finish(run, Verdict(State.COMPLETE), Report(2, {"loss": value}))
    (points,) = marks(figure(made, "s", "ranks"), Points)
    at = dict(zip(points.texts, zip(points.x, points.y, strict=True), strict=True))
    assert at == {"s:0": (3, 1), "s:1": (2, 3), "s:2": (1, 2)}  # the smallest loss has the highest rank


def test_rungs_of_a_bracket_are_bars(made: Made) -> None:
    study = made.study("s", strategy_config={"eta": 2})
    rng = numpy.random.default_rng(0)
    for number in range(8):
        low = float(rng.normal())
        made.trial(study, 2 * number, [low], budget=1.0)
        made.trial(study, 2 * number + 1, [-low if number == 0 else low], budget=2.0, note={"promotes": 2 * number})
    (bars,) = marks(figure(made, "s", "ranks"), Bars)
    assert list(figure(made, "s", "ranks").panels[0].x.names) == ["1"]
    assert 0 < bars.lengths[0] < 1


class Landscape:
    optimum = 1.0


class Problem:
    """Of a plan what figures read."""

    landscape, queries, seeds, objective = Landscape(), 4, 2, type("O", (), {"metric": "acc"})()


def test_regret_is_the_optimum_minus_the_mean_incumbent() -> None:
    validation = numpy.array([[[0.5, 0.7, 0.7, 0.9], [0.7, 0.7, 0.9, 0.9]], [[1.0] * 4, [1.0] * 4]])
    panel = bench._regret(Curves(("a", "b"), (0, 1), validation, None, {}), Problem())  # type: ignore[arg-type]
    lines = {mark.name: list(mark.y) for mark in panel.marks if isinstance(mark, Line)}
    assert lines["a"] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert lines["b"] == pytest.approx([0.05] * 4)  # 0 has no logarithm: half of the smallest
    assert panel.y.log


def test_strategies_that_do_not_differ_are_joined() -> None:
    strategies = [type("S", (), {"label": name, "rank": rank})() for name, rank in (("a", 1.2), ("b", 2.8), ("c", 2.0))]
    standings = Standings(3, "a", tuple(strategies), None, 1.0, (("a", "c"), ("c", "b")))  # type: ignore[arg-type]
    panel = bench._ranks(standings)
    thick = [mark for mark in panel.marks if isinstance(mark, Segments) and mark.width == 3.0]
    assert [(a, b) for mark in thick for a, b in zip(mark.x0, mark.x1, strict=True)] == [(1.2, 2.0), (2.0, 2.8)]
    texts = {
        text.strip(): x
        for mark in panel.marks
        if isinstance(mark, Labels)
        for x, text in zip(mark.x, mark.texts, strict=True)
    }
    assert max(texts["a 1.20"], texts["c 2.00"]) < 1
    assert texts["b 2.80"] > 3
    assert "critical difference 1.00" in texts


def test_a_mirror_has_the_best_and_a_sample(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.kinds.mirrored.MOST", 30)
    monkeypatch.setattr("reports.kinds.mirrored.BEST", 10)
    assert BEST == 500
    study = made.study("s", ["loss:min"])
    values = numpy.random.default_rng(3).permutation(60).astype(float).tolist()
    for number, value in enumerate(values):
        made.trial(study, number, [value], feasible=number != 7)
    found, again = (make.figures(addressed(made.store, "s"), ["importance"])[0] for _ in range(2))
    assert isinstance(found, Mirrored)
    assert found == again
    assert [one.value for one in found.trials] == [values[one.number] for one in found.trials]
    assert len({one.number for one in found.trials}) == 30
    assert {float(value) for value in range(10)} <= {one.value for one in found.trials}
    assert {one.number for one in found.trials if not one.feasible} <= {7}
    assert {name: set(options) for name, options in found.options.items()} == {"a": {0, 1, 2}, "b": {"x", "y"}}
    assert "30 of 60 measured trials drawn (the best 10 and a sample of the others)" in found.caption
    assert StopAt() == study.stop_at


def test_the_most_important_choice_comes_first(made: Made) -> None:
    study = made.study("s")
    noise = numpy.random.default_rng(0).normal(size=60) / 100
    for number in range(60):
        made.trial(study, number, [float(number % 2) + float(noise[number])])  # b decides
    found = make.figures(addressed(made.store, "s"), ["slice"])[0]
    assert isinstance(found, Mirrored)
    assert found.params is not None
    assert list(found.params) == ["b", "a"]


@pytest.mark.parametrize("goal", ["max", "min"])
def test_pairs_of_options_have_the_best_of_their_trials(made: Made, goal: str) -> None:
    study = made.study("s", [f"score:{goal}"])
    values = [5.0, 1.0, 2.0, 7.0, 4.0, 6.0, 3.0, 9.0]  # of (number % 3, number % 2)
    for number, value in enumerate(values):
        made.trial(study, number, [value])
    found = figure(made, "s", "contour")
    (cells,) = marks(found, Cells)
    across, down = found.panels[0].x, found.panels[0].y
    best = max if goal == "max" else min
    grids = {
        (x, y): cells.values[row][column] for row, y in enumerate(down.names) for column, x in enumerate(across.names)
    }
    wanted: dict[tuple[str, str], list[float]] = {}
    for number, value in enumerate(values):
        a, b = str(number % 3), "xy"[number % 2]
        wanted.setdefault((a, b) if across.label == "a" else (b, a), []).append(value)
    assert grids == {pair: best(of) for pair, of in wanted.items()}
    assert {across.label, down.label} == {"a", "b"}
    assert (cells.least, cells.most) == (min(grids.values()), max(grids.values()))
    assert "A cell is the best of the trials with both options" in found.caption


def test_a_pair_needs_two_choices_that_differ(made: Made) -> None:
    study = made.study("s")
    for number in (0, 6, 3):
        made.trial(study, number, [float(number)])  # b differs, a does not
    with pytest.raises(NotFoundError, match="one choice differs, b; a pair needs two"):
        figure(made, "s", "contour")


def test_optuna_does_not_complain_of_equal_values(made: Made, recwarn: pytest.WarningsRecorder) -> None:
    study = made.study("s")
    for number in range(6):
        made.trial(study, number, [1.0])
    (found,) = make.figures(addressed(made.store, "s"), ["importance"])
    assert isinstance(found, Mirrored)
    assert found.params is not None
    assert set(found.params) == {"a", "b"}
    assert [str(one.message) for one in recwarn] == []


def test_one_trial_is_called_so(made: Made) -> None:
    made.trial(made.study("s"), 0, [1.0])
    assert figure(made, "s", "history").caption == "The only measured trial drawn; higher is better."
