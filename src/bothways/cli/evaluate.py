"""`bothways evaluate`: score a model on labelled data."""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bothways import config
from bothways.config import FLAT, Common
from bothways.metrics.lines import score_lines


@dataclass(frozen=True)
class Evaluate:
    """Score a model on labelled data, with every metric of its task."""

    model: tyro.conf.Positional[str]
    """folder of a model or a run, or a name on the hub"""
    data: Path
    """labelled records"""
    json: bool = False
    """one JSON object instead of lines"""
    precision: Literal["auto", "float32", "bfloat16", "all"] = "float32"
    """what products are computed in; all: one after the other, each with its scores"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text"""
    generate: dict[str, str] = field(default_factory=dict)
    """--generate.beams 4 and other settings of decoding, as `bothways predict --help` has them"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def run(argv: list[str]) -> int:
    """Print the scores."""
    wanted = config.load(Evaluate, argv, prog="bothways evaluate")
    if wanted.precision != "all":
        scores = _scores(wanted, wanted.precision)
    else:
        every = typing.get_args(typing.get_type_hints(Evaluate)["precision"])
        scores = {one: _scores(wanted, one) for one in every if one not in ("auto", "all")}
    print(json.dumps(scores, ensure_ascii=False) if wanted.json else "\n".join(score_lines(scores)))
    return 0


def _scores(wanted: Evaluate, precision: Any) -> dict[str, Any]:
    from bothways.infer.predictor import load

    predictor = load(wanted.model, device=wanted.common.device, precision=precision)
    if wanted.generate:
        predictor = predictor.with_options(**wanted.generate)
    return predictor.evaluate(wanted.data, columns=wanted.columns)
