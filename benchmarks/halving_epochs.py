"""How far asynchronous successive halving comes with half of the epochs of full trainings, by real training.

    python benchmarks/halving_epochs.py --data idx:FOLDER_OF_FASHION_MNIST [--seeds 3] [--candidates 12] [--epochs 27]

Per seed: random search trains `candidates` networks in full; `asha` around random search may spend half as many epochs.
Printed are the epochs that each has trained, and the best validation accuracy after a full training.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from nas_core.records import StopAt
from studies.analysis.queries import best_trial
from studies.analysis.verify import verify
from studies.search.loop import Search
from studies.setup import assemble
from studies.setup.config import SearchConfig
from studies.store.store import Store

LAST = 2 / 3  # of a full training: what the last evaluation may spend beyond a budget, with eta = 3


def search(
    folder: Path, seed: int, strategy: str, stop_at: StopAt, arguments: argparse.Namespace
) -> tuple[float, float]:
    """Epochs trained, and the best validation accuracy at the full budget."""
    values: dict[str, Any] = {"space": "nasbench201", "size": arguments.size, "data": arguments.data, "threads": 1}
    values |= {"split": {"limit": arguments.images, "valid": arguments.valid}, "epochs": arguments.epochs}
    values |= {"strategy_config": {"minimum": arguments.minimum}} if strategy == "asha" else {}
    spec = assemble.describe(SearchConfig(strategy=strategy, seed=seed, device="cpu", **values)).spec
    parts = assemble.build(spec)
    with Store(f"sqlite:///{folder / strategy}{seed}.db") as store:
        study = store.create_study("s", spec, stop_at)
        loop = Search(store, study, parts)
        loop.run(stop_at)
        findings = list(verify(store, study, parts))
        assert not findings, findings
        best = best_trial(store, study)
        assert best.proposal.budget in (None, float(arguments.epochs)), "nothing reached the top"
        return loop.spent.total * arguments.epochs, best.metrics["val_accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--size", default="channels=4,cells=1")
    parser.add_argument("--images", type=int, default=3000, help="of the data, drawn per class")
    parser.add_argument("--valid", type=float, default=0.5, help="part of them to validate on: 250 images tell little")
    parser.add_argument("--minimum", type=int, default=3, help="epochs of the lowest rung")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=27)
    arguments = parser.parse_args()
    gaps = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            full, reached = search(Path(folder), seed, "random", StopAt(trials=arguments.candidates), arguments)
            half = StopAt(spent=arguments.candidates / 2 - LAST)
            spent, halved = search(Path(folder), seed, "asha", half, arguments)
        gaps.append(halved - reached)
        print(f"seed {seed}: full {full:.0f} epochs {reached:.4f}; asha {spent:.0f} epochs {halved:.4f}", flush=True)
    print(f"asha minus full: mean {statistics.mean(gaps):+.4f}, {min(gaps):+.4f} to {max(gaps):+.4f}")


if __name__ == "__main__":
    main()
