"""`bothways evaluate`: score a model on labelled data."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from bothways import config
from bothways.config import FLAT, Common


@dataclass(frozen=True)
class Evaluate:
    """Score a model on labelled data, with every metric of its task."""

    model: tyro.conf.Positional[str]
    """folder of a model or a run, or a name on the hub"""
    data: Path
    """labelled records"""
    json: bool = False
    """one JSON object instead of lines"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def run(argv: list[str]) -> int:
    """Print the scores."""
    wanted = config.load(Evaluate, argv, prog="bothways evaluate")
    from bothways.infer.predictor import load

    scores = load(wanted.model, device=wanted.common.device).evaluate(wanted.data, columns=wanted.columns)
    print(json.dumps(scores, ensure_ascii=False) if wanted.json else "\n".join(_lines(scores)))
    return 0


def _lines(scores: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in scores.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:24} {value:.4f}" if isinstance(value, float) else f"{indent}{name:24} {value}")
    return lines
