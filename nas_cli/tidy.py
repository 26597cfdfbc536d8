"""`nas rm` and `nas gc`: remove a study, and free what no resume needs. Both say first what will be gone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nas_cli import complete
from nas_cli.options import DEFAULT_DB, Db, Files, Json, open_store

if TYPE_CHECKING:
    from nas_core.records import Bench
    from studies.records import Study
    from studies.store.store import Store

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def rm(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", help="Name of a study or of a bench.", autocompletion=complete.studies_and_benches
        ),
    ],
    yes: Yes = False,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Remove a study or a bench: its trials, trainings, checkpoints and weights. Files that were exported stay."""
    from nas_cli import render
    from nas_core.errors import UsageError
    from studies import tidy

    with open_store(db, files) as store:
        found = _named(store, name)
        is_study = found.name in store.study_names()
        studies = [store.study(name)] if is_study else store.studies_of(store.bench(name))
        runs = sum(store.run_count(study) for study in studies)
        paths = tidy.files_of(store, studies)
        size = sum(map(tidy.size_of, paths))
        searches = "" if is_study else f", {len(studies):,} searches"
        what = f"{'study' if is_study else 'bench'} '{name}'{searches}: {runs:,} trials and trainings"
        text = f"{what}, {len(paths):,} files of {_size(size)}"
        if not yes and not _asked(f"remove {text}?"):
            raise UsageError(f"{text}\nNothing is removed; to remove it: nas rm {name} --yes")
        if is_study:
            tidy.remove(store, studies[0])
        else:
            tidy.remove_bench(store, store.bench(name))
    if as_json:
        render.document({"removed": name, "runs": runs, "files": len(paths), "bytes": size})
    else:
        render.emit(f"removed {text}")


def gc(yes: Yes = False, db: Db = DEFAULT_DB, files: Files = None, as_json: Json = False) -> None:
    """Free room that no resume needs: checkpoints of finished trainings, and what killed processes left."""
    from nas_cli import render
    from nas_core.errors import UsageError
    from studies import tidy

    with open_store(db, files) as store:
        found = [spare for study in store.every_study() for spare in tidy.spare(store, study)]
        pages = store.spare_bytes()
        total = sum(spare.bytes for spare in found) + pages
        if not as_json and total:
            rows: list[list[render.Cell]] = [
                [spare.study, spare.what, len(spare.files), render.Rounded(spare.bytes, _size(spare.bytes))]
                for spare in found
            ]
            if pages:
                rows.append(["", "free pages of the database", None, render.Rounded(pages, _size(pages))])
            render.table(["study", "what", "files", "size"], rows, right=["files", "size"])
        freed, busy = 0, []
        if total and (yes or _asked(f"free {_size(total)}?")):
            for name in dict.fromkeys(spare.study for spare in found):
                try:
                    freed += tidy.free(store, store.study(name))
                except UsageError:  # it is being run, and its process looks after its files
                    busy.append(name)
            if pages:
                store.compact()
                freed += pages
    if as_json:
        documents = [
            {"study": spare.study, "what": spare.what, "files": len(spare.files), "bytes": spare.bytes}
            for spare in found
        ]
        render.document({"spare": documents, "pages": pages, "bytes": total, "freed": freed, "busy": busy})
        return
    for name in busy:
        print(f"nas: study '{name}' is being run by another process and left alone", file=sys.stderr)
    if freed:
        render.emit(f"freed {_size(freed)}")
    elif not total:
        print("there is nothing to free", file=sys.stderr)
    elif not busy:
        print(f"nothing is freed; to free {_size(total)}: nas gc --yes", file=sys.stderr)


def _named(store: Store, name: str) -> Study | Bench:
    """Raises NotFoundError with the nearest name, UsageError for a search of a bench."""
    from nas_core.errors import NotFoundError, UsageError, nearest

    study, bench = store.find_study(name), store.find_bench(name)
    if study is not None and study.bench is not None:
        raise UsageError(f"'{name}' is a search of a bench; remove the whole bench: nas rm {name.partition('/')[0]}")
    found = study or bench
    if found is None:
        names = [*store.study_names(), *store.bench_names()]
        raise NotFoundError(f"no study or bench '{name}' in {store.place}{nearest(name, names)}")
    return found


def _asked(question: str) -> bool:
    """The answer of a person at a terminal; elsewhere there is nobody to ask."""
    return sys.stdin.isatty() and typer.confirm(question, err=True)


def _size(count: int) -> str:
    """Bytes in the unit that people read."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
