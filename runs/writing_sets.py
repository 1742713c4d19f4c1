"""The sets that `runs.generate` measures on: texts to be written for texts, with what is odd about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from runs.sets import DataSet, Part

from bothways.data.record import Record
from bothways.tasks.base import Task


@dataclass(frozen=True)
class WritingSet(DataSet):
    """A set of texts for texts.

    kind:       the table it stands in, which says what it is compared with
    max_length: tokens of a source, and of a target that is taught
    written:    tokens of a text that is written, at most
    """

    kind: str = "translation"
    max_length: int = 128
    written: int = 100

    @property
    def group(self) -> str:
        """Its kind."""
        return self.kind

    @property
    def language(self) -> str:
        """Any start will do that reads both."""
        return "both"

    @property
    def as_it_is(self) -> bool:
        """Whether the files' rows are the records."""
        return not self.columns and self.kind != "answers"

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Of a question with its passage: both as the source, every annotator's answer as a target."""
        row = super().record(row)
        if self.kind != "answers":
            return row
        answers = list(dict.fromkeys(row.get("all_answers") or row["answers"]["text"]))
        return row | {"source": f"{row['question']} {row['context']}", "target": answers}

    def scores(self, task: Task, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Of answers also EM and F1 as CMRC2018's script counts them."""
        scores = task.metrics(records, predictions)
        if self.kind == "answers":
            from bothways.metrics.questions import cmrc

            scores |= cmrc([record.fields["target"] for record in records], [one["text"] for one in predictions])
        return scores


DEV, TEST = 200, 1000  # records at most: dev is written after each epoch, and 1,000 tell what all of a test would
METRICS = {  # the first chooses on dev
    "translation": ("bleu", "chrf"),
    "headlines": ("rougeL", "rouge1", "rouge2"),
    "dialogue": ("bleu", "distinct1", "distinct2", "perplexity"),
    "answers": ("rougeL", "f1", "em"),
}
BACK = {"source": "target", "target": "source"}
NO_CAPITALS = "From targets to sources; a vocabulary without capitals writes none, which BLEU counts as wrong."


def _set(name: str, kind: str, folder: str, **more: Any) -> WritingSet:
    one = WritingSet(name, "generate", folder, METRICS[kind], kind=kind, **more)
    flags = ("--generate.long", "first", "--generate.criterion", METRICS[kind][0])
    flags += ("--batching.max-length", str(one.max_length), "--generate.decoding.max-length", str(one.written))
    dev, test = Part(f"{folder}/dev", limit=DEV), Part(f"{folder}/test", limit=TEST)
    return replace(one, flags=flags, dev=dev, tests={"test": test})


SETS = [
    *(
        _set(f"{name}_{way}", "translation", f"zh/translation/{name}_en_zh", columns=columns, note=note, **sizes)
        for name, sizes in (("tatoeba", {"max_length": 64, "written": 64}), ("ted", {}), ("tech", {}))
        for way, columns, note in (("en_zh", {}, ""), ("zh_en", BACK, NO_CAPITALS))
    ),
    _set("classical_to_modern", "translation", "zh/translation/classical_to_modern"),
    _set("xwlb_headline", "headlines", "zh/summarization/xwlb_headline", max_length=256, written=48),
    _set("lcsts_human", "headlines", "zh/summarization/lcsts_human", max_length=160, written=48),
    _set(
        "bbc_headlines",
        "headlines",
        "en/summarization/bbc_headlines",
        max_length=256,
        written=32,
        note="The beginning of each article is read.",
    ),
    _set("kdconv", "dialogue", "zh/dialogue/kdconv", note="The source is up to three turns."),
    _set(
        "cmrc2018",
        "answers",
        "zh/qa/cmrc2018",
        max_length=512,
        written=48,
        note="All annotators' answers count; the end of a long passage is not read.",
    ),
]
