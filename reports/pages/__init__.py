"""Pages of what is stored: `blocks.py` says what one is, `study.py`, `run.py` and `bench.py` make them, `html.py`
writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reports.kind import Subject
    from reports.pages.blocks import Page


def page_of(subject: Subject) -> Page:
    """The page of a study, of one of its runs, or of a bench."""
    from reports.pages import bench, run, study

    if subject.bench is not None:
        return bench.page(subject)
    return study.page(subject) if subject.run is None else run.page(subject)
