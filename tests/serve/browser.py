"""Debian's Chromium, headless, spoken to through its driver: the few commands of WebDriver that the tests need."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

DRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that WebDriver gives a reference to an element
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
]  # fmt: skip


class BrowserError(AssertionError):
    """What the driver could not do, and of which kind, as WebDriver names it."""

    def __init__(self, value: dict[str, str]) -> None:
        super().__init__(f"{value['error']}: {value['message']}")
        self.kind = value["error"]


class Browser:
    """One window."""

    def __init__(self, http: httpx2.Client, session: str) -> None:
        self._http, self._at = http, f"/session/{session}"

    def _ask(self, path: str, **body: Any) -> Any:
        response = self._http.post(self._at + path, json=body)
        value = response.json()["value"]
        if response.status_code != 200:
            raise BrowserError(value)
        return value

    def open(self, url: str) -> None:
        """Go there."""
        self._ask("/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript; what it returns."""
        return self._ask("/execute/sync", script=script, args=list(arguments))

    def find(self, css: str) -> str:
        """An element's reference."""
        return self._ask("/element", using="css selector", value=css)[ELEMENT]

    def click(self, css: str) -> None:
        """As a mouse does: it must be seen and not covered."""
        self._ask(f"/element/{self.find(css)}/click")

    def type(self, css: str, text: str) -> None:
        """As a keyboard does, over what was there."""
        element = self.find(css)
        self._ask(f"/element/{element}/clear")
        if max(text, default="") <= "\uffff":
            self._ask(f"/element/{element}/value", text=text)
        else:  # ChromeDriver has no keys for characters beyond these; an input method has
            self.click(css)
            self.devtools("Input.insertText", text=text)

    def text(self, css: str) -> str:
        """What is read there."""
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own."""
        return self._ask("/goog/cdp/execute", cmd=command, params=parameters)

    def scheme(self, name: str) -> None:
        """Prefer light or dark."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """The window's."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    def picture(self) -> bytes:
        """The whole page as PNG, however long."""
        picture = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(picture["data"])

    def log(self) -> list[str]:
        """What the page complained of since the last call."""
        return [one["message"] for one in self._ask("/se/log", type="browser") if one["level"] in ("SEVERE", "WARNING")]

    def until(self, script: str, *arguments: Any, seconds: float = 30.0) -> Any:
        """Wait until JavaScript returns something true; what raises is not true yet, for a page may be half there."""
        end = time.monotonic() + seconds
        while True:
            try:
                if value := self.run(script, *arguments):
                    return value
                last = "it is false"
            except BrowserError as error:
                if error.kind != "javascript error":
                    raise
                last = str(error)
            assert time.monotonic() < end, f"never true: {script} {arguments}: {last}"
            time.sleep(0.02)


@contextmanager
def browser() -> Iterator[Browser]:
    """A window, and its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        driver = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False)
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    if http.get("/status").json()["value"]["ready"]:
                        break
                except httpx2.TransportError:
                    assert time.monotonic() < end
                    time.sleep(0.05)
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={folder}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            made = http.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
            session = made["sessionId"]
            yield Browser(http, session)
            http.delete(f"/session/{session}")
        finally:
            http.close()
            driver.terminate()
            driver.wait(30)
