"""What a training draws at random: another seed for every trial and every retraining, in its weights and in the order
of its data; duplicates by budget; and which trial is the best so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.config import Config
from nas_core.evaluation import Context, Report
from nas_core.job import Result
from nas_core.records import RETRAIN, Run, StopAt, Verdict
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from studies.analysis.queries import best_trial
from studies.analysis.verify import verify
from studies.executors.inline import Inline
from studies.jobs.run import Driver
from studies.jobs.stored import WEIGHTS
from studies.records import Study
from studies.search.loop import Search
from studies.store.store import Store


def arch(word: str) -> Architecture:
    return Architecture("edges", {f"edge{n}": letter for n, letter in enumerate(word)})


def proposing(*proposals: Proposal) -> Any:
    """A strategy that makes these proposals."""

    class Fixed:
        class Config(Config):
            pass

        def __init__(self, setting: Setting, config: Any) -> None: ...

        def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
            if number >= len(proposals):
                raise Exhausted
            return proposals[number]

        def tell(self, outcome: Outcome) -> None: ...

    return Fixed


@pytest.fixture
def seeds(bench: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of all evaluations in their order; each ends at its budget."""
    found: list[int] = []
    evaluate = type(bench.evaluator).evaluate

    def noted(self: Any, proposal: Proposal, budget: float | None, context: Context) -> Iterator[Report]:
        found.append(context.seed)
        return (report for report in evaluate(self, proposal, budget, context) if report.step <= (budget or 2))

    monkeypatch.setattr(type(bench.evaluator), "evaluate", noted)
    return found


def test_trials_of_one_architecture_have_other_seeds_and_what_goes_on_keeps_its_own(
    bench: Any, seeds: list[int]
) -> None:
    one = arch("abca")
    proposals = (Proposal(one, budget=1.0), Proposal(one), Proposal(arch("abda")), Proposal(one, 2.0, continues=0))
    store = bench.store()
    for seed in (5, 6):
        study = bench.study(store, f"s{seed}", seed=seed)
        Search(store, study, bench.parts(study.spec, make=proposing(*proposals))).run(StopAt())
        assert list(verify(store, study, bench.parts(study.spec, make=proposing(*proposals)))) == []
    assert len(seeds) == 8
    assert seeds[3] == seeds[0]
    assert seeds[7] == seeds[4]
    assert len(set(seeds)) == 6


def test_a_duplicate_has_the_same_function_budget_and_continued_trial(bench: Any, seeds: list[int]) -> None:
    one, twin = arch("abca"), arch("abcb")
    proposals = [
        Proposal(one, budget=1.0),
        Proposal(twin, budget=1.0),  # repeats 0
        Proposal(one),  # the full budget is another evaluation
        Proposal(twin),  # repeats 2
        Proposal(one, 2.0, continues=0),
        Proposal(twin, 2.0, continues=1),  # goes on from what 1 repeated: repeats 4
        Proposal(one, budget=2.0),  # without anything to go on from
    ]
    store = bench.store()
    study = bench.study(store)
    Search(store, study, bench.parts(study.spec, make=proposing(*proposals))).run(StopAt())
    runs = list(store.trials(study, metrics=True))
    assert [run.reuses for run in runs] == [None, 0, None, 2, None, 4, None]
    assert [run.state == State.REUSED for run in runs] == [run.reuses is not None for run in runs]
    assert len(seeds) == 4
    assert runs[0].metrics["score"] != runs[2].metrics["score"]
    assert [runs[5].verdict.values, runs[5].metrics["params"]] == [runs[4].verdict.values, 0]


def retrainings(bench: Any, store: Store, study: Study, repeats: Sequence[int]) -> list[Run]:
    """Of all trials of a study, each with weights."""

    class Keeps(type(bench.evaluator)):  # type: ignore[misc]
        kind, settings, about, steps = RETRAIN, {"recipe": "none"}, {"inputs": None}, 2

        def evaluate(self, proposal: Proposal, budget: float | None, context: Context) -> Iterator[Report]:
            yield from super().evaluate(proposal, budget, context)
            context.workdir.mkdir(parents=True)
            (context.workdir / "weights.safetensors").write_bytes(b"")

        def result(self, workdir: Path) -> Result:
            return Result({WEIGHTS: workdir / "weights.safetensors"})

    found = []
    for trial in store.trials(study):
        runs = Driver(store, study, trial, Keeps(), Inline(Keeps())).run(repeats)
        assert [run.state for run in runs] == [State.COMPLETE] * len(repeats)
        found += runs
    return found


