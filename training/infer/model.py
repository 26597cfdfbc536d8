"""An exported network, opened from whichever file it is in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.errors import NotFoundError, UsageError, VerificationError
from training.infer import archive
from training.inputs import Inputs, inputs_from
from training.quantized import KINDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tensors = tuple["NDArray[Any]", ...]
Run = Callable[[Tensors], "NDArray[Any]"]

# What a folder is searched for, the quickest to start first.
SUFFIXES = (".onnx", ".pt2", ".safetensors")
# What 'nas extract' calls the two files of its networks.
EXTRACTED = ("weights.safetensors", "architecture.json")
PROPERTIES = ("inputs", "normalisation")
NORMALISED = {"inside": True, "outside": False}
"""Where an exported program normalises: itself, or (raw, and plain weights) whoever calls it."""


@dataclass(frozen=True)
class Model:
    """A network that can be run. `inputs` is None where the file says nothing of them."""

    path: Path
    inputs: Inputs | None
    inside: bool
    program: Run

    def run(self, tensors: Tensors) -> NDArray[Any]:
        """Logits [n, classes] of inputs as `training.infer.samples.Samples` has them."""
        if self.inputs is not None and not self.inside:
            tensors = self.inputs.normalised(tensors)
        return self.program(tensors)


def properties(inputs: Inputs | None, raw: bool) -> dict[str, str]:
    """What travels in an ONNX file (`metadata_props`) and in a pt2 archive (extra files)."""
    if inputs is None:
        return {}
    texts = (json.dumps(inputs.model_dump(mode="json")), "outside" if raw else "inside")
    return dict(zip(PROPERTIES, texts, strict=True))


def open_model(path: Path) -> Model:
    """The network of an `.onnx`, `.pt2`, `.safetensors`, `.json` or `.py` file, or of the one export in a folder.

    A `.py` file is run: open only what you trust.
    Raises NotFoundError where nothing is there, UsageError for a file of another kind or one that cannot be read.
    """
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise NotFoundError(f"there is no file '{path}'; give a file that 'nas export' wrote, or its folder")
    if path.suffix not in _OPEN:
        raise UsageError(f"'{path}' is no exported network; known are {', '.join(_OPEN)}")
    return _OPEN[path.suffix](path)


def _in_folder(folder: Path) -> Path:
    found = [path for suffix in SUFFIXES for path in sorted(folder.glob(f"*{suffix}"))]
    found.sort(key=_is_quantized)
    stems = dict.fromkeys(path.stem.rpartition(".")[0] if _is_quantized(path) else path.stem for path in found)
    if not found:
        raise NotFoundError(f"'{folder}' holds no exported network (looked for {', '.join(SUFFIXES)})")
    if len(stems) > 1:
        raise UsageError(
            f"'{folder}' holds {len(stems)} networks; name one of {', '.join(path.name for path in found)}"
        )
    return found[0]


def _is_quantized(path: Path) -> bool:
    return path.stem.endswith(tuple(f".{kind}" for kind in KINDS))


def _onnx(path: Path) -> Model:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, without a common base
        raise UsageError(f"'{path}' cannot be read: {_line(error)}") from error
    names = [entry.name for entry in session.get_inputs()]

    def program(tensors: Tensors) -> NDArray[Any]:
        answer: NDArray[Any] = session.run(None, dict(zip(names, tensors, strict=True)))[0]
        return answer

    return _model(path, session.get_modelmeta().custom_metadata_map, program)


def _pt2(path: Path) -> Model:
    import torch

    from training.export.write import quiet

    said, content = dict.fromkeys(PROPERTIES, ""), archive.checked(path)
    try:
        with quiet():
            program = torch.export.load(content, extra_files=said).module()
    except Exception as error:  # whatever an archive that is none makes torch raise
        raise UsageError(f"'{path}' cannot be read: {_line(error)}") from error
    return _model(path, {name: text for name, text in said.items() if text}, _of(program))


def _weights(path: Path) -> Model:
    return _described(_beside(path, ".json", EXTRACTED[1], "says of which network the weights are"), path)


def _description(path: Path) -> Model:
    return _described(path, weights_beside(path))


def weights_beside(description: Path) -> Path:
    """The weights of the network that a `.json` describes. Raises NotFoundError where one of the two is missing."""
    if not description.is_file():
        raise NotFoundError(f"there is no file '{description}'")
    return _beside(description, ".safetensors", EXTRACTED[0], "holds the weights of the network")


def _beside(path: Path, suffix: str, extracted: str, what: str) -> Path:
    """The other file of the two that plain weights are written as."""
    found = path.with_name(extracted) if path.name in EXTRACTED else path.with_suffix(suffix)
    if not found.is_file():
        raise NotFoundError(f"'{path}' is one of two files, and '{found}', which {what}, is not there")
    return found


def _python(path: Path) -> Model:
    """A network as source, run with the normalisation in it; the JSON beside it says what its inputs are."""
    import importlib.util

    from training.export.formats import module_name

    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # classes of message passing look their own up
    try:
        spec.loader.exec_module(module)
        network = module.load()
    except Exception as error:  # whatever a file of Python raises
        raise UsageError(f"'{path}' cannot be run: {type(error).__name__}: {_line(error)}") from error
    # The file's own name is one that Python can import, and so may be another than that of its description.
    named = [other for other in sorted(path.parent.glob("*.json")) if module_name(other.stem) == path.stem]
    stored = json.loads(named[0].read_text(encoding="utf-8")).get("inputs") if named else None
    bare = _of(lambda first, *others: network(module.normalise(first) if stored else first, *others))
    return Model(path, None if stored is None else inputs_from(stored), True, bare)


def _described(description: Path, weights: Path) -> Model:
    from training.export.rebuild import load_network

    network = load_network(description, weights)
    stored = json.loads(description.read_text(encoding="utf-8")).get("inputs")
    return Model(weights, None if stored is None else inputs_from(stored), False, _of(network))


def _of(network: Any) -> Run:
    import torch

    def program(tensors: Tensors) -> NDArray[Any]:
        with torch.inference_mode():
            answer: NDArray[Any] = network(*map(torch.from_numpy, tensors)).numpy()
        return answer

    return program


def _model(path: Path, said: Mapping[str, str], program: Run) -> Model:
    if "inputs" not in said:
        return Model(path, None, False, program)
    try:
        return Model(path, inputs_from(json.loads(said["inputs"])), NORMALISED[said["normalisation"]], program)
    except (KeyError, ValueError) as error:
        raise VerificationError(f"'{path}' is damaged: what it says of its inputs cannot be read: {error}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


_OPEN: Mapping[str, Callable[[Path], Model]] = {
    ".onnx": _onnx,
    ".pt2": _pt2,
    ".safetensors": _weights,
    ".json": _description,
    ".py": _python,
}
