"""The demo's text: the documentation inside Python's standard library, read from its source, nothing imported."""

from __future__ import annotations

import ast
import json
import random
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bothways.errors import DataError
from bothways.text.words import sentence_ends

MODULES = 10
HELD_OUT = 0.15  # share of the docstrings that go to dev, and as much to test
_MANUAL = "pydoc_data"  # the topics of Python's `help()`: read in pre-training, but no module of its own
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_SENTENCE = re.compile(r"[A-Z`\"'(].*[.!?][)\"'`]*")


@dataclass(frozen=True)
class Docstring:
    """What one module, class, function or help topic says of itself."""

    module: str  # the top-level module or package it stands in
    text: str

    @property
    def paragraphs(self) -> list[str]:
        """Its prose, a line each; examples of code are left out."""
        joined = (" ".join(part.split()) for part in re.split(r"\n\s*\n", self.text) if ">>>" not in part)
        return [paragraph for paragraph in joined if paragraph]

    @cached_property
    def sentences(self) -> list[str]:
        """Those of its sentences that begin and end as sentences do and have 5 to 60 words."""
        found = []
        for paragraph in self.paragraphs:
            start = 0
            for end in sentence_ends(paragraph):
                sentence, start = paragraph[start:end].strip(), end
                if 5 <= len(sentence.split()) <= 60 and _SENTENCE.fullmatch(sentence):
                    found.append(sentence)
        return found


@dataclass(frozen=True)
class DemoText:
    """The files that the demo trains on: raw text to read, and sentences whose module is to be told."""

    read: Path
    read_dev: Path
    train: Path
    dev: Path
    test: Path
    labels: list[str]
    sentences: dict[str, int]  # in train, dev and test


def write_text(folder: Path, *, seed: int, library: Path | None = None, modules: int = MODULES) -> DemoText:
    """Write the demo's files; the label of a sentence is one of the modules with the most sentences.

    Whole docstrings go to train, dev or test, a sentence that stands twice stays where it came first, and no
    docstring with a sentence of dev or test is read in pre-training.

    Raises:
        DataError: the library's source is not there, or holds too few sentences.
    """
    root = library or Path(sysconfig.get_path("stdlib"))
    docstrings = list(read_library(root))
    labels = _most_documented(docstrings, modules)
    if len(labels) < 2:
        raise DataError(
            f"{len(labels)} documented modules were found, at least 2 are wanted; is the standard library's source "
            "(its .py files) installed?",
            path=root,
        )
    parts = _parted([one for one in docstrings if one.module in labels], seed)
    seen: set[str] = set()
    records = {name: list(_records(parts[name], seen)) for name in ("train", "dev", "test")}

    held_out = {key(record["text"]) for name in ("dev", "test") for record in records[name]}
    kept = [one for one in docstrings if held_out.isdisjoint(map(key, one.sentences))]
    held_back = [one for one in parts["dev"] if not held_out.isdisjoint(map(key, one.sentences))]
    folder.mkdir(parents=True)
    return DemoText(
        read=_write(folder / "documentation.txt", "\n\n".join("\n".join(one.paragraphs) for one in kept)),
        read_dev=_write(folder / "held-out.txt", "\n\n".join("\n".join(one.paragraphs) for one in held_back)),
        labels=labels,
        sentences={name: len(rows) for name, rows in records.items()},
        **{
            name: _write(folder / f"{name}.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
            for name, rows in records.items()
        },
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    """The sentences of one of the labelled files, with their labels."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _most_documented(docstrings: Sequence[Docstring], modules: int) -> list[str]:
    """The names of the modules with the most sentences, sorted."""
    counts: Counter[str] = Counter()
    for one in sorted(docstrings, key=lambda one: one.module):
        counts[one.module] += len(one.sentences)
    del counts[_MANUAL]
    return sorted(module for module, count in counts.most_common(modules) if count)


def _parted(docstrings: list[Docstring], seed: int) -> dict[str, list[Docstring]]:
    random.Random(seed).shuffle(docstrings)
    cut = int(HELD_OUT * len(docstrings))
    return {"test": docstrings[:cut], "dev": docstrings[cut : 2 * cut], "train": docstrings[2 * cut :]}


def _write(path: Path, text: str) -> Path:
    path.write_text(text + "\n", encoding="utf-8")
    return path


def key(sentence: str) -> str:
    """What two sentences share that count as one: their letters, without case and white space."""
    return "".join(sentence.casefold().split())


def read_library(folder: Path) -> Iterator[Docstring]:
    """Every docstring under `folder`, in the order of the files' names, and the topics of Python's `help()`."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if _LEFT_OUT.isdisjoint(parts) and not parts[0].startswith("config-"):
            module = parts[0].removesuffix(".py")
            # Half a surrogate pair, as some docstrings have, cannot be written to a file.
            yield from (Docstring(module, text.encode(errors="replace").decode()) for text in _texts(path) if text)


def _texts(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in the library's own strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # some of its files are broken on purpose, to test its parsers
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.Dict) and path.parent.name == _MANUAL:
            texts = (value.value for value in node.values if isinstance(value, ast.Constant))
            yield from (text for text in texts if isinstance(text, str))


def _records(docstrings: Sequence[Docstring], seen: set[str]) -> Iterator[dict[str, str]]:
    for one in docstrings:
        for sentence in one.sentences:
            if key(sentence) not in seen:
                seen.add(key(sentence))
                yield {"text": sentence, "label": one.module}


def swapped(rows: Sequence[dict[str, str]], *, seed: int) -> list[dict[str, str]]:
    """The sentences, every second one with two neighbouring words exchanged; the label says which."""
    chance = random.Random(seed)
    found = []
    for number, row in enumerate(rows):
        words = row["text"].split()
        # The first and last word stay: their capital and full stop would give it away.
        places = [at for at in range(1, len(words) - 2) if words[at].lower() != words[at + 1].lower()]
        label = "swapped" if number % 2 and places else "as written"
        if label == "swapped":
            at = chance.choice(places)
            words[at : at + 2] = reversed(words[at : at + 2])
        found.append({"text": " ".join(words), "label": label})
    return found