def test_retrainings_have_other_seeds(bench: Any, seeds: list[int]) -> None:
    store = bench.store()
    study = bench.study(store)
    both = proposing(Proposal(arch("abca")), Proposal(arch("aaca")))
    Search(store, study, bench.parts(study.spec, make=both)).run(StopAt())
    retrainings(bench, store, study, (0, 1, 2))
    assert len(seeds) == len(set(seeds)) == 2 + 6


def test_a_training_is_complete_after_its_weights_are_recorded(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one that is killed between the two would be complete without any."""
    store = bench.store()
    study = bench.study(store)
    Search(store, study, bench.parts(study.spec, make=proposing(Proposal(arch("abca"))))).run(StopAt())
    recorded: list[list[int]] = []
    finish = Store.finish

    def noted(self: Store, run_id: int, verdict: Verdict, **others: Any) -> None:
        recorded.append(list(self.study_artifacts(study)))
        finish(self, run_id, verdict, **others)

    monkeypatch.setattr(Store, "finish", noted)
    (run,) = retrainings(bench, store, study, (0,))
    assert recorded == [[run.id]]


def test_another_seed_is_other_weights_and_another_order_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `Train`, which trials and retrainings share."""
    import torch

    from search_spaces.nasbench201.space import NasBench201
    from training import fit
    from training.data import load
    from training.data.split import Split
    from training.evaluators.train import Train
    from training.recipe import recipe

    space, digits = NasBench201(), load("digits", Split(limit=100))
    made = recipe("quick", digits.task, epochs=1, batch_size=16, precision="float32")
    train = Train(space, digits, space.Size(channels=2, cells=1), made, device="cpu", threads=1)
    found: list[tuple[Any, Any]] = []
    original = fit.Training.epoch

    def noted(self: Any, epoch: int) -> Any:
        weights = torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])
        order, next_order = (torch.cat([batch.target for batch in self.batches(n)]) for n in (epoch, epoch + 1))
        assert not torch.equal(order, next_order)
        found.append((weights, order))
        return original(self, epoch)

    monkeypatch.setattr(fit.Training, "epoch", noted)
    proposal = Proposal(space.from_text("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"))
    for number, seed in enumerate((1, 2, 1)):
        list(train.evaluate(proposal, None, Context(seed, tmp_path / str(number))))
    (weights, order), (other_weights, other_order), (again_weights, again_order) = found
    assert torch.equal(weights, again_weights)
    assert torch.equal(order, again_order)
    assert not torch.equal(weights, other_weights)
    assert not torch.equal(order, other_order)
    assert torch.equal(order.sort().values, other_order.sort().values)


def test_the_best_is_feasible_of_the_largest_budget_and_the_first_of_equals(bench: Any, seeds: list[int]) -> None:
    """`daaa` is as good as `aaaa`, but not feasible; half of the budget gives half of the score."""
    words = ("daab", "abbb", "aabb", "aaab", "aaac")
    proposals = [Proposal(arch(words[0])), Proposal(arch("aaad"), budget=1.0), *(Proposal(arch(w)) for w in words[1:])]
    store = bench.store()
    study = bench.study(store, constraints=("other<=0",))
    bests: list[int | None] = []
    stored: list[int] = []

    class Noted(Search):
        def _tell(self, trial: Any) -> None:
            super()._tell(trial)
            bests.append(self.best[1] if self.best else None)
            if self.best:
                stored.append(best_trial(store, study).number)

    search = Noted(store, study, bench.parts(study.spec, make=proposing(*proposals)))
    search.run(StopAt())
    assert bests == [None, 1, 2, 3, 4, 4]  # a complete one of the full budget is before the better of half of it
    assert stored == bests[1:]
    again = Search(store, study, bench.parts(study.spec, make=proposing(*proposals)))
    assert again.best == search.best
