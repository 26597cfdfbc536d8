"""What people type to say which study, run or model they mean: one grammar, printed as it is typed.

`STUDY` (its best trial), `STUDY:17`, a training of that trial `STUDY:17/train-2`, a compression `STUDY:17/compress-1`,
the supernet of a one-shot study, `STUDY/supernet`, what `nas generate` has drawn, `STUDY/generator-1`, and a baseline,
`STUDY/baseline-1`, which has trainings as a trial has. The study may be a bench's: `BENCH/STRATEGY/SEED:17`.

What contains `.py:` is an object of the user's; what ends in `.json` or begins with `./`, `../`, `/` or `~` is a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nas_core.errors import UsageError
from nas_core.records import BASELINE, COMPRESS, GENERATOR, RETRAIN, SUPERNET, Run
from studies.records import Study

WORDS: Mapping[str, str] = {RETRAIN: "train", COMPRESS: "compress"}
"""How runs that belong to a trial are called in addresses, by their kind."""

_NUMBERS = re.compile(rf"(?P<trial>[0-9]{{1,9}})(?:/(?P<word>{'|'.join(WORDS.values())})-(?P<number>[0-9]{{1,9}}))?")


_OF_STUDY = re.compile(rf"(?P<study>.+)/(?:{SUPERNET}|{GENERATOR}-(?P<number>[0-9]{{1,9}}))")
_BASELINE = re.compile(
    rf"(?P<study>.+)/{BASELINE}-(?P<baseline>[0-9]{{1,9}})"
    rf"(?:/(?P<word>{'|'.join(WORDS.values())})-(?P<number>[0-9]{{1,9}}))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A study, a trial or a baseline of it, a run of `kind` that belongs to one of these, or to the study itself."""

    study: str
    trial: int | None = None
    kind: str | None = None
    number: int | None = None
    baseline: int | None = None

    @property
    def subject(self) -> str:
        """Of the trial or baseline."""
        if self.baseline is not None:
            return f"{self.study}/{BASELINE}-{self.baseline}"
        return self.study if self.trial is None else f"{self.study}:{self.trial}"

    def __str__(self) -> str:
        trial = self.subject
        if self.kind in (SUPERNET, GENERATOR):
            return f"{self.study}/{self.kind}" + ("" if self.number is None else f"-{self.number}")
        return trial if self.kind is None else f"{trial}/{WORDS[self.kind]}-{self.number}"


def parse(text: str) -> Address:
    """Raises UsageError for what is no address, with what would be one."""
    kinds = {word: kind for kind, word in WORDS.items()}
    known = _BASELINE.fullmatch(text)
    if known is not None:
        which = None if known["number"] is None else int(known["number"])
        return Address(known["study"], None, kinds.get(known["word"] or ""), which, int(known["baseline"]))
    name, separator, rest = text.rpartition(":")
    if not separator:
        whole = _OF_STUDY.fullmatch(text)
        if whole is None:
            return Address(text)
        drawn = whole["number"]
        return (
            Address(whole["study"], kind=SUPERNET)
            if drawn is None
            else Address(whole["study"], kind=GENERATOR, number=int(drawn))
        )
    found = _NUMBERS.fullmatch(rest)
    if not name or found is None:
        study = name.partition(":")[0] or "STUDY"
        raise UsageError(
            f"'{text}' is no address; write STUDY, STUDY:NUMBER or STUDY:NUMBER/train-NUMBER, "
            f"for example {study}:17, {study}:17/train-1 or {study}:17/compress-1"
        )
    number = found["number"]
    return Address(name, int(found["trial"]), kinds.get(found["word"] or ""), None if number is None else int(number))


def parse_trial(text: str) -> tuple[str, int | None]:
    """`STUDY` or `STUDY:17`. Raises UsageError, also for the address of another run."""
    found = parse(text)
    if found.kind is not None or found.baseline is not None:
        wanted = found.study if found.trial is None else f"{found.study} or {found.study}:{found.trial}"
        raise UsageError(f"'{text}' is {called(found.kind or BASELINE)}; a study or trial is needed here: {wanted}")
    return found.study, found.trial


def called(kind: str) -> str:
    """What a kind of run is called in a sentence."""
    return {RETRAIN: "one training", COMPRESS: "one compression"}.get(kind, f"a {kind}")


def address_of(study: Study, trial: Run, run: Run | None = None) -> str:
    """`STUDY:17`, or `STUDY:17/train-2` of a run that belongs to it."""
    kind, number = (None, None) if run is None or run.id == trial.id else (run.kind, run.number)
    if trial.kind == BASELINE:
        return str(Address(study.name, None, kind, number, trial.number))
    return str(Address(study.name, trial.number, kind, number))


def is_object(text: str) -> bool:
    """Whether a text means an object in a Python file of the user's."""
    return ".py:" in text


def is_path(text: str) -> bool:
    """Whether a text means a file or folder, and not an object in a file."""
    return not is_object(text) and (text.endswith(".json") or text.startswith(("./", "../", "/", "~")))


def hint(text: str) -> str:
    """What to add to 'no study NAME' where a file or folder of that name is there."""
    return f"; the file or folder of that name is './{text}'" if Path(text).exists() else ""
