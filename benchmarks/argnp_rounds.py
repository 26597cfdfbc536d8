"""Proliferation on CLUSTER: what each round derives, and what single-level searches of `gnas` derive, beside chance.

    python benchmarks/argnp_rounds.py --folder FOLDER [--graphs 200] [--seeds 0] [--part PART]

In this order, each part in FOLDER and each going on where it was stopped:

search   per seed `argnp` in its four rounds; on `gnas` `darts` with bilevel=false, which is the published search, and
         `sgas`, both of 50 epochs, in batches of 16 and of two (`long`), which make more steps
trained  what each search has derived, and `RANDOM` networks drawn for each: of its space, and in `argnp` of as many
         vertices. Each is trained from scratch on `AGAIN` seeds by the recipe `standard` in batches of two, so that a
         few graphs make many steps, keeping the best weights; the smallest networks first
table    what the file says: mean test recall with its interval of 95% (Student's t), of what was derived over its seeds
         and of the random networks over their means; and how many of those are higher
steps    CPU time of a step, forward and backward of every mixture, on one batch: of the supernets of the rounds, and of
         those of all their vertices at once, alternating; the last column is the ratio to that of two vertices

Data are generated (`sbm-cluster`), searched and trained at a small size. One thread. For a try: `--graphs 20 --rounds 2
--epochs 2 --train-epochs 1`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rows import Rows
from scipy import stats

import nas
from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.evaluation import Context
from nas_core.seeds import derive, generator
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from search_spaces.argnp.space import VERTICES
from studies.setup.spaces import load_space
from studies.store.store import Store
from training.data import load
from training.data.loading import Loading
from training.data.split import Split
from training.evaluators.train import Train
from training.recipe import recipe

AGAIN, RANDOM = 3, 5  # seeds, and networks
WHOLE, REPEATS = (4, 8), 3  # vertices of supernets of all of them, and measured steps of each
SHORT = 50  # epochs of the searches on gnas
TRAINED: Mapping[str, Any] = {"batch_size": 2, "lr": 0.005, "keep": "best"}
MEASURED = ("val_mean_recall", "test_mean_recall", "params", "macs")
FIELDS = ("search", "seed", "network", "again", *MEASURED, "text")


@dataclass(frozen=True)
class Searched:
    space: str
    size: Mapping[str, Any]
    strategy: Mapping[str, Any]


SEARCHES = {
    "argnp": Searched(
        "argnp",
        {"node": 16, "relation": 8, "node_output": 16, "relation_output": 8, "dropout": 0.2},
        {"name": "argnp", "batch_size": 16},
    ),
    "gnas-darts": Searched(
        "gnas", {"hidden": 16}, {"name": "darts", "bilevel": False, "batch_size": 16, "epochs": SHORT}
    ),
    "gnas-sgas": Searched(
        "gnas", {"hidden": 16}, {"name": "sgas", "bilevel": False, "batch_size": 16, "epochs": SHORT}
    ),
    "gnas-darts-long": Searched(
        "gnas", {"hidden": 16}, {"name": "darts", "bilevel": False, "batch_size": 2, "epochs": SHORT}
    ),
    "gnas-sgas-long": Searched(
        "gnas", {"hidden": 16}, {"name": "sgas", "bilevel": False, "batch_size": 2, "epochs": SHORT}
    ),
}


@dataclass(frozen=True)
class Plan:
    folder: Path
    graphs: int
    seeds: tuple[int, ...]
    rounds: int | None
    epochs: int | None
    train_epochs: int

    @property
    def data(self) -> str:
        return f"sbm-cluster?graphs={self.graphs}"

    @property
    def db(self) -> Path:
        return self.folder / "nas.db"

    @property
    def rows(self) -> Rows:
        return Rows(self.folder / "argnp_rounds.csv", FIELDS, named=4)

    def strategy(self, searched: Searched) -> dict[str, Any]:
        """Its settings, shortened where that is asked for."""
        changed: dict[str, Any] = {} if self.epochs is None else {"epochs": self.epochs}
        if self.rounds is not None and searched.strategy["name"] == "argnp":
            changed["rounds"] = self.rounds
        return {**searched.strategy, **changed}


def search(plan: Plan) -> None:
    for seed in plan.seeds:
        for name, searched in SEARCHES.items():
            nas.search(
                study=f"{name}-{seed}", space=searched.space, size=searched.size, final_size=searched.size,
                data=plan.data, config={"strategy": plan.strategy(searched)}, epochs=1, seed=seed, threads=1,
                device="cpu", db=plan.db,
            )  # fmt: skip
            for arch in derived(plan, name, seed):
                print(f"{name}-{seed}: {load_space(searched.space)[0].to_text(arch)}", flush=True)


def derived(plan: Plan, name: str, seed: int) -> list[Architecture]:
    """What a search has derived, the largest first."""
    with Store(f"sqlite:///{plan.db}") as store:
        return [run.arch for run in store.trials(store.study(f"{name}-{seed}"), metrics=False)]


def drawn(space: SearchSpace, like: Architecture, seed: int) -> list[Architecture]:
    """Random networks of a space, of as many vertices where it has a choice of that."""
    rng, found = generator(seed, "argnp rounds", like.key), []
    while len(found) < RANDOM:
        arch = moves.sample(space, rng)
        if arch.values.get(VERTICES) == like.values.get(VERTICES):
            found.append(arch)
    return found


def trained(plan: Plan) -> None:
    source = load(plan.data, Split())
    learned = recipe("standard", source.task, epochs=plan.train_epochs, **TRAINED)
    for seed in plan.seeds:
        for name, searched in SEARCHES.items():
            space = load_space(searched.space)[0]
            evaluator = Train(
                space, source, space.Size(**searched.size), learned, device="cpu", threads=1, test=True
            )  # fmt: skip
            for arch in reversed(derived(plan, name, seed)):
                of = f"-{arch.values[VERTICES]}" if VERTICES in arch.values else ""
                networks = {f"derived{of}": arch}
                networks |= {f"random{of}/{number}": one for number, one in enumerate(drawn(space, arch, seed))}
                for network, one in networks.items():
                    for again in range(AGAIN):
                        figures(plan, evaluator, (name, seed, network, again), one, space)


def figures(plan: Plan, evaluator: Train, named: tuple[Any, ...], arch: Architecture, space: Any) -> None:
    """Train a network where that is not done yet, and write its row."""
    if plan.rows.get(*named) is not None:
        return
    place = plan.folder / "trained" / "-".join(map(str, named)).replace("/", "-")
    *_, last = evaluator.evaluate(Proposal(arch), None, Context(derive(named[-1], "argnp rounds"), place))
    found = {one: round(last.metrics[one], 5) for one in MEASURED}
    row = plan.rows.write({**dict(zip(FIELDS, named, strict=False)), **found, "text": space.to_text(arch)})
    print({field: value for field, value in row.items() if field != "text"}, flush=True)


def table(plan: Plan) -> None:
    recalls: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    params: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in plan.rows:
        network, _, number = row["network"].partition("/")
        kind, _, vertices = network.partition("-")
        key = row["search"], vertices
        recalls[key][f"{kind} {row['seed']} {number}"].append(100 * float(row["test_mean_recall"]))
        params[(*key, kind)].append(float(row["params"]))
    print("| search | vertices | parameters | derived | random parameters | random | random ones that are better |")
    print("|---|---|---|---|---|---|---|")
    for key, networks in recalls.items():
        mine, others = (
            {name: values for name, values in networks.items() if name.startswith(kind)}
            for kind in ("derived", "random")
        )
        best = {name.split()[1]: statistics.fmean(values) for name, values in mine.items()}
        better = sum(statistics.fmean(values) > best[name.split()[1]] for name, values in others.items())
        sizes = [f"{statistics.fmean(params[(*key, kind)]):,.0f}" for kind in ("derived", "random")]
        chance = _interval([statistics.fmean(values) for values in others.values()])
        own = _interval([value for values in mine.values() for value in values])
        cells = (*key, sizes[0], own, sizes[1], chance, f"{better} of {len(others)}")
        print(f"| {' | '.join(cells)} |")


def _interval(values: Sequence[float]) -> str:
    """Mean, and half of the interval of 95%."""
    if len(values) < 2:
        return f"{statistics.fmean(values):.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):.2f} ± {half:.2f}"


def steps(plan: Plan) -> None:
    import torch

    from search_spaces.supernet.supernet import Supernet

    torch.set_num_threads(1)
    searched = SEARCHES["argnp"]
    whole: Any = load_space(searched.space)[0]
    source = load(plan.data, Split())
    data = source.bind("cpu", Loading(batch_size=16))
    batch = next(iter(data.batches("train", 0, 0)))
    size = whole.Size(**searched.size)
    supernets: dict[tuple[str, int], Supernet] = {}
    space = whole.initial()
    for vertices in (2, 4, 8, 16):
        made = supernets["round", vertices] = Supernet(space, source.task, size)
        if vertices < 16:
            space = whole.divide(made.derive({name: torch.rand(len(one.options)) for name, one in made.groups.items()}))
    for vertices in WHOLE:
        every = load_space(f"argnp(vertices={vertices})")[0]
        supernets["all at once", vertices] = Supernet(every, source.task, size)
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(REPEATS + 1):
        for key, supernet in supernets.items():
            mix = supernet.mix({name: torch.ones(len(one.options)).softmax(0) for name, one in supernet.groups.items()})
            begun = time.process_time()
            data.loss(supernet(batch.inputs, mix), batch).backward()
            times[key].append(time.process_time() - begun)
            supernet.zero_grad(set_to_none=True)
    first = statistics.median(times["round", 2][1:])
    print("| supernet | vertices | mixtures | ms of CPU | ratio |\n|---|---|---|---|---|")
    for (kind, vertices), seconds in times.items():
        median = statistics.median(seconds[1:])
        mixtures = sum(name != VERTICES for name in supernets[kind, vertices].groups)
        print(f"| {kind} | {vertices} | {mixtures} | {1000 * median:.0f} | {median / first:.2f} |")


PARTS: Mapping[str, Callable[[Plan], None]] = {"search": search, "trained": trained, "table": table, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of studies and tables")
    parser.add_argument("--part", choices=list(PARTS), action="append", help="this part alone; several")
    parser.add_argument("--graphs", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of the searches")
    parser.add_argument("--rounds", type=int, help="of argnp, instead of four")
    parser.add_argument("--epochs", type=int, help="of every search, instead of its own")
    parser.add_argument("--train-epochs", type=int, default=100, help="of every network")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        given.folder.resolve(), given.graphs, tuple(given.seeds), given.rounds, given.epochs, given.train_epochs
    )  # fmt: skip
    for name, part in PARTS.items():
        if name in (given.part or PARTS):
            part(plan)


if __name__ == "__main__":
    main()
