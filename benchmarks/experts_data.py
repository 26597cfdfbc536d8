"""Do experts pay on data that are not made for them? Known layouts, a searched network, and dense ones that are tuned.

    python benchmarks/experts_data.py california --data ../shared/data --folder experts --out experts_data.csv
    python benchmarks/experts_data.py california --table --out experts_data.csv

A part is a data set with a space, a recipe and architectures by name, `dense` and `dense-total` among them; a new one
is a function that is listed in `PARTS`. In this order:

1. the *known* layouts, all by the same recipe, some seeds each; for tables boosted trees of scikit-learn;
2. both dense networks *tuned*: short trainings at four depths and three learning rates, the best one of each trained in
   full;
3. a *search* of `moe` by `tpe`, 40 candidates trained as shortly, whose best one has the rate chosen of the same three
   and is trained in full.

Every training is a row of the file, the candidates of the search are in the database of `--folder`; what is there is
not made again. What is chosen is chosen by the validation part. The table has differences of the test part: of known
layouts from the known dense ones, of what was searched or tuned from the tuned ones, paired by seed, with the standard
error of their mean. They are a win or a loss where their interval of 95% (Student's t) does not hold 0.

Sizes are those of about 20 minutes of one core per part, of Shakespeare 30.

california: 14,861 rows of 14 numbers; width 32, batches of 256, 24 epochs, short ones 6; five seeds; R2.
adult: 29,305 rows of 107 numbers (categories one-hot), its own test part; the same with 4 epochs, 2 in short; the
loss in nats.
digits: `tasks:digits`, 1,294 images of one of three tasks each; mixers `moe(backbone=tasks)` of width 16, batches of
64, 24 epochs, short ones 4; three seeds; the mean of the tasks' accuracies.
shakespeare: tiny Shakespeare by characters in windows of 64, split by position, 1,000 steps of 12 windows, each of
which is seen once, short trainings a tenth of that; causal transformers `moe(backbone=text)` of four blocks and 64
features; three seeds; the loss in nats per character.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rows import Rows
from scipy import stats
from trees import DEFAULTS, STOPPED, boosted

import nas
from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.seeds import derive
from search_spaces.counter import active_params, params
from search_spaces.moe import Moe, Size
from training.data import load
from training.data.loading import Loading
from training.data.protocol import Source
from training.data.split import Split
from training.data.table_source import TableSource
from training.fit import fit
from training.networks import build
from training.recipe import Recipe, recipe

FIELDS = (
    *("part", "network", "seed", "steps", "params", "active_params"),
    *("metric", "valid", "test", "seconds", "lr", "layout"),
)
DENSE, TUNED = ("dense", "dense-total"), ("dense, tuned", "dense-total, tuned")
SEARCHED = "searched"
DEPTHS, RATES = (2, 3, 4, 6), (1 / 3, 1.0, 3.0)  # of what is tuned; rates are factors of the part's


@dataclass(frozen=True)
class Length:
    """Of a training: epochs, and on what; `limit`: so many samples of it are there to learn from and to validate on."""

    epochs: int
    source: Source
    limit: int | None = None


@dataclass(frozen=True)
class Part:
    """What is trained on what. `metric` is that of both parts of the data which are reported, less is better where
    `less`; `changes` are those to the recipe `quick`."""

    name: str
    reference: str
    space: Moe
    size: Size
    full: Length
    short: Length
    changes: Mapping[str, Any]
    known: Mapping[str, Architecture]
    metric: str
    less: bool
    seeds: int

    def plan(self, length: Length, rate: float = 1.0) -> Recipe:
        changes = {**self.changes, "lr": self.changes["lr"] * rate}
        return recipe("quick", length.source.task, epochs=length.epochs, **changes)


def california(data: Path) -> Part:
    reference = f"csv:{data / 'california_housing.csv.gz'}?target=median_house_value"
    return table("california", reference, (24, 6), "r2", less=False)


def adult(data: Path) -> Part:
    options = f"header=no&target=c14&missing=?&test={data / 'adult_test.csv.gz'}"
    return table("adult", f"csv:{data / 'adult_train.csv.gz'}?{options}", (4, 2), "loss", less=True)


def table(name: str, reference: str, epochs: tuple[int, int], metric: str, less: bool) -> Part:
    source, space = load(reference), Moe("table")
    full, short = (Length(count, source) for count in epochs)
    known = layouts(space, "sparsely-gated", "smear", "switch")
    changes = {"batch_size": 256, "lr": 0.003}
    return Part(name, reference, space, Size(width=32), full, short, changes, known, metric, less, seeds=5)


def digits(data: Path) -> Part:
    reference, space = "tasks:digits", Moe("tasks")
    source = load(reference)
    full, short = (Length(count, source) for count in (24, 4))
    known = layouts(space, "sparsely-gated", "smear", "task-moe")
    changes = {"batch_size": 64, "optimizer": "adamw", "nesterov": False, "lr": 0.003}
    size = Size(width=16)
    return Part("digits", reference, space, size, full, short, changes, known, "accuracy", less=False, seeds=3)


def shakespeare(data: Path) -> Part:
    """As many windows as the steps read, each once."""
    reference, space, batch = f"text:{data / 'tinyshakespeare.txt.gz'}?window=64", Moe("text"), 12
    sizes = load(reference).sizes
    limits = [round(steps * batch * (sizes["train"] + sizes["valid"]) / sizes["train"]) for steps in (1000, 100)]
    full, short = (Length(1, load(reference, Split(limit=limit)), limit) for limit in limits)
    changes = {"batch_size": batch, "schedule": "constant", "lr": 0.001}
    known, size = layouts(space, "sparsely-gated"), Size(width=64)
    return Part("shakespeare", reference, space, size, full, short, changes, known, "loss", less=True, seeds=3)


PARTS: Mapping[str, Callable[[Path], Part]] = {
    "california": california,
    "adult": adult,
    "digits": digits,
    "shakespeare": shakespeare,
}


def layouts(space: Moe, *names: str) -> Mapping[str, Architecture]:
    """The dense networks, known ones, and `sparsely-gated` with the loss-free router, whose options are the first."""
    values = space.named["sparsely-gated"].values
    kept = {name: value for name, value in values.items() if not name.startswith(f"{values['ffn']}/")}
    loss_free = moves.complete(space, {**kept, "ffn": "loss-free"}, moves.first)
    return {**{name: space.named[name] for name in (*DENSE, *names)}, "loss-free": loss_free}


class Measured:
    """The rows of a part, which are made where they are missing."""

    def __init__(self, part: Part, rows: Rows) -> None:
        self.part, self._rows = part, rows

    def has(self, network: str, seed: int = 0) -> bool:
        return self._rows.get(self.part.name, network, seed) is not None

    def row(self, network: str, seed: int = 0) -> Mapping[str, str]:
        found = self._rows.get(self.part.name, network, seed)
        assert found is not None
        return found

    def train(self, network: str, arch: Architecture, seed: int, *, short: bool = False, rate: float = 1.0) -> None:
        if self.has(network, seed):
            return
        part = self.part
        length = part.short if short else part.full
        plan, source = part.plan(length, rate), length.source
        # The weights that a training begins with go by what is trained, not by its name.
        model = build(part.space, arch, source.task, part.size, derive(seed, str(sorted(arch.values.items()))))
        data = source.bind("cpu", Loading(batch_size=plan.batch_size))
        steps = plan.epochs * sum(1 for _ in data.batches("train", 0, seed))
        begun = time.process_time()
        *_, last = fit(model, data, plan, device=torch.device("cpu"), seed=seed, test=not short)
        row = {
            "network": network,
            "seed": seed,
            "steps": steps,
            "params": params(model),
            "active_params": active_params(model),
            "valid": last.metrics[f"val_{part.metric}"],
            "test": last.metrics.get(f"test_{part.metric}"),
            "seconds": round(time.process_time() - begun, 1),
            "lr": f"{plan.lr:.4g}",
            "layout": " ".join(f"{name}={value}" for name, value in arch.values.items()),
        }
        self.write(row)

    def write(self, row: Mapping[str, Any]) -> None:
        written = self._rows.write({"part": self.part.name, "metric": self.part.metric, **row})
        print(written, flush=True)

    def best(self, networks: Sequence[str]) -> str:
        """By the validation part."""
        pick = min if self.part.less else max
        return pick(networks, key=lambda network: float(self.row(network)["valid"]))


def trees(measured: Measured) -> None:
    source = measured.part.full.source
    if not isinstance(source, TableSource) or measured.has(DEFAULTS):
        return
    for found in boosted(source, measured.part.metric):
        without = dict.fromkeys(("steps", "params", "active_params", "lr", "layout"))
        measured.write({**without, "network": found.pop("model"), "seed": 0, **found})


def tuned(measured: Measured, seeds: int) -> None:
    """Both dense networks at all depths and rates, in short, and the best of each in full."""
    part = measured.part
    for network, name in zip(DENSE, TUNED, strict=True):
        tried: dict[str, tuple[Architecture, float]] = {}
        for depth in DEPTHS:
            arch = moves.complete(part.space, {**part.known[network].values, "depth": depth}, moves.first)
            for rate in RATES:
                tried[f"{network}, depth {depth}, rate x{rate:.2g}, short"] = arch, rate
        for one, (arch, rate) in tried.items():
            measured.train(one, arch, 0, short=True, rate=rate)
        arch, rate = tried[measured.best(list(tried))]
        for seed in range(seeds):
            measured.train(name, arch, seed, rate=rate)


def searched(measured: Measured, folder: Path, trials: int, seeds: int) -> None:
    """The best of a search, at the best of the rates."""
    if all(measured.has(SEARCHED, seed) for seed in range(seeds)):
        return
    part = measured.part
    place = {"db": folder / "nas.db", "files": folder / "files"}
    if (folder / "nas.db").exists() and part.name in [study.name for study in nas.studies(**place)]:
        study = nas.resume(part.name, trials=trials, **place)
    else:
        limit = {} if part.short.limit is None else {"split": {"limit": part.short.limit}}
        study = nas.search(
            config={"recipe": dict(part.changes), **limit},
            study=part.name,
            space=f"moe(backbone={part.space.backbone.name})",
            data=part.reference,
            size={"width": part.size.width},
            objective=[f"val_{part.metric}"],
            strategy="tpe",
            epochs=part.short.epochs,
            trials=trials,
            seed=0,
            device="cpu",
            threads=1,
            **place,
        )
    arch = Architecture(part.space.name, study.best()["architecture"])
    tried = {f"{SEARCHED}, rate x{rate:.2g}, short": rate for rate in RATES}
    for name, rate in tried.items():
        measured.train(name, arch, 0, short=True, rate=rate)
    for seed in range(seeds):
        measured.train(SEARCHED, arch, seed, rate=tried[measured.best(list(tried))])


def report(measured: Measured, seeds: int) -> None:
    """As a table in Markdown."""
    part = measured.part
    print(f"\n{part.name}: {part.metric} of the test part, {'less' if part.less else 'more'} is better\n")
    print("| network | parameters | active | validation | test | to dense | to dense-total |")
    print("|---|---|---|---|---|---|---|")
    for network in (*part.known, *TUNED, SEARCHED, DEFAULTS, STOPPED):
        found = [seed for seed in range(seeds) if measured.has(network, seed)]
        if not found:
            continue
        row = measured.row(network, found[0])
        valid, test = ([float(measured.row(network, seed)[which]) for seed in found] for which in ("valid", "test"))
        others = DENSE if network in part.known else TUNED
        cells = [compared(measured, network, other, found) for other in others]
        counts = [row["params"], row["active_params"]]
        print("|", " | ".join([network, *counts, f"{statistics.fmean(valid):.4f}", mean(test), *cells]), "|")
    for network in (*TUNED, SEARCHED):
        if measured.has(network):
            print(f"\n{network}: rate {measured.row(network)['lr']}, {measured.row(network)['layout']}")


def mean(values: Sequence[float], sign: str = "") -> str:
    error = f" +- {statistics.stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.4f}{error}"


def compared(measured: Measured, network: str, other: str, seeds: Sequence[int]) -> str:
    """The difference from another network over the seeds that both have, and whether it is one."""
    both = [seed for seed in seeds if measured.has(other, seed)]
    if network == other or len(both) < 2:
        return ""
    gains = [float(measured.row(network, seed)["test"]) - float(measured.row(other, seed)["test"]) for seed in both]
    return f"{mean(gains, '+')}, {verdict(gains, less=measured.part.less)}"


def verdict(gains: Sequence[float], *, less: bool) -> str:
    """Of paired differences, two at least, of a metric of which less or more is better."""
    average, error = statistics.fmean(gains), statistics.stdev(gains) / len(gains) ** 0.5
    if abs(average) <= float(stats.t.ppf(0.975, len(gains) - 1)) * error:
        return "no difference"
    return "a win" if (average < 0) == less else "a loss"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--data", type=Path, required=True, help="folder with the files")
    parser.add_argument("--folder", type=Path, default=Path("experts"), help="of the studies")
    parser.add_argument("--seeds", type=int, help="of trainings in full [default: the part's]")
    parser.add_argument("--epochs", type=int, help="of trainings in full and in short [default: the part's]")
    parser.add_argument("--trials", type=int, default=40, help="of the search")
    parser.add_argument("--known", action="store_true", help="known layouts and trees alone")
    parser.add_argument("--table", action="store_true", help="print what the file says")
    parser.add_argument("--out", type=Path, default=Path("experts_data.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    part = PARTS[arguments.part](arguments.data.resolve())
    if arguments.epochs:
        full, short = (replace(length, epochs=arguments.epochs) for length in (part.full, part.short))
        part = replace(part, full=full, short=short)
    measured, seeds = Measured(part, Rows(arguments.out, FIELDS, named=3)), arguments.seeds or part.seeds
    if not arguments.table:
        trees(measured)
        for seed in range(seeds):
            for name, arch in part.known.items():
                measured.train(name, arch, seed)
    if not arguments.table and not arguments.known:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        tuned(measured, seeds)
        searched(measured, arguments.folder, arguments.trials, seeds)
    report(measured, seeds)


if __name__ == "__main__":
    main()
