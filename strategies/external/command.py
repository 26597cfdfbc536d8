"""`command:PROGRAM`: an outside program proposes, in JSON lines on its standard input and output (docs/own-parts.md).

The program is started with the first question, and told the study, then every outcome in the order of the search; a
question comes with the trials that are pending. So the answer for a trial can depend on the same lines in every process
that is asked, and what has been stored is never asked again: a search that was killed goes on with a new process, which
is told the stored history first. Within one process equal questions with nothing told between them are asked once.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import Config as BaseConfig
from nas_core.errors import NasError, NotFoundError, UsageError, nearest
from nas_core.evaluation import Fidelity
from nas_core.seeds import derive
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting
from strategies.external.process import Process

LONGEST_NOTE = 10_000  # characters of its JSON


def running(program: str) -> type[Command]:
    """The strategy that asks this program; a command line, split as a shell would, without one."""
    return type("Command", (Command,), {"__doc__": Command.__doc__, "program": program})


class Command:
    """An outside program proposes, in JSON lines on its standard input and output: a script around a language model,
    say, or an optimiser in another language. See docs/own-parts.md.

    What cannot be evaluated is answered with the reason, and may be answered anew.
    """

    class Config(BaseConfig):
        """How long an answer may take, and how many are tried."""

        timeout: float = Field(600.0, gt=0, allow_inf_nan=False, description="seconds for one answer")
        tries: int = Field(5, ge=1, le=1_000, description="answers to one question, of which one must be legal")

    program: ClassVar[str] = ""

    def __init__(self, setting: Setting, config: Config) -> None:
        """Raises UsageError for a command line that is none, NotFoundError for a program that is not there."""
        self._setting, self._config = setting, config
        self._arguments = _split(self.program)
        self._process: Process | None = None
        self._heard = 0  # lines of the history that the process has been told
        self._history = [_line(study=_study(setting))]
        self._answers: dict[str, Proposal | str | None] = {}  # to questions since the last outcome

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        """Raises NasError where the program ends, says nothing in time, or nothing that can be evaluated."""
        question = _line(
            ask={
                "number": number,
                "seed": derive(self._setting.seed, number, "command"),
                "pending": [self._trial(trial.number, trial.proposal) for trial in pending],
            }
        )
        if question not in self._answers:
            try:
                self._answers[question] = self._asked(number, question, bool(pending))
            except BaseException:  # nobody knows what it has understood: the next question begins anew
                self._process, self._heard = None, 0
                raise
        answer = self._answers[question]
        if isinstance(answer, str):
            raise Exhausted(answer)
        return answer

    def tell(self, outcome: Outcome) -> None:
        told = {
            **self._trial(outcome.number, outcome.proposal),
            "state": str(outcome.state),
            "values": outcome.values,
            "violations": outcome.violations,
            "metrics": dict(outcome.metrics),
        }
        self._history.append(_line(outcome=told))
        self._answers.clear()

    def _asked(self, number: int, question: str, waiting: bool) -> Proposal | str | None:
        """The answer: a proposal, why there is none any more, or None."""
        if self._process is None:
            self._process = Process(self._arguments)
        lines, self._heard = [*self._history[self._heard :], question], len(self._history)
        reason: ValueError | None = None
        for _ in range(self._config.tries):
            try:
                text = self._process.ask(lines, self._config.timeout)
            except NasError as error:
                raise (
                    error if reason is None else NasError(f"{error}\nIts answer before was refused: {reason}")
                ) from None
            try:
                answer = json.loads(text, parse_constant=_none)
            except ValueError:
                answer = None
            if not isinstance(answer, dict):
                raise NasError(
                    f"program '{self.program}' answers {text[:80]!r} for trial {number}, which is no JSON object; "
                    "what is not an answer belongs on standard error"
                )
            try:
                return self._read(answer, waiting)
            except ValueError as error:
                lines = [_line(refused={"number": number, "reason": str(error)})]
                reason = error
        raise NasError(
            f"program '{self.program}' has proposed nothing for trial {number} that can be evaluated in "
            f"{self._config.tries} tries; the last: {reason}"
        )

    def _read(self, answer: Mapping[str, Any], waiting: bool) -> Proposal | str | None:
        """Raises ValueError with what the program is to be told of an answer that is not legal."""
        known = ("architecture", "budget", "note", "exhausted", "wait")
        for key in answer:
            if key not in known:
                raise ValueError(f"unknown key '{key}'{nearest(key, known)} (known: {', '.join(known)})")
        if "exhausted" in answer:
            return str(answer["exhausted"])
        if answer.get("wait") is True:
            if not waiting:
                raise ValueError("no trial is pending: there is nothing to wait for")
            return None
        if not isinstance(answer.get("architecture"), dict):
            raise ValueError("an answer is an architecture, {name: value} of the choices; or exhausted, or wait")
        arch = self._architecture(answer["architecture"])
        return Proposal(arch, _budget(answer.get("budget"), self._setting.fidelity), note=_note(answer.get("note")))

    def _architecture(self, values: Mapping[str, Any]) -> Architecture:
        """The architecture with its choices in the order of the space. Raises ValueError for an illegal one."""
        space = self._setting.space
        names = [choice.name for choice in space.choices]
        for name in values:
            if name not in names:
                raise ValueError(f"'{name}' is no choice of space '{space.name}'{nearest(name, names)}")
        given = {choice.name: _option(choice, values[choice.name]) for choice in space.choices if choice.name in values}
        arch = Architecture(space.name, given)
        reason = space.illegal(arch)
        if reason:
            raise ValueError(reason)
        return arch

    def _trial(self, number: int, proposal: Proposal) -> dict[str, Any]:
        found = {
            "number": number,
            "architecture": dict(proposal.arch.values),
            "identity": self._setting.identity(proposal.arch),
        }
        return found | {
            key: value for key, value in (("budget", proposal.budget), ("note", dict(proposal.note))) if value
        }


def _split(program: str) -> list[str]:
    try:
        arguments = shlex.split(program)
    except ValueError as error:
        raise UsageError(f"strategy 'command:{program}': not a command line: {str(error).lower()}") from None
    if not arguments:
        raise UsageError("strategy 'command:' names no program; write command:PROGRAM, as in 'command:python mine.py'")
    if shutil.which(arguments[0]) is None:
        raise NotFoundError(f"strategy 'command:{program}': there is no program '{arguments[0]}'")
    return arguments


def _study(setting: Setting) -> dict[str, Any]:
    """What a program is told of its problem."""
    space, fidelity = setting.space, setting.fidelity
    choices = [
        {
            "name": choice.name,
            "options": choice.options,
            **({"kind": choice.kind} if choice.kind else {}),
            **({"ordered": True} if choice.ordered else {}),
            **({"when": [{"name": one.name, "values": one.values} for one in choice.when]} if choice.when else {}),
        }
        for choice in space.choices
    ]
    network = None
    if setting.network is not None:
        task, size = setting.network
        network = {"task": task.model_dump(mode="json"), "size": size.model_dump(mode="json")}
    return {
        "space": space.name,
        "what": " ".join((type(space).__doc__ or "").split("\n\n")[0].split()),
        "choices": choices,
        "objectives": [{"metric": one.metric, "goal": one.goal} for one in setting.objectives],
        "constraints": [
            {"metric": one.metric, "relation": one.relation, "bound": one.bound} for one in setting.constraints
        ],
        "fidelity": None
        if fidelity is None
        else {"unit": fidelity.unit, "low": fidelity.low, "high": fidelity.high, "levels": fidelity.levels},
        "network": network,
        "seed": setting.seed,
    }


def _option(choice: Choice, value: Any) -> Value:
    """The option that is meant: where options are fractions a whole number is one too, and the other way round."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    for option in choice.options:
        if option == value and (type(option) is type(value) or (number and not isinstance(option, bool))):
            return option
    raise ValueError(f"{value!r} is not an option of choice '{choice.name}' {choice.options}")


