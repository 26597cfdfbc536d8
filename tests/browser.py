"""A headless Chromium of the system for tests, driven by its DevTools protocol over two pipes: no package is needed.

`python -m tests.browser` fails, and says why, where there is none that starts.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from reports.pages.pdf import BROWSERS

PATIENCE = 120.0  # seconds for an answer: the machine may be busy
# Gives the pipes the numbers 3 and 4, on which Chromium listens and speaks.
STARTER = """import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for number, end in enumerate(ends, start=3):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])"""


class NoBrowser(Exception):
    """Why there is none."""


class Page:
    """A tab. `errors`: what its console complained of; `requests`: the URLs that it has asked for."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.loads = 0

    def call(self, method: str, **values: Any) -> Any:
        return self._browser.call(method, self._session, **values)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, after the promise that it may be."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def until(self, script: str, seconds: float = PATIENCE) -> None:
        """Wait until an expression is true."""
        limit = time.monotonic() + seconds
        while not self.evaluate(script):
            assert time.monotonic() < limit, f"never true: {script}; {self.errors}"
            time.sleep(0.05)

    def press(self, key: str, *, text: str = "") -> None:
        """A key of the keyboard, by its name."""
        codes = {"Tab": 9, "Enter": 13, "ArrowDown": 40, "ArrowRight": 39}
        more: dict[str, Any] = {"text": "\r"} if key == "Enter" else {"text": text} if text else {}
        code = codes.get(key, 0)
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def go(self, url: str) -> None:
        """Load a page, and wait for it."""
        before = self.loads
        self.call("Page.navigate", url=url)
        limit = time.monotonic() + PATIENCE
        while self.loads == before:
            assert time.monotonic() < limit, f"'{url}' was not loaded"
            self._browser.listen(0.1)

    def look(self, width: int, height: int = 800, *, dark: bool = False) -> None:
        """How wide the window is, and which mode the reader prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])

    def heard(self, method: str, values: dict[str, Any]) -> None:
        """Take in an event."""
        if method == "Page.loadEventFired":
            self.loads += 1
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(values["exceptionDetails"])[:2_000])
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(values["args"])[:2_000])
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])


class Browser:
    """A running Chromium that reaches nothing but this machine."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        self._process, self._write, self._read = process, write, read
        self._buffer, self._last = b"", 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._pages: dict[str, Page] = {}

    def page(self) -> Page:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, session: str | None = None, **values: Any) -> Any:
        self._last += 1
        number = self._last
        message: dict[str, Any] = {"id": number, "method": method, "params": values}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        limit = time.monotonic() + PATIENCE
        while number not in self._answers:
            assert time.monotonic() < limit, f"Chromium does not answer {method}"
            self.listen(1.0)
        answer = self._answers.pop(number)
        assert "error" not in answer, answer
        return answer.get("result", {})

    def listen(self, seconds: float) -> None:
        """Take in what the browser says meanwhile."""
        if not select.select([self._read], [], [], seconds)[0]:
            return
        part = os.read(self._read, 1 << 20)
        if not part:
            raise NoBrowser(f"Chromium has ended with {self._process.wait()}")
        *messages, self._buffer = (self._buffer + part).split(b"\0")
        for text in messages:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            elif message.get("sessionId") in self._pages:
                self._pages[message["sessionId"]].heard(message["method"], message["params"])


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    """A browser with a profile of its own. Raises NoBrowser."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise NoBrowser("there is no Chromium on the PATH")
    (its_read, write), (read, its_write) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="nas-browser-", ignore_cleanup_errors=True) as profile:
        words = [program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        words += [f"--user-data-dir={profile}", "--no-first-run", "--disable-background-networking"]
        words += ["--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank"]
        starter = [sys.executable, "-S", "-c", STARTER, str(its_read), str(its_write), *words]
        process = subprocess.Popen(
            starter, pass_fds=(its_read, its_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(its_read)
        os.close(its_write)
        browser = Browser(process, write, read)
        try:
            try:
                browser.call("Browser.getVersion")
            except OSError as error:
                raise NoBrowser(f"'{program}' does not start: {error}") from None
            yield browser
        finally:
            with contextlib.suppress(OSError, AssertionError, NoBrowser):
                browser.call("Browser.close")
            os.close(write)
            os.close(read)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    try:
        with started() as running:
            print(running.call("Browser.getVersion")["product"])
    except NoBrowser as reason:
        sys.exit(str(reason))
