"""`bothways evaluate`: score a model on labelled data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bothways import config
from bothways.cli.predict import as_asked
from bothways.config import FLAT, Common
from bothways.errors import ConfigError
from bothways.metrics.lines import score_lines


@dataclass(frozen=True)
class Evaluate:
    """Score a model on labelled data, with every metric of its task."""

    model: tyro.conf.Positional[str] = "builtin"
    """folder of a model or a run, or a name on the hub; none: the built-in one"""
    data: Path = tyro.MISSING
    """labelled records, or a folder of corpus, queries and qrels to rank"""
    split: str = "test"
    """of such a folder: which qrels.SPLIT and queries.SPLIT"""
    candidates: Literal["auto", "judged", "corpus"] = "auto"
    """of such a folder: rank a query's judged documents, or the whole corpus; auto: judged ones if some have grade 0"""
    against: str | None = None
    """another model or run for the same task: is this one better? By a paired bootstrap over the records"""
    json: bool = False
    """one JSON object instead of lines"""
    precision: Literal["auto", "float32", "bfloat16", "int8", "all"] = "float32"
    """what products are computed in; all: one after the other, each with its scores and speed"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text"""
    generate: dict[str, str] = field(default_factory=dict)
    """--generate.beams 4 and other settings of decoding, as `bothways predict --help` has them"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def run(argv: list[str]) -> int:
    """Print the scores."""
    wanted = config.load(Evaluate, argv, prog="bothways evaluate")
    if wanted.precision == "all" and wanted.against is not None:
        raise ConfigError("--against compares in one precision, found --precision all; leave one of them out")
    if wanted.data.is_dir():
        _check_ranking(wanted)
    elif wanted.data.exists():
        for flag in ("split", "candidates"):
            if getattr(wanted, flag) != getattr(Evaluate, flag):
                raise ConfigError(f"--{flag} is for a folder to rank, and {wanted.data} is none; leave it out")
    scores = _every_precision(wanted) if wanted.precision == "all" else _scores(wanted, wanted.precision)
    if wanted.against is not None:
        scores |= {"against": _compared(wanted, wanted.against)}
    print(json.dumps(scores, ensure_ascii=False) if wanted.json else "\n".join(score_lines(scores)))
    return 0


def _check_ranking(wanted: Evaluate) -> None:
    """Raises ConfigError where something is asked that is for records, and not for a folder to rank."""
    folder = f"but {wanted.data} is a folder"
    if wanted.columns:
        wanted_there = "_id and text (corpus, queries), query_id, corpus_id and score (qrels)"
        raise ConfigError(f"--columns renames fields of records, {folder}; its files must have {wanted_there}")
    if wanted.against is not None:
        raise ConfigError(f"--against compares on records, {folder}; evaluate one model after the other")
    if wanted.precision == "all":
        raise ConfigError(f"--precision all times answers to records, {folder}; name one precision")


def _compared(wanted: Evaluate, against: str) -> dict[str, Any]:
    from bothways.data.records import read_records
    from bothways.infer.comparing import compare

    records = list(read_records(wanted.data, columns=wanted.columns))
    precision: Any = wanted.precision
    device, seed = wanted.common.device, wanted.common.seed
    return compare(wanted.model, against, records, device=device, precision=precision, seed=seed)


def _scores(wanted: Evaluate, precision: Any) -> dict[str, Any]:
    from bothways.infer.predictor import load

    predictor = load(wanted.model, device=wanted.common.device, precision=precision)
    predictor = as_asked(predictor, wanted.generate, wanted.common.seed)
    if wanted.against is not None:
        from bothways.infer.comparing import check_comparable

        check_comparable(wanted.against, predictor.task_name)  # before hours, not after
    if wanted.data.is_dir():
        from bothways.vectors.retrieval import evaluate_retrieval

        scores = evaluate_retrieval(predictor, wanted.data, split=wanted.split, candidates=wanted.candidates)
        if scores["judged_only"] and wanted.candidates == "auto" and not wanted.common.quiet:
            print(
                "only each query's judged documents are ranked, since the qrels list documents of grade 0; "
                "to rank the whole corpus, say --candidates corpus",
                file=sys.stderr,
            )
        return scores
    records = predictor.read(wanted.data, columns=wanted.columns)
    _warn_of_repeated(wanted, predictor, records)
    return predictor.score(records)


def _warn_of_repeated(wanted: Evaluate, predictor: Any, records: Sequence[Any]) -> None:
    """What was learnt from is known to the model: a line on stderr says how much of the data that is."""
    if (again := predictor.trained_on(records)) and not wanted.common.quiet:
        print(
            f"warning: {len(again):,} of {len(records):,} records stand in the model's training data too "
            f"(first: {again[0].where}); their scores say nothing about unseen text",
            file=sys.stderr,
        )


def _every_precision(wanted: Evaluate) -> dict[str, dict[str, Any]]:
    """Scores by precision, on the same encoded records; `tokens_per_second` leaves tokenising out."""
    from bothways.infer.predictor import Predictor, load

    first = load(wanted.model, device=wanted.common.device)
    first = as_asked(first, wanted.generate, wanted.common.seed)
    records = first.read(wanted.data, columns=wanted.columns)
    _warn_of_repeated(wanted, first, records)
    encoded = first.encode(records, labelled=True)
    scores = {}
    for precision in ("float32", "bfloat16", "int8"):
        if precision == "int8" and (first.engine.device.type != "cpu" or first.model.network.decoder is not None):
            continue
        predictor = Predictor(first.model, device=wanted.common.device, precision=precision)
        predictor.warm_up(encoded)
        found = predictor.score(records, encoded)
        found["tokens_per_second"] = round(found["tokens"] / max(found["seconds"], 1e-3))
        scores[precision] = found
    return scores
