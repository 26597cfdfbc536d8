"""Verification: a fresh process loads what was written, and must answer as the network does."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from nas_core.errors import UsageError, VerificationError
from nas_core.task import Task
from nas_core.user_files import Added
from training import tasks
from training.export.formats import EVERY, FORMATS, QUANTIZED
from training.export.python import check
from training.inputs.samples import Proof

TOLERANCE = 1e-4
CASES = "cases.safetensors"


@dataclass(frozen=True)
class Case:
    """What is given to a network, as tensors or as a file that `nas infer` reads, and what it must answer."""

    name: str
    given: tuple[Tensor, ...] | Proof
    output: Tensor


def cases(network: nn.Module, task: Task, example: tuple[Tensor, ...]) -> list[Case]:
    """Inputs of several sizes with the network's answers: batches of 1, 3 and the example's; two graphs.

    Raises UsageError where the network fails on one of them, or answers with other than finite numbers.
    """
    return [Case(name, inputs, _answer(network, inputs, name)) for name, inputs in _inputs(task, example).items()]


def proof_cases(network: nn.Module, proofs: Sequence[Proof]) -> list[Case]:
    """Files of the data with the answers of the network in training, which sees them as training does."""
    return [Case(f"the file {proof.name}", proof, _answer(network, proof.seen, proof.name)) for proof in proofs]


def _answer(network: nn.Module, inputs: tuple[Tensor, ...], name: str) -> Tensor:
    try:
        with torch.inference_mode():
            output = network(*inputs)
    except Exception as error:
        raise UsageError(f"the network does not run on {name}: {type(error).__name__}: {error}") from error
    if not isinstance(output, Tensor):
        raise UsageError(f"the network answers {name} with a {type(output).__name__}; export needs one tensor")
    if not bool(torch.isfinite(output).all()):
        raise UsageError(f"the network answers {name} with NaN or infinite numbers; train it again")
    return output


def verify(
    folder: Path,
    stem: str,
    formats: Sequence[str],
    expected: Sequence[Case],
    network: nn.Module,
    alone: bool = True,
) -> None:
    """Load every file `folder/stem.*` in a fresh process, run it on `expected`, compare the answers.

    A Python file runs where nothing of this program can be imported, unless it is not `alone`. The largest difference
    may be `TOLERANCE` times the largest answer; quantised programs must answer with finite numbers of the same shape:
    how well they do is told by their metrics (`training.export.compared`). Raises VerificationError, naming the
    file, the format and the difference.
    """
    tensors: dict[str, Tensor] = {}
    arguments: list[str | None] = []
    for number, case in enumerate(expected):
        tensors[f"{number}/output"] = case.output.contiguous()
        if isinstance(case.given, Proof):
            (folder / case.given.name).write_bytes(case.given.content)
            arguments.append(case.given.argument.format(folder))
        else:
            given = enumerate(case.given)
            tensors |= {f"{number}/input.{position}": tensor.clone().contiguous() for position, tensor in given}
            arguments.append(None)
    (folder / CASES).write_bytes(safetensors.torch.save(tensors))
    request = {
        "cases": str(folder / CASES),
        "arguments": arguments,
        "files": {name: str(folder / EVERY[name].file(stem)) for name in formats if name != "python"},
        "shapes": {name: list(tensor.shape) for name, tensor in network.state_dict().items()},
    }
    answers = dict(ask(["-m", "training.export.check"], request))
    asked = dict.fromkeys(answers, expected)
    if "python" in formats:
        # Arrays in a file, and what is said behind one, are read by 'nas infer' alone.
        numbers = [number for number, argument in enumerate(arguments) if not {":", "?"} & set(argument or "")]
        asked["python"] = [expected[number] for number in numbers]
        answers["python"] = ask(
            [check.__file__],
            {
                **request,
                "source": str(folder / FORMATS["python"].file(stem)),
                "weights": str(folder / FORMATS["safetensors"].file(stem)),
                "numbers": numbers,
                "refused": check.REFUSED if alone else (),
            },
        )
    for name, answer in answers.items():
        file = EVERY[name].file(stem)
        if "error" in answer:
            raise VerificationError(f"'{file}' failed its verification and was not kept: {name}: {answer['error']}")
        # The json file holds no weights: it is checked by rebuilding alone, and has no differences.
        for case, (difference, scale) in zip(asked[name], answer["differences"], strict=name != "json"):
            if not (math.isfinite(difference) if name in QUANTIZED else difference <= TOLERANCE * scale):
                raise VerificationError(
                    f"'{file}' failed its verification and was not kept: format {name} differs from the network by "
                    f"{difference:.3g} on {case.name} (allowed: {TOLERANCE * scale:.3g})"
                )


def ask(program: Sequence[str], request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer of a fresh process to a request, both JSON. Raises VerificationError where it has none."""
    # The fresh process sees the same packages as this one, whatever the current folder holds (-P).
    entries = (entry for entry in sys.path if not isinstance(entry, Added))  # the files bring what they need
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in entries)
    done = subprocess.run(
        [sys.executable, "-P", *program],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if done.returncode != 0 or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise VerificationError(f"the verification ended with exit code {done.returncode}, no file was kept: {last}")
    answers: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def _inputs(task: Task, example: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
    if task.kind not in tasks.names():
        return {"the example": example}
    return tasks.kind_of(task).variants(example)
