"""Pictures of what each written word looked at: self-contained HTML, or PNG where a font has all the characters."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bothways.errors import ConfigError

_MOST_WORDS = 160  # on a side of a PNG: 8,400 pixels
_STYLE = """body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;margin:.5em 0 1.5em}
td{width:1.4em;height:1.4em;border:1px solid #eee}th{font-weight:normal;padding:0 .4em;text-align:right}
thead th{writing-mode:vertical-rl;text-align:left;padding:.4em 0}"""


def by_word(
    weights: Float[np.ndarray, "target source"], target: Sequence[str], source: Sequence[str]
) -> tuple[Float[np.ndarray, "words others"], list[str], list[str]]:
    """α with the pieces of a word as one: those of a source word are summed, those of a target word averaged.

    Rows still sum to one. A piece that begins with ## goes on the word before it, but not on what is special.
    """
    rows, target_words = _words(target)
    columns, source_words = _words(source)
    summed = np.add.reduceat(weights, columns, axis=1)
    sizes = np.diff(np.append(rows, len(target)))
    return np.add.reduceat(summed, rows, axis=0) / sizes[:, None], target_words, source_words


def _words(pieces: Sequence[str]) -> tuple[list[int], list[str]]:
    """Where each word begins, and the words."""
    begins: list[int] = []
    words: list[str] = []
    for place, piece in enumerate(pieces):
        if words and piece.startswith("##") and len(piece) > 2 and words[-1] not in ("[CLS]", "[SEP]"):
            words[-1] += piece[2:]
        else:
            begins.append(place)
            words.append(piece)
    return begins, words


def alignment_html(predictions: Sequence[Mapping[str, Any]]) -> str:
    """A page of tables, target words down and source words across: the mean over all layers and heads, then each
    layer's mean over its heads. `predictions` are `Predictor.generate(…, return_attention=True)`'s.
    """
    parts = [f"<!doctype html><meta charset=utf-8><title>Alignment</title><style>{_STYLE}</style>"]
    for prediction in predictions:
        parts.append(f"<h2>{html.escape(prediction['text'])}</h2>")
        layers = prediction["attention"].mean(1)
        parts.append(_table(layers.mean(0), prediction))
        for number, layer in enumerate(layers, start=1):
            parts.append(f"<details><summary>layer {number}</summary>{_table(layer, prediction)}</details>")
    return "\n".join(parts) + "\n"


def _table(weights: np.ndarray, prediction: Mapping[str, Any]) -> str:
    if not len(prediction["target_tokens"]):
        return "<p>nothing was written</p>"
    weights, target, source = by_word(weights, prediction["target_tokens"], prediction["source_tokens"])
    head = "".join(f"<th>{html.escape(word)}</th>" for word in source)
    rows = [
        f"<tr><th>{html.escape(word)}</th>"
        + "".join(f'<td style="background:rgba(20,80,160,{w:.3f})" title="{w:.3f}"></td>' for w in row)
        for word, row in zip(target, weights.tolist(), strict=True)
    ]
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def alignment_png(prediction: Mapping[str, Any], path: Path) -> None:
    """One prediction as a picture, the mean over all layers and heads.

    Raises:
        ConfigError: too many words for a picture, or no font on this machine has all of the characters; HTML has room
            for any number, and is drawn by a browser, which has the fonts.
    """
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    weights = prediction["attention"].mean((0, 1))
    weights, target, source = by_word(weights, prediction["target_tokens"], prediction["source_tokens"])
    if (most := max(len(source), len(target))) > _MOST_WORDS:
        raise ConfigError(
            f"there are {most:,} words to draw, and a .png has room for {_MOST_WORDS} on a side; "
            "give a file that ends in .html"
        )
    font = FontProperties(fname=_font("".join([*target, *source])))
    figure = Figure(figsize=(1.5 + 0.35 * len(source), 1.5 + 0.35 * len(target)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0)
    # parse_math off: a "$" in a text is a dollar
    axes.set_xticks(range(len(source)), source, rotation=90, fontproperties=font, parse_math=False)
    axes.set_yticks(range(len(target)), target, fontproperties=font, parse_math=False)
    axes.xaxis.tick_top()
    figure.savefig(path, format="png", dpi=150)


def _font(text: str) -> str:
    """A font file that has all the characters."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    wanted = {ord(character) for character in text if not character.isspace()}
    found = sorted(font_manager.findSystemFonts(), key=lambda file: ("Regular" not in file, file))
    lacking, fewest = "", len(wanted) + 1
    for file in [font_manager.findfont("DejaVu Sans"), *found]:
        try:
            without = wanted - FT2Font(file).get_charmap().keys()
        except (RuntimeError, OSError):  # a file that FreeType can't read
            continue
        if not without:
            return file
        if len(without) < fewest:
            lacking, fewest = chr(min(without)), len(without)
    raise ConfigError(
        f"no font on this machine has all of the characters (such as {lacking}); give a file that ends in .html, "
        f"or install one, such as Noto Sans CJK"
    )
