"""`kill -9` at random moments, each followed by `nas resume`: the study equals the uninterrupted one.

The gate makes a few kills of smaller searches, in forks of a process that has imported what they need, whose workers
are forks as well; `-m slow` kills fresh interpreters, and makes the full 60 of a tabular search, 40 of a training one,
and 20 each of a supernet's and of a generator's training.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from nas_cli.app import run as nas
from tests.crash.running import Fork, Run, children, finish, fresh, gone, rows_stored
from tests.crash.sessions import contents
from tests.zygote import Zygote

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TRAINING = [
    *("--data", "digits", "-s", "split.limit=240", "--size", "channels=4,cells=1", "--epochs", "4", "--trials", "8"),
    *("--strategy", "regularized-evolution", "-s", "strategy.population=4", "-s", "strategy.sample=2"),
    *("-s", "checkpoint_seconds=0", "--threads", "1", "--seed", "3"),
]

FEWER = ["--epochs", "2", "--trials", "6", "-s", "split.limit=120"]

SUPERNET = [
    *("--data", "digits", "-s", "split.limit=240", "--size", "channels=4,cells=1", "--epochs", "2", "--threads", "1"),
    *("--strategy", "darts", "-s", "strategy.epochs=16", "-s", "strategy.order=2", "-s", "checkpoint_seconds=0"),
]

# Supernets one after the other, of networks that grow.
ROUNDS = [
    *("--space", "argnp(vertices=4)", "--size", "node=4,relation=3,node_output=4"),
    *("--data", "karate", "--strategy", "argnp", "-s", "strategy.rounds=2", "-s", "strategy.epochs=6"),
    *("-s", "checkpoint_seconds=0", "--epochs", "2", "--threads", "1"),
]

# A generator that learns the space once, and goes on learning from the outcomes; small enough to be trained in seconds.
GENERATOR = [
    *("--strategy", "diffusion", "-s", "strategy.mode=cfg", "-s", "strategy.initial=4", "-s", "strategy.batch=4"),
    *(
        "-s",
        "strategy.generator.steps=200",
        "-s",
        "strategy.generator.samples=1000",
        "-s",
        "strategy.generator.width=32",
    ),
    *("-s", "strategy.pool=40", "-s", "strategy.learning=20", "--trials", "16", "--threads", "1", "--seed", "2"),
]

# Layers that are trained in several networks at a time, with screens of each.
HOSTED = [
    *("--space", "evonorm", "--size", "width=8,depth=1", "--screen", "finite", "--strategy", "random"),
    *("--data", "digits", "-s", "split.limit=160", "-s", "checkpoint_seconds=0", "--threads", "1", "--seed", "3"),
]

# Mixtures of experts, whose routers draw numbers and keep biases; two objectives, one of which is a cost.
EXPERTS = [
    *("--space", "moe(routers=(noisy-top-k, grin, smear, loss-free))", "--size", "width=8", "--strategy", "nsga2"),
    *("-s", "strategy.population=4", "--objective", "val_loss", "--objective", "active_params", "--seed", "3"),
    *("-s", "checkpoint_seconds=0", "-s", "recipe.batch_size=16", "--threads", "1"),
]

# Of what the evolution of layers proposes most is turned down after some steps of a training or of an ascent.
EVOLVED = [
    *("--space", "evonorm", "--strategy", "evonorm", "-s", "strategy.window=6", "--data", "digits", "--epochs", "2"),
    *("-s", "checkpoint_seconds=0", "-s", "recipe.batch_size=16", "--threads", "1", "--seed", "3"),
]

BRIEF = ["-s", "strategy.generator.steps=60", "-s", "strategy.generator.samples=300", "--trials", "12"]

PAIRS = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace

class Pairs(SearchSpace):
    name = "pairs"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"choice{n}", (0, 1, 2, 3)) for n in range(6))

    def build(self, arch, task, size):
        raise NotImplementedError

    def allowed(self, choice, prefix):
        number = int(choice.name[-1])
        return choice.options if number < 3 else choice.options[: 1 + prefix[f"choice{number - 3}"]]

space = Pairs()
"""


LAYERS = """
import math

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.space import SearchSpace

class Layers(SearchSpace):
    name = "layers"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"width{n}", (8, 16, 32)) for n in range(3))
    named = {f"known-{w}": Architecture("layers", {f"width{n}": w for n in range(3)}) for w in (8, 16, 32)}

    def build(self, arch, task, size):
        from torch import nn

        widths = [math.prod(task.input_shape), *arch.values.values()]
        layers = [nn.Sequential(nn.Linear(one, two), nn.ReLU()) for one, two in zip(widths, widths[1:])]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], task.outputs))

def shallow(epoch, report):
    return "shallow: width 8 at the end" if epoch == 2 and report["params"] < 1500 else None
"""


