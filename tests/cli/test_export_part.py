"""`nas export STUDY:N --part layer --format python`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Say = Callable[..., tuple[int, str, str]]


def test_the_file_of_a_layer(say: Say, folder: Path) -> None:
    """Of a trial that was never trained again: a module of so many lines that a fresh process has compared."""
    search = ["--study", "layers", "--space", "evonorm", "--size", "width=4,depth=1", "--epochs", "1", "--trials", "1"]
    search += ["-s", "split.limit=100", "--threads", "1", "--strategy", "random", "--enqueue", "evonorm-b0"]
    assert say("search", *search)[0] == 0
    code, out, err = say("export", "layers:0", "--part", "layer", "--format", "python", "--json")
    assert code == 0, err
    document = json.loads(out)
    (file,) = map(Path, document["files"])
    text = file.read_text()
    assert str(folder) not in text
    about, _, body = text.partition("from __future__")
    assert "x / max(std_bhw(x), v1*x + std_hw(x))" in about
    assert "layers:0" in about
    assert "val_accuracy" in about
    start = body.index("class Layer")
    assert 20 <= len(body[start:].strip().splitlines()) <= 60
    refused = [
        (["--part", "layr", "--format", "python"], "did you mean 'layer'"),
        (["--part", "layer"], "written as Python alone; add --format python"),
        (["--part", "layer", "--format", "onnx"], "written as Python alone"),
        (["--part", "layer", "--format", "python", "--raw"], "leave out --raw"),
    ]
    for arguments, said in refused:
        code, _, err = say("export", "layers:0", *arguments)
        assert (code, said in err) == (2, True), err
    counted = ["--study", "cells", "--size", "channels=2,cells=1", "--objective", "params:min", "--trials", "1"]
    assert say("search", *counted)[0] == 0
    code, _, err = say("export", "cells", "--part", "layer", "--format", "python")
    assert (code, "has no parts to be had alone; leave out --part layer" in err) == (2, True)
