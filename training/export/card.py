"""The model card: what an exported network is, how well it does, what it costs, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from nas_core.config import Config
from nas_core.task import Task
from training.export.formats import QUANTIZED
from training.export.script import script
from training.inputs import Inputs, inputs_from
from training.inputs.texts import visible
from training.tasks import find, names


def _inputs_of(value: Any) -> Any:
    return inputs_from(value) if isinstance(value, Mapping) else value


LISTED = 20  # classes that a card names; the files hold all of them


class CardMetric(Config):
    """One measured figure: of the exported network, and over all `seeds` trainings of this kind the mean and, where
    there are several, the sample deviation."""

    name: str
    split: str = Field(description="the part of the data it was measured on: train, valid or test")
    value: float
    mean: float | None = None
    std: float | None = Field(None, ge=0)
    seeds: int = Field(1, ge=1)


class CardLatency(Config):
    """Median time of one forward pass in milliseconds with its interquartile range, and what it was measured under."""

    milliseconds: float = Field(gt=0)
    spread: float | None = Field(None, ge=0)
    dtype: str = "float32"
    runtime: str = "torch"
    device: str
    threads: int | None = Field(None, ge=1)
    batch: int | None = Field(None, ge=1)


class CardLimit(Config):
    """A limit of the study on what the network costs, as it was typed, and what it does cost; None: not known."""

    limit: str
    value: float | None = None
    kept: bool | None = None


class CardReference(Config):
    """What random search reached in the same study or setting, to read the network's figures against."""

    trials: int = Field(ge=1)
    metrics: tuple[CardMetric, ...]


class CardBaseline(Config):
    """What a known architecture reached in the same study, by its name."""

    name: str
    metrics: tuple[CardMetric, ...]


class CardQuantized(Config):
    """A quantised program beside the float one. `figures`: what both came to, the float program first; the parts of the
    names are those of metrics. `agreement` of their answers to the test part, `share` of the weights that are
    smaller."""

    kind: str
    figures: dict[str, tuple[float, float]]
    agreement: float
    share: float


class CardFile(Config):
    """A written file, its size in bytes and its SHA-256."""

    name: str
    bytes: int
    sha256: str


class Card(Config):
    """What a model card says, as plain data; `export` fills in the last group itself.

    `space` is a reference that `nas_core.refs` resolves and `size` the fields of its Size: together with the
    architecture they rebuild the network. `macs` are multiply-accumulates of one sample (of the whole
    graph for graphs); `seed` is the training seed of the exported weights, `study_seed` that of the search, `command`
    makes the weights again.
    """

    title: str
    summary: str = ""
    space: str
    size: dict[str, Any] = Field(default_factory=dict)
    metrics: tuple[CardMetric, ...] = ()
    random_search: CardReference | None = None
    baselines: tuple[CardBaseline, ...] = ()
    macs: float | None = Field(None, ge=0)
    latency: CardLatency | None = None
    quantized: tuple[CardQuantized, ...] = ()
    limits: tuple[CardLimit, ...] = ()
    study: str | None = None
    trial: int | None = None
    training: str | None = None
    seed: int | None = None
    study_seed: int | None = None
    strategy: str | None = None
    data: str | None = None
    split_hash: str | None = None
    recipe: str | dict[str, Any] | None = None
    command: str

    params: int | None = Field(None, ge=0)
    task: Task | None = None
    architecture: dict[str, Any] = Field(default_factory=dict)
    key: str | None = None
    notation: str | None = None
    software: str | None = None
    files: tuple[CardFile, ...] = ()
    inputs: Annotated[SerializeAsAny[Inputs], BeforeValidator(_inputs_of)] | None = None
    raw: bool = False
    python_needs: tuple[str, ...] = Field((), description="what has to be installed for the Python file")


