"""The face of errors: one or two lines on stderr and the right exit code; a traceback only with --debug."""

from __future__ import annotations

import sys
from collections.abc import Callable

from nas_cli.output import Closed
from nas_core.errors import SYNONYMS, NasError
from nas_core.failures import user_place
from nas_core.notices import notices

INTERRUPTED = 130
LINE = 2_000  # characters of a line of a message
RECIPE = ("augment", "batch_size", "cutout", "grad_clip", "lr", "momentum", "optimizer", "schedule", "weight_decay")
"""Settings of recipes that people try as options."""


def guarded(work: Callable[[], object], *, debug: bool) -> int:
    """Run a command and return its exit code."""
    try:
        with notices():
            result = work()
    except KeyboardInterrupt as stopped:
        print("nas: stopped", file=sys.stderr)
        return getattr(stopped, "code", INTERRUPTED)
    except Closed:
        return 0
    except NasError as error:
        if debug:
            raise
        return _say(str(error), error.exit_code)
    except Exception as error:
        if debug:
            raise
        # Usage errors of the option parser, whichever version of it is installed.
        message = getattr(error, "format_message", None)
        if message is not None:
            if type(error).__name__ == "NoArgsIsHelpError":  # `nas` alone: its help, and no complaint
                print(message(), file=sys.stderr)
                return 2
            context = getattr(error, "ctx", None)
            hint = f"\nTry '{context.command_path} --help'." if context is not None else ""
            return _say(f"{_setting(error) or message()}{hint}", getattr(error, "exit_code", 2))
        return _say(*_unexpected(error))
    return result if isinstance(result, int) else 0


def _setting(error: Exception) -> str | None:
    """What to write instead of an option that does not exist, where it means a setting of the recipe."""
    option = getattr(error, "option_name", "") if type(error).__name__ == "NoSuchOption" else ""
    word = option.lstrip("-").replace("-", "_")
    meant = SYNONYMS.get(word, word)
    if meant not in RECIPE:
        return None
    return f"No such option: {option}; it is a setting of the recipe: -s recipe.{meant}=VALUE"


def _unexpected(error: Exception) -> tuple[str, int]:
    place = user_place(error)
    if place is not None:
        text = " ".join(str(error).split())
        return f"{place}: {type(error).__name__}: {text}\nThis is your own code; --debug shows the traceback.", 1
    if isinstance(error, MemoryError):
        return f"memory has run out: {' '.join(str(error).split()) or 'no more could be had'}", 5
    if isinstance(error, OSError) and error.errno is not None:
        place = f": '{error.filename}'" if error.filename else ""
        return f"{error.strerror}{place}", 5
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}\nThis is a defect of nas; run again with --debug for the traceback.", 1


def _say(message: str, code: int) -> int:
    print(f"nas: {legible(message)}", file=sys.stderr)
    return code


def legible(message: str) -> str:
    """A message, which may quote whatever a file holds: lines without the middle of very long ones, and without what
    would steer a terminal."""
    return "\n".join(map(_legible, message.split("\n")))


def _legible(line: str) -> str:
    if len(line) > LINE:
        line = f"{line[: LINE // 2]} ... {line[-LINE // 4 :]}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)