@pytest.fixture
def fork(zygote: Zygote) -> Run:
    return partial(Fork, zygote, function="tests.crash.eager:run")


def check_kills(
    run: Run,
    folder: Path,
    arguments: list[str],
    kills: int,
    per_study: int,
    durations: bool,
    workers: tuple[str, ...] = (),
) -> None:
    """Kill searches `kills` times in all, up to `per_study` times each, and compare each study at its end.

    The uninterrupted search has no workers, the killed ones have `workers`, which must not outlive them.
    """
    whole = folder / "whole"
    whole.mkdir()
    search = ["search", "--study", "s", *arguments]
    process = run(search, whole)
    search += workers
    while rows_stored(whole / "nas.db") == 0:
        assert process.poll() in (None, 0), (whole / "stderr").read_text()
        time.sleep(0.005)
    begun = time.monotonic()
    assert process.wait(timeout=600) == 0, (whole / "stderr").read_text()
    length = time.monotonic() - begun
    expected = contents(whole / "nas.db", durations)
    rng = random.Random(7)
    killed = studies = 0
    while killed < kills:
        studies += 1
        place = folder / f"killed{studies}"
        place.mkdir()
        command = search
        for _ in range(min(per_study, kills - killed)):
            before = rows_stored(place / "nas.db")
            process = run(command, place)
            while process.poll() is None and rows_stored(place / "nas.db") == before == 0:
                time.sleep(0.002)
            # A resume spends its first moments with imports and replay: moments there count as well.
            time.sleep(rng.uniform(0, length))
            alive = process.poll() is None
            offspring = children(process)
            process.send_signal(signal.SIGKILL)
            process.wait()
            gone(offspring)
            killed += alive
            command = ["resume", "s", *workers]
            if not alive:
                length *= 0.9  # the uninterrupted search ran on a busier machine than this one
                break
        finish(run, ["resume", "s"], place)
        assert contents(place / "nas.db", durations) == expected
        finish(run, ["verify", "s"], place)
        left = [path.relative_to(place / "nas-files" / "s").as_posix() for path in files(place)]
        assert sorted(left) == [path.relative_to(whole / "nas-files" / "s").as_posix() for path in files(whole)]
        assert left in ([], ["supernet/weights.safetensors"])
        assert kept(place) == kept(whole)


def files(folder: Path) -> list[Path]:
    """All files that a study has left but its lock."""
    return sorted(path for path in (folder / "nas-files" / "s").rglob("*") if path.is_file() and path.name != "lock")


def kept(folder: Path) -> dict[str, bytes]:
    """What the study keeps for others, such as what its generator has learned of the space."""
    return {path.name: path.read_bytes() for path in (folder / "nas-files" / "_kept").glob("*.kept")}


@pytest.fixture
def table(tmp_path: Path) -> list[str]:
    """A made table of all NAS-Bench-201 cells, and the arguments to search it."""
    from nas_core import moves
    from search_spaces.nasbench201.space import NasBench201

    space = NasBench201()
    rows = (f"{space.to_text(arch)},{random.Random(arch.key).random():.4f}" for arch in moves.enumerate_all(space))
    (tmp_path / "cells.csv").write_text("arch,valid\n" + "\n".join(rows) + "\n")
    (tmp_path / "cells.yaml").write_text(
        "files: [cells.csv]\nspace: nasbench201\nmatch: architecture\nrow: {text: arch}\ndata:\n  made:\n"
        "    task: {kind: image-classification, input_shape: [3, 32, 32], outputs: 10}\n"
        "    metrics: {val_accuracy: {column: valid}}\n"
    )
    mapping = ["-s", f"mapping={tmp_path / 'cells.yaml'}"]
    return ["--table", str(tmp_path / "cells.csv"), *mapping, "--data", "made", "--trials", "1500", "--lag", "3"]


