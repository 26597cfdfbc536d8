"""Layers searched by EvoNorm's evolution on Fashion-MNIST, in several hosts, beside random search.

    python benchmarks/evonorm_search.py --data ../shared/data/fashion-mnist --folder FOLDER [--seeds 0 1] [--part PART]

In this order, each part in FOLDER, and each going on where it was stopped; seeds may run in processes of their own:

discern  the shortest of 80, 160, 320 and 640 steps of 64 after which gn-relu is above x / std_group(x), which has no
         activation, by two standard errors, means over the hosts and three seeds; where none is, 320
search   two studies per seed that advance by turns, so that both have had as many seconds of evaluations whenever one
         looks: the strategy `evonorm`, fresh founders, all named layers as baselines that are not told, until 600
         candidates were trained, or 100 passed all screens; and random search with the same screens
report   what the searches have come to: shares of reasons, seconds of each, the best layers
chain    of random layers that numpy finds nothing against, and of those that only its chain of linear layers tells: how
         many pass both screens
retrain  the best layers of each study by validation, `--top` of them, again with three seeds and twice the steps in
         the hosts of the search; the one that is best then, and bn-relu, in a host that took no part too

Images are padded to 32 x 32 and averaged down to `--pixels` x `--pixels`. What is printed is a table of each:
accuracies are those of the validation part (retrain: of the test part), in percent; seconds are those of evaluations,
on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from evonorm_layers import pooled
from rows import Rows
from stored import trials

import nas
from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import Rejected
from nas_core.evaluation import Context
from nas_core.failures import word
from nas_core.records import BASELINE, Run
from nas_core.seeds import derive, generator
from nas_core.strategy import Proposal, State
from search_spaces.evonorm.space import EvoNorm
from studies.documents import name_of
from studies.setup.assemble import build, describe
from studies.setup.configuration import asked_by, gather
from studies.store.store import Store
from training.data.idx import read
from training.data.source import ImageSource, image_source
from training.data.split import Split

BATCH = 64
PER_EPOCH = 80  # steps
IMAGES = round(BATCH * PER_EPOCH / 0.9)  # a tenth is for validation
STEPS = (80, 160, 320, 640)
FLAT = "x / std_group(x)"
SEEDS = 3
CHUNK = 2  # survivors between two looks at how far a search has come
EVOLUTION = "evonorm"
STRATEGIES = (EVOLUTION, "random")
CHAIN = ("explodes", "collapses", "one", "flat")
SPACE = EvoNorm()


def fashion(argument: str, split: Split) -> ImageSource:
    """The images of a folder, so many pixels high and wide (`--data evonorm_search.py:fashion:PIXELS:FOLDER`)."""
    pixels, path = argument.split(":", 1)
    folder = Path(path)
    files = {
        kind: [next(folder.glob(f"{part}-{kind}*")) for part in ("train", "t10k")] for kind in ("images", "labels")
    }
    images = numpy.concatenate([pooled(read(path, 3), int(pixels)) for path in files["images"]])
    labels = numpy.concatenate([read(path, 1) for path in files["labels"]])
    return image_source("fashion", images, labels, split, test=numpy.arange(60_000, 70_000), value_range=(0.0, 255.0))


@dataclass(frozen=True)
class Plan:
    """What all parts have in common."""

    data: str
    pixels: int
    folder: Path
    hosts: tuple[str, ...]
    other: str
    seeds: tuple[int, ...]
    trained: int
    survivors: int
    screens: tuple[str, ...]
    rate: float
    drawn: int
    top: int

    @property
    def source(self) -> str:
        """What `fashion` is called with."""
        return f"{self.pixels}:{self.data}"

    @property
    def db(self) -> Path:
        return self.folder / "nas.db"

    def options(self, hosts: Sequence[str], steps: int) -> dict[str, Any]:
        """Those of `nas search` for trainings of so many steps."""
        recipe = {"name": "quick", "batch_size": BATCH, "lr": self.rate, "precision": "float32"}
        return {
            "space": "evonorm",
            "data": f"{Path(__file__).resolve()}:fashion:{self.source}",
            "split": {"limit": IMAGES, "valid": 0.1},
            "hosts": list(hosts),
            "recipe": recipe,
            "epochs": steps // PER_EPOCH,
            "threads": 1,
            "device": "cpu",
        }

    def evaluator(self, hosts: Sequence[str], steps: int, screens: Sequence[str] = ()) -> Any:
        """What a study with these options evaluates with."""
        options = {**self.options(hosts, steps), **({"screen": list(screens)} if screens else {})}
        return build(describe(gather(None, (), asked_by(options))).spec).evaluator


def trained(evaluator: Any, arch: Architecture, seed: int, folder: Path) -> dict[str, float]:
    """The last metrics of a layer."""
    *_, last = evaluator.evaluate(Proposal(arch), None, Context(derive(seed, "benchmark"), folder))
    return dict(last.metrics)


# -- how many steps ----------------------------------------------------------------------------------------------


def discern(plan: Plan) -> int:
    """The shortest of STEPS that tells the two layers apart."""
    rows = Rows(plan.folder / "discern.csv", ("steps", "layer", "seed", "val_accuracy", "seconds"), named=3)
    layers = {"gn-relu": SPACE.named["gn-relu"], FLAT: SPACE.from_text(FLAT)}
    for steps in STEPS:
        evaluator = None
        for layer, arch in layers.items():
            for seed in range(SEEDS):
                if rows.get(steps, layer, seed) is None:
                    evaluator = evaluator or plan.evaluator(plan.hosts, steps)
                    begun = time.process_time()
                    place = plan.folder / "discern" / f"{steps}-{layer.split()[0]}-{seed}"
                    value = trained(evaluator, arch, seed, place)["val_accuracy"]
                    row = {"steps": steps, "layer": layer, "seed": seed, "val_accuracy": value}
                    print(rows.write({**row, "seconds": round(time.process_time() - begun, 1)}), flush=True)
        found = [[float(row["val_accuracy"]) for row in rows if row["layer"] == layer and row["steps"] == str(steps)]
                 for layer in layers]  # fmt: skip
        (relu, error), (flat, other) = ((statistics.fmean(c), statistics.stdev(c) / len(c) ** 0.5) for c in found)
        apart = relu - flat > 2 * (error**2 + other**2) ** 0.5
        print(f"{steps} steps: gn-relu {100 * relu:.2f}, {FLAT} {100 * flat:.2f}: {'apart' if apart else 'not apart'}")
        if apart:
            return steps
    return 320


# -- searches ----------------------------------------------------------------------------------------------------


def advance(plan: Plan, strategy: str, seed: int, steps: int) -> bool:
    """Let a study go on by a few survivors; false where it proposes nothing more."""
    name = f"{strategy}-{seed}"
    known = trials(plan.db, name)
    if known:
        passed = sum(run.state in (State.COMPLETE, State.FAILED) for run in known)  # what --trials counts
        nas.resume(name, trials=passed + CHUNK, db=plan.db)
    else:
        options = plan.options(plan.hosts, steps)
        options |= {"screen": list(plan.screens), "study": name, "strategy": strategy, "seed": seed, "lag": 1}
        options |= {"baselines": ["named"]} if strategy == EVOLUTION else {}
        nas.search(**options, trials=CHUNK, db=plan.db)
    runs = trials(plan.db, name)
    print(f"{name}: {len(paid(runs))} trained in {seconds(runs):.0f} s, {len(survivors(runs))} survived", flush=True)
    return len(runs) > len(known)


def paid(runs: Sequence[Run]) -> list[Run]:
    """Candidates of which something was trained."""
    return [run for run in runs if run.verdict.seconds or run.state == State.FAILED]


def survivors(runs: Sequence[Run]) -> list[Run]:
    """Candidates that passed all screens and were trained."""
    return [run for run in runs if run.state == State.COMPLETE]


def seconds(runs: Sequence[Run]) -> float:
    return sum(run.verdict.seconds or 0.0 for run in runs)


def search(plan: Plan, steps: int) -> None:
    for seed in plan.seeds:
        while True:
            evolved, drawn = (trials(plan.db, f"{strategy}-{seed}") for strategy in STRATEGIES)
            over = len(paid(evolved)) >= plan.trained or len(survivors(evolved)) >= plan.survivors
            if over and seconds(drawn) >= seconds(evolved):
                break
            strategy = "random" if over or seconds(drawn) < seconds(evolved) else EVOLUTION
            if not advance(plan, strategy, seed, steps):
                print(f"{strategy}-{seed} proposes nothing more", flush=True)
                break
    report(plan, steps)


def report(plan: Plan, steps: int) -> None:
    for seed in plan.seeds:
        for strategy in STRATEGIES:
            shares(plan, f"{strategy}-{seed}")
            bests(plan, f"{strategy}-{seed}")


def shares(plan: Plan, name: str) -> None:
    """Per role, why candidates were rejected: count, share and seconds each; and what was passed over unstored."""
    by_role: dict[str, list[Run]] = defaultdict(list)
    for run in trials(plan.db, name):
        by_role[str(run.proposal.note.get("role", "fresh"))].append(run)
    for role, runs in by_role.items():
        counted: dict[str, list[float]] = defaultdict(list)
        for run in runs:
            reason = word(run.verdict.reason) if run.state == State.REJECTED else str(run.state)
            counted[reason].append(run.verdict.seconds or 0.0)
        text = ", ".join(
            f"{reason} {len(each)} ({len(each) / len(runs):.1%}, {statistics.fmean(each):.2f} s)"
            for reason, each in sorted(counted.items(), key=lambda item: -len(item[1]))
        )
        names = ("silent", "known", "unsound")
        passed = ", ".join(f"{one} {sum(int(run.proposal.note.get(one, 0)) for run in runs)}" for one in names)
        print(f"{name}, {role}: {len(runs)}: {text}; passed over: {passed}", flush=True)


def bests(plan: Plan, name: str, count: int = 5) -> None:
    """The best layers and the baselines, by validation accuracy."""
    if not trials(plan.db, name):
        return
    with Store(f"sqlite:///{plan.db}") as store:
        known = store.runs(store.study(name), BASELINE)
    for run in sorted(survivors(trials(plan.db, name)), key=lambda run: -run.metrics["val_accuracy"])[:count]:
        print(f"{name}:{run.number}: {100 * run.metrics['val_accuracy']:.2f} {SPACE.to_text(run.arch)}")
    for run in known:
        value = run.metrics.get("val_accuracy") if run.state == State.COMPLETE else None
        told = str(run.verdict.reason) if value is None else f"{100 * value:.2f}"
        print(f"{name}, baseline {name_of(run)}: {told}", flush=True)


# -- the chain screen, and the winners ---------------------------------------------------------------------------


def chain(plan: Plan, steps: int) -> None:
    """What the screens that train say of layers that the chain of linear layers tells, and of others."""
    rows = Rows(plan.folder / "chain.csv", ("told", "number", "reason", "seconds", "layer"), named=2)
    evaluator = plan.evaluator(plan.hosts, steps, plan.screens)
    for told in ("nothing", "chain"):
        for number, arch in enumerate(layers(told, plan.drawn)):
            if rows.get(told, number) is not None:
                continue
            begun, reason = time.process_time(), "passed"
            reports = evaluator.evaluate(Proposal(arch), None, Context(derive(number), plan.folder / "chain"))
            try:
                next(reports)
            except Rejected as error:
                reason = error.reason
            finally:
                reports.close()
            seconds = round(time.process_time() - begun, 2)
            row = {"told": told, "number": number, "reason": reason, "seconds": seconds, "layer": SPACE.to_text(arch)}
            print(rows.write(row), flush=True)
        found = [row["reason"] for row in rows if row["told"] == told]
        counts = {reason: found.count(reason) for reason in sorted(set(found))}
        print(f"numpy tells {told}: {len(found)} layers: {counts}", flush=True)


def layers(told: str, count: int) -> Iterator[Architecture]:
    """Random layers of which numpy tells nothing, or only what its chain tells; no two of one identity."""
    seen: set[str] = set()
    number = 0
    while len(seen) < count:
        arch = moves.sample(SPACE, generator("chain screen", number))
        number += 1
        reason = SPACE.unsound(arch)
        if (word(reason) in CHAIN if told == "chain" else reason is None) and SPACE.identity(arch) not in seen:
            seen.add(SPACE.identity(arch))
            yield arch


def retrain(plan: Plan, steps: int) -> None:
    """The best layers of each study, and two known ones, trained twice as long."""
    rows = Rows(plan.folder / "retrain.csv", ("layer", "host", "seed", "val_accuracy", "test_accuracy"), named=3)
    evaluators = {host: tested(plan, host, 2 * steps) for host in (*plan.hosts, plan.other)}

    def figures(layer: str, arch: Architecture, hosts: Sequence[str], what: str) -> list[list[float]]:
        """Of each host those of all seeds, in percent."""
        found: list[list[float]] = []
        for host in hosts:
            found.append([])
            for seed in range(SEEDS):
                if (row := rows.get(layer, host, seed)) is None:
                    place = plan.folder / "retrain" / f"{layer.replace(':', '-')}-{host}-{seed}"
                    last = trained(evaluators[host], arch, seed, place)
                    metrics = {one: round(last[one], 4) for one in ("val_accuracy", "test_accuracy")}
                    row = rows.write({"layer": layer, "host": host, "seed": seed, **metrics})
                    print(row, flush=True)
                found[-1].append(100 * float(row[what]))
        return found

    wanted = {name: SPACE.named[name] for name in ("bn-relu", "gn-relu")}
    for name in (f"{strategy}-{seed}" for strategy in STRATEGIES for seed in plan.seeds):
        best = sorted(survivors(trials(plan.db, name)), key=lambda run: (-run.metrics["val_accuracy"], run.number))
        means: dict[int, float] = {}
        for run in best[: plan.top]:
            valid = figures(f"{name}:{run.number}", run.arch, plan.hosts, "val_accuracy")
            means[run.number] = statistics.fmean(map(statistics.fmean, valid))
            print(f"{name}:{run.number} {100 * run.metrics['val_accuracy']:.2f} -> {means[run.number]:.2f}", flush=True)
        for run in best:
            if means and run.number == max(means, key=means.__getitem__):
                wanted[f"{name}:{run.number}"] = run.arch
    hosts = (*plan.hosts, plan.other)
    print(f"\n| layer | {' | '.join(hosts)} |\n|{'---|' * (len(hosts) + 1)}")
    for name, arch in wanted.items():
        columns = figures(name, arch, hosts, "test_accuracy")
        cells = [f"{statistics.fmean(c):.2f} ± {statistics.stdev(c) / len(c) ** 0.5:.2f}" for c in columns]
        print(f"| {name} `{SPACE.to_text(arch)}` | {' | '.join(cells)} |")


def tested(plan: Plan, host: str, steps: int) -> Any:
    """What trains in one host and scores the test part."""
    from training.evaluators.train import Train
    from training.recipe import recipe

    source = fashion(plan.source, Split(limit=IMAGES, valid=0.1))
    changes = {"batch_size": BATCH, "lr": plan.rate, "precision": "float32", "epochs": steps // PER_EPOCH}
    learned, size = recipe("quick", source.task, **changes), SPACE.Size.parse(f"host={host}")
    return Train(SPACE, source, size, learned, device="cpu", threads=1, test=True)


PARTS: dict[str, Callable[[Plan, int], None]] = {
    "search": search, "report": report, "chain": chain, "retrain": retrain,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--folder", type=Path, required=True, help="of studies and tables; a later run goes on in it")
    parser.add_argument("--pixels", type=int, choices=(8, 16, 32), default=8, help="height and width of an image")
    parser.add_argument("--part", choices=list(PARTS), action="append", help="this part alone; several")
    parser.add_argument("--hosts", nargs="*", default=["resnet", "mobilenet", "vgg"])
    parser.add_argument("--other", default="efficientnet", help="host that takes no part in the search")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1], help="of the studies, one of each strategy")
    parser.add_argument("--trained", type=int, default=600, help="candidates to train")
    parser.add_argument("--survivors", type=int, default=100, help="or to pass all screens")
    parser.add_argument("--steps", type=int, help="of a training, instead of what `discern` finds")
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate")
    parser.add_argument("--quality", type=int, default=40, help="steps of the quality screen")
    parser.add_argument("--ascent", type=int, default=100, help="steps of the stability screen")
    parser.add_argument("--drawn", type=int, default=100, help="layers of each kind in the part `chain`")
    parser.add_argument("--top", type=int, default=5, help="layers of each study to train again in the part `retrain`")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    screens = (f"quality(steps={given.quality})", f"stability(steps={given.ascent})")
    plan = Plan(
        str(given.data.resolve()), given.pixels, given.folder.resolve(), tuple(given.hosts), given.other,
        tuple(given.seeds), given.trained, given.survivors, screens, given.rate, given.drawn, given.top,
    )  # fmt: skip
    steps = given.steps or discern(plan)
    print(f"{steps} steps", file=sys.stderr)
    for name, part in PARTS.items():
        if name in (given.part or PARTS):
            part(plan, steps)


if __name__ == "__main__":
    main()
