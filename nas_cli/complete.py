"""What the shell offers while a value is typed. Whatever goes wrong here, nothing is offered and nothing is said.

Fast, so the names of what is heavy to import are written down here; a test holds that all of them exist.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path

import typer

METRICS = ("val_accuracy", "val_loss", "train_loss", "params", "active_params", "macs", "latency_ms")
DATA = ("digits", "karate", "reber", "idx:", "cifar10:", "folder:", "npz:", "graph:", "pyg:")
RECIPES = ("quick", "standard", "paper", "nasbench201", "darts", "nasnet", "regnet", "ae-cnn")
SIZES = ("search", "full")
EVALUATORS = ("train", "table", "told")
PRUNERS = ("median", "percentile", "threshold")
STATES = ("waiting", "running", "complete", "pruned", "failed", "rejected", "reused")
SHEETS = ("csv", "parquet")
FORMATS = ("onnx", "pt2", "safetensors", "json", "python", "int8", "fp16")
DEVICES = ("auto", "cpu", "cuda")
EXECUTORS = ("auto", "inline", "processes", "queue", "ray", "ray:")
ORDERS = ("strict", "free")
GUARDS = ("hessian",)

Words = Callable[[typer.Context], Iterable[str]]
Complete = Callable[[typer.Context, str], list[str]]


def _offering(words: Words) -> Complete:
    """What begins with what is typed; nothing after an error."""

    @wraps(words)
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [word for word in words(ctx) if word.startswith(incomplete)]
        except Exception:
            return []

    complete.__annotations__ = {"ctx": typer.Context, "incomplete": str, "return": list[str]}
    del complete.__wrapped__
    return complete


def one_of(words: Iterable[str]) -> Complete:
    """These words."""
    known = tuple(words)
    return _offering(lambda ctx: known)


@_offering
def studies(ctx: typer.Context) -> Iterable[str]:
    return _names(ctx, "SELECT name FROM studies WHERE bench IS NULL ORDER BY id DESC")


@_offering
def benches(ctx: typer.Context) -> Iterable[str]:
    return _names(ctx, "SELECT name FROM benches ORDER BY id DESC")


@_offering
def studies_and_benches(ctx: typer.Context) -> Iterable[str]:
    return _names(ctx, "SELECT name FROM studies WHERE bench IS NULL UNION ALL SELECT name FROM benches")


@_offering
def evaluators(ctx: typer.Context) -> Iterable[str]:
    yield from EVALUATORS
    for name in _names(ctx, "SELECT name FROM studies WHERE supernet IS NOT NULL AND bench IS NULL"):
        yield f"supernet:{name}"


@_offering
def spaces(ctx: typer.Context) -> Iterable[str]:
    from search_spaces import BUILTIN

    return [*BUILTIN, *_own_files()]


@_offering
def strategies(ctx: typer.Context) -> Iterable[str]:
    from strategies import ALL

    return [*ALL, *_own_files()]


@_offering
def hosts(ctx: typer.Context) -> Iterable[str]:
    from search_spaces.hosts import HOSTS

    return [*HOSTS, *_own_files()]


@_offering
def compressors(ctx: typer.Context) -> Iterable[str]:
    from compressors import BUILTIN

    return [*BUILTIN, *_own_files()]


@_offering
def figures(ctx: typer.Context) -> Iterable[str]:
    from reports.kinds import KINDS

    return [*KINDS, "all"]


@_offering
def objectives(ctx: typer.Context) -> Iterable[str]:
    return [*METRICS, *(f"{name}:{goal}" for name in METRICS for goal in ("max", "min"))]


@_offering
def sort_keys(ctx: typer.Context) -> Iterable[str]:
    keys = ("number", "seconds", *METRICS)
    return [*keys, *(f"-{key}" for key in keys)]


metrics, sizes, recipes, pruners = one_of(METRICS), one_of(SIZES), one_of(RECIPES), one_of(PRUNERS)
data, sheets = one_of(DATA), one_of(SHEETS)
constraints = one_of(f"{name}{relation}" for name in METRICS for relation in ("<=", ">="))
states, formats, devices, executors, orders, guards = (
    one_of(words) for words in (STATES, FORMATS, DEVICES, EXECUTORS, ORDERS, GUARDS)
)  # fmt: skip


def _names(ctx: typer.Context, query: str) -> list[str]:
    """Names in the study database, where that is a SQLite file: a server might let the shell wait."""
    url = str(ctx.params.get("db") or os.environ.get("NAS_DB") or "sqlite:///nas.db")
    if "://" in url and not url.startswith("sqlite:///"):
        return []
    file = Path(url.removeprefix("sqlite:///"))
    if not file.is_file():
        return []
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)
    try:
        return [row[0] for row in connection.execute(query)]
    finally:
        connection.close()


def _own_files() -> list[str]:
    """Python files in this folder, up to the object that is to be named."""
    return sorted(f"{path.name}:" for path in Path().glob("*.py"))
