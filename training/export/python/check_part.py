"""The fresh process that runs a part which was written as a file: a request on stdin, the answer on stdout.

It is run as a script of its own, by its path, and can then import nothing of this program. The answer is
`{"differences": [[name, largest difference, largest expected], ...]}`, or `{"error": text}`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch


def answers(part: Any, cases: Mapping[str, Any], batches: int) -> dict[str, Any]:
    """Values and gradients of a part: of each batch in training mode, then of the first in evaluation mode."""
    found: dict[str, Any] = {}
    for mode, numbers in (("training", range(batches)), ("evaluation", range(1))):
        part.train(mode == "training")
        for number in numbers:
            part.zero_grad(set_to_none=True)
            x = cases[f"{number}/input"].clone().requires_grad_()
            y = part(x)
            (y * cases[f"{number}/by"]).sum().backward()
            found[f"{mode}/{number}/value"] = y.detach()
            found[f"{mode}/{number}/gradient of the input"] = x.grad
            for name, parameter in part.named_parameters():
                grad = parameter.grad
                found[f"{mode}/{number}/gradient of {name}"] = torch.zeros_like(parameter) if grad is None else grad
    return found


def _check() -> Any:
    """The script beside this one, without the packages that it lies in."""
    spec = importlib.util.spec_from_file_location("check", Path(__file__).with_name("check.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to the request; whatever the file makes fail is its error."""
    check = _check()
    cases = safetensors.torch.load_file(request["cases"])
    check.Refuse(request["refused"])
    try:
        module = check.load(request["source"])
        part = eval(request["made"], vars(module)).double()  # a call that this program wrote
        names = {name.removeprefix("parameter/") for name in cases if name.startswith("parameter/")}
        if names != set(dict(part.named_parameters())):
            return {"error": "it has other parameters"}
        with torch.no_grad():
            for name, parameter in part.named_parameters():
                parameter.copy_(cases[f"parameter/{name}"])
        found = answers(part, cases, request["batches"])
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    pairs = ((name, (value - cases[name]).abs().max(), cases[name].abs().max()) for name, value in found.items())
    return {"differences": [(name, float(difference), float(scale)) for name, difference, scale in pairs]}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        result = answer(asked)
    print(json.dumps(result))
