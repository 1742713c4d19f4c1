"""`bothways predict`: label texts, or write some from them, one JSON line a record; a pre-trained model fills masks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ConfigError


@dataclass(frozen=True)
class Predict:
    """Label texts or the records of a file, or write a text for each; a pre-trained model fills each [MASK]."""

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
    segment: dict[str, str] = field(default_factory=dict)
    """--segment.dictionary FILE: words to keep whole, one a line; --segment.bonus X: only add X to their scores"""
    generate: dict[str, str] = field(default_factory=dict)
    """--generate.beams 4 and other settings of decoding: sample, temperature, top-k, top-p, seed, length-penalty,
    early-stopping, min-length, max-length, no-repeat-ngram, forbidden (words with commas between); long"""
    alignment: Path | None = None
    """generate: a picture of what each word looked at, .html or (for one text) .png"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if bool(self.text) == (self.data is not None):
            raise ConfigError("what is to be labelled? give texts, or a file by --data F (one of the two)")
        if self.alignment is not None:
            if self.alignment.suffix not in (".html", ".png"):
                raise ConfigError(f"--alignment {self.alignment}: wanted a file that ends in .html or .png")
            if self.data is not None or (self.alignment.suffix == ".png" and len(self.text) > 1):
                raise ConfigError("--alignment draws texts given on the command line, in a .png only one")


def run(argv: list[str]) -> int:
    """Print or write the predictions."""
    wanted = config.load(Predict, argv, prog="bothways predict")
    for name, path in (("out", wanted.out), ("alignment", wanted.alignment)):
        if path is not None and path.exists():
            raise ConfigError(f"--{name} {path} exists already; give another file, or remove it first")
    from bothways.data.records import read_records, require
    from bothways.infer.predictor import load, records_of

    predictor = load(wanted.model, device=wanted.common.device)
    for options in (wanted.segment, wanted.generate):
        if options:
            predictor = predictor.with_options(**options)
    records = records_of(wanted.text) if wanted.data is None else read_records(wanted.data, columns=wanted.columns)
    predictions: Iterator[Any]
    if wanted.alignment is not None:
        predictions = iter(_drawn(predictor.generate(wanted.text, return_attention=True), wanted.alignment))
    elif predictor.can_fill_masks:
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


def _drawn(predictions: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Draw what each word looked at; the predictions without the numbers."""
    from bothways.infer.alignment import alignment_html, alignment_png

    part = path.with_name(f".{path.stem}.part-{os.getpid()}{path.suffix}")
    try:
        if path.suffix == ".png":
            alignment_png(predictions[0], part)
        else:
            part.write_text(alignment_html(predictions), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    hidden = ("attention", "source_tokens", "target_tokens")
    return [{name: value for name, value in one.items() if name not in hidden} for one in predictions]


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
