"""The page in a real browser: every task, both languages, by keyboard, on a phone; skipped without Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serve import toys
from tests.serve.browser import CHROMIUM, DRIVER, Browser, browser
from tests.serve.conftest import Start

from bothways.serve.attention import html

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="no Chromium, or no chromedriver, on this machine"),
]


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture
def page(window: Browser, start: Start) -> Browser:
    """The page of a server with every toy, in English, at desktop width."""
    window.size(1100, 850)
    window.scheme("light")
    url = start(*toys.MAKERS).url
    window.open(url)
    window.run("localStorage.setItem('language', 'en')")
    window.open(url)
    window.until("return state.models.length === arguments[0] && state.mode", len(toys.MAKERS))
    window.log()
    return window


def choose(page: Browser, model: str) -> None:
    page.run("const one = $('model'); one.value = arguments[0]; one.dispatchEvent(new Event('change'))", model)


def answered(page: Browser) -> None:
    page.until("return !document.querySelector('#go').hasAttribute('aria-busy')")
    page.until("return document.querySelector('#result').children.length || document.querySelector('.status.wrong')")
    assert not page.run("return document.querySelector('.status.wrong')?.innerText"), page.text("#status")


def complaints(page: Browser) -> list[str]:
    return [line for line in page.log() if "favicon" not in line]


EXPECTED = {  # what must be seen in the result of each task's first example
    "entities": ".reading", "words": ".reading .word", "mood": ".bars .best", "pairs": ".bars .best", "alike": ".big",
    "commands": ".big", "roles": ".entity .label", "questions": ".reading", "choices": ".bars .best",
    "translations": ".written", "heads": ".reading .word", "masks": ".reading mark",
}  # fmt: skip


def test_every_task_is_shown(page: Browser) -> None:
    assert set(EXPECTED) == set(toys.MAKERS)
    for model, css in EXPECTED.items():
        choose(page, model)
        assert page.run("return document.querySelector('[role=tab][aria-selected=true]').innerText")
        page.click("#examples button")
        answered(page)
        assert page.run("return document.querySelectorAll(arguments[0]).length", f"#result {css}"), model
        assert "read" in page.text("#status")
    assert complaints(page) == []


def test_what_is_shown_is_what_the_model_says(page: Browser) -> None:
    choose(page, "words")
    page.type("#field-text", "我们明天去北京。")
    page.click("#go")
    answered(page)
    (wanted,) = toys.predictor("words").predict(["我们明天去北京。"])
    assert (
        page.run("return [...document.querySelectorAll('#result .word')].map(one => one.innerText)") == wanted["words"]
    )
    choose(page, "mood")
    page.type("#field-text", "a <b>b</b> 😀 c")
    page.click("#go")
    answered(page)
    (label,) = toys.predictor("mood").predict(["a <b>b</b> 😀 c"])
    assert page.text("#result .best span") == label["label"]
    assert page.text("#status").startswith(f"{label['tokens']['kept']} tokens read")


def test_offsets_count_characters(page: Browser) -> None:
    """An emoji is one character to Python and two units to JavaScript: marks after it must not be shifted."""
    text = "😀 [MASK] b"
    choose(page, "masks")
    page.type("#field-masked", "")
    page.run("state.values.masked = arguments[0]; choose('fill')", text)
    page.click("#go")
    answered(page)
    top = toys.predictor("masks").fill_mask(text)[0][0]["fillings"][0]["token"]
    assert page.text("#result .reading") == f"😀 {top} b"


def test_texts_are_compared_in_a_heat_map(page: Browser) -> None:
    for model in ("masks", "alike"):
        choose(page, model)
        page.click("#tab-compare")
        page.run("state.values.lines = 'a b\\nc d\\n\\ne'; choose('compare')")
        page.click("#go")
        answered(page)
        assert page.run("return document.querySelectorAll('.heat tbody td').length") == 9
    vectors = toys.predictor("masks").embed(["a b", "c d"])
    choose(page, "masks")
    page.click("#tab-compare")
    page.click("#go")
    answered(page)
    cell = page.run("return document.querySelector('.heat tbody tr td:nth-of-type(2)').innerText")
    assert float(cell) == pytest.approx(float(vectors[0] @ vectors[1] / (vectors[0] @ vectors[0]) ** 0.5
                                              / (vectors[1] @ vectors[1]) ** 0.5), abs=0.006)  # fmt: skip


def look_at(page: Browser, shown: dict[str, Any]) -> None:
    """The attention view: all heads, one large, and what a token looks at when it is pointed at."""
    layers, heads, count, _ = shown["weights"].shape
    assert page.run("return document.querySelectorAll('.heads button').length") == layers * heads
    assert page.run("return document.querySelectorAll('.strip button').length") == count
    page.click(f".heads button:nth-of-type({heads + 2})")  # layer 2, head 2
    weights = shown["weights"][1, 1]
    page.run("document.querySelectorAll('.strip button')[2].dispatchEvent(new MouseEvent('mouseenter'))")
    best = int(weights[2].argmax())
    assert shown["tokens"][best] in page.text(".said")
    assert float(page.text(".said").rsplit(" ", 1)[1]) == pytest.approx(float(weights[2, best]), abs=0.01)
    painted = page.run(
        "const c = document.querySelector('.matrix canvas');"
        "return [c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some(v => v)]"
    )
    assert painted == [count, True]


def test_attention_can_be_traced(page: Browser) -> None:
    choose(page, "mood")
    page.click("#tab-attention")
    page.click("#examples button")
    answered(page)
    look_at(page, toys.predictor("mood").attention("The film was warm, funny and far too short."))
    assert complaints(page) == []


def test_the_file_of_attention_opens_without_a_server(window: Browser, tmp_path: Path) -> None:
    shown = toys.predictor("mood").attention("Ada wrote the first program", "我们 </script> 看")
    file = tmp_path / "attention.html"
    file.write_text(html(shown, title="x"), encoding="utf-8")
    window.open(file.as_uri())
    window.until("return document.querySelectorAll('.heads button').length")
    look_at(window, shown)
    assert complaints(window) == []


def test_both_languages(page: Browser) -> None:
    assert page.run("return document.documentElement.lang") == "en"
    page.click("#language")
    assert page.run("return document.documentElement.lang") == "zh-Hans"
    assert page.text("#go") == "分析"
    assert page.run("return document.querySelector('#tabs').innerText").split() == ["实体", "比较", "注意力"]
    page.click("#language")
    assert page.text("#go") == "Read"
    missing = page.run(
        "const names = tree => Object.entries(tree).flatMap(([n, v]) => typeof v === 'object' ? names(v) : [n]);"
        "return [names(WORDS.en), names(WORDS.zh)]"
    )
    assert missing[0] == missing[1]


def test_by_keyboard_and_for_screen_readers(page: Browser) -> None:
    page.run("document.querySelector('[role=tab][aria-selected=true]').focus()")
    page.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))")
    assert page.run("return document.activeElement.innerText") == "Compare"
    choose(page, "mood")
    page.click("#tab-classify")
    page.type("#field-text", "a b\ue009\ue007")  # Ctrl + Enter
    answered(page)
    unnamed = page.run(
        "return [...document.querySelectorAll('button, input, select, textarea, canvas[role=img]')].filter(one =>"
        " !(one.innerText || one.getAttribute('aria-label') || one.labels?.length)).map(one => one.outerHTML)"
    )
    assert unnamed == []
    assert page.run("return document.querySelector('#status').getAttribute('aria-live')") == "polite"


def test_mistakes_are_told(page: Browser) -> None:
    choose(page, "mood")
    page.click("#go")
    assert page.text(".status.wrong") == "There is no text yet."
    choose(page, "masks")
    page.run("state.values.masked = 'no mask'; choose('fill')")
    page.click("#go")
    page.until("return document.querySelector('.status.wrong')")
    assert page.text(".status.wrong") == "'no mask' has no [MASK] to fill"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_sticks_out(page: Browser, scheme: str) -> None:
    page.size(360, 740, phone=True)
    page.scheme(scheme)
    dark = page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 20)"
    assert dark == (scheme == "dark")
    for model in toys.MAKERS:
        choose(page, model)
        for mode in page.run("return modes()"):
            page.run("choose(arguments[0])", mode)
            page.click("#examples button")
            answered(page)
            assert page.run("return document.scrollingElement.scrollWidth") <= 360, (model, mode)
    assert page.run("return document.querySelector('#go').offsetHeight") >= 44


def test_the_list_of_routes(page: Browser) -> None:
    page.click("footer a")
    page.until("return document.querySelectorAll('.route').length > 9")
    assert "POST /v1/embeddings" in page.text("#routes")
    assert complaints(page) == []
