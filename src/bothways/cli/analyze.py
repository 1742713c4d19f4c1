"""`bothways analyze`: words, parts of speech, entities and labels of texts, in colour, or one JSON line a text."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from bothways import config
from bothways.cli.predict import write_lines
from bothways.config import FLAT, Common
from bothways.errors import ConfigError

if TYPE_CHECKING:
    from rich.text import Text

_PATH = re.compile(r"[\w.~-]*(/[\w.-]+)+/?", re.ASCII)  # a folder, or a repository on the hub
_NAME = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)  # what might be meant as a folder

# Universal parts of speech, and the letters that Chinese tag sets begin theirs with.
_POS_STYLES = {
    **dict.fromkeys(("NOUN", "n"), "cyan"),
    **dict.fromkeys(("PROPN", "nr", "ns", "nt", "nz"), "bold cyan"),
    **dict.fromkeys(("VERB", "AUX", "v"), "green"),
    **dict.fromkeys(("ADJ", "a"), "yellow"),
    **dict.fromkeys(("ADV", "d"), "magenta"),
    **dict.fromkeys(("NUM", "m"), "blue"),
}
_ENTITY_STYLES = ("black on bright_cyan", "black on bright_yellow", "black on bright_green", "black on bright_magenta")
_LABEL_STYLES = {"positive": "bold green", "negative": "bold red"}


@dataclass(frozen=True)
class Analyze:
    """Find words, parts of speech, entities and labels in texts, by all heads of a model in one pass."""

    given: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """first the folder of a model or a run, or a name on the hub (left out: the built-in model), then texts"""
    data: Path | None = None
    """a file of records to analyse"""
    out: Path | None = None
    """file for one JSON line a text; none: standard output"""
    json: bool = False
    """one JSON line a text instead of lines to read"""
    dictionary: Path | None = None
    """Chinese words to keep whole, one a line"""
    bonus: float | None = None
    """only add so much to the scores of the dictionary's words"""
    vector: bool = False
    """also the text's vector (in JSON)"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text"""
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "float32"
    """what products are computed in; auto: bfloat16 where this machine is fast at it; int8: for a CPU"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if self.data is not None and len(self.given) > 1:
            raise ConfigError("what is to be analysed? give texts, or a file by --data F (one of the two)")
        if self.data is None and not self.parted[1]:
            raise ConfigError('what is to be analysed? give a text: bothways analyze [DIR] "…", or a file by --data F')

    @property
    def parted(self) -> tuple[str, list[str]]:
        """The model and the texts."""
        if not self.given:
            return "builtin", []
        first, *rest = self.given
        named = first == "builtin" or os.path.isdir(first) or (bool(rest) and _PATH.fullmatch(first) is not None)
        return (first, rest) if named or self.data is not None else ("builtin", self.given)


def run(argv: list[str]) -> int:
    """Print or write what is found."""
    wanted = config.load(Analyze, argv, prog="bothways analyze")
    if wanted.out is not None and wanted.out.exists():
        raise ConfigError(f"--out {wanted.out} exists already; give another file, or remove it first")
    texts = wanted.parted[1]
    if len(texts) > 1 and texts == wanted.given and _NAME.fullmatch(texts[0]) and not wanted.common.quiet:
        print(f"{texts[0]}: there is no such model folder, so it is analysed as a text", file=sys.stderr)
    found = _found(wanted)
    if wanted.out is not None:
        count = write_lines(wanted.out, found)
        if not wanted.common.quiet:
            print(f"{count:,} texts analysed in {wanted.out}")
    elif wanted.json:
        for one in found:
            print(json.dumps(one, ensure_ascii=False), flush=sys.stdout.isatty())
    else:
        show(found)
    return 0


def _found(wanted: Analyze) -> Iterator[dict[str, Any]]:
    from bothways.data.records import read_records
    from bothways.infer.inputs import records_of
    from bothways.infer.predictor import load

    name, texts = wanted.parted
    options = {"dictionary": wanted.dictionary, "bonus": wanted.bonus, "vector": wanted.vector}
    predictor = load(name, device=wanted.common.device, precision=wanted.precision, mapped=True).analyzer(
        **{key: value for key, value in options.items() if value is not None}
    )
    records = records_of(texts) if wanted.data is None else read_records(wanted.data, columns=wanted.columns)
    return predictor.stream(records)


# ------------------------------------------------------------------------------------------- for people to read


def show(found: Iterable[Mapping[str, Any]]) -> None:
    """Print what is found to be read; in colour on a terminal, unless NO_COLOR is set."""
    from rich.console import Console
    from rich.padding import Padding

    console = Console(soft_wrap=not sys.stdout.isatty(), highlight=False, markup=False, emoji=False)
    for number, one in enumerate(found):
        if number:
            console.print()
        for name, text in lines(one):
            console.print(escaped(name), style="bold")
            console.print(Padding(text, (0, 0, 0, 2)) if sys.stdout.isatty() else text)


def lines(found: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    """What is found in one text, part by part: a heading and a line that may be wrapped."""
    from rich.text import Text

    text = found["text"]
    if "entities" in found:
        yield "text", _marked(text, found["entities"])
    for name, value in found.items():
        if name == "words":
            line = Text()
            for word in value:
                line.append(escaped(word["text"]), style=_pos_style(word.get("pos")))
                line.append(f"/{word['pos']}  " if "pos" in word else "  ", style="dim")
            line.rstrip()
            yield name, line
        elif name == "entities":
            said = [f"{escaped(one['text'])} {one['label']} ({one['start']}-{one['end']})" for one in value]
            yield name, Text("  ".join(said) or "none")
        elif isinstance(value, dict) and "label" in value:
            line = Text(escaped(value["label"]), style=_LABEL_STYLES.get(value["label"].lower(), "bold"))
            yield name, line.append(f" {100 * value['score']:.0f} %", style="dim")
    tokens = found["tokens"]
    if tokens.get("dropped"):
        yield "tokens", Text(f"{tokens['dropped']:,} of {tokens['kept'] + tokens['dropped']:,} could not be read")


def _marked(text: str, entities: Sequence[Mapping[str, Any]]) -> Text:
    """The text with its entities marked, each with its label."""
    from rich.text import Text

    styles: dict[str, str] = {}
    line, at = Text(), 0
    for one in entities:
        style = styles.setdefault(one["label"], _ENTITY_STYLES[len(styles) % len(_ENTITY_STYLES)])
        line.append(escaped(text[at : one["start"]]))
        line.append(escaped(text[one["start"] : one["end"]]), style=style).append(f"[{one['label']}]", style="dim")
        at = one["end"]
    return line.append(escaped(text[at:]))


def _pos_style(pos: str | None) -> str:
    return "" if pos is None else _POS_STYLES.get(pos) or _POS_STYLES.get(pos[:1].lower() if pos.islower() else "", "")


def escaped(text: str) -> str:
    """Control characters as Python writes them: a text must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