@pytest.fixture
def pairs(tmp_path: Path) -> list[str]:
    """A space in which a choice bounds another, a made table of its 1,000 architectures, and the arguments to search
    it with a generator."""
    (tmp_path / "pairs.py").write_text(PAIRS)
    names = [f"choice{number}" for number in range(6)]
    rows = [
        (*first, *last, 0.5 + (sum(first) + sum(last)) / 40 + random.Random(str(first + last)).random() / 10)
        for first in product(range(4), repeat=3)
        for last in product(*(range(1 + bound) for bound in first))
    ]
    lines = [",".join([*names, "valid"]), *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    columns = ", ".join(f"{name}: {name}" for name in names)
    (tmp_path / "pairs.yaml").write_text(
        f"files: [pairs.csv]\nspace: pairs\nmatch: architecture\nrow: {{choices: {{{columns}}}}}\ndata:\n  made:\n"
        "    task: {kind: image-classification, input_shape: [3, 32, 32], outputs: 10}\n"
        "    metrics: {val_accuracy: {column: valid}}\n"
    )
    space, table = f"{tmp_path / 'pairs.py'}:space", tmp_path / "pairs.csv"
    return ["--space", space, "--table", str(table), "-s", f"mapping={tmp_path / 'pairs.yaml'}", "--data", "made"]


def test_killed_tabular_searches(fork: Run, tmp_path: Path, table: list[str]) -> None:
    check_kills(fork, tmp_path, [*table, "--trials", "150"], kills=2, per_study=2, durations=True)


def test_killed_trainings(fork: Run, tmp_path: Path) -> None:
    check_kills(fork, tmp_path, [*TRAINING, *FEWER], kills=2, per_study=2, durations=False)


def test_killed_trainings_with_workers(fork: Run, tmp_path: Path) -> None:
    arguments, workers = [*TRAINING, *FEWER, "--lag", "4"], ("--workers", "2")
    check_kills(fork, tmp_path, arguments, kills=1, per_study=1, durations=False, workers=workers)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_killed_baselines_and_screens(fork: Run, tmp_path: Path, workers: tuple[str, ...]) -> None:
    """Baselines that are not told and one that is enqueued; screens that turn candidates down as they train."""
    (tmp_path / "layers.py").write_text(LAYERS)
    arguments = [
        *("--space", f"{tmp_path / 'layers.py'}:Layers", "--data", "digits", "-s", "split.limit=120", "--epochs", "4"),
        *("--baselines", "named", "--enqueue", "known-16", "--screen", f"{tmp_path / 'layers.py'}:shallow"),
        *("--strategy", "random", "--trials", "5", "--lag", "4", "-s", "checkpoint_seconds=0", "--threads", "1"),
    ]
    check_kills(fork, tmp_path, arguments, kills=2, per_study=2, durations=False, workers=workers)


@pytest.fixture
def numbers(tmp_path: Path) -> list[str]:
    """A made table with a target, and the argument to learn from it."""
    rng = random.Random(0)
    rows = [[rng.gauss(0, 1) for _ in range(4)] for _ in range(120)]
    lines = ["a,b,c,y", *(",".join(f"{value:.3f}" for value in row) for row in rows)]
    (tmp_path / "numbers.csv").write_text("\n".join(lines) + "\n")
    return ["--data", f"csv:{tmp_path / 'numbers.csv'}?target=y"]


def test_killed_experts(fork: Run, tmp_path: Path, numbers: list[str]) -> None:
    check_kills(fork, tmp_path, [*numbers, *EXPERTS, "--epochs", "2", "--trials", "6"], 1, per_study=1, durations=False)


def test_killed_searches_of_graphs(fork: Run, tmp_path: Path) -> None:
    arguments = [
        *("--space", f"{EXAMPLES / 'my_graph_space.py'}:space", "--data", "random-graphs?target=degrees&graphs=80"),
        *("-s", "checkpoint_seconds=0", "--threads", "1", "--seed", "3", "--epochs", "3", "--trials", "5"),
    ]
    check_kills(fork, tmp_path, arguments, kills=2, per_study=2, durations=False)


def test_killed_searches_of_links(fork: Run, tmp_path: Path) -> None:
    """Pairs without an edge are drawn in every epoch."""
    arguments = [
        *("--space", "nasbench_graph", "--size", "hidden=8", "--data", "karate?task=link-prediction"),
        *("-s", "checkpoint_seconds=0", "--threads", "1", "--seed", "3", "--epochs", "4", "--trials", "5"),
    ]
    check_kills(fork, tmp_path, arguments, kills=2, per_study=2, durations=False)


@pytest.mark.slow
def test_ten_killed_searches_of_experts(tmp_path: Path, numbers: list[str]) -> None:
    check_kills(
        fresh, tmp_path, [*numbers, *EXPERTS, "--epochs", "6", "--trials", "12"], 10, per_study=3, durations=False
    )


@pytest.mark.slow
def test_killed_evolution_of_layers(fork: Run, tmp_path: Path) -> None:
    """In a screen, and as a candidate is looked for. Faster: the test before, and the contract of strategies."""
    screens = ("--screen", "quality(steps=4,bar=1.2)", "--screen", "stability(steps=2)")
    begun = ("--enqueue", "evonorm-s0", "-s", "strategy.founders=1", "--trials", "2", "--lag", "2")
    begun += ("--size", "width=4,depth=1,stages=1", "-s", "split.limit=80")
    check_kills(fork, tmp_path, [*EVOLVED, *screens, *begun], kills=1, per_study=1, durations=False)


@pytest.mark.parametrize("workers", [(), pytest.param(("--executor", "processes"), marks=pytest.mark.slow)])
def test_killed_supernets(fork: Run, tmp_path: Path, workers: tuple[str, ...]) -> None:
    arguments = [*SUPERNET, "-s", "strategy.epochs=4", "-s", "split.limit=120"]
    check_kills(fork, tmp_path, arguments, kills=2, per_study=2, durations=False, workers=workers)


@pytest.mark.slow
def test_killed_rounds(fork: Run, tmp_path: Path) -> None:
    """Faster: tests/studies/test_rounds.py goes on after each epoch."""
    check_kills(fork, tmp_path, ROUNDS, kills=3, per_study=3, durations=False)


def test_killed_generators(
    fork: Run, tmp_path: Path, pairs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_kills(fork, tmp_path, [*pairs, *GENERATOR, *BRIEF], kills=2, per_study=2, durations=True)
    assert kept(tmp_path / "whole")  # what was learned of the space
    drawn = []
    for study in ("whole", "killed1"):
        monkeypatch.chdir(tmp_path / study)
        assert nas(["generate", "s", "--n", "5", "--model", "ridge", "--json"]) == 0
        drawn.append(capsys.readouterr().out)
    assert drawn[0] == drawn[1]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cfg", "refit"])
def test_twenty_killed_generators(tmp_path: Path, pairs: list[str], mode: str) -> None:
    arguments = [*pairs, *GENERATOR, "-s", f"strategy.mode={mode}", "--trials", "40"]
    check_kills(fresh, tmp_path, arguments, kills=10, per_study=3, durations=True)


@pytest.mark.slow
def test_twenty_killed_supernets(tmp_path: Path) -> None:
    check_kills(fresh, tmp_path, SUPERNET, kills=20, per_study=4, durations=False)


@pytest.mark.slow
def test_sixty_killed_tabular_searches(tmp_path: Path, table: list[str]) -> None:
    check_kills(fresh, tmp_path, table, kills=60, per_study=3, durations=True)


@pytest.mark.slow
def test_ten_killed_searches_of_a_program(tmp_path: Path, table: list[str]) -> None:
    program = f"command:{sys.executable} {EXAMPLES / 'my_proposer.py'}"
    check_kills(fresh, tmp_path, [*table, "--trials", "300", "--strategy", program], 10, per_study=3, durations=True)


@pytest.mark.slow
def test_forty_killed_trainings(tmp_path: Path) -> None:
    check_kills(fresh, tmp_path, TRAINING, kills=40, per_study=3, durations=False)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_ten_killed_searches_in_hosts(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """Also between the epochs of two hosts; a fast sibling is in tests/training/test_hosts.py."""
    layers = ("--enqueue", "gn-relu,evonorm-b0,frn,evonorm-s1", "--trials", "4", "--lag", "4")
    arguments = [*HOSTED, "--hosts", "resnet,vgg,vit", *layers, "--epochs", "12"]
    check_kills(fresh, tmp_path, arguments, kills=10, per_study=4, durations=False, workers=workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_ten_killed_evolutions_of_layers(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """About 40 candidates, of 20 steps in each of two hosts: killed in screens, between hosts and while training."""
    screens = ("--screen", "quality(steps=9,bar=1.5)", "--screen", "stability(steps=5)", "--lag", "4")
    size = ("--size", "width=8,depth=1", "-s", "split.limit=160", "--hosts", "resnet,vgg")
    arguments = [*EVOLVED, *size, *screens, "-s", "strategy.founders=2", "--trials", "4"]
    check_kills(fresh, tmp_path, arguments, kills=10, per_study=4, durations=False, workers=workers)


@pytest.mark.slow
def test_twenty_killed_trainings_with_workers(tmp_path: Path) -> None:
    check_kills(
        fresh, tmp_path, [*TRAINING, "--lag", "4"], kills=20, per_study=3, durations=False, workers=("--workers", "2")
    )
