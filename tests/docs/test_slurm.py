"""`examples/slurm.sh`: what it types is what there is, and without SLURM it does what it says on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_cli.app import parser
from nas_core.strategy import State
from studies.store.store import Store

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "slurm.sh"

# Starts a command twice, waits for both, and hands on that it is to end.
SRUN = """#!/bin/bash
"$@" & one=$!
"$@" & two=$!
trap 'kill -TERM $one $two' TERM
wait $one; first=$?
wait $two; second=$?
if ((first > 128 || second > 128)); then wait $one; first=$?; wait $two; second=$?; fi
exit $((first + second))
"""


def test_its_commands_and_options_are_there() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    found = re.findall(r"\bnas (search|worker|show)\b([^\n]*)", SCRIPT.read_text())
    assert {command for command, _ in found} == {"search", "worker", "show"}
    for command, rest in found:
        known = {flag for one in parser().commands[command].params for flag in one.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known


@pytest.mark.slow
def test_it_searches_on_this_machine(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN)
    (tmp_path / "bin" / "srun").chmod(0o755)
    url = postgresql()
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("NAS_", "SLURM_"))}
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), plain["PATH"]])
    small = ["--data", "digits", "-s", "split.limit=200", "--size", "channels=2,cells=1", "--epochs", "1"]
    for trials in ("3", "5"):  # the second time it goes on
        done = subprocess.run(
            [SCRIPT, "big", *small, "--trials", trials, "--device", "cpu"],
            cwd=tmp_path,
            env={**plain, "PATH": path, "NAS_DB": url, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        with Store(url, tmp_path / "nas-files") as store:
            runs = list(store.trials(store.study("big")))
            assert sum(run.state == State.COMPLETE for run in runs) == int(trials)
            assert store.query("SELECT id FROM attempts")[1] == []
