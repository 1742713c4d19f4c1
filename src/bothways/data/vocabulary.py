"""A tokenizer learnt from files of raw text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bothways.data.documents import documents
from bothways.text.tokenizer import Tokenizer
from bothways.text.vocabulary import learn_vocabulary


def learn_tokenizer(
    text: Sequence[str | Path], size: int, *, lowercase: bool = True, columns: dict[str, str] | None = None
) -> Tokenizer:
    """A tokenizer whose vocabulary is learnt from all of the text, streamed."""
    lines = (paragraph for document in documents(text, columns) for paragraph in document.paragraphs)
    return Tokenizer.from_vocab(learn_vocabulary(lines, size, lowercase=lowercase), lowercase=lowercase)
