"""`bothways predict`: label texts, or write some from them, one JSON line a record; a pre-trained model fills masks."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from bothways import config
from bothways.config import FLAT, Common
from bothways.data.messages import shown
from bothways.data.record import Record
from bothways.data.whole import whole
from bothways.errors import ConfigError

if TYPE_CHECKING:
    from bothways.infer.predictor import Predictor

MASK = "[MASK]"  # of every vocabulary


@dataclass(frozen=True)
class Predict:
    """Label texts or the records of a file, or write a text for each; a pre-trained model fills each [MASK]."""

    model: tyro.conf.Positional[str]
    """folder of a model or a run, or a name on the hub; with --url, the name it is served under"""
    text: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """texts to label"""
    data: Path | None = None
    """a file of records to label"""
    out: Path | None = None
    """file for the predictions; none: standard output"""
    url: str | None = None
    """a server (bothways serve) that is asked instead: http://127.0.0.1:8000"""
    api_key: str | None = None
    """the server's; also read from the environment, BOTHWAYS_API_KEY"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text"""
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "float32"
    """what products are computed in; auto: bfloat16 where this machine is fast at it; int8: for a CPU"""
    segment: dict[str, str] = field(default_factory=dict)
    """--segment.dictionary FILE: words to keep whole, one a line; --segment.bonus X: only add X to their scores"""
    qa: dict[str, str] = field(default_factory=dict)
    """--qa.top 3: so many candidates; --qa.threshold 0.7: no answer above that no_answer_score (none: always one)"""
    generate: dict[str, str] = field(default_factory=dict)
    """--generate.beams 4 and other settings of decoding: sample, temperature, top-k, top-p, seed, length-penalty,
    early-stopping, min-length, max-length, no-repeat-ngram, forbidden (words with commas between); long; --seed is that
    of sampling too (a server is sent it beside such a setting)"""
    alignment: Path | None = None
    """generate: a picture of what each word looked at, .html or (for one text) .png"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if bool(self.text) == (self.data is not None):
            alone = "" if self.data else f"; the first word, {shown(self.model)}, names the model: builtin, or a folder"
            raise ConfigError(f"what is to be labelled? give texts, or a file by --data F (one of the two){alone}")
        if self.columns and self.data is None:
            raise ConfigError("--columns is for the file of --data; leave it out")
        if self.alignment is not None:
            if self.url is not None:
                raise ConfigError("--alignment is drawn here, by the model itself; leave --url out and give its folder")
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
    predictions = _here(wanted) if wanted.url is None else _there(wanted, wanted.url)
    if wanted.out is None:
        for prediction in predictions:
            print(json.dumps(prediction, ensure_ascii=False), flush=sys.stdout.isatty())
        return 0
    count = write_lines(wanted.out, predictions)
    if not wanted.common.quiet:
        print(f"{count:,} predictions in {wanted.out}")
    return 0


def _here(wanted: Predict) -> Iterator[Any]:
    """By the model, in this process."""
    from bothways.data.records import read_records
    from bothways.infer.inputs import records_of
    from bothways.infer.predictor import load
    from bothways.tasks.multi import MultiTask

    predictor = load(wanted.model, device=wanted.common.device, precision=wanted.precision, mapped=True)
    for own in (wanted.segment, wanted.qa):
        if own:
            predictor = predictor.with_options(**own)
    predictor = as_asked(predictor, wanted.generate, wanted.common.seed)
    records = records_of(wanted.text) if wanted.data is None else read_records(wanted.data, columns=wanted.columns)
    if wanted.alignment is not None:
        return iter(_drawn(predictor.generate(wanted.text, return_attention=True), wanted.alignment))
    task = predictor.model.task
    return _filled(records, task.masked if isinstance(task, MultiTask) else None, predictor.answering.stream)


def _filled(
    records: Iterator[Record], fills: str | None, answered: Callable[[Iterator[Record]], Iterator[dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """What `answered` gives; a text with [MASK] is filled, as by a pre-trained model, if one of several tasks can.

    Args:
        fills: the name of that task; None: there is none. A record that names its task itself is left to it
    """
    named: deque[str | None] = deque()

    def asked() -> Iterator[Record]:
        for record in records:
            text = record.fields.get("text")
            name = fills if isinstance(text, str) and MASK in text and "task" not in record.fields else None
            named.append(name)
            yield record if name is None else replace(record, fields=record.fields | {"task": name})

    for prediction in answered(asked()):
        name = named.popleft()
        yield prediction if name is None else prediction.pop(name) | prediction


def as_asked(predictor: Predictor, generate: dict[str, str], seed: int) -> Predictor:
    """The predictor with the settings of decoding that --generate.… gives; --seed is that of sampling, unless one does.

    Its default, 0, leaves the seed that is kept with the model.

    Raises:
        ConfigError: a setting that there is not, or a value that can't be.
    """
    if seed and predictor.model.network.decoder is not None:
        generate = {"seed": str(seed)} | generate
    return predictor.with_options(**generate) if generate else predictor


def _there(wanted: Predict, url: str) -> Iterator[Any]:
    """By a server; no model is loaded here.

    Raises:
        ServerError: it can't be reached or refuses.
        DataError: it can't read a record; the message says which.
    """
    from bothways.data.records import read_records
    from bothways.nn.decoding_settings import from_words
    from bothways.serve.client import Client
    from bothways.tasks.dictionary import read_dictionary

    given = {name.replace("-", "_"): value for name, value in (wanted.segment | wanted.qa | wanted.generate).items()}
    options = {name: from_words(name, value) for name, value in given.items()}
    if wanted.generate and wanted.common.seed:  # else it may be no model that writes
        options.setdefault("seed", wanted.common.seed)
    if "dictionary" in wanted.segment:  # a file of ours, which the server can't read
        options["dictionary"] = read_dictionary(Path(wanted.segment["dictionary"]))
    key = wanted.api_key or os.environ.get("BOTHWAYS_API_KEY") or None
    with Client(url, api_key=key, model=wanted.model) as client:
        records = read_records(wanted.text if wanted.data is None else wanted.data, columns=wanted.columns)
        fills = next((one.get("fills") for one in client.models() if one["id"] == wanted.model), None)

        def answered(records: Iterator[Record]) -> Iterator[dict[str, Any]]:
            seen: deque[Record] = deque()

            def sent() -> Iterator[dict[str, Any]]:
                for record in records:
                    seen.append(record)
                    yield record.fields

            for prediction in client.stream(sent(), **options):
                record = seen.popleft()
                if "error" in prediction:
                    raise record.error(re.sub(r"^<records>:\d+: ", "", prediction["error"]))
                yield prediction

        yield from _filled(records, fills, answered)


def _drawn(predictions: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Draw what each word looked at; the predictions without the numbers."""
    from bothways.infer.alignment import alignment_html, alignment_png

    with whole(path) as part:
        if path.suffix == ".png":
            alignment_png(predictions[0], part)
        else:
            part.write_text(alignment_html(predictions), encoding="utf-8")
    hidden = ("attention", "source_tokens", "target_tokens")
    return [{name: value for name, value in one.items() if name not in hidden} for one in predictions]


def write_lines(path: Path, predictions: Iterator[Any]) -> int:
    """A JSON line for each of all predictions, or no file at all."""
    count = 0
    with whole(path) as part, part.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for prediction in predictions:
            file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
            count += 1
    return count
