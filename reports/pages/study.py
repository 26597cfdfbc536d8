"""What a study has searched and found, and why that can be trusted, as a page."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import sqlalchemy as sa

from nas_core.errors import InfeasibleError, NasError, NotFoundError
from nas_core.evaluation import Objective
from nas_core.public import public
from nas_core.records import RETRAIN, TRIAL, Run
from nas_core.strategy import State
from reports import make, metrics
from reports.facts import comparison, remarks, sized, study_facts
from reports.kind import Subject
from reports.pages.blocks import Block, Code, Facts, Folded, Page, Picture, Section, Table, Text, Tile, Tiles
from reports.pages.parts import architecture, environments, evaluated_by, networks, values_of
from reports.texts import Cell, Rounded, duration, number, plural, within
from studies import documents
from studies.analysis import baselines, equal_cost, queries
from studies.documents import View, loads_of, name_of
from studies.records import Study
from studies.setup.supernets import caution
from studies.store import supernets
from studies.store import tables as t
from studies.store.store import Store

TOP = 10  # trials that are listed
FRONT = 30  # of a front
CAUSES = 8  # reasons of failures
APART = ("architecture", "contour", "parallel", "rank")
"""Kinds of figures that are not among the others of a page: one has a section, three are for a closer look."""


def page(subject: Subject) -> Page:
    """The page of a whole study. Raises nothing that the store does not."""
    return Report(subject).page()


@dataclass(frozen=True)
class Report:
    """What is said of a study, part by part."""

    subject: Subject

    @property
    def store(self) -> Store:
        return self.subject.store

    @property
    def study(self) -> Study:
        return self.subject.searched

    @property
    def view(self) -> View:
        return self.subject.view

    @cached_property
    def leading(self) -> Mapping[str, Run]:
        """By objective the best trial; empty where there is none yet."""
        try:
            return queries.best_trials(self.store, self.study)
        except (InfeasibleError, NotFoundError):
            return {}

    @property
    def best(self) -> Run | None:
        return next(iter(self.leading.values()), None)

    @cached_property
    def states(self) -> Mapping[str, int]:
        return queries.state_counts(self.store, self.study)

    @cached_property
    def trained(self) -> Sequence[Run]:
        """The trainings of the best trial with the settings of which there are most."""
        groups = {} if self.best is None else baselines.trainings(self.store, self.best)
        return max(groups.values(), key=len, default=[])

    @property
    def objective(self) -> Objective:
        return self.view.objectives[0]

    def page(self) -> Page:
        pictures, missing = make.every(self.subject, without=APART)
        figures: list[Block] = [Picture(figure) for figure in pictures.values()]
        if missing:
            figures.append(Folded("Figures that there are not", [Text(reason) for reason in missing]))
        sections = [
            Section("result", "Result", list(self.result())),
            Section("trust", "Why it can be trusted", list(self.trust())),
            Section("figures", "Figures", figures),
            Section("architecture", "Architecture", list(self.architecture())),
            Section("networks", "Trained and compressed networks", networks(self.store, self.view)),
            Section("search", "What was searched", list(self.search())),
            Section("costs", "Costs", list(self.costs())),
            Section("environment", "Environment", environments(self.store, self.study)),
            Section("repeat", "Repeat it", list(self.repeat())),
        ]
        return Page("study", self.study.name, self.lead(), [one for one in sections if one.blocks], self.tiles())

    def lead(self) -> str:
        spec = self.study.spec
        goals = " and ".join(f"{one.metric} ({'higher' if one.goal == 'max' else 'lower'} is better)"
                             for one in self.view.objectives)  # fmt: skip
        limits = f", subject to {', '.join(spec.constraints)}" if spec.constraints else ""
        return (
            f"Architectures of {public(spec.space)} searched by {public(spec.strategy)} for {goals}{limits}, "
            f"{evaluated_by(spec)}."
        )

    def tiles(self) -> Tiles:
        found = []
        if self.best is not None:
            value = self.view.values(self.best)[self.objective.metric]
            found.append(Tile(f"best {self.objective.metric}", number(value), self.view.address(self.best)))
        if len(self.trained) > 1:
            name = next((one for one in _learned(self.trained) if one.startswith("test_")), self.objective.metric)
            values = [run.metrics[name] for run in self.trained if name in run.metrics]
            if len(values) > 1:
                text = within(statistics.fmean(values), statistics.stdev(values))
                found.append(Tile(name, text, f"mean and deviation of {len(values)} trainings"))
        evaluated = sum(self.states.get(state, 0) for state in (State.COMPLETE, State.PRUNED, State.FAILED))
        rest = {state: count for state, count in self.states.items() if state != State.COMPLETE}
        beside = ", ".join(f"{count:,} {state}" for state, count in rest.items())
        found.append(Tile("trials evaluated", f"{evaluated:,}", beside))
        spent, _ = self._spent
        beside = "as the table records it" if self.study.spec.evaluator.facts.looks_up else self._wall()
        found.append(Tile("time of evaluation", duration(spent) or "none", beside))
        if self.best is not None and "params" in self.best.metrics:
            macs = self.best.metrics.get("macs")
            beside = "" if macs is None else f"{number(macs)} multiply-accumulates"
            found.append(Tile("parameters of the best", number(self.best.metrics["params"]), beside))
        return Tiles(found)

    # -- what was found ---------------------------------------------------------------------------------------

    def result(self) -> Iterator[Block]:
        best, spec = self.best, self.study.spec
        if best is None:
            yield Text(self._trouble(), "careful")
            return
        for metric, run in self.leading.items():
            what = "The best trial" if run is best else f"The best of the front at {metric}"
            if run is best or run.number != best.number:
                yield Text(f"{what} is {self.view.address(run)}.")
                yield Facts(values_of(self.view, run))
        names = [one.metric for one in self.view.objectives]
        if len(names) > 1:
            front = queries.front_trials(self.store, self.study)
            title = f"Pareto front: {plural(len(front), 'trial')} that no other dominates"
            title += f", the first {FRONT}" if len(front) > FRONT else ""
            yield self._trials(front[:FRONT], title)
        else:
            top = queries.top_trials(self.store, self.study, TOP)
            yield self._trials(top, f"The best {len(top)} of {sum(self.states.values()):,} trials")
        if spec.constraints:
            kept = ", ".join(spec.constraints)
            yield Text(f"Every trial that is listed satisfies {kept}.")

    def _trials(self, runs: Sequence[Run], title: str) -> Table:
        names = [one.metric for one in self.view.objectives]
        costs = [name for name in ("params", "macs") if name not in names and any(name in r.metrics for r in runs)]
        heads = ["trial", *names, *costs, "seconds", "architecture"]
        rows: list[list[Cell]] = [
            [
                self.view.address(run),
                *(self.view.values(run).get(name) for name in names),
                *(run.metrics.get(name) for name in costs),
                run.verdict.seconds,
                self.view.notation(run.arch) or run.arch.key,
            ]
            for run in runs
        ]
        return Table(heads, rows, [*names, *costs, "seconds"], title)

    def _trouble(self) -> str:
        try:
            queries.best_trials(self.store, self.study)
        except (InfeasibleError, NotFoundError) as error:
            return str(error)
        return ""

    # -- why it can be trusted ----------------------------------------------------------------------------------

    def trust(self, *, quick: bool = False) -> Iterator[Block]:
        """`quick`: without what has to read all trials."""
        if self.best is not None:
            yield from self._seeds(self.best)
            if quick:
                yield Text(f"Random search at equal cost is in its report: nas report {self.study.name}.")
            else:
                yield from self._random()
            yield from self._baselines(self.best)
            note = caution(self.study.spec)
            if note is not None:
                yield Text(f"{note[0].upper()}{note[1:]}.", "careful")
            for remark in remarks(self.best.metrics, loads_of(self.view, self.store, self.best)):
                yield Text(f"{remark[0].upper()}{remark[1:]}.", "careful")
        yield from self._turned_down()
        yield Text(
            "Every trial was committed before it was evaluated, and its result before it was shown; "
            f"'nas verify {self.study.name}' repeats every decision of the search and compares it with this record."
        )

    def _seeds(self, best: Run) -> Iterator[Block]:
        address, facts = self.view.address(best), self.study.spec.evaluator.facts
        if not self.trained:
            if facts.looks_up:
                yield Text("Its values are those that the table records of one evaluation; nothing was trained here.")
            elif facts.told:
                yield Text("Its values are those that were told; nothing was evaluated here.")
            else:
                yield Text(
                    f"Nothing is known of what another seed would give: {address} was evaluated by the search alone. "
                    f"'nas train {address} --seeds 5' trains it again, and measures it on the test part.",
                    "careful",
                )
            return
        rows: list[list[Cell]] = []
        for name in _learned(self.trained):
            values = [run.metrics[name] for run in self.trained if name in run.metrics]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            shown = within(statistics.fmean(values), deviation) if deviation is not None else number(values[0])
            rows.append([name, Rounded(statistics.fmean(values), shown), min(values), max(values), len(values)])
        count = len(self.trained)
        heads = ["metric", "mean ± deviation", "least", "most", "trainings"]
        yield Table(heads, rows, heads[1:], f"{address} trained from scratch, {plural(count, 'seed')}")
        if count == 1:
            yield Text(f"One training says nothing of its spread: 'nas train {address} --seeds 5'.", "careful")
        else:
            yield from self._near(best)
        if any(str(row[0]).startswith("test_") for row in rows):
            yield Text("Test figures were measured after the search had ended: nothing was selected by them.", "good")

    def _near(self, best: Run) -> Iterator[Block]:
        """How many of the best trials lie within the deviation of the winner's trainings."""
        metric = self.objective.metric
        values = [run.metrics[metric] for run in self.trained if metric in run.metrics]
        if len(values) < 2 or len(self.view.objectives) > 1:
            return
        deviation = statistics.stdev(values)
        top = queries.top_trials(self.store, self.study, TOP)[1:]
        lead = self.view.values(best)[metric]
        near = [run for run in top if abs(self.view.values(run)[metric] - lead) <= deviation]
        if not top:
            return
        if near:
            yield Text(
                f"{len(near)} of the next {plural(len(top), 'trial')} lie within that deviation ({deviation:.3g}) "
                f"of the winner: their order may be chance. 'nas train {self.study.name} --top 5 --seeds 3' tells.",
                "careful",
            )
        else:
            yield Text(f"The next trial is further from the winner than that deviation ({deviation:.3g}).", "good")

    def _random(self) -> Iterator[Block]:
        name = self.objective.metric
        if self.study.spec.strategy == "random":
            yield Text("This is random search, with which others are compared.")
            return
        found = equal_cost.beside_random(self.store, self.study)
        if found is None:
            yield Text(
                "No random search of the same problem is in this database, so how much the strategy has added is not "
                "known: the same command with --strategy random makes one.",
                "careful",
            )
            return
        mine, its = self.objective.orient(found.value), self.objective.orient(found.mean)
        better = found.value > found.mean
        spread = f" (deviation {found.deviation:.3g})" if len(found.found) > 1 else ""
        cost = duration(found.cost) if found.unit == equal_cost.SECONDS else f"{number(found.cost)} evaluations"
        says = "better" if better else "no difference" if found.value == found.mean else "worse"
        searches = plural(len(found.names), "random search", "random searches")
        rows: list[list[Cell]] = [["this search", mine]]
        rows += [[other, self.objective.orient(value)] for other, value in zip(found.names, found.found, strict=True)]
        yield Table(["after equal cost", name], rows, [name], f"Random search at equal cost: {cost}")
        yield Text(
            f"After {cost} this search had {name} {number(mine)}, {searches} {number(its)}{spread}: {says}, by "
            f"{abs(mine - its):.4g}. One search is one sample; 'nas bench' compares strategies over many seeds.",
            "good" if better else "careful",
        )

    def _baselines(self, best: Run) -> Iterator[Block]:
        known = baselines.compared(self.store, self.study, best, self.view.objectives)
        lines = [comparison(name_of(run) + sized(one.sizes), one) for run, several in known for one in several]
        if lines:
            yield Folded(f"Beside {plural(len(known), 'baseline')}", [Text(line) for line in lines])

    def _turned_down(self) -> Iterator[Block]:
        rejected = queries.rejections(self.store, self.study, self.states)
        total = sum(self.states.values())
        if rejected:
            rows: list[list[Cell]] = [
                [one.reason, one.count, Rounded(one.share, f"{one.share:.1%}"), duration(one.seconds)]
                for one in rejected
            ]
            yield Table(["rejected for", "trials", "share", "time"], rows, ["trials", "share", "time"], "Rejected")
        failed = queries.causes(self.store, self.study)
        if failed:
            lines: list[list[Cell]] = [
                [one.reason, one.count, f"{self.study.name}:{one.first}"] for one in failed[:CAUSES]
            ]
            more = [f"and {len(failed) - CAUSES} more reasons"] if len(failed) > CAUSES else []
            yield Table(["failed by", "trials", "first"], lines, ["trials"], "Failed", more)
            share = self.states.get(State.FAILED, 0) / total
            yield Text(f"{share:.1%} of all trials failed; what they would have come to is not known.", "careful")
        if not rejected and not failed and total:
            yield Text(f"None of the {plural(total, 'trial')} failed or was rejected.", "good")

    # -- the rest ------------------------------------------------------------------------------------------------

    def architecture(self) -> Iterator[Block]:
        if self.best is not None:
            yield from architecture(self.subject, self.view, self.best)

    def search(self, *, quick: bool = False) -> Iterator[Block]:
        """`quick`: without what has to read all trials."""
        correlation = {} if quick else documents.rank_correlation(self.store, self.study)
        facts = study_facts(self.view, self.states, correlation, ())
        yield Facts({name: public(text) for name, text in facts.items() if name not in ("study", "trials", "rejected")})
        if self.study.spec.supernet is not None:
            run, epochs = supernets.find(self.store, self.study), supernets.epoch_count(self.store, self.study)
            state = "not begun" if run is None else str(run.state)
            yield Facts({"supernet": state, "epochs of the supernet": f"{epochs:,}"})

    @cached_property
    def _spent(self) -> tuple[float, list[list[Cell]]]:
        """Seconds of the trials, and what all runs of the study took by their kinds and states."""
        r = t.runs.c
        columns = r.kind, r.state, sa.func.count(), sa.func.sum(r.seconds)
        found = self.store.read(
            sa.select(*columns).where(r.study == self.study.id).group_by(r.kind, r.state).order_by(r.kind, r.state)
        )
        total = sum(seconds or 0.0 for kind, _, _, seconds in found if kind == TRIAL)
        names = {TRIAL: "trials", RETRAIN: "trainings"}
        rows: list[list[Cell]] = [
            [names.get(kind, kind), state, count, duration(seconds), duration(seconds / count) if seconds else ""]
            for kind, state, count, seconds in sorted(found, key=lambda row: row[0] != TRIAL)
        ]
        return total, rows

    def _wall(self) -> str:
        r = t.runs.c
        begun, ended = self.store.read(
            sa.select(sa.func.min(r.started), sa.func.max(r.ended)).where(r.study == self.study.id)
        )[0]
        return "" if begun is None or ended is None else f"within {duration(ended - begun)}"

    def costs(self) -> Iterator[Block]:
        _, rows = self._spent
        if rows:
            heads = ["runs", "state", "number", "time", "time of each"]
            yield Table(heads, rows, heads[2:], "What it took")
        if self.study.spec.evaluator.facts.looks_up:
            yield Text("Times of trials are those that the table records, not what looking them up took.")
        best = self.best
        if best is not None and self.study.spec.constraints:
            limits: list[list[Cell]] = [
                [text, "kept" if violation <= 0 else f"violated by {violation:.1%}"]
                for text, violation in zip(self.study.spec.constraints, best.verdict.violations, strict=False)
            ]
            yield Table(["limit", self.view.address(best)], limits, (), "Limits")

    def repeat(self) -> Iterator[Block]:
        from studies.jobs.commands import command
        from studies.jobs.stored import settings_of

        name, lines = self.study.name, []
        try:
            import yaml

            from studies.setup.configuration import asking_for

            asked = public(json.loads(json.dumps(asking_for(self.study))))
            file = yaml.safe_dump(asked, sort_keys=False).rstrip()
            lines.append(f"nas search {name}.yaml")
        except NasError as error:
            file = ""
            yield Text(f"No file asks for this search again: {error}", "careful")
        if self.best is not None and self.trained:
            settings = settings_of(self.trained[0])
            words = command(RETRAIN, self.view.address(self.best), settings, len(self.trained))
            lines.append(shlex.join(public(words)))
        yield Code("\n".join([*lines, f"nas verify {name}", f"nas report {name}"]), "Commands")
        if self.study.spec.warm_start is not None:
            yield Text("It began with what another study had found, which no file holds: --warm-start.", "careful")
        if file:
            yield Folded(f"{name}.yaml", [Code(file)])


def _learned(runs: Sequence[Run]) -> list[str]:
    """The metrics of trainings that a seed decides, those of the test part first."""
    names = dict.fromkeys(name for run in runs for name in metrics.shown(run.metrics, None))
    kept = [name for name in names if name.startswith(("val_", "test_"))]
    return sorted(kept, key=lambda name: not name.startswith("test_"))
