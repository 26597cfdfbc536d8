"""The fresh process of verification: `python -m training.export.check`, a request on stdin, answers on stdout.

It runs what the files hold and nothing of the process that wrote them. For each format the answer is
`{"differences": [[largest difference, largest expected], ...]}`, one pair per case, or `{"error": text}`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from nas_core.errors import NasError, UsageError
from training.export.rebuild import load_network
from training.export.write import quiet

Run = Callable[[tuple[Tensor, ...]], Tensor]


def _onnx(path: Path, request: Mapping[str, Any]) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: tuple[Tensor, ...]) -> Tensor:
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return run


def _pt2(path: Path, request: Mapping[str, Any]) -> Run:
    with quiet():
        program: nn.Module = torch.export.load(path).module()
    return lambda inputs: program(*inputs)


def _safetensors(path: Path, request: Mapping[str, Any]) -> Run:
    network = load_network(request["files"]["json"], path)
    return lambda inputs: network(*inputs)


def _json(path: Path, request: Mapping[str, Any]) -> None:
    shapes = {name: list(tensor.shape) for name, tensor in load_network(path).state_dict().items()}
    for name in sorted({*shapes, *request["shapes"]}):
        built, expected = shapes.get(name), request["shapes"].get(name)
        if built != expected:
            raise UsageError(f"it builds another network: '{name}' is {built}, not {expected}")


OPEN: Mapping[str, Callable[[Path, Mapping[str, Any]], Run | None]] = {
    "onnx": _onnx,
    "pt2": _pt2,
    "safetensors": _safetensors,
    "json": _json,
}


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer for each file of the request; whatever a file makes fail is that file's error."""
    tensors = safetensors.torch.load_file(request["cases"])
    answers: dict[str, Any] = {}
    for name, file in request["files"].items():
        try:
            with torch.inference_mode():
                run = OPEN[name](Path(file), request)
                differences = [] if run is None else [_compare(run, tensors, n) for n in range(request["count"])]
            answers[name] = {"differences": differences}
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            answers[name] = {"error": text if isinstance(error, NasError) else f"{type(error).__name__}: {text}"}
    return answers


def _compare(run: Run, tensors: Mapping[str, Tensor], number: int) -> tuple[float, float]:
    count = sum(name.startswith(f"{number}/input.") for name in tensors)
    expected = tensors[f"{number}/output"]
    output = run(tuple(tensors[f"{number}/input.{position}"] for position in range(count)))
    if output.shape != expected.shape:
        raise UsageError(f"it answers with shape {tuple(output.shape)}, not {tuple(expected.shape)}")
    return float((output - expected).abs().max()), float(expected.abs().max())


def main() -> None:
    request = json.load(sys.stdin)
    # Whatever a user's space prints must not mix with the answer.
    with contextlib.redirect_stdout(sys.stderr):
        answers = answer(request)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