def _budget(value: Any, fidelity: Fidelity | None) -> float | None:
    """Raises ValueError for a budget that there is not."""
    if value is None:
        return None
    if fidelity is None:
        raise ValueError(f"the budget {value!r}: there is one budget only; leave it out")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not fidelity.low <= value <= fidelity.high:
        raise ValueError(f"the budget {value!r} is none from {fidelity.low:g} to {fidelity.high:g} {fidelity.unit}")
    if fidelity.levels and value not in fidelity.levels:
        raise ValueError(f"the budget {value!r} is none of the levels {fidelity.levels}")
    return float(value)


def _note(value: Any) -> dict[str, Value]:
    """Raises ValueError for a note that is not kept."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(one, str | int | float) for one in value.values()):
        raise ValueError("a note holds texts, numbers and truth values by name")
    if len(json.dumps(value)) > LONGEST_NOTE:
        raise ValueError(f"a note has at most {LONGEST_NOTE:,} characters")
    return value


def _none(constant: str) -> Any:
    """Python writes numbers that JSON has not; a store keeps none of them."""
    raise ValueError(constant)


def _line(**message: Any) -> str:
    return json.dumps(_plain(message))


def _plain(value: Any) -> Any:
    """With `nan`, `inf` and `-inf` as texts, as the commands write them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
