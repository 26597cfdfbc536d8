"""Commands that only list or read start quickly: they leave the heavy packages alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "torch_geometric", "optuna", "ray", "matplotlib", "plotly", "sklearn", "pandas", "onnx")
HEAVY += ("onnxruntime", "starlette", "uvicorn", "jinja2")
STUDIES = ("sqlalchemy", "numpy")

RUN = """
import json, sys
from nas_cli.app import run
try:
    code = run(sys.argv[2:])
except SystemExit as ended:
    code = ended.code
wanted = json.loads(sys.argv[1])
print(json.dumps([code or 0, [name for name in wanted if name in sys.modules]]), file=sys.stderr)
"""


def imported(folder: Path, watched: tuple[str, ...], *arguments: str) -> list[str]:
    """Which of `watched` a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(watched), *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("NAS_")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    code, found = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    assert done.stdout
    return list(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database that holds a study and a trial."""
    from nas_core import moves
    from nas_core.evaluation import Report
    from nas_core.records import StopAt, Verdict
    from nas_core.strategy import Proposal, State
    from nas_core.task import Task
    from search_spaces.nasbench201.space import NasBench201
    from studies.records import StudySpec
    from studies.store.store import Store

    place = tmp_path_factory.mktemp("lazy")
    space = NasBench201()
    spec = StudySpec(
        space="nasbench201", space_name=space.name, space_version=space.version, space_hash=None, size={},
        strategy="random", strategy_config={}, evaluator={"kind": "table", "table": "made.csv", "data": "made"},
        task=Task(kind="image-classification", input_shape=(3, 32, 32), outputs=10), split_hash="",
        objectives=("val_accuracy:max",), constraints=(), seed=0, lag=1,
    )  # fmt: skip
    with Store(f"sqlite:///{place / 'nas.db'}") as store:
        study = store.create_study("one", spec, StopAt(trials=1))
        arch = moves.complete(space, {}, moves.first)
        verdict = Verdict(State.COMPLETE, None, (0.5,))
        store.propose(study, 0, Proposal(arch), arch.key, verdict, report=Report(1, {"val_accuracy": 0.5}))
    return place


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "search --help",
        "predict --help",
        "ls",
        "show one",
        "show one:0",
        "trials one",
        "best one --json",
        "plot --help",
        "report --help",
        "dashboard --help",
        "mirror --help",
        "plot one --json",
        "spaces list",
        "spaces show nasbench_graph",
        "strategies list",
        "data list",
        "doctor --quick",
        "--show-completion",
    ],
)
def test_the_command_leaves_heavy_packages_alone(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command.split()
    if command == "--show-completion":  # told the shell, as there is none to detect
        monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
        words = ["--show-completion", "bash"]
    assert imported(folder, HEAVY, *words) == []


def test_help_needs_no_database(folder: Path) -> None:
    assert imported(folder, STUDIES, "--help") == []


def test_listing_studies_needs_neither_numpy_nor_sqlalchemy(folder: Path) -> None:
    assert imported(folder, STUDIES, "ls") == []


def test_the_watch_sees_what_is_imported(folder: Path) -> None:
    assert "torch" in imported(folder, HEAVY, "doctor")
