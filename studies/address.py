"""What people type to say which study, run or model they mean: one grammar, printed as it is typed.

`STUDY` (its best trial), `STUDY:17`, a training of that trial `STUDY:17/train-2`, a compression `STUDY:17/compress-1`,
the supernet of a one-shot study, `STUDY/supernet`, and what `nas generate` has drawn, `STUDY/generator-1`. The study
may be a bench's: `BENCH/STRATEGY/SEED:17`.

What contains `.py:` is an object of the user's; what ends in `.json` or begins with `./`, `../`, `/` or `~` is a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nas_core.errors import UsageError
from nas_core.records import COMPRESS, GENERATOR, RETRAIN, SUPERNET, Run
from studies.records import Study

WORDS: Mapping[str, str] = {RETRAIN: "train", COMPRESS: "compress"}
"""How runs that belong to a trial are called in addresses, by their kind."""

_NUMBERS = re.compile(rf"(?P<trial>[0-9]{{1,9}})(?:/(?P<word>{'|'.join(WORDS.values())})-(?P<number>[0-9]{{1,9}}))?")


_OF_STUDY = re.compile(rf"(?P<study>.+)/(?:{SUPERNET}|{GENERATOR}-(?P<number>[0-9]{{1,9}}))")


@dataclass(frozen=True, slots=True)
class Address:
    """A study, a trial of it, a run of `kind` that belongs to the trial, or one that belongs to the study itself."""

    study: str
    trial: int | None = None
    kind: str | None = None
    number: int | None = None

    def __str__(self) -> str:
        trial = self.study if self.trial is None else f"{self.study}:{self.trial}"
        if self.kind in (SUPERNET, GENERATOR):
            return f"{self.study}/{self.kind}" + ("" if self.number is None else f"-{self.number}")
        return trial if self.kind is None else f"{trial}/{WORDS[self.kind]}-{self.number}"


def parse(text: str) -> Address:
    """Raises UsageError for what is no address, with what would be one."""
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
    kinds = {word: kind for kind, word in WORDS.items()}
    number = found["number"]
    return Address(name, int(found["trial"]), kinds.get(found["word"] or ""), None if number is None else int(number))


def parse_trial(text: str) -> tuple[str, int | None]:
    """`STUDY` or `STUDY:17`. Raises UsageError, also for the address of another run."""
    found = parse(text)
    if found.kind is not None:
        wanted = found.study if found.trial is None else f"{found.study} or {found.study}:{found.trial}"
        raise UsageError(f"'{text}' is {called(found.kind)}; a study or trial is needed here: {wanted}")
    return found.study, found.trial


def called(kind: str) -> str:
    """What a kind of run is called in a sentence."""
    return {RETRAIN: "one training", COMPRESS: "one compression"}.get(kind, f"a {kind}")


def address_of(study: Study, trial: Run, run: Run | None = None) -> str:
    """`STUDY:17`, or `STUDY:17/train-2` of a run that belongs to it."""
    own = Address(study.name, trial.number)
    return str(own if run is None or run.id == trial.id else Address(study.name, trial.number, run.kind, run.number))


def is_object(text: str) -> bool:
    """Whether a text means an object in a Python file of the user's."""
    return ".py:" in text


def is_path(text: str) -> bool:
    """Whether a text means a file or folder."""
    return text.endswith(".json") or text.startswith(("./", "../", "/", "~"))


def hint(text: str) -> str:
    """What to add to 'no study NAME' where a file or folder of that name is there."""
    return f"; the file or folder of that name is './{text}'" if Path(text).exists() else ""
