"""Pictures of the page for docs/images: every task of toy models that know their examples by heart, wide and narrow.

    python runs/page_pictures.py [--out docs/images] [--steps 200]

Needs Chromium and chromedriver. These models are tiny and were trained on the very sentences shown: the pictures show
the page, not what a model can do. `--builtin` takes pictures of the built-in model instead, as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import threading
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.serve import toys
from tests.serve.browser import Browser, browser

from bothways.infer.predictor import load
from bothways.serve.app import App
from bothways.serve.server import Server, listen

WIDE, NARROW = 1000, 390


def main() -> int:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--steps", type=int, default=200, help="of training, for each toy")
    parser.add_argument("--builtin", action="store_true", help="of the built-in model, no toys")
    wanted = parser.parse_args()
    wanted.out.mkdir(parents=True, exist_ok=True)
    names = [] if wanted.builtin else toys.MAKERS
    app = App({name: toys.predictor(name, wanted.steps) for name in names} or {"builtin": load()})
    listening, server = listen("127.0.0.1", 0), Server(app)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    try:
        with browser() as window:
            take = _take_builtin if wanted.builtin else _take_all
            take(window, f"http://127.0.0.1:{listening.getsockname()[1]}/", wanted.out)
    finally:
        server.should_exit = True
        thread.join()
    return 0


def _open(window: Browser, url: str) -> None:
    window.size(WIDE, 620)
    window.open(url)
    window.until("return state.models.length && state.mode")
    window.run("if (say.language !== 'en') { say.change(); draw(); }")


def _take_builtin(window: Browser, url: str, out: Path) -> None:
    _open(window, url)
    for mode in ("analyze", "fill"):
        _take(window, mode, out / f"builtin-{mode}.png")
    window.scheme("dark")
    window.run("say.change(); draw()")
    _take(window, "analyze", out / "builtin-analyze-dark-zh.png")


def _take_all(window: Browser, url: str, out: Path) -> None:
    _open(window, url)
    for model in window.run("return state.models.map(model => model.id)"):
        window.run("const one = $('model'); one.value = arguments[0]; one.dispatchEvent(new Event('change'))", model)
        mode = window.run("return modes()[0]")
        for width in (WIDE, NARROW):
            window.size(width, 620, phone=width == NARROW)
            _take(window, mode, out / f"page-{mode}{'' if width == WIDE else '-phone'}.png")
    window.run("const one = $('model'); one.value = 'alike'; one.dispatchEvent(new Event('change'))")
    for width, end in ((WIDE, ""), (NARROW, "-phone")):
        window.size(width, 620, phone=width == NARROW)
        _take(window, "compare", out / f"page-compare{end}.png")
        _take(window, "attention", out / f"page-attention{end}.png")
    window.size(WIDE, 620)
    window.scheme("dark")
    window.run("say.change(); draw()")
    _take(window, "attention", out / "page-attention-dark-zh.png", example=1)
    window.run("const one = $('model'); one.value = 'words'; one.dispatchEvent(new Event('change'))")
    _take(window, "segment", out / "page-segment-dark-zh.png")


def _take(window: Browser, mode: str, path: Path, *, example: int = 0) -> None:
    window.run(
        "choose(arguments[0]); document.querySelectorAll('#examples button')[arguments[1]].click()", mode, example
    )
    window.until("return !$('go').hasAttribute('aria-busy') && $('result').children.length")
    window.run("document.activeElement.blur()")
    # A page of few colours: a palette of 128 keeps the picture small.
    Image.open(io.BytesIO(window.picture())).convert("RGB").quantize(128).save(path, optimize=True)
    print(f"{path} {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    sys.exit(main())
