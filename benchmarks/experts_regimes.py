"""Experts on data of regimes, beside dense networks of equal active and of equal, or larger, total parameters.

    python benchmarks/experts_regimes.py [--seeds 5] [--networks NAME...] [--out experts_regimes.csv]
    python benchmarks/experts_regimes.py --search --folder regimes [--trials 60] [--seeds 5]

Rows are x = prototype + N(0, 1) in 16 dimensions, prototypes 1.5 N(0, 1), of one of 16 regimes; y = w x + relu(a x),
w, a ~ N(0, 1) / 4 of the regime, standardised. 6,000 rows to learn from and 2,000 for the test; a stem of 32, one block
with a residual, a head; Adam at 0.003, 40 epochs of batches of 128, balance losses included. Experts of top 2 have 8
hidden units, those of top 1 and merged ones 16, as many active ones as `dense`; `dense-total` has 128. The same for one
regime with 300 rows, where there is nothing to tell apart. `regimes, rows, network, seed` name a row of the table; one
that is in the file is not made again. `--table` prints what the file says: ratios of mean test errors to both dense
networks, and paired differences over the seeds with standard errors.

`--search` has `tpe` search `moe` on the 6,000 rows of 16 regimes of seed 0, 60 candidates of 10 epochs by the same
optimiser, a tenth of the rows to validate on; its best one is trained as the others on the rows of every seed, as the
network `searched`. The search is in a database in `--folder` and is gone on with. About 20 minutes of one core.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from rows import Rows
from torch import Tensor, nn
from torch.nn import functional

import nas
from nas_core.architecture import Architecture
from search_spaces.layers.assigned import Every
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.moe import Moe, Size
from search_spaces.operators.experts.gelu import Gelu
from search_spaces.operators.routers import ROUTER
from training.data import load
from training.networks import build

FIELDS = ("regimes", "rows", "network", "seed", "params", "error", "load_ratio", "cpu_seconds")
FEATURES, WIDTH, HIDDEN, TOTAL, EXPERTS = 16, 32, 16, 128, 8
EPOCHS, BATCH, RATE, TESTED = 40, 128, 3e-3, 2000
DATA = ((16, 6000), (1, 300))
SEARCHED, SHORT = "searched", 10  # epochs of a candidate


class Dense(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.block = Gelu(1, WIDTH, hidden, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.block(x.flatten(0, 1), Every())
        return answer.view_as(x)


def experts(reference: str, active: int) -> Callable[[], nn.Module]:
    return lambda: MixtureOfExperts(
        ROUTER.operator(reference).make(WIDTH, EXPERTS, active), Gelu(EXPERTS, WIDTH, HIDDEN // active, WIDTH)
    )


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "dense": lambda: Dense(HIDDEN),
    "dense-total": lambda: Dense(TOTAL),
    "noisy top-2": experts("noisy-top-k", 2),
    "smear": experts("smear", 1),
    "noisy top-2, softmax before": experts("noisy-top-k(softmax='before')", 2),
    "switch": experts("switch", 1),
    "grin top-1": experts("grin", 1),
    "loss-free top-2": experts("loss-free", 2),
    "grin top-2": experts("grin", 2),
    "noisy top-2, no losses": experts("noisy-top-k(importance=0.0, load=0.0)", 2),
}


class Regression(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Linear(FEATURES, WIDTH), block, nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).unsqueeze(1)
        answer: Tensor = self.head((h + self.block(h)).squeeze(1))
        return answer


def data(regimes: int, rows: int) -> tuple[Tensor, Tensor]:
    prototypes, w, a = (torch.randn(regimes, FEATURES) * scale for scale in (1.5, 0.25, 0.25))
    regime = torch.randint(regimes, (rows,))
    x = prototypes[regime] + torch.randn(rows, FEATURES)
    y = (w[regime] * x).sum(1) + (a[regime] * x).sum(1).relu()
    return x, ((y - y.mean()) / y.std()).unsqueeze(1)


def made(network: str) -> nn.Module:
    return Regression(NETWORKS[network]())


def trained(make: Callable[[], nn.Module], regimes: int, rows: int, seed: int) -> dict[str, float]:
    """The mean squared error on the test rows, and the largest over the mean load of an expert on them, of the worst
    layer."""
    begun = time.process_time()
    torch.manual_seed(seed)
    x, y = data(regimes, rows + TESTED)
    torch.manual_seed(seed)
    model = make()
    layers = [module for module in model.modules() if isinstance(module, MixtureOfExperts)]
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    for _ in range(EPOCHS):
        for batch in torch.randperm(rows).split(BATCH):
            loss = functional.mse_loss(model(x[batch]), y[batch])
            for layer in layers:
                loss = sum(layer.take()[0].values(), loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        error = float(functional.mse_loss(model(x[rows:]), y[rows:]))
    return {
        "params": sum(one.numel() for one in model.parameters()),
        "error": round(error, 6),
        "load_ratio": round(max((float(one.loads.max() / one.loads.mean()) for one in layers), default=1.0), 3),
        "cpu_seconds": round(time.process_time() - begun, 1),
    }


def written(folder: Path) -> str:
    """The rows of seed 0 in files, as a reference of data."""
    regimes, rows = DATA[0]
    torch.manual_seed(0)
    x, y = data(regimes, rows + TESTED)
    cells, names = torch.cat([x, y], 1).tolist(), [*(f"x{number}" for number in range(FEATURES)), "y"]
    for name, part in (("train", cells[:rows]), ("test", cells[rows:])):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([names, *part])
    return f"csv:{folder / 'train.csv'}?target=y&test={folder / 'test.csv'}"


def searched(folder: Path, trials: int) -> Callable[[], nn.Module]:
    """The best of a search of `moe`, as a function that makes it untrained."""
    folder.mkdir(parents=True, exist_ok=True)
    place, reference, size = {"db": folder / "nas.db", "files": folder / "files"}, written(folder), Size(width=WIDTH)
    changes = {"optimizer": "adam", "lr": RATE, "weight_decay": 0.0, "schedule": "constant", "batch_size": BATCH}
    if (folder / "nas.db").exists():
        study = nas.resume(SEARCHED, trials=trials, **place)
    else:
        study = nas.search(
            config={"recipe": changes},
            study=SEARCHED,
            space="moe",
            data=reference,
            size={"width": WIDTH},
            objective=["val_loss"],
            strategy="tpe",
            epochs=SHORT,
            trials=trials,
            seed=0,
            device="cpu",
            threads=1,
            **place,
        )
    space, task = Moe(), load(reference).task
    arch = Architecture(space.name, study.best()["architecture"])
    print(f"{SEARCHED}:", " ".join(f"{name}={value}" for name, value in arch.values.items()), flush=True)
    return lambda: build(space, arch, task, size, torch.initial_seed())


def printed(table: Rows) -> None:
    """For each network: the mean error, its ratios to both dense networks, paired differences to them."""
    errors: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in table:
        named = errors.setdefault((row["regimes"], row["rows"]), {}).setdefault(row["network"], {})
        named[row["seed"]] = float(row["error"])
    for (regimes, rows), networks in errors.items():
        print(f"{regimes} regimes, {rows} rows: mean error; ratio and difference to each dense network; seeds")
        for network, own in networks.items():
            cells = [f"{statistics.mean(own.values()):.4f}"]
            for beside in ("dense", "dense-total"):
                pairs = [(own[seed], networks[beside][seed]) for seed in own if seed in networks.get(beside, {})]
                if len(pairs) < 2 or network == beside:
                    cells.append("")
                    continue
                differences = [one - other for one, other in pairs]
                spread = statistics.stdev(differences) / len(pairs) ** 0.5
                ratio = sum(one for one, _ in pairs) / sum(other for _, other in pairs)
                cells.append(f"{ratio:.2f} ({statistics.mean(differences):+.4f} +- {spread:.4f})")
            print("|", " | ".join([network, *cells, str(len(own))]), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS))
    parser.add_argument("--table", action="store_true", help="print what the file says")
    parser.add_argument("--search", action="store_true", help="the network `searched` alone")
    parser.add_argument("--trials", type=int, default=60, help="of the search")
    parser.add_argument("--folder", type=Path, default=Path("regimes"), help="of the search")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "experts_regimes.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Rows(arguments.out, FIELDS, named=4)
    wanted: Mapping[str, Callable[[], nn.Module]] = {name: partial(made, name) for name in arguments.networks}
    if arguments.table:
        wanted = {}
    elif arguments.search:
        wanted = {SEARCHED: searched(arguments.folder.resolve(), arguments.trials)}
    for seed in range(arguments.seeds):
        for regimes, rows in DATA[:1] if arguments.search else DATA:
            for network, make in wanted.items():
                if not table.get(regimes, rows, network, seed):
                    named = {"regimes": regimes, "rows": rows, "network": network, "seed": seed}
                    found = table.write({**named, **trained(make, regimes, rows, seed)})
                    print(dict(found), flush=True)
    printed(table)


if __name__ == "__main__":
    main()
