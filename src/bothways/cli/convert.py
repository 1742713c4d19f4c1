"""`bothways convert`: a model as another kind of folder: for transformers, or in a quarter of the bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bothways import config
from bothways.config import FLAT, Common


@dataclass(frozen=True)
class Convert:
    """Write a model as another kind of folder."""

    source: tyro.conf.Positional[str]
    """folder of a model or a run, "builtin", or a name on the hub"""
    target: tyro.conf.Positional[Path]
    """folder to write, which must not exist"""
    to: Literal["hf", "compact"] = "hf"
    """hf: float32, as Hugging Face transformers reads it; compact: 8 bits a weight, for Bothways alone"""
    head: str | None = None
    """of a model of several tasks, only this one, with the encoder: --head zh_pos"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def run(argv: list[str]) -> int:
    """Write the folder."""
    wanted = config.load(Convert, argv, prog="bothways convert")
    from bothways.models.model import load, save, single_head

    model = load(wanted.source)
    if wanted.head is not None:
        model = single_head(model, wanted.head)
    card = model.folder / "README.md" if model.folder is not None else None
    text = card.read_text(encoding="utf-8", errors="replace") if card is not None and card.is_file() else ""
    save(model, wanted.target, card=text, compact=wanted.to == "compact")
    if not wanted.common.quiet:
        size = sum(path.stat().st_size for path in wanted.target.iterdir())
        print(f"{wanted.target}: {size / 1e6:.1f} MB, {model.parameters:,} parameters")
    return 0
