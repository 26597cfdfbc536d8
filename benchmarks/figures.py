"""How long figures of a long study take, beside reading its runs whole.

    python benchmarks/figures.py [--trials 100000] [--kinds history,front,...]

A study of two objectives with six choices is generated: eight in ten trials are complete, one in ten of these
infeasible, the others failed. Seconds are of the CPU, of a process that has imported everything and drawn each kind
once: for the data, for a PNG of them, and for a page's data. They stand beside reading all runs whole by the store.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy

from nas_core.architecture import Architecture
from nas_core.records import Proposed, StopAt, Verdict
from nas_core.strategy import Proposal, State
from reports import make, matplotlib_figure, plotly_figure
from reports.addressed import addressed
from studies.store.store import Store
from studies.store.testing import SPEC

KINDS = "history,front,importance,parallel,slice,contour,rank,edf,timeline"
PART = 5_000  # trials of a transaction


def generate(store: Store, trials: int) -> None:
    """The study `big`."""
    rng = numpy.random.default_rng(0)
    spec = SPEC.model_copy(update={"objectives": ("accuracy:max", "macs:min"), "constraints": ("macs<=1",)})
    study = store.create_study("big", spec, StopAt())
    for start in range(0, trials, PART):
        numbers = range(start, min(start + PART, trials))
        store.propose_all(study, [_trial(number, rng) for number in numbers])


def _trial(number: int, rng: numpy.random.Generator) -> Proposed:
    choices = rng.integers(0, 5, 6).tolist()
    arch = Architecture("letters", {f"edge{place}": value for place, value in enumerate(choices)})
    accuracy = sum(choices) / 30 + float(rng.normal()) / 10
    values = (accuracy, -float(rng.random()) - sum(choices) / 30)
    complete, feasible = rng.random() < 0.8, rng.random() < 0.9
    verdict = Verdict(State.COMPLETE, None, values, (-0.1 if feasible else 0.1,), 1.0)
    return Proposed(number, Proposal(arch), arch.key, verdict if complete else Verdict(State.FAILED, "made"))


def seconds(work: Callable[[], object]) -> float:
    """Of the CPU."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--kinds", default=KINDS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Store(f"sqlite:///{Path(folder) / 'nas.db'}", create=True) as store:
        generate(store, asked.trials)
        subject = addressed(store, "big")
        rows = []
        for kind in asked.kinds.split(","):
            (figure,) = make.figures(subject, [kind])
            matplotlib_figure.render(figure, "png")
            plotly_figure.data(figure)
            data = seconds(lambda kind=kind: make.figures(subject, [kind]))  # type: ignore[misc]
            picture = seconds(lambda figure=figure: matplotlib_figure.render(figure, "png"))  # type: ignore[misc]
            page = seconds(lambda figure=figure: json.dumps(plotly_figure.data(figure)))  # type: ignore[misc]
            rows.append((kind, data, picture, page))
        whole = seconds(lambda: sum(1 for _ in store.trials(subject.searched, metrics=True)))
    print(f"{asked.trials:,} trials; all runs read whole: {whole:.2f} s")
    print(f"{'kind':<12}{'data':>8}{'PNG':>8}{'page':>8}{'data and PNG / runs':>22}")
    for kind, data, picture, page in rows:
        print(f"{kind:<12}{data:>8.2f}{picture:>8.2f}{page:>8.2f}{(data + picture) / whole:>22.2f}")


if __name__ == "__main__":
    main()
