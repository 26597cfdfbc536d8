"""A page as a PDF, printed by the Chromium of the machine."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from nas_core.errors import MachineError
from nas_core.files import write_atomically

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 120.0
INSTALL = (
    "--pdf needs Chromium, and there is none on the PATH; install it (Debian: apt-get install chromium), "
    "or print the HTML file from any browser"
)


def browser() -> str:
    """The Chromium of this machine. Raises MachineError where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise MachineError(INSTALL)
    return found


def printed(page: str, out: Path) -> None:
    """Print a page, which loads nothing, into a file. Raises MachineError where that fails."""
    program = browser()
    with tempfile.TemporaryDirectory(prefix="nas-") as folder:
        place = Path(folder)
        (place / "page.html").write_text(page, encoding="utf-8")
        command = [program, "--headless", "--disable-gpu", "--no-sandbox", f"--user-data-dir={place / 'profile'}"]
        command += ["--no-pdf-header-footer", f"--print-to-pdf={place / 'page.pdf'}", (place / "page.html").as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise MachineError(f"--pdf: '{program}' has printed nothing in {SECONDS:g} seconds") from None
        if not (place / "page.pdf").is_file():
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise MachineError(f"--pdf: '{program}' has printed nothing: {said[-1] if said else done.returncode}")
        write_atomically(out, (place / "page.pdf").read_bytes())
