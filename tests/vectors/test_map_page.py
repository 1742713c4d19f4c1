"""The map of clusters in a real browser, with a mouse and with fingers; skipped without Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serve.browser import CHROMIUM, DRIVER, Browser, browser

from bothways.vectors.map import draw_map

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="no Chromium, or no chromedriver, on this machine"),
]
NAMES = {0: ["oracle", "sql"], 1: ["足球", "世界杯"], -1: ["noise"]}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = np.random.default_rng(0)
    numbers = np.array([0, 1, -1])[np.arange(60) % 3]
    vectors = draw.normal(size=(3, 16))[np.arange(60) % 3] + 0.1 * draw.normal(size=(60, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    clusters = [{"number": number, "size": 20, "keywords": words} for number, words in NAMES.items()]
    path = tmp_path_factory.mktemp("map") / "map.html"
    draw_map(path, vectors.astype(np.float32), numbers, [f"text {n}" for n in range(60)], clusters, seed=0)
    return path


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as one:
        yield one


def opened(window: Browser, file: Path, width: int, *, phone: bool = False) -> None:
    window.size(width, 780, phone=phone)
    window.devtools("Emulation.setTouchEmulationEnabled", enabled=phone)
    window.open(file.as_uri())
    painted(window)


def painted(window: Browser) -> None:
    window.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def where(window: Browser, point: int) -> dict[str, Any]:
    x, y = window.run("return place(points[arguments[0]], view())", point)
    return {"x": x, "y": y}


def tip(window: Browser) -> str:
    """What the map says of a point; nothing where it is not shown."""
    return window.run("return tip.getClientRects().length ? tip.innerText : ''")


def picture(window: Browser) -> str:
    """What is on the map."""
    painted(window)
    return window.run("return canvas.toDataURL()")


def test_a_mouse_hovers_zooms_moves_and_hides(window, file):
    opened(window, file, 1100)
    assert window.text("#key summary") == "60 texts in 2 clusters"
    assert window.text("#names").split("\n") == ["oracle sql", "20", "足球 世界杯", "20", "in no cluster", "20"]
    for point, name in ((0, "oracle sql"), (1, "足球 世界杯"), (2, "in no cluster")):
        window.devtools("Input.dispatchMouseEvent", type="mouseMoved", **where(window, point))
        assert tip(window) == f"{name}\ntext {point}"
    window.devtools("Input.dispatchMouseEvent", type="mouseMoved", x=3, y=700)
    assert tip(window) == ""
    whole = picture(window)
    window.click("#names button")
    assert len(picture(window)) < len(whole)
    window.devtools("Input.dispatchMouseEvent", type="mouseMoved", **where(window, 0))
    assert tip(window) == "", "what is hidden says nothing"
    at = where(window, 1)
    window.devtools("Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=-500, **at)
    window.until("return scale > 2")
    after = where(window, 1)
    assert abs(after["x"] - at["x"]) + abs(after["y"] - at["y"]) < 4, "what is under the mouse stays there"
    for kind, more in (("mousePressed", 0), ("mouseMoved", 50), ("mouseReleased", 50)):
        event = {"type": kind, "button": "left", "clickCount": 1, "x": at["x"] + more, "y": at["y"]}
        window.devtools("Input.dispatchMouseEvent", **event)
    assert where(window, 1)["x"] - after["x"] == pytest.approx(50, abs=1)
    window.click("#zoom button:last-child")
    assert window.run("return [scale, left, top_]") == [1, 0, 0]
    assert window.log() == []


def test_fingers_tap_and_pinch_and_the_names_wait_below(window, file):
    opened(window, file, 390, phone=True)
    assert not window.run("return key.open")
    touched(window, [where(window, 4)], [])
    assert tip(window) == "足球 世界杯\ntext 4"
    box = window.run("const { left, right } = tip.getBoundingClientRect(); return [left, right]")
    assert box[0] >= 0
    assert box[1] <= 390
    spread = [[{"x": 180 - d, "y": 300, "id": 1}, {"x": 220 + d, "y": 300, "id": 2}] for d in range(0, 90, 10)]
    touched(window, *spread, [])
    assert window.run("return scale") > 3
    window.click("#key summary")
    window.until("return key.open")
    assert window.run("return document.documentElement.scrollWidth") == 390
    assert window.log() == []


def touched(window: Browser, *steps: list[dict[str, Any]]) -> None:
    """Fingers where each step says; none: they are lifted."""
    for number, step in enumerate(steps):
        kind = "touchEnd" if not step else "touchMove" if number else "touchStart"
        window.devtools("Input.dispatchTouchEvent", type=kind, touchPoints=step)


def test_it_follows_the_scheme(window, file):
    papers = []
    for scheme in ("light", "dark"):
        window.scheme(scheme)
        opened(window, file, 1100)
        papers.append(window.run("return [paint.paper, paint.ink, paint.of.get(0)]"))
    assert all(light != dark for light, dark in zip(*papers, strict=True))
