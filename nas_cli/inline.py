"""A figure in the terminal: by the protocol for pictures that the terminal knows, else as blocks."""

from __future__ import annotations

import base64
import io
import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from nas_cli import render
from nas_cli.output import data, write

if TYPE_CHECKING:
    from PIL.Image import Image

    from reports.figure import Figure
    from reports.mirrored import Mirrored

KITTY, ITERM, SIXEL = "kitty", "iterm", "sixel"
CHUNK = 4096  # bytes of a message of Kitty's protocol
COLORS = 64  # of a picture in Sixel
ANSWER = 0.3  # seconds that a terminal has to say what it can
WITH_KITTY = ("xterm-kitty", "xterm-ghostty")
WITH_SIXEL = ("foot", "mlterm", "yaft", "contour")


def show(figure: Figure | Mirrored) -> None:
    """Print a figure, then its caption."""
    from reports import matplotlib_figure
    from reports.mirrored import Mirrored

    able = protocol(os.environ) if render.for_people() else None
    if able is not None:
        write(_PROTOCOLS[able](matplotlib_figure.render(figure, "png", scale=0.8)))
        return
    from nas_cli import blocks

    if isinstance(figure, Mirrored):
        lines = blocks.picture(matplotlib_figure.render(figure, "png"), _width(), colors=_colors())
    else:
        lines = blocks.lines(figure, _width(), colors=_colors())
    render.emit(*lines)


def _width() -> int:
    import shutil

    return max(min(shutil.get_terminal_size((100, 24)).columns, 120), 40)


def _colors() -> bool:
    return render.for_people() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def protocol(environment: Mapping[str, str]) -> str | None:
    """How the terminal takes pictures: as its variables say, else as it answers; None where it does not."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if not {"TMUX", "STY"} & environment.keys():  # a multiplexer passes on Sixel alone
        if "KITTY_WINDOW_ID" in environment or term in WITH_KITTY or program == "ghostty":
            return KITTY
        if program in ("iTerm.app", "WezTerm"):
            return ITERM
        if term.startswith(WITH_SIXEL) or "sixel" in term:
            return SIXEL
    return SIXEL if term not in ("", "dumb", "linux") and _answers_sixel() else None


def _answers_sixel() -> bool:
    """Whether the terminal names Sixel (4) among its primary device attributes."""
    try:
        import termios
        import tty

        stdin, stdout = sys.stdin.fileno(), data()
        if not (os.isatty(stdin) and stdout.isatty()):
            return False
        before = termios.tcgetattr(stdin)
    except (ImportError, OSError, ValueError, termios.error):
        return False
    try:
        tty.setcbreak(stdin)
        write("\x1b[c")
        answer = b""
        while not answer.endswith(b"c") and select.select([stdin], [], [], ANSWER)[0]:
            answer += os.read(stdin, 64)
    finally:
        termios.tcsetattr(stdin, termios.TCSANOW, before)
    return b"4" in answer.removeprefix(b"\x1b[?").removesuffix(b"c").split(b";")[1:]


def kitty(png: bytes) -> str:
    """Kitty's graphics protocol: PNG in base64, in parts."""
    text = base64.b64encode(png).decode()
    parts = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
    last = len(parts) - 1
    heads = ["a=T,f=100,", *[""] * last]
    messages = (f"{head}m={int(place < last)};{parts[place]}" for place, head in enumerate(heads))
    return "".join(f"\x1b_G{message}\x1b\\" for message in messages) + "\n"


def iterm(png: bytes) -> str:
    """iTerm2's inline pictures."""
    return f"\x1b]1337;File=inline=1;size={len(png)}:{base64.b64encode(png).decode()}\a\n"


def sixel(png: bytes) -> str:
    """Sixel: six rows of pixels at a time, color by color."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLORS)
    palette = image.getpalette() or []
    colors = [palette[start : start + 3] for start in range(0, len(palette), 3)]
    head = "".join(
        f"#{number};2;{';'.join(str(round(100 * part / 255)) for part in color)}" for number, color in enumerate(colors)
    )
    return f'\x1bP0;1q"1;1;{image.width};{image.height}{head}{"-".join(_bands(image))}\x1b\\\n'


def _bands(image: Image) -> Iterator[str]:
    import numpy

    pixels = numpy.asarray(image)
    for top in range(0, image.height, 6):
        band = pixels[top : top + 6]
        bits = (1 << numpy.arange(len(band)))[:, None]
        rows = []
        for color in numpy.unique(band):
            values = ((band == color) * bits).sum(0)
            starts = numpy.flatnonzero(numpy.diff(values, prepend=-1))
            lengths = numpy.diff(starts, append=len(values))
            runs = zip(values[starts].tolist(), lengths.tolist(), strict=True)
            rows.append(f"#{color}" + "".join(f"!{length}{chr(63 + value)}" for value, length in runs))
        yield "$".join(rows)


_PROTOCOLS: Mapping[str, Callable[[bytes], str]] = {KITTY: kitty, ITERM: iterm, SIXEL: sixel}
