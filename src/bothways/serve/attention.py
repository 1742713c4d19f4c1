"""Attention as pictures: weights packed into bytes, and one HTML file that shows them without a server."""

from __future__ import annotations

import base64
import json
import zlib
from importlib.resources import files
from typing import Any

import numpy as np


def packed(shown: dict[str, Any]) -> dict[str, Any]:
    """What `Predictor.attention` found, as the page takes it.

    A weight w is the byte 255 √w: the root, because most weights are small and the eye should tell them apart. All
    bytes are compressed together: at 512 tokens most are zero.
    """
    view = _packed(shown["tokens"], shown["weights"])
    view |= {"segments": shown.get("segments") or [0] * len(shown["tokens"]), "dropped": int(shown.get("dropped", 0))}
    if (cross := shown.get("cross")) is not None:
        view["cross"] = _packed(cross["tokens"], cross["weights"]) | {"keys": cross["keys"]}
    return view


def _packed(tokens: list[str], weights: np.ndarray) -> dict[str, Any]:
    layers, heads = weights.shape[:2]
    # A layer at a time, so that no second copy of all floats is made.
    quantised = [np.rint(255 * np.sqrt(layer)).astype(np.uint8).tobytes() for layer in weights]
    squeezed = zlib.compress(b"".join(quantised), level=6)
    return {"tokens": tokens, "layers": layers, "heads": heads, "weights": base64.b64encode(squeezed).decode()}


def html(shown: dict[str, Any], *, title: str) -> str:
    """A page of its own: style, script and weights inside it."""
    page = files("bothways.serve").joinpath("page")
    data = json.dumps(packed(shown), ensure_ascii=False, separators=(",", ":"))
    parts = {
        "TITLE": title.replace("&", "&amp;").replace("<", "&lt;"),
        "STYLE": page.joinpath("style.css").read_text(encoding="utf-8"),
        "WORDS": page.joinpath("words.js").read_text(encoding="utf-8"),
        "SCRIPT": page.joinpath("attention.js").read_text(encoding="utf-8"),
        # No "</script>" in a token may end the element; in JSON the escape means the same.
        "DATA": data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
    }
    # One pass, so that nothing inside a part is taken for a place to fill.
    first, *rest = page.joinpath("attention.html").read_text(encoding="utf-8").split("{{")
    filled = [first]
    for piece in rest:
        name, _, after = piece.partition("}}")
        filled += [parts[name], after]
    return "".join(filled)
