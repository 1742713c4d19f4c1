"""`bothways attention`: which token looks at which, in every layer and head, as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ConfigError


@dataclass(frozen=True)
class Attention:
    """Show a text's attention on a page that opens without a server."""

    model: tyro.conf.Positional[str]
    """folder of a model or a run, or a name on the hub"""
    text: tyro.conf.Positional[str]
    """a text"""
    text_b: tyro.conf.Positional[str | None] = None
    """a second text, to show how the two look at each other"""
    out: Path = field(default=Path("attention.html"))
    """the file to write"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if self.out.suffix.lower() not in (".html", ".htm"):
            raise ConfigError(f"--out {self.out} is to be a page; give a name that ends in .html")


def run(argv: list[str]) -> int:
    """Write the page."""
    wanted = config.load(Attention, argv, prog="bothways attention")
    if wanted.out.exists():
        raise ConfigError(f"--out {wanted.out} exists already; give another file, or remove it first")
    from bothways.data.whole import whole
    from bothways.infer.predictor import load
    from bothways.serve.attention import html

    shown = load(wanted.model, device=wanted.common.device).attention(wanted.text, wanted.text_b)
    with whole(wanted.out) as part:
        part.write_text(html(shown, title=" · ".join(shown["tokens"][1:9])), encoding="utf-8", errors="replace")
    if not wanted.common.quiet:
        layers, heads, tokens, _ = shown["weights"].shape
        unread = f"; {shown['dropped']} tokens at the end were not read" if shown["dropped"] else ""
        print(f"{layers} layers of {heads} heads over {tokens} tokens in {wanted.out}{unread}")
    return 0
