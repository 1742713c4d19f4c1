"""The card of the built-in model: data and licences, how it was made, what it scores; then its encoder's own card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from runs.heads_data import Head
from runs.rows import Row, Rows

from bothways.models.reading import Advice

BEGAN_FROM = "\n## The encoder that it began from\n"
FIRST = """# The built-in model

One small encoder for Chinese and English. It {masks}gives vectors, is a start for fine-tuning, and has heads for
words, parts of speech, entities and the field of a text, all answered in one pass: `bothways analyze "…"`.

| head | trained on | licence | scores on its test |
|---|---|---|---|"""
SCORED = """
One seed; words are given for parts of speech and English entities. Scores are of this folder's weights: 8-bit whole
numbers with a scale a row, and float32 for the heads."""
REMEMBERED = """
Masked words of held-out Wikipedia (whole words, 15 %), of the model that it began from and of this one:

| | loss before | loss | accuracy before | accuracy |
|---|---|---|---|---|"""
HOW = """
## How

`runs/heads.sh` is the whole recipe: the heads, all in each step{beside}.{again}"""
AGAIN = """
It began from the built-in model before it, which was made in the same way from the encoder that is told of below."""
READ = "It read {:.1f} million tokens in this run."
SILVER = """; beside them what jieba's
dictionary (MIT) says of {:,} characters of Chinese Wikipedia (CC BY-SA)"""
TEXT = """; masked words of raw Wikipedia
(CC BY-SA), {:,} Chinese characters and thrice as many English ones, masked anew in each epoch"""
QUESTIONS = """; questions made from raw
Wikipedia (`runs/cloze.py`), {:,} of each language, so that it doesn't forget how to search a text"""
VECTORS = """; and, from all-MiniLM-L6-v2
(Apache-2.0), its vectors of Tatoeba's English sentences for these and their Chinese translations (CC BY 2.0 FR), and of
{:,} sentences of English Wikipedia (CC BY-SA)"""
ENGLISH = """; the same teacher's
vectors of all words in {:,} characters of English Wikipedia (CC BY-SA) and of 19th-century novels (public domain)"""
SEARCH = """; and {:,} sentences of
Wikipedia, half of each language, with what stands around them, and questions of CMRC2018 (CC BY-SA 4.0) with their
passages, each to be told from the others of its step"""
ADVICE = """
A fine-tuning that is told nothing else learns by {method} at a rate of {rate:g}{writing}. \
That was compared on sentiment (ChnSentiCorp, one seed: 1.4 points better than AdamW) \
and on writing, not on other tasks."""
WRITING = ", a writer by AdamW at {:g}"
LIMITS = """
The tags of Chinese words were made on traditional characters; they are taken for the simplified words of the same
sentences where all words of a sentence have the same lengths.

What the encoder scores fine-tuned on each task is in docs/results.md of the project.

## What its heads can't do

There is none for sentiment: no set of reviews at hand has a licence that lets a model made from it be given away.
`runs/heads.sh --research` trains heads on sets for research only (PKU's words, MSRA's and CoNLL-2003's entities,
ChnSentiCorp's and SST-2's sentiment, TNEWS' topics), to measure and for your own use; none of them is in this folder.
The topic head knows the thirteen fields of Chinese scientific abstracts and no others, and judges a long text by its
first window. Texts are read in windows of 128 tokens. Entities are those of treebanks: persons, places, organisations.
"""


def card(rows: Rows, key: Row, heads: Sequence[Head], start: Path, advice: Advice | None = None) -> str:
    """The card of the model whose rows have this key, which began from the folder `start`."""
    matter, began = _card_of_start(start)
    lines = [matter, "", FIRST.format(masks="fills masks, " if key["text"] else "")]
    for head in heads:
        row = rows.found({"measure": "test", "head": head.name} | key)
        told = "" if row is None else ", ".join(f"{name} {100 * row['scores'][name]:.1f}" for name in head.metrics)
        lines.append(f"| {head.name} | {head.source or head.tests[0]} | {head.licence} | {told} |")
    lines.append(SCORED)
    if key["text"]:
        lines += [REMEMBERED, *_remembered(rows, key)]
    forms = {"silver": SILVER, "text": TEXT, "questions": QUESTIONS, "vectors": VECTORS}
    forms |= {"english": ENGLISH, "search": SEARCH}
    beside = "".join(form.format(key[name]) for name, form in forms.items() if key.get(name))
    lines.append(HOW.format(beside=beside, again=AGAIN if key.get("start") == "builtin" else ""))
    if tokens := (rows.found({"measure": "dev"} | key) or {}).get("tokens"):
        lines.append(READ.format(tokens / 1e6))
    if advice is not None:
        writing = WRITING.format(advice.writing_lr) if advice.writing_lr else ""
        method = {"muon": "Muon", "adamw": "AdamW"}[advice.method]
        lines.append(ADVICE.format(method=method, rate=advice.lr, writing=writing))
    lines += ["", *(f"- {name}: {value}" for name, value in key.items() if value not in ("", False)), LIMITS]
    return "\n".join(lines) + began


def _remembered(rows: Rows, key: Row) -> list[str]:
    """A line a language."""
    wanted = (
        {"measure": "masked before", "weights": key["weights"], "quick": key["quick"]},
        {"measure": "masked"} | key,
    )
    lines = []
    for language, name in (("zh", "Chinese"), ("en", "English")):
        found = [rows.found(one | {"language": language}) for one in wanted]
        told = [
            "" if row is None else form.format(row["scores"][metric])
            for metric, form in (("masked_loss", "{:.3f}"), ("masked_accuracy", "{:.1%}"))
            for row in found
        ]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return lines


def _card_of_start(folder: Path) -> tuple[str, str]:
    """The front matter of the start's card, and what it says of the encoder, as a section of ours."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.match(r"---\n.*?\n---", text, re.DOTALL)
    matter = found[0] if found else "---\nlanguage: [zh, en]\nlicense: cc-by-sa-4.0\n---"
    body = text[found.end() :] if found else text
    if BEGAN_FROM in body:  # that start has had heads
        return matter, BEGAN_FROM + body.split(BEGAN_FROM, 1)[1]
    body = re.sub(r"\A\s*# .*\n", "", body)
    return matter, BEGAN_FROM + re.sub(r"^#", "##", body, flags=re.MULTILINE) if body.strip() else ""
