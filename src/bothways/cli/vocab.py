"""`bothways vocab`: learn a vocabulary from raw text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ConfigError

if TYPE_CHECKING:
    from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Vocab:
    """Learn a WordPiece vocabulary from raw text."""

    text: list[Path]
    """files or folders: .txt, .jsonl, .csv, .parquet, plain, .gz or .xz"""
    out: Path
    """folder for tokenizer.json, tokenizer_config.json and vocab.txt"""
    size: int = 16000
    """pieces"""
    lowercase: bool = True
    """no capitals and accents"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text; source,target: several, each a document of its own"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def run(argv: list[str]) -> int:
    """Learn it and write it."""
    wanted = config.load(Vocab, argv, prog="bothways vocab")
    from bothways.data.vocabulary import learn_tokenizer
    from bothways.data.whole import taken

    if reason := taken(wanted.out):
        raise ConfigError(f"--out {reason}")

    tokenizer = learn_tokenizer(wanted.text, wanted.size, lowercase=wanted.lowercase, columns=wanted.columns)
    _save(tokenizer, wanted.out)
    if not wanted.common.quiet:
        print(f"{tokenizer.size:,} pieces in {wanted.out}")
    return 0


def _save(tokenizer: Tokenizer, folder: Path) -> None:
    """Whole or not at all."""
    from bothways.data.whole import whole

    with whole(folder) as part:
        tokenizer.save(part)
