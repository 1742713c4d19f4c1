"""What sentence vectors are learnt from: pairs, grades, plain texts, and an English teacher's vectors.

Licences are those of the SOURCES.md beside the data: what is made by an `open` lesson may be passed on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from runs.rows import Row, read_records
from runs.silver import folded

from bothways.data.documents import documents
from bothways.text.words import sentence_ends

PASSAGE = 300  # characters of a passage that a question is learnt with: its beginning says what it is about
SENTENCES = 30_000  # of Wikipedia
LENGTH = (20, 300)  # characters of a sentence that is taken; half as many of a Chinese one
AROUND, KEPT = 450, 0.3  # characters of what stands around a sentence, a third of Chinese; how often with it
WIKIPEDIA = {"en": "en/rawtext/wikipedia_2015", "zh": "zh/rawtext/wikipedia_zh"}
Split = str  # "train" or "dev"


@dataclass(frozen=True)
class Lesson:
    """Records to learn from, and how.

    make:   the records of train and dev, from the folder of the data
    taught: the records are first given to the teacher, whose vectors are then learnt
    open:   every source may be passed on, and so may what was learnt
    told:   what the records are, in words
    """

    name: str
    languages: tuple[str, ...]
    make: Callable[[Path, Split], list[Row]]
    told: str
    open: bool
    taught: bool = False
    epochs: int = 3
    batch: int = 64
    flags: tuple[str, ...] = ()


def questions(shared: Path, split: Split) -> list[Row]:
    """Each question with the passage that answers it."""
    folder = shared / "zh/retrieval/cmrc_passage"
    passages = {row["_id"]: row["text"][:PASSAGE] for row in read_records(folder / "corpus.jsonl.gz")}
    asked = {row["_id"]: row["text"] for row in read_records(folder / f"queries.{split}.jsonl.gz")}
    judged = read_records(folder / f"qrels.{split}.jsonl.gz")
    found = [{"text_a": asked[row["query_id"]], "text_b": passages[row["corpus_id"]]} for row in judged]
    return [row for row in found if row["text_a"]]  # two of dev's questions are blank


def _labelled(path: Path, label: str) -> list[Row]:
    rows = [row for row in read_records(path) if row["label"] == label]
    return [{"text_a": row["text_a"], "text_b": row["text_b"]} for row in rows]


def open_pairs(shared: Path, split: Split) -> list[Row]:
    """What follows from what: entailments of SNLI, and of SciTail's only part with a licence to train on."""
    own = _labelled(shared / f"en/pair/snli_small/{split}.jsonl.gz", "entailment")
    return own + (_labelled(shared / "en/pair/scitail_small/dev.jsonl.gz", "entails") if split == "train" else [])


def pairs(shared: Path, split: Split) -> list[Row]:
    """The same with Quora's questions that ask the same."""
    return open_pairs(shared, split) + _labelled(shared / f"en/pair/qqp_small/{split}.jsonl.gz", "duplicate")


def grades(shared: Path, split: Split) -> list[Row]:
    """How alike two sentences are, from 0 to 5, in both languages."""
    files = [shared / f"{folder}/{split}.jsonl.gz" for folder in ("en/pair/stsb", "zh/pair/stsb_zh")]
    return [{name: row[name] for name in ("text_a", "text_b", "label")} for file in files for row in read_records(file)]


def texts(shared: Path, split: Split) -> list[Row]:
    """Sentences of Wikipedia by themselves, as many of each language."""
    few = SENTENCES // 2 if split == "train" else SENTENCES // 60
    return [{"text": text} for language in ("en", "zh") for text in sentences(shared, language, split, few)]


