"""Cora's public split: networks that are searched, beside GCN and GAT by the same recipe.

    python benchmarks/graph_nodes.py --data ../shared/data --folder FOLDER [--part PART] [--seeds 0 1] [--trials 100]

In this order, each part in FOLDER and each going on where it was stopped; seeds may run in processes of their own:

references  GCN (64 wide) and GAT (8 heads of 8) as members of `auto-gnn`, at both learning rates; and the members of
            `graphgym` that are nearest to them, with linear layers before and after and no dropout of features
search      per seed four searches of so many trained candidates, each beginning with GCN and GAT (or the nearest
            members of the space): `graphgym` by `regularized-evolution`, as published and with no linear layers before
            and after as further options (`graphgym-0`), so that both are members; `auto-gnn` by `agnn-rl`, with
            `sharing` and without; after each of the three spaces `random`, which begins likewise, until it has had as
            many seconds of training as the search without sharing
top         the five best of each search, trained again on three more seeds at both learning rates; the network and rate
            with the best mean validation is the search's result
winners     results and references, ten fresh seeds each
table       what the files say: mean test accuracy with its interval of 95% (Student's t)

Everything is trained by the recipe `standard` for nodes with normalised rows: Adam, decay 5e-4, weights of the best
validation epoch; candidates for 100 epochs at a rate of 0.01, results and references for 200. Networks of `auto-gnn`
have dropout 0.7 and at most `MACS` multiply-accumulates, those of `graphgym` are 64 wide and choose their dropout
(that of the features is 0.7 in `graphgym-0`). One thread; seconds are of evaluations.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rows import Rows
from scipy import stats
from stored import trials

import nas
from nas_core.architecture import Architecture
from nas_core.evaluation import Context
from nas_core.records import Run
from nas_core.seeds import derive
from nas_core.strategy import Proposal, State
from studies.setup.spaces import load_space
from training.data import load
from training.data.split import Split
from training.evaluators.train import Train
from training.recipe import recipe

RATES = (0.005, 0.01)
SEARCHED_RATE = 0.01
EPOCHS = {"top": 100, "winners": 200}
SEARCHED_EPOCHS = 100
MACS = 1e9  # GCN and GAT have a quarter of that
TOP, AGAIN, FRESH = 5, 3, 10  # candidates, and seeds of each
TRAINED = (State.COMPLETE, State.FAILED)
CHUNK = 10  # trials between two looks at how far random search has come
FIELDS = ("part", "network", "text", "lr", "seed", "val_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Searched:
    """A space, its size, and the strategies that search it: the first is the measure of `random`."""

    space: str
    size: Mapping[str, Any]
    strategies: Mapping[str, Mapping[str, Any]]


EVOLUTION = {"evolution": {"name": "regularized-evolution"}}
SEARCHES = {
    "graphgym": Searched(
        "graphgym(training=False, operators=('general', 'gcn', 'gat(heads=8)'))", {"hidden": 64}, EVOLUTION
    ),
    "graphgym-0": Searched(
        "graphgym(training=False, operators=('general', 'gcn', 'gat(heads=8, dropout=0.6)'), pre=(0, 1, 2, 3), "
        "post=(0, 1, 2, 3))",
        {"hidden": 64, "dropout_features": 0.7},
        EVOLUTION,
    ),
    "auto-gnn": Searched(
        "auto-gnn",
        {"dropout": 0.7},
        {"agnn-rl": {"name": "agnn-rl"}, "agnn-rl, sharing": {"name": "agnn-rl", "sharing": True}},
    ),
}
REFERENCES = {
    "GCN": ("auto-gnn", "gcn"),
    "GAT": ("auto-gnn", "gat"),
    "GCN's nearest in graphgym": ("graphgym", "gcn"),
    "GAT's nearest in graphgym": ("graphgym", "gat"),
}
"""Of a space, the named member."""
RANDOM = "random"


@dataclass(frozen=True)
class Plan:
    data: str
    folder: Path
    spaces: tuple[str, ...]
    seeds: tuple[int, ...]
    trials: int

    @property
    def searches(self) -> Mapping[str, Searched]:
        return {space: SEARCHES[space] for space in self.spaces}

    @property
    def db(self) -> Path:
        return self.folder / "nas.db"

    @property
    def rows(self) -> Rows:
        return Rows(self.folder / "graph_nodes.csv", FIELDS, named=5)


def name_of(space: str, strategy: str, seed: int) -> str:
    return f"{space}-{strategy.replace(', ', '-')}-{seed}"


def passed(plan: Plan, space: str, strategy: str, seed: int) -> Sequence[Run]:
    """The trained candidates of a search, in their order: so many as are asked for, or at random as many as it takes to
    train as long."""
    runs = [run for run in trials(plan.db, name_of(space, strategy, seed)) if run.state in TRAINED]
    if strategy != RANDOM:
        return runs[: plan.trials]
    count, longest = 0, seconds(measure(plan, space, seed))
    while count < len(runs) and seconds(runs[:count]) < longest:
        count += CHUNK
    return runs[:count]


def measure(plan: Plan, space: str, seed: int) -> Sequence[Run]:
    """What random search trains as long as."""
    return passed(plan, space, next(iter(SEARCHES[space].strategies)), seed)


def seconds(runs: Sequence[Run]) -> float:
    return sum(run.verdict.seconds or 0.0 for run in runs)


def advanced(plan: Plan, searched: Searched, name: str, strategy: Mapping[str, Any], seed: int, count: int) -> None:
    """A study with so many trials that count; made where there is none."""
    if trials(plan.db, name):
        nas.resume(name, trials=count, db=plan.db)
        return
    nas.search(
        study=name, space=searched.space, size=searched.size, data=plan.data, config={"strategy": dict(strategy)},
        recipe={"name": "standard", "lr": SEARCHED_RATE, "keep": "best"}, epochs=SEARCHED_EPOCHS, enqueue=["gcn,gat"],
        constraint=[f"macs<={MACS:g}"], trials=count, seed=seed, lag=1, threads=1, device="cpu", db=plan.db,
    )  # fmt: skip


def search(plan: Plan) -> None:
    for seed in plan.seeds:
        for space, searched in plan.searches.items():
            for strategy, settings in searched.strategies.items():
                name = name_of(space, strategy, seed)
                if len(passed(plan, space, strategy, seed)) < plan.trials:
                    advanced(plan, searched, name, settings, seed, plan.trials)
                said(plan, space, strategy, seed)
            longest = seconds(measure(plan, space, seed))
            while seconds(runs := passed(plan, space, RANDOM, seed)) < longest:
                advanced(plan, searched, name_of(space, RANDOM, seed), {"name": RANDOM}, seed, len(runs) + CHUNK)
            said(plan, space, RANDOM, seed)


def said(plan: Plan, space: str, strategy: str, seed: int) -> None:
    runs = passed(plan, space, strategy, seed)
    done = [run for run in runs if run.state == State.COMPLETE]
    best = max(done, key=lambda run: run.metrics["val_accuracy"])
    value, text = best.metrics["val_accuracy"], load_space(SEARCHES[space].space)[0].to_text(best.arch)
    found = f"best {value:.4f} {text}"
    print(
        f"{name_of(space, strategy, seed)}: {len(done)} of {len(runs)} trained in {seconds(runs):.0f} s; {found}",
        flush=True,
    )


class Trainer:
    """Trains networks of one space, and writes a row for each."""

    def __init__(self, plan: Plan, searched: Searched) -> None:
        self.plan, self.space = plan, load_space(searched.space)[0]
        self.size = self.space.Size(**searched.size)
        self.source = load(plan.data, Split())

    def figures(self, part: str, network: str, arch: Architecture, lr: float, seed: int) -> tuple[float, float]:
        """Accuracy of the validation and of the test part."""
        rows, named = self.plan.rows, (part, network, self.space.to_text(arch), lr, seed)
        if (row := rows.get(*named)) is None:
            learned = recipe("standard", self.source.task, lr=lr, epochs=EPOCHS[part], keep="best")
            evaluator = Train(self.space, self.source, self.size, learned, device="cpu", threads=1, test=True)
            place = self.plan.folder / "trained" / "-".join(map(str, (part, network, lr, seed, derive(named[2]))))
            *_, last = evaluator.evaluate(Proposal(arch), None, Context(derive(seed, part), place))
            found = {one: round(last.metrics[one], 4) for one in FIELDS[-2:]}
            row = rows.write({**dict(zip(FIELDS, named, strict=False)), **found})
            print(dict(row), flush=True)
        return float(row["val_accuracy"]), float(row["test_accuracy"])

    def chosen(self, network: str, candidates: Sequence[Architecture]) -> tuple[Architecture, float]:
        """The candidate and the rate with the best mean validation."""
        means = {
            (arch, lr): statistics.fmean(self.figures("top", network, arch, lr, seed)[0] for seed in range(AGAIN))
            for arch in candidates
            for lr in RATES
        }
        return max(means, key=means.__getitem__)

    def finished(self, network: str, candidates: Sequence[Architecture], fresh: bool) -> None:
        arch, lr = self.chosen(network, candidates)
        for seed in range(FRESH if fresh else 0):
            self.figures("winners", network, arch, lr, seed)


def trained(plan: Plan, fresh: bool) -> None:
    references(plan, fresh)
    for space, searched in plan.searches.items():
        trainer = Trainer(plan, searched)
        for strategy in (*searched.strategies, RANDOM):
            for seed in plan.seeds:
                done = [run for run in passed(plan, space, strategy, seed) if run.state == State.COMPLETE]
                best = sorted(done, key=lambda run: -run.metrics["val_accuracy"])
                candidates = list({trainer.space.identity(run.arch): run.arch for run in best[: 2 * TOP]}.values())
                if candidates:
                    network = f"{name_of(space, strategy, seed)}@{plan.trials}"
                    trainer.finished(network, candidates[:TOP], fresh)


def references(plan: Plan, fresh: bool = True) -> None:
    for network, (space, member) in REFERENCES.items():
        trainer = Trainer(plan, SEARCHES[space])
        trainer.finished(network, [trainer.space.named[member]], fresh)


def table(plan: Plan) -> None:
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in plan.rows:
        if row["part"] == "winners":
            figures = float(row["val_accuracy"]), float(row["test_accuracy"])
            found[row["network"], row["lr"], row["text"]].append(figures)
    print("| network | rate | validation | test | seeds | |\n|---|---|---|---|---|---|")
    for (network, lr, text), pairs in found.items():
        valid, test = ([100 * pair[part] for pair in pairs] for part in (0, 1))
        half = stats.t.ppf(0.975, len(test) - 1) * statistics.stdev(test) / len(test) ** 0.5
        cells = (network, lr, f"{statistics.fmean(valid):.1f}", f"{statistics.fmean(test):.2f} ± {half:.2f}")
        print(f"| {' | '.join(cells)} | {len(test)} | `{text}` |")


PARTS: Mapping[str, Callable[[Plan], None]] = {
    "references": references,
    "search": search,
    "top": lambda plan: trained(plan, fresh=False),
    "winners": lambda plan: trained(plan, fresh=True),
    "table": table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with planetoid_cora.npz")
    parser.add_argument("--folder", type=Path, required=True, help="of studies and tables")
    parser.add_argument("--part", choices=list(PARTS), action="append", help="this part alone; several")
    parser.add_argument("--spaces", nargs="*", choices=list(SEARCHES), default=list(SEARCHES), help="searched")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1], help="of the searches")
    parser.add_argument("--trials", type=int, default=100, help="candidates of a search")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    data = f"graph:{(given.data / 'planetoid_cora.npz').resolve()}?normalise=rows"
    plan = Plan(data, given.folder.resolve(), tuple(given.spaces), tuple(given.seeds), given.trials)
    for name, part in PARTS.items():
        if name in (given.part or PARTS):
            part(plan)


if __name__ == "__main__":
    main()
