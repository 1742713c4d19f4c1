"""`bothways predict`: label texts, one JSON line a record; with a pre-trained model, fill the masks in them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ConfigError


@dataclass(frozen=True)
class Predict:
    """Label texts, or the records of a file; a pre-trained model fills each [MASK]."""

    model: tyro.conf.Positional[str]
    """folder of a model or a run, or a name on the hub"""
    text: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """texts to label"""
    data: Path | None = None
    """a file of records to label"""
    out: Path | None = None
    """file for the predictions; none: standard output"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text"""
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "float32"
    """what products are computed in; auto: bfloat16 where this machine is fast at it; int8: for a CPU"""
    segment: dict[str, str] = field(default_factory=dict)
    """--segment.dictionary FILE: words to keep whole, one a line; --segment.bonus X: only add X to their scores"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if bool(self.text) == (self.data is not None):
            raise ConfigError("what is to be labelled? give texts, or a file by --data F (one of the two)")


def run(argv: list[str]) -> int:
    """Print or write the predictions."""
    wanted = config.load(Predict, argv, prog="bothways predict")
    if wanted.out is not None and wanted.out.exists():
        raise ConfigError(f"--out {wanted.out} exists already; give another file, or remove it first")
    from bothways.data.records import read_records, require
    from bothways.infer.predictor import load, records_of

    predictor = load(wanted.model, device=wanted.common.device, precision=wanted.precision)
    if wanted.segment:
        predictor = predictor.with_options(**wanted.segment)
    records = records_of(wanted.text) if wanted.data is None else read_records(wanted.data, columns=wanted.columns)
    predictions: Iterator[Any]
    if predictor.can_fill_masks:
        predictions = iter(predictor.fill_mask([require(record, "text", str) for record in records]))
    else:
        predictions = predictor.stream(records)
    if wanted.out is None:
        for prediction in predictions:
            print(json.dumps(prediction, ensure_ascii=False), flush=sys.stdout.isatty())
        return 0
    count = _write(wanted.out, predictions)
    if not wanted.common.quiet:
        print(f"{count:,} predictions in {wanted.out}")
    return 0


def _write(path: Path, predictions: Iterator[Any]) -> int:
    """All predictions, or no file at all."""
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    count = 0
    try:
        with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for prediction in predictions:
                file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
                count += 1
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count
