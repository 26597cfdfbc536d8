"""`nas skill`: the page says what the commands are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas_cli.app import parser
from nas_cli.skill import SESSION
from nas_core.errors import InfeasibleError, MachineError, NotFoundError, UsageError, VerificationError

Say = Callable[..., tuple[int, str, str]]


def leaves(command: Any, path: str) -> dict[str, Any]:
    if not hasattr(command, "commands"):
        return {path: command}
    found = (leaves(child, f"{path} {name}") for name, child in command.commands.items())
    return {name: leaf for inner in found for name, leaf in inner.items()}


def test_every_command_and_option_is_named_once(say: Say) -> None:
    code, out, err = say("skill")
    assert (code, err) == (0, "")
    lines = dict(re.findall(r"^- `(nas [a-z -]*[a-z])[^`]*`: (.+)$", out, re.MULTILINE))
    every = leaves(parser(), "nas")
    assert set(lines) == set(every)
    for name, command in every.items():
        options = {max(each.opts, key=len) for each in command.params if each.param_type_name == "option"}
        said, _, listed = lines[name].partition(" Options: ")
        assert set(listed.split()) == options
        assert said.startswith(command.help.split()[0])
    assert len(out) < 12_000


def test_the_session_is_one_that_the_program_takes(say: Say) -> None:
    _, out, _ = say("skill")
    block = out.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert len(block) == len(SESSION)
    for line in block:
        command: Any = parser()
        words = shlex.split(line, comments=True)[1:]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("nas", words)  # parses


def test_exit_codes_are_those_of_errors(say: Say) -> None:
    codes = say("skill")[1].partition("## Exit codes\n\n")[2]
    for kind in (UsageError, NotFoundError, InfeasibleError, MachineError, VerificationError):
        assert f" {kind.exit_code}: {(kind.__doc__ or '').splitlines()[0]}" in codes
    assert "1: Something failed while running." in codes


def test_it_is_written(folder: Path, say: Say) -> None:
    assert say("skill", "--out", "SKILL.md") == (0, "SKILL.md\n", "")
    assert (folder / "SKILL.md").read_text() == say("skill")[1]
    code, _, err = say("skill", "--out", "no/SKILL.md")
    assert (code, err) == (2, "nas: 'no/SKILL.md' cannot be written: No such file or directory\n")
