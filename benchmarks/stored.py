"""What a benchmark's own database holds."""

from __future__ import annotations

from pathlib import Path

from nas_core.errors import NotFoundError
from nas_core.records import Run
from studies.store.store import Store


def trials(db: Path, study: str) -> list[Run]:
    """Those of a study with their last metrics; none where there is no such database or study."""
    if not db.exists():
        return []
    with Store(f"sqlite:///{db}") as store:
        try:
            return list(store.trials(store.study(study), metrics=True))
        except NotFoundError:
            return []
