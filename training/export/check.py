"""The fresh process of verification: `python -m training.export.check`, a request on stdin, answers on stdout.

It runs what the files hold, as `nas infer` does, and nothing of the process that wrote them. For each format the answer
is `{"differences": [[largest difference, largest expected], ...]}`, one pair per case, or `{"error": text}`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from nas_core.errors import NasError, UsageError
from training.export.rebuild import load_network
from training.infer.model import Model, Tensors, open_model
from training.infer.samples import read


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer for each file of the request; whatever a file makes fail is that file's error."""
    tensors = safetensors.numpy.load_file(request["cases"])
    answers: dict[str, Any] = {}
    for name, file in request["files"].items():
        try:
            if name == "json":
                _rebuild(Path(file), request["shapes"])
                answers[name] = {"differences": []}
            else:
                model = open_model(Path(file))
                cases = enumerate(request["arguments"])
                answers[name] = {"differences": [_compare(model, tensors, n, argument) for n, argument in cases]}
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            answers[name] = {"error": text if isinstance(error, NasError) else f"{type(error).__name__}: {text}"}
    return answers


def _rebuild(path: Path, expected: Mapping[str, list[int]]) -> None:
    """A description holds no weights: the network that it builds is compared by its shapes."""
    shapes = {name: list(tensor.shape) for name, tensor in load_network(path).state_dict().items()}
    for name in sorted({*shapes, *expected}):
        if shapes.get(name) != expected.get(name):
            raise UsageError(f"it builds another network: '{name}' is {shapes.get(name)}, not {expected.get(name)}")


def _compare(model: Model, tensors: Mapping[str, Any], number: int, argument: str | None) -> tuple[float, float]:
    """The answer to what is read from `argument`, or to the tensors of the case where that is None."""
    expected = tensors[f"{number}/output"]
    output = model.run(_inputs(tensors, number) if argument is None else _read(model, argument))
    if output.shape != expected.shape:
        raise UsageError(f"it answers with shape {output.shape}, not {expected.shape}")
    return float(np.abs(output - expected).max()), float(np.abs(expected).max())


def _inputs(tensors: Mapping[str, Any], number: int) -> Tensors:
    count = sum(name.startswith(f"{number}/input.") for name in tensors)
    return tuple(tensors[f"{number}/input.{position}"] for position in range(count))


def _read(model: Model, argument: str) -> Tensors:
    if model.inputs is None:
        raise UsageError("it does not say what its inputs are")
    return read(model.inputs, argument).tensors


def main() -> None:
    request = json.load(sys.stdin)
    # Whatever a user's space prints must not mix with the answer.
    with contextlib.redirect_stdout(sys.stderr):
        answers = answer(request)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
