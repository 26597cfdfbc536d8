"""`nas infer`: an exported network's answers for files of the user's."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from nas_cli.options import Json


def infer(
    model: Annotated[
        Path, typer.Argument(help="What 'nas export' wrote: .onnx, .pt2, .safetensors, .json, .py, or the folder.")
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Image files, npz:FILE, graph:FILE or csv:FILE; of several tasks FILE?task=NAME."
        ),
    ],
    top: Annotated[
        int, typer.Option(min=1, help="Classes per input; text shows one of each where a file holds many.")
    ] = 5,
    as_json: Json = False,
) -> int:
    """Run an exported network on files: the likeliest classes of images, nodes or rows, or the numbers it predicts."""
    from nas_cli import render
    from nas_core.errors import NasError
    from training.infer import classify, open_model

    opened = open_model(model)
    documents: list[dict[str, object]] = []
    rows: list[list[render.Cell]] = []
    predicted: list[list[render.Cell]] = []
    notes: Counter[str] = Counter()
    failures: list[NasError] = []
    for argument in inputs:
        try:
            answers, note = classify(opened, argument, top)
        except NasError as error:  # the others are answered all the same
            failures.append(error)
            continue
        notes[note] += 1
        for answer in answers:
            if answer.numbers:
                documents.append({"input": answer.name, "numbers": list(answer.numbers)})
                predicted.append([answer.name, *answer.numbers])
                continue
            classes = [{"class": name, "probability": odds} for name, odds in answer.classes]
            documents.append({"input": answer.name, "classes": classes})
            shown = answer.classes if len(answers) == 1 else answer.classes[:1]
            rows += [[answer.name, name, render.Rounded(odds, f"{odds:.4f}")] for name, odds in shown]
    if as_json:
        render.document(documents)
    elif predicted:
        most = max(map(len, predicted)) - 1
        heads = ["answer"] if most == 1 else [f"answer {number + 1}" for number in range(most)]
        render.table(["input", *heads], [row + [None] * (most + 1 - len(row)) for row in predicted], right=heads)
    elif rows:
        render.table(["input", "class", "probability"], rows, right=["probability"])
    for note in filter(None, notes):
        print(f"nas: {notes[note]} of {len(inputs)} inputs {note}", file=sys.stderr)
    for failure in failures:
        print(f"nas: {render.clean(str(failure))}", file=sys.stderr)
    return failures[0].exit_code if failures else 0
