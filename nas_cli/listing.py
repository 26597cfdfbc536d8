"""What `nas ls` says of studies. Imports neither SQLAlchemy nor pydantic where it need not."""

from __future__ import annotations

from pathlib import Path

from nas_cli.options import open_store
from reports.texts import budget_text
from studies.analysis.summary import Summary, glance


def summaries(db: str) -> list[Summary]:
    """All studies of a database; by a plain look into a SQLite file where that is enough."""
    file = db.removeprefix("sqlite:///")
    if "://" not in file and Path(file).is_file():
        found = glance(Path(file))
        if found is not None:
            return found
    from studies.analysis import queries

    with open_store(db, reading=True) as store:
        return queries.summaries(store)


def standing(summary: Summary) -> str:
    """How far a study has come: `17/100`; of a one-shot study `epoch 12/50`, later `1 (epoch 50/50)`."""
    evaluated = budget_text(summary.trials, summary.seconds, summary.evaluated)
    training = summary.supernet
    if training is None:
        return evaluated
    of_all = "" if training.total is None else f"/{training.total:,}"
    text = f"epoch {training.epochs:,}{of_all}"
    if training.state == "failed":
        return f"{text}, failed"
    return f"{summary.evaluated:,} ({text})" if summary.states else text
