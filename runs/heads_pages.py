"""The rows of `runs.heads` as tables of docs/results.md."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.finetune import mean_and_deviation
from runs.heads_data import OPEN, RESEARCH, Head
from runs.pages import NAMES
from runs.rows import Row

SECTION = """## Heads of one shared encoder

    command    runs/heads.sh START [--research [--only HEAD …]]   (python -m runs.heads)

Percentages on test records; with several seeds, means ± sample deviation. `open` heads are those of the built-in
model, learnt from data whose licences let it be given away; `research` heads are for measuring. Words are given for
parts of speech and English entities; "in raw text" is what `analyze` finds by exact places, with its own words.
"""
WANTED = {  # of each head on a set, and what is known of others there
    ("words", "zh/segmentation/gsdsimp"): ("94, aim 97", ""),
    ("words", "zh/segmentation/pku"): ("95.0, aim 96.5", "BERT-base 96.5"),
    ("zh_entities", "zh/ner/uner_gsdsimp"): ("70, aim 85", "XLM-R-large 88 to 90"),
    ("zh_entities", "zh/ner/msra"): ("88, aim 93", "BERT-base 95.2"),
    ("en_entities", "en/ner/uner_ewt"): ("65, aim 80", "XLM-R-large 85 to 88"),
    ("en_entities", "en/ner/conll2003"): ("82, aim 88", "BERT-base 92.4"),
    ("en_pos", "en/pos/ud_english_ewt"): ("92, aim 96", ""),
    ("zh_pos", "zh/pos/ud_gsd_v1"): ("90, aim 94", ""),
}


def heads_section(rows: Sequence[Row]) -> str:
    """All tables; nothing where nothing is measured. Of heads that were made several times, the latest."""
    lines = [
        "| heads | task | test | system | seeds | scores | wanted | published |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, heads in (("open", OPEN), ("research", RESEARCH)):
        for head in heads:
            of_kind = [row for row in rows if row.get("heads") == kind and "head" in row]
            own = _latest([row for row in of_kind if row["head"] == head.name])
            earlier = bool(own) and own[-1].get("weights") != of_kind[-1].get("weights")
            for name in head.tests:
                lines += _lines(kind, head, name, own, rows, earlier=earlier)
    return "\n".join([SECTION, *lines, ""]) if len(lines) > 2 else ""


def _latest(rows: Sequence[Row]) -> list[Row]:
    """The rows of the way that was gone last: its start, length, rate and whatever else was set."""
    amounts = ("silver", "text", "vectors", "english", "search", "questions")
    settings = ("weights", "length", "lr", "batch", *amounts, "shares", "more", "only", "quick")
    return [row for row in rows if all(row.get(name) == rows[-1].get(name) for name in settings)]


def _lines(kind: str, head: Head, name: str, own: Sequence[Row], rows: Sequence[Row], *, earlier: bool) -> list[str]:
    """One head's rows on one test; `earlier`: they began from another model than the latest of their kind."""
    measured = [
        (measure, system, [row["scores"] for row in own if (row["measure"], row.get("set"), row.get("head")) == where])
        for measure, system in (("test", "its own task"), ("raw", "in raw text"))
        for where in [(measure, name, head.name)]
    ]
    if not measured[0][2]:
        return []
    others = [row for row in rows if (row["measure"], row.get("set"), row.get("head")) == ("jieba", name, head.name)]
    wanted, published = WANTED.get((head.name, name), ("", ""))
    lines = []
    if others:
        scores = others[-1]["scores"]
        lines.append(f"| {kind} | {head.name} | {name} | jieba {others[-1]['version']} | – | {_told([scores])} | | |")
    for measure, system, scores in measured:
        if scores:
            system += ", from the model before" if earlier else ""
            ends = (wanted, published) if measure == "test" else ("", "")
            lines.append(
                f"| {kind} | {head.name} | {name} | {system} | {len(scores)} | {_told(scores)} | {' | '.join(ends)} |"
            )
    return lines


def _told(scores: Sequence[Row]) -> str:
    return ", ".join(f"{NAMES[name]} {mean_and_deviation([one[name] for one in scores])}" for name in scores[0])
