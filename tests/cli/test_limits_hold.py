"""Whatever the space, the sizes and the limit: every command that follows a search keeps the limit.

What a network costs is counted here: parameters on the module that `build` makes, multiply-accumulates by watching its
layers run.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from nas_cli.app import run
from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.seeds import generator
from nas_core.strategy import State
from nas_core.task import Task
from studies.analysis.queries import best_trial
from studies.bench import curves, plan, worker
from studies.setup.assemble import build
from studies.setup.spaces import load_space, size_of
from studies.store.store import Store
from tests.cli.test_limits import SPACE
from training.tasks import sample_inputs

FEW = settings(phases=[Phase.generate], deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
DIGITS = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)
KARATE = Task(kind="node-classification", input_shape=(34,), outputs=4, nodes=34, edges=156)

SIZES = {
    "wide.py:space": st.builds("times={}".format, st.integers(1, 6)),
    "nasbench201": st.builds("channels={},cells={}".format, st.integers(1, 4), st.integers(1, 2)),
    "nasbench_graph": st.builds("hidden={}".format, st.sampled_from([2, 4, 6])),
}


@contextlib.contextmanager
def empty_folder() -> Iterator[None]:
    """A working folder with the space of a user's own, left again at the end."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("wide.py").write_text(SPACE)
        try:
            yield
        finally:
            os.chdir(before)


