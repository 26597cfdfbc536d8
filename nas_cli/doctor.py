"""`nas doctor`: whether this machine and installation can do the work."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from nas_cli.options import DEFAULT_DB, Db, Json, open_store

OK, NOTE, BROKEN = "ok", "note", "broken"
SPARE = 2**30  # bytes of free disk below which checkpoints may fail

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<range>[^;]*)(?:;.*extra == ['\"](?P<extra>[\w-]+)['\"])?.*")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; `state` is ok, note (works, with a limit) or broken."""

    name: str
    state: str
    detail: str


def doctor(
    db: Db = DEFAULT_DB,
    as_json: Json = False,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what imports PyTorch.")] = False,
) -> None:
    """Check packages, devices, database and disk."""
    from nas_cli import render
    from nas_core.errors import MachineError

    checks = [*_software(), *(() if quick else _devices()), *_database(db), _disk(db)]
    broken = [check.name for check in checks if check.state == BROKEN]
    if as_json:
        render.document({"ok": not broken, "checks": [asdict(check) for check in checks]})
    else:
        render.table(["state", "what", "detail"], [[check.state, check.name, check.detail] for check in checks])
    if broken:
        raise MachineError(f"broken: {', '.join(broken)}")


def _software() -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, requires

    from nas_cli import packages
    from nas_core import distribution

    problem = packages.intruder()
    place = str(Path(__file__).resolve().parent.parent)
    yield (Check("nas", BROKEN, problem) if problem else Check("nas", OK, f"{distribution.version()}, {place}"))
    yield Check(
        "python", OK if sys.version_info >= (3, 11) else BROKEN, f"{platform.python_version()}, {sys.executable}"
    )
    try:
        wanted = requires(distribution.NAME) or []
    except PackageNotFoundError:
        yield Check("packages", BROKEN, f"nas is not installed; run 'pip install {place}'")
        return
    extras: dict[str, list[tuple[str, str]]] = {}
    for text in wanted:
        match = _REQUIREMENT.fullmatch(text)
        if match is None or match["extra"] == "dev":
            continue
        name, bounds = match["name"], match["range"].replace(" ", "")
        if match["extra"]:
            extras.setdefault(match["extra"], []).append((name, bounds))
        else:
            found = _version(name)
            yield Check(name, OK, found) if found else Check(name, BROKEN, f"missing: pip install '{name}{bounds}'")
    for extra, members in extras.items():
        missing = [f"'{name}{bounds}'" for name, bounds in members if not _version(name)]
        versions = ", ".join(f"{name} {_version(name)}" for name, _ in members)
        absent = f"not installed; to have it: pip install {' '.join(missing)}"
        yield Check(f"extra {extra}", NOTE if missing else OK, absent if missing else versions)


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> Iterator[Check]:
    """The processor and every GPU, each with a small sum computed on it."""
    try:
        import torch

        from training.precision import multiplies_bf16
    except (ImportError, OSError) as error:  # OSError: a shared library of torch that cannot be loaded
        yield Check("cpu", BROKEN, f"torch cannot be imported: {error}")
        return
    bf16 = {True: "bf16 in hardware", False: "no bf16 in hardware"}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    capability = torch.backends.cpu.get_cpu_capability()
    facts = [
        f"{cores} cores",
        f"{torch.get_num_threads()} threads",
        capability,
        bf16[multiplies_bf16(torch.device("cpu"))],
    ]
    yield Check("cpu", OK, ", ".join(facts))
    if not torch.cuda.is_available():
        built = (
            f"this torch is built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else "this torch is built without"
        )
        yield Check("cuda", NOTE, f"no GPU is usable; {built}")
        return
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        try:
            properties = torch.cuda.get_device_properties(device)
            torch.ones(2, device=device).sum().item()
            free, total = (size / 2**30 for size in torch.cuda.mem_get_info(device))
        except RuntimeError as error:
            yield Check(f"cuda:{index}", BROKEN, str(error).splitlines()[0])
            continue
        memory = f"{total:.1f} GiB ({free:.1f} free)"
        yield Check(f"cuda:{index}", OK, f"{properties.name}, {memory}, {bf16[multiplies_bf16(device)]}")


def _database(db: str) -> Iterator[Check]:
    from nas_core.errors import NasError, NotFoundError
    from studies.store import SCHEMA

    try:
        with open_store(db, reading=True) as store:
            names, schema, place, risks = store.study_names(), store.schema, store.place, store.risks
    except NotFoundError as error:
        folder = _folder(db)
        writable = folder is None or os.access(folder, os.W_OK)
        yield (
            Check("database", NOTE, str(error))
            if writable
            else Check("database", BROKEN, f"cannot write in '{folder}'")
        )
    except NasError as error:
        yield Check("database", BROKEN, str(error))
    else:
        older = "" if schema == SCHEMA else f", older than {SCHEMA}: the next command that writes upgrades it"
        yield Check("database", OK, f"{place}, schema {schema}{older}, {len(names)} studies")
        for risk in risks:
            yield Check("database", NOTE, risk)


def _disk(db: str) -> Check:
    folder = _folder(db) or Path()
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", BROKEN, f"{error.strerror}: '{folder}'")
    detail = f"{free / 2**30:.1f} GiB free in '{folder.resolve()}'"
    return Check("disk", OK, detail) if free >= SPARE else Check("disk", NOTE, f"{detail}: little for checkpoints")


def _folder(db: str) -> Path | None:
    """Where the database file is or would be; None for a database server."""
    backend, separator, path = db.partition(":///")
    if "://" in db and not (separator and backend.startswith("sqlite")):
        return None
    return Path(path if separator else db).parent
