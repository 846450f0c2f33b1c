"""A real Chromium without a window, steered over a pipe by the Chrome DevTools Protocol.

A message is a JSON document that a zero byte ends; the browser reads them from descriptor 3 and writes to 4
(content/public/common/content_switches.cc, remote-debugging-pipe).
"""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 120.0  # seconds for an answer; it comes within one
SWITCHES = (
    *("--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"),
)
# Its two ends of the pipes become descriptors 3 and 4, whichever they were.
START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for number, end in enumerate(ends, 3):
    os.dup2(end, number)
os.execvp(sys.argv[3], sys.argv[3:])
"""
# The keys that tests press, by their `key`, with the number that the browser wants beside it.
KEYS = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "/": 191,
}


class Page:
    """One page of a browser: what it shows, what it asked for, what it complained of."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._data = b""
        self._number = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        answer = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol and return its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self._events.append(answer)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._data:
            assert select.select([self._reader], [], [], end - time.monotonic())[0], "no answer"
            part = os.read(self._reader, 1 << 16)
            assert part, "the browser has ended"
            self._data += part
        message, _, self._data = self._data.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, url: str, width: int, height: int, *, dark: bool = False) -> None:
        """Show a page on a screen of this size; a narrow one is a phone's."""
        self._events.clear()
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=url)
        while not any(each.get("method") == "Page.loadEventFired" for each in self._events):
            self._events.append(self._receive())

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, of a promise when it is kept."""
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as a person does."""
        for key in keys:
            which = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            text = {"text": key} if len(key) == 1 else {}
            self.ask("Input.dispatchKeyEvent", type="keyDown", **which, **text)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **which)

    def write(self, text: str) -> None:
        """Write into what has the focus."""
        self.ask("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Press the mouse button over the middle of an element."""
        x, y = self.evaluate(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, file: Path) -> None:
        """Write what the screen shows, as PNG."""
        file.write_bytes(b64decode(self.ask("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """End the browser, which then has no page that could answer."""
        self._session = None
        self.ask("Browser.close")

    @property
    def requests(self) -> list[str]:
        """What was asked for since the page was opened, itself included."""
        sent = [e for e in self._events if e.get("method") == "Network.requestWillBeSent"]
        return [each["params"]["request"]["url"] for each in sent]

    @property
    def complaints(self) -> list[Any]:
        """Errors of scripts, and what the browser logged: what a policy forbade, for one."""
        told = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [each["params"] for each in self._events if each.get("method") in told]


@contextmanager
def browser_page(profile: Path) -> Iterator[Page]:
    """Start a browser with a page; the test fails where there is none, for nothing else looks at pictures."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.fail(
            "Chromium is not here, and nothing else tells whether pictures can be read; as root on"
            " Debian, `make chromium` installs it"
        )
    theirs, writer = os.pipe()
    reader, ours = os.pipe()
    words = [program, *SWITCHES, f"--user-data-dir={profile}"]
    if os.geteuid() == 0:  # its sandbox is not for root
        words.append("--no-sandbox")
    with subprocess.Popen(
        [sys.executable, "-c", START, str(theirs), str(ours), *words],
        pass_fds=(theirs, ours),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(theirs)
        os.close(ours)
        try:
            page = Page(reader, writer)
            yield page
            page.close()
            process.wait(PATIENCE)
        finally:
            os.close(writer)
            os.close(reader)
            if process.poll() is None:  # the test failed half way
                process.kill()