def model_card(card: Card) -> str:
    """The card as Markdown: title, what it is, its inputs, metrics, cost, provenance, the command, the files."""
    parts = [f"# {card.title}", _what(card)]
    if card.notation:
        parts.append(_code(card.notation))
    if card.inputs:
        parts += ["## Inputs", _inputs(card.inputs, card.raw), _use(card)]
    parts += ["## Metrics", _metrics(card), "## Cost", _cost(card)]
    for one in card.quantized:
        parts += [f"## Quantised to {one.kind}", _quantized(one)]
    parts += ["## Provenance", _provenance(card)]
    parts += ["## Reproduce", _code(card.command, "sh")]
    if card.files:
        rows = [(f"`{file.name}`", f"{file.bytes:,}", f"`{file.sha256}`") for file in card.files]
        parts += ["## Files", _table(("file", "bytes", "SHA-256"), rows), _loading(card)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(card: Card) -> str:
    lines = [card.summary] if card.summary else []
    if card.task:
        shape = " x ".join(str(extent) for extent in card.task.input_shape)
        answers = find(card.task.kind).answers if card.task.kind in names() else "classes"
        lines.append(
            f"A network for {card.task.kind}: inputs of shape {shape} per "
            f"{'node' if card.task.nodes else 'sample'}, {card.task.outputs} {answers}."
        )
    values = ", ".join(f"`{name}` = {value}" for name, value in card.architecture.items())
    made = f": {values}" if values else ", the only one"
    lines.append(f"Architecture `{card.key}` of the space `{card.space}`{made}." if card.key else "")
    return "\n".join(line for line in lines if line)


def _metrics(card: Card) -> str:
    if not card.metrics and card.random_search is None and not card.baselines:
        return "None were recorded."
    rows = [("this network", *_metric(metric)) for metric in card.metrics]
    if card.random_search:
        who = f"random search, {card.random_search.trials} trials"
        rows += [(who, *_metric(metric)) for metric in card.random_search.metrics]
    for baseline in card.baselines:
        rows += [(f"baseline {baseline.name}", *_metric(metric)) for metric in baseline.metrics]
    return _table(("", "metric", "split", "value", "mean over the seeds", "seeds"), rows)


def _metric(metric: CardMetric) -> tuple[str, ...]:
    spread = "" if metric.std is None else f" ± {metric.std:.4g}"
    mean = "" if metric.mean is None else f"{metric.mean:.6g}{spread}"
    return metric.name, metric.split, f"{metric.value:.6g}", mean, str(metric.seeds)


def _inputs(inputs: Inputs, raw: bool) -> str:
    """What a deployed network gets, in words: `Inputs` as a table."""
    where = "before the network: onnx and pt2 are the bare network" if raw else "inside of onnx and pt2"
    rows = find(inputs.kind).card(inputs, where)
    more = f", ... ({len(inputs.outputs):,} in all)" if len(inputs.outputs) > LISTED else ""
    rows.append(("classes", ", ".join(map(visible, inputs.outputs[:LISTED])) + more))
    return _table(("input", "value"), [(name, value) for name, value in rows if value])


def _use(card: Card) -> str:
    """How to run the files on an input: with this program, and without it."""
    names = _by_suffix(card)
    programs = (".onnx", *(form.suffix for form in QUANTIZED.values()))
    assert card.inputs is not None
    runnable = next((names[suffix] for suffix in (*programs, ".pt2", ".safetensors") if suffix in names), None)
    if runnable is None:
        return ""
    given, packages = find(card.inputs.kind).given(card.inputs)
    parts = [_code(f"nas infer {runnable} {given}", "sh")]
    program = next((suffix for suffix in programs if suffix in names), None)
    # Quantised programs normalise inside, always.
    text = None if program is None else script(card.inputs, names[program], card.raw and program == ".onnx")
    if text is not None:
        parts += [f"The same without `nas`, with {packages} alone:", _code(text.rstrip(), "python")]
    return "\n\n".join(parts)


def _by_suffix(card: Card) -> dict[str, str]:
    """The names of the files; quantised programs have two suffixes."""
    found = {}
    for file in card.files:
        two = next((form.suffix for form in QUANTIZED.values() if file.name.endswith(form.suffix)), None)
        if not file.name.endswith(".space.py"):
            found[two or file.name[file.name.rindex(".") :]] = file.name
    return found


def _quantized(one: CardQuantized) -> str:
    rows = [(name, f"{before:.6g}", f"{after:.6g}") for name, (before, after) in one.figures.items()]
    rows.append(("same answers, test part", "", f"{one.agreement:.6g}"))
    rows.append((f"share of the weights in {one.kind}", "", f"{one.share:.6g}"))
    return _table(("ONNX, by onnxruntime with one thread", "float32", one.kind), rows)


def _cost(card: Card) -> str:
    per = "graph" if card.task and card.task.nodes else "sample"
    rows = [("parameters", "" if card.params is None else f"{card.params:,}")]
    rows.append((f"multiply-accumulates per {per}", "not measured" if card.macs is None else f"{card.macs:,.0f}"))
    if card.latency is None:
        rows.append(("latency", "not measured"))
    else:
        found = card.latency
        spread = "" if found.spread is None else f" ± {found.spread:.2g} between quartiles"
        threads = f", threads {found.threads}" if found.threads else ""
        batch = f", batch {found.batch}" if found.batch else ""
        under = f"{found.device}{threads}{batch}, {found.dtype}, {found.runtime}"
        rows.append(("latency", f"{found.milliseconds:.4g} ms{spread} ({under})"))
    words = {True: "kept", False: "exceeded", None: "not known at this size"}
    for one in card.limits:
        value = "" if one.value is None else f": {one.value:,.6g}"
        rows.append((f"limit `{one.limit}`", f"{words[one.kept]}{value}"))
    return _table(("cost", "value"), rows)


def _provenance(card: Card) -> str:
    recipe = card.recipe if card.recipe is None or isinstance(card.recipe, str) else json.dumps(card.recipe)
    given = {
        "study": card.study,
        "trial": card.trial,
        "training": card.training,
        "seed of the training": card.seed,
        "seed of the study": card.study_seed,
        "space": card.space,
        "size": json.dumps(card.size) if card.size else None,
        "strategy": card.strategy,
        "data": card.data,
        "split hash": card.split_hash,
        "recipe": recipe,
        "software": card.software,
    }
    return _table(("what", "value"), [(name, f"`{value}`") for name, value in given.items() if value is not None])


_LOADING = {
    ".onnx": 'onnxruntime.InferenceSession("{name}")',
    **{form.suffix: 'onnxruntime.InferenceSession("{name}")' for form in QUANTIZED.values()},
    ".pt2": 'torch.export.load("{name}").module()',
    ".json": 'training.export.load_network("{name}"{weights})',
    ".py": "{module}.load()  # needs {needs}",
}


def _loading(card: Card) -> str:
    by_suffix = _by_suffix(card)
    needs = ", ".join(card.python_needs)
    weights = f', "{by_suffix[".safetensors"]}"' if ".safetensors" in by_suffix else ""
    lines = [
        form.format(name=by_suffix[suffix], module=by_suffix[suffix].removesuffix(".py"), weights=weights, needs=needs)
        for suffix, form in _LOADING.items()
        if suffix in by_suffix
    ]
    return f"Loaded by:\n\n{_code(chr(10).join(lines), 'python')}"


def _code(text: str, language: str = "") -> str:
    return f"```{language}\n{text}\n```"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
