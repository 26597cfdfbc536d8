"""`nas infer`: an exported network's answers for files of the user's."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from nas_cli.options import Json

FIGURES = {"predicted": "characters", "loss": "nats", "bpc": "bpc", "accuracy": "accuracy"}
"""Of a text: how many of its characters are predicted from those before, and means over them, as columns."""


def infer(
    model: Annotated[
        Path, typer.Argument(help="What 'nas export' wrote: .onnx, .pt2, .safetensors, .json, .py, or the folder.")
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Image files, npz:FILE, graph:FILE, csv:FILE or text:FILE; of several tasks FILE?task=NAME.",
        ),
    ],
    top: Annotated[
        int, typer.Option(min=1, help="Classes per input; text shows one of each where a file holds many.")
    ] = 5,
    go_on: Annotated[
        int | None,
        typer.Option("--continue", min=1, max=100_000, help="Characters to go on with after a text, drawn one by one."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of --continue: what is drawn.  [default: 0]")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Of --continue: below 1 the likely ones more often, 0 always.  [default: 1]"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Run an exported network on files: the likeliest classes of images, nodes or rows, the numbers it predicts, or how
    well it predicts the characters of texts, and how they may go on."""
    from nas_cli import render
    from nas_core.errors import NasError, UsageError
    from training.infer import classify, continued, open_model
    from training.inputs.texts import visible

    if go_on is None and (seed, temperature) != (None, None):
        raise UsageError("--seed and --temperature are for --continue; say how many characters, --continue 200")
    opened = open_model(model)
    documents: list[dict[str, object]] = []
    rows: list[list[render.Cell]] = []
    predicted: list[list[render.Cell]] = []
    texts: list[list[render.Cell]] = []
    notes: Counter[str] = Counter()
    failures: list[NasError] = []
    for argument in inputs:
        try:
            if go_on is not None:
                text = continued(opened, argument, go_on, seed or 0, 1.0 if temperature is None else temperature)
                documents.append({"input": argument, "continuation": text})
                continue
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
            documents.append({"input": answer.name, **answer.figures, "classes": classes})
            if answer.figures:
                texts.append([answer.name, *(answer.figures[name] for name in FIGURES)])
            shown = answer.classes if len(answers) == 1 else answer.classes[:1]
            rows += [[answer.name, visible(name), render.Rounded(odds, f"{odds:.4f}")] for name, odds in shown]
    if as_json:
        render.document(documents)
    elif go_on is not None:
        for document in documents:
            render.emit(*map(render.clean, str(document["continuation"]).split("\n")))
    elif predicted:
        most = max(map(len, predicted)) - 1
        heads = ["answer"] if most == 1 else [f"answer {number + 1}" for number in range(most)]
        render.table(["input", *heads], [row + [None] * (most + 1 - len(row)) for row in predicted], right=heads)
    elif rows:
        if texts:
            render.table(["input", *FIGURES.values()], texts, right=list(FIGURES.values()))
            render.emit("", "what may follow:")
        render.table(["input", "class", "probability"], rows, right=["probability"])
    for note in filter(None, notes):
        print(f"nas: {notes[note]} of {len(inputs)} inputs {note}", file=sys.stderr)
    for failure in failures:
        print(f"nas: {render.clean(str(failure))}", file=sys.stderr)
    return failures[0].exit_code if failures else 0
