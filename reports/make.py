"""From names of kinds to figures."""

from __future__ import annotations

from collections.abc import Sequence

from nas_core import refs
from nas_core.errors import InfeasibleError, NotFoundError, UsageError
from reports.figure import Figure
from reports.kind import Kind, Subject
from reports.kinds import FIRST, GROUP, KINDS
from reports.mirrored import Mirrored


def kind(name: str) -> Kind:
    """Raises UsageError for an unknown name, or for what is no kind."""
    found = refs.find(name, KINDS, GROUP, "kind of figure")
    if not isinstance(found, Kind):
        raise UsageError(f"kind of figure '{name}' is a {type(found).__name__}; make it a reports.kind.Kind")
    return found


def possible(subject: Subject) -> list[str]:
    """The kinds that a subject can have."""
    return [name for name in refs.names(KINDS, GROUP) if kind(name).why_not(subject) is None]


def first(subject: Subject) -> str:
    """The kind that shows most of a subject. Raises UsageError where there is none."""
    could = possible(subject)
    found = next((name for name in FIRST if name in could), next(iter(could), None))
    if found is None:
        raise UsageError(f"there is no figure of '{subject.address}'")
    return found


def every(subject: Subject, without: Sequence[str] = ()) -> tuple[dict[str, Figure | Mirrored], list[str]]:
    """All figures that a subject can have by name, and why of some of these nothing is stored yet."""
    found: dict[str, Figure | Mirrored] = {}
    missing = []
    for name in possible(subject):
        if name in without:
            continue
        try:
            found[name] = kind(name).make(subject)
        except (NotFoundError, InfeasibleError) as error:
            missing.append(f"no figure '{name}': {error}")
    return found, missing


def figures(subject: Subject, names: Sequence[str]) -> list[Figure | Mirrored]:
    """The figures, in this order. Raises UsageError for a kind that the subject cannot have, before any is made."""
    kinds = [kind(name) for name in names]
    for name, one in zip(names, kinds, strict=True):
        reason = one.why_not(subject)
        if reason is not None:
            could = ", ".join(possible(subject)) or "none"
            raise UsageError(f"no figure '{name}': '{subject.address}' {reason}; it could have: {could}")
    return [one.make(subject) for one in kinds]
