"""The fresh process that runs a written network: a request on stdin, the answer on stdout.

It is run as a script of its own, by its path. Once the cases are read, it can import neither this program nor what the
file does not need. The answer is `{"differences": [[largest difference, largest expected], ...]}`, one pair per case,
or `{"error": text}`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import safetensors.torch
import torch

REFUSED = (
    "compressors",
    "nas_cli",
    "nas_core",
    "predictors",
    "reports",
    "search_spaces",
    "strategies",
    "studies",
    "training",
    "safetensors",
)


class Refuse:
    """Makes packages unknown, wherever they are installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        for name in [name for name in sys.modules if name.partition(".")[0] in self._names]:
            del sys.modules[name]
        sys.meta_path.insert(0, self)
        for name in names:
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)
                raise RuntimeError(f"{name} can be imported here")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to the request; whatever the file makes fail is its error."""
    tensors = safetensors.torch.load_file(request["cases"])
    Refuse(request["refused"])
    try:
        written = load(request["source"])
        network = written.load(request["weights"])
        shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        if shapes != request["shapes"]:
            return {"error": "its network has other parameters and buffers"}
        with torch.inference_mode():
            cases = ((number, request["arguments"][number]) for number in request["numbers"])
            return {"differences": [_compare(written, network, tensors, n, argument) for n, argument in cases]}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def load(path: str) -> ModuleType:
    """The module of a file, as one that is called `written`."""
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["written"] = module
    spec.loader.exec_module(module)
    return module


def _compare(
    written: ModuleType, network: Any, tensors: Mapping[str, Any], number: int, argument: str | None
) -> tuple[float, float]:
    """The answer to an image file, or to the tensors of the case where `argument` is None."""
    expected = tensors[f"{number}/output"]
    if argument is not None:
        from PIL import Image

        with Image.open(argument) as image:
            inputs = [written.preprocess(image)]
    else:
        count = sum(name.startswith(f"{number}/input.") for name in tensors)
        inputs = [tensors[f"{number}/input.{position}"] for position in range(count)]
        if hasattr(written, "normalise"):
            inputs[0] = written.normalise(inputs[0])
    output = network(*inputs)
    if output.shape != expected.shape:
        raise ValueError(f"it answers with shape {tuple(output.shape)}, not {tuple(expected.shape)}")
    return float((output - expected).abs().max()), float(expected.abs().max())


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        found = answer(asked)
    print(json.dumps(found))