def passages(shared: Path, split: Split, count: int = SENTENCES, without: Collection[str] = ()) -> list[Row]:
    """A sentence, and what stands around it in its paragraph, often with it: as many of each language.

    None of a paragraph that has one of the sentences of `without`, in half-width characters.

    Reference: Lee et al., 2019, "Latent Retrieval for Weakly Supervised Open Domain Question Answering": inverse cloze.
    """
    found = []
    for language, folder in WIKIPEDIA.items():
        draw, own = random.Random(f"{language} {split}"), []
        longest = AROUND if language == "en" else AROUND // 3
        few = (count if split == "train" else count // 60) // len(WIKIPEDIA)
        for document in documents(sorted((shared / folder).glob(f"{split}*.txt.xz"))):
            paragraph = draw.choice(document.paragraphs)
            ends = sentence_ends(paragraph)
            parts = [paragraph[start:end] for start, end in zip([0, *ends], ends, strict=False)]
            at = draw.randrange(len(parts)) if len(parts) > 2 else None
            if at is None or len(parts[at]) < LENGTH[0] // 2 or any(folded(part.strip()) in without for part in parts):
                continue
            first = max(0, at - draw.randint(1, 2))
            around = [*parts[first:at], *parts[at if draw.random() < KEPT else at + 1 :]]
            own.append({"text_a": parts[at].strip()[:longest], "text_b": "".join(around).strip()[:longest]})
            if len(own) == few:
                break
        found += [row for row in own if row["text_b"]]
    return found


def translations(shared: Path, split: Split, others: int = SENTENCES) -> list[Row]:
    """English sentences with a translation, and to train on, so many others without."""
    rows = read_records(shared / f"zh/translation/tatoeba_en_zh/{split}.jsonl.gz")
    found = [{"text": row["source"], "translation": row["target"]} for row in rows]
    return found + ([{"text": one} for one in sentences(shared, "en", split, others)] if split == "train" else [])


def sentences(shared: Path, language: str, split: Split, count: int) -> list[str]:
    """So many sentences of Wikipedia at most, two of a paragraph, in the order of the articles."""
    folder = shared / WIKIPEDIA[language]
    least, most = LENGTH if language == "en" else (LENGTH[0] // 2, LENGTH[1] // 2)
    found: dict[str, None] = {}
    for document in documents(sorted(folder.glob(f"{split}*.txt.xz"))):
        for paragraph in document.paragraphs:
            ends = sentence_ends(paragraph)[:2]
            own = [paragraph[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]
            found |= dict.fromkeys(text for text in own if least <= len(text) <= most)
        if len(found) >= count:
            break
    return list(found)[:count]


LESSONS = {
    lesson.name: lesson
    for lesson in (
        Lesson(
            "questions",
            ("zh",),
            questions,
            f"questions of CMRC2018 with the first {PASSAGE} characters of their passages (CC BY-SA 4.0)",
            open=True,
        ),
        Lesson(
            "open pairs", ("en",), open_pairs, "entailments of SNLI (CC BY-SA 4.0) and SciTail (Apache-2.0)", open=True
        ),
        Lesson(
            "pairs",
            ("en",),
            pairs,
            "the same and Quora's duplicates (non-commercial): to measure, not to pass on",
            open=False,
        ),
        Lesson(
            "texts",
            ("en", "zh"),
            texts,
            f"{SENTENCES:,} sentences of English and Chinese Wikipedia (CC BY-SA), each with itself (SimCSE)",
            open=True,
            epochs=1,
        ),
        Lesson(
            "passages",
            ("en", "zh"),
            passages,
            f"{SENTENCES:,} sentences of English and Chinese Wikipedia (CC BY-SA) with what stands around them",
            open=True,
            epochs=1,
        ),
        Lesson(
            "teacher",
            ("en", "zh"),
            translations,
            "all-MiniLM-L6-v2's vectors (Apache-2.0) of Tatoeba's English sentences, for these and their Chinese "
            f"translations (CC BY 2.0 FR), and of {SENTENCES:,} sentences of English Wikipedia (CC BY-SA 3.0)",
            open=True,
            taught=True,
        ),
        Lesson(
            "grades",
            ("en", "zh"),
            grades,
            "train of STS-B in English and in machine-made Chinese (a mixture of licences): to measure, not to pass on",
            open=False,
        ),
    )
}
COURSES: tuple[tuple[str, ...], ...] = (  # one lesson after the other
    ("questions",),
    ("open pairs",),
    ("pairs",),
    ("texts",),
    ("passages",),
    ("passages", "questions"),
    ("teacher",),
    ("teacher", "questions"),
    ("teacher", "grades"),
)


def languages(course: Sequence[str]) -> tuple[str, ...]:
    """Those that a course is examined in: English, Chinese or both."""
    return tuple(one for one in ("en", "zh") if any(one in LESSONS[name].languages for name in course))
