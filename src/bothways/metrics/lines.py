"""Scores as lines of text, for people: a name and a value each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def score_lines(scores: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """The lines of scores by name; those of a table stand indented below its name."""
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}"
            yield from score_lines(value, indent + "  ")
        elif isinstance(value, list) and value and all(isinstance(item, float) for item in value):
            yield f"{indent}{name:24} {'  '.join(f'{item:.4f}' for item in value)}"
        else:
            yield f"{indent}{name:24} {value:.4f}" if isinstance(value, float) else f"{indent}{name:24} {value}"