def say(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    return code, out.getvalue(), err.getvalue()


def cost(space: Any, arch: Architecture, task: Task, size: str, metric: str) -> int:
    """Counted on the built network, by nothing that the program counts with."""
    model = space.build(arch, task, size_of(space, size))
    if metric == "params":
        return sum(parameter.numel() for parameter in model.parameters())
    total = 0

    def count(layer: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()  # each number is a product with one row of the weights

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(*sample_inputs(task))
    return total


def limit_between(space: Any, task: Task, size: str, metric: str, share: float) -> int:
    """A limit that some architectures keep and others do not, as a rule."""
    rng = generator("limits", 0)
    values = sorted(cost(space, moves.sample(space, rng), task, size, metric) for _ in range(12))
    return values[int(share * (len(values) - 1))]


@given(st.data())
@settings(FEW, max_examples=3)
def test_a_search_and_all_that_follows(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(SIZES)), "space")
    size, final = data.draw(SIZES[name], "size"), data.draw(SIZES[name], "final size")
    task, reference = (KARATE, "karate") if name == "nasbench_graph" else (DIGITS, "digits")
    # NAS-Bench-201 counts the MACs of edges that do not reach the output too; graph spaces count their own.
    metric = data.draw(st.sampled_from(["params", "macs"]), "metric") if name == "wide.py:space" else "params"
    relation, goal = data.draw(st.sampled_from([("<=", "max"), (">=", "min")]), "limit")
    trained = data.draw(st.booleans(), "trained")
    with empty_folder():
        space, _ = load_space(name)
        bound = limit_between(space, task, final, metric, data.draw(st.floats(0.2, 0.8), "share"))
        few = () if task is KARATE else ("-s", "split.limit=60")
        # Without training the objective pushes against the limit; with training, anything may be best.
        objective = () if trained else ("--objective", f"{metric}:{goal}")
        strategy = data.draw(st.sampled_from(["random", "regularized-evolution", "nsga2"]), "strategy")
        code, _, err = say(
            "search", "--study", "s", "--space", name, "--data", reference, "--strategy", strategy, "--epochs", "1",
            "--size", size, "--final-size", final, "--constraint", f"{metric}{relation}{bound}", *objective, *few,
            "--threads", "1", "-n", "2",
        )  # fmt: skip
        assert code == 0, err
        assert say("resume", "s", "-n", "4")[0] == 0

        def holds(arch: Architecture) -> bool:
            value = cost(space, arch, task, final, metric)
            return value <= bound if relation == "<=" else value >= bound

        with Store("sqlite:///nas.db", create=False) as store:
            runs = list(store.trials(store.study("s"), metrics=True))
        for trial in runs:
            assert trial.metrics[metric] == cost(space, trial.arch, task, final, metric)
            assert holds(trial.arch) == (trial.state != State.REJECTED)
        best = json.loads(say("best", "s", "--json")[1])
        assert holds(Architecture(space.name, best["architecture"]))
        code, out, err = say("train", "s", "--epochs", "1", "--recipe", "quick", "--json")
        assert code == 0, err
        assert "beyond" not in err
        document = json.loads(out)
        assert document["size"] == size_of(space, final).fitted(task).model_dump(mode="json")
        assert [one["kept"] for one in document["limits"]] == [True]
        code, out, err = say("export", "s", "--format", "safetensors", "--no-verify", "--json")
        assert code == 0, err
        files = {Path(file).suffix: Path(file) for file in json.loads(out)["files"]}
        described = json.loads(files[".json"].read_text())
        arch = Architecture(space.name, described["architecture"]["values"])
        wanted = space.build(arch, task, size_of(space, final)).state_dict()
        weights = safetensors.torch.load_file(files[".safetensors"])
        assert {key: tensor.shape for key, tensor in weights.items()} == {key: t.shape for key, t in wanted.items()}
        assert holds(arch)
        assert "| kept: " in files[".md"].read_text()


@given(final=SIZES["nasbench201"], share=st.floats(0.2, 0.8))
@settings(FEW, max_examples=2)
def test_what_a_supernet_derives(final: str, share: float) -> None:
    with empty_folder():
        space, _ = load_space("nasbench201")
        bound = limit_between(space, DIGITS, final, "params", share)
        code, _, err = say(
            "search", "--study", "s", "--strategy", "rc-darts", "-s", "strategy.epochs=1", "-s", "split.limit=60",
            "--size", "channels=2,cells=1", "--final-size", final, "--epochs", "1", "--threads", "1",
            "--constraint", f"params<={bound}",
        )  # fmt: skip
        assert code == 0, err
        with Store("sqlite:///nas.db", create=False) as store:
            (trial,) = store.trials(store.study("s"), metrics=True)
        assert trial.state == State.COMPLETE
        assert trial.metrics["params"] == cost(space, trial.arch, DIGITS, final, "params") <= bound
        code, out, err = say("train", "s", "--epochs", "1", "--recipe", "quick", "--json")
        assert code == 0, err
        assert json.loads(out)["size"] == size_of(space, final).fitted(DIGITS).model_dump(mode="json")
        assert "beyond" not in err


@given(
    rows=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20)), min_size=5, max_size=5),
    limits=st.lists(st.sampled_from(["params<=12", "params>=6", "val_accuracy<=0.7"]), min_size=1, unique=True),
    seed=st.integers(0, 3),
)
@settings(FEW, max_examples=5)
def test_a_bench_counts_what_keeps_the_limit(rows: list[tuple[int, int]], limits: list[str], seed: int) -> None:
    def kept(accuracy: float, params: float) -> bool:
        return all(eval(limit, {"params": params, "val_accuracy": accuracy}) for limit in limits)

    inside = [accuracy / 100 for accuracy, params in rows if kept(accuracy / 100, params)]
    with empty_folder():
        lines = [
            f"{width},{accuracy},{params}" for width, (accuracy, params) in zip((1, 2, 4, 8, 16), rows, strict=True)
        ]
        Path("wide.csv").write_text("\n".join(["width,valid,params", *lines]) + "\n")
        Path("wide.yaml").write_text(
            "space: wide\nrow: {choices: {width: width}}\ndata:\n  made:\n"
            "    task: {kind: image-classification, input_shape: [1, 8, 8], outputs: 10}\n"
            "    metrics: {val_accuracy: {column: valid, scale: 0.01}}\n    costs: {params: {column: params}}\n"
        )
        words = ("bench", "strategies", "--space", "wide.py:space", "--table", "wide.csv", "--name", "b")
        if not inside:
            code, _, err = say(*words, "--strategies", "random", *(f"--constraint={limit}" for limit in limits))
            assert (code, "no row of table 'wide.csv' satisfies" in err) == (4, True)
            return
        problem = {"space": "wide.py:space", "table": "wide.csv", "constraints": limits}
        sizes = {"queries": max(1, len(inside) - 1), "seeds": 1, "workers": 1, "simulated": False}
        made = plan.make(problem, ["random", "regularized-evolution"], {}, **sizes)  # type: ignore[arg-type]
        assert made.landscape.optimum == pytest.approx(max(inside))
        assert (made.landscape.rows, made.landscape.mean) == (len(inside), pytest.approx(numpy.mean(inside)))
        with Store("sqlite:///nas.db") as store:
            bench = store.create_bench("b", made.model_dump(mode="json"))
            shared = build(made.problem).cached_in(store)
            for label, number in made.children():
                assert worker.search(store, bench, made, shared, label, number)
            found = curves.load(store, bench, made).validation
            for row, label in enumerate(made.contenders):
                study = store.study(worker.child_name(bench, label, 0))
                runs = [run for run in store.trials(study, metrics=True) if run.state == State.COMPLETE]
                values = [run.metrics["val_accuracy"] for run in runs if kept(**_named(run.metrics))]
                last = found[row, 0, -1]
                assert last == pytest.approx(max(values)) if values else last == made.landscape.mean
                assert last <= made.landscape.optimum
                if values:
                    assert kept(**_named(best_trial(store, study).metrics))
                assert not math.isnan(last)


def _named(metrics: Any) -> dict[str, float]:
    return {"accuracy": metrics["val_accuracy"], "params": metrics["params"]}
