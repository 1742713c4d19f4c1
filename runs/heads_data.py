"""What the built-in model's heads are trained on: which sets, under which licences, and their records made ready."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from runs.lessons import WIKIPEDIA
from runs.rows import Row
from runs.silver import folded, raw_texts

GSD = "zh/segmentation/gsdsimp"
TREEBANKS = 2  # times in an epoch: they are small beside what is learnt with them
TOGETHER = 90  # characters: a record may be several sentences up to about so many, as the texts are that users have


@dataclass(frozen=True)
class Head:
    """A task of the model, and the sets that its test scores are of."""

    name: str
    task: str
    tests: tuple[str, ...]
    metrics: tuple[str, ...]
    settings: tuple[str, ...] = ()
    licence: str = ""
    """of what it is trained on, where that lets a derived model be given away"""
    source: str = ""
    """the publication of that set, as its licence wants it named"""


SPANS, PLAIN = ("f1", "precision", "recall"), ("token_accuracy",)
CC = "CC BY-SA 4.0"
# So that the encoder forgets neither how to fill masks nor what to gather in [CLS].
TEXT = Head("masked", "masked", (), (), ("mask_rate = 0.2", "whole_words = 0.5", "cls_words = 6"), licence="CC BY-SA")
# So that it knows more Chinese words than a treebank has.
SILVER = Head("silver", "tag", (), ())
# So that a text's vector, the mean of its rows, says what the text means; a teacher says what that is.
VECTORS = Head("vectors", "embed", (), (), licence="CC BY, CC BY-SA, Apache-2.0")
# So that it doesn't forget how to search one text for what another says (`runs/cloze.py`).
QUESTIONS = Head("questions", "qa", (), (), licence="CC BY-SA")
# So that it knows of English words in their sentences what its teacher knows, whose layers it began from.
ENGLISH = Head("english", "embed", (), (), ('taught = "word"',), licence="CC BY-SA, Apache-2.0")
# So that a text's vector is near that of a text about the same thing, as search wants it.
SEARCH = Head("search", "embed", (), (), licence="CC BY-SA")
# A mean of few records is so uncertain that, unweighted, its gradient is several times that of all heads together (of
# one question twenty times), and the encoder learns little from these.
WEIGHTS = {QUESTIONS.name: 0.05, SEARCH.name: 0.15, ENGLISH.name: 2.0}
RAW = {"zh": (WIKIPEDIA["zh"], 1, 150), "en": (WIKIPEDIA["en"], 3, 450)}
"""Raw text by language: its folder, characters for each Chinese one, and characters of a record at most."""
NOVELS = "en/rawtext/novels_19c"  # Wikipedia has next to no feelings in it
GSD_SOURCE, EWT = "UniversalNER/UNER_Chinese-GSDSIMP", "UniversalDependencies/UD_English-EWT"
OPEN = (
    Head("words", "segment", (GSD,), ("f1", "r_oov", "r_iv"), (), CC, f"{GSD_SOURCE}, words of UD_Chinese-GSDSimp"),
    Head(
        "zh_pos",
        "tag",
        ("zh/pos/ud_gsd_v1",),
        PLAIN,
        licence=f"{CC} since its release 2.5",
        source="UniversalDependencies/UD_Chinese-GSD, release 1.3",
    ),
    Head("zh_entities", "tag", ("zh/ner/uner_gsdsimp",), SPANS, (), CC, GSD_SOURCE),
    Head("en_pos", "tag", ("en/pos/ud_english_ewt",), PLAIN, (), CC, EWT),
    Head("en_entities", "tag", ("en/ner/uner_ewt",), SPANS, (), CC, "UniversalNER/UNER_English-EWT"),
    Head(
        "zh_topic",
        "classify",
        ("zh/classification/csl_category",),
        ("accuracy", "macro_f1"),
        licence="Apache-2.0",
        source="ydli-ai/CSL",
    ),
)
RESEARCH = (
    Head("words", "segment", ("zh/segmentation/pku",), ("f1", "r_oov", "r_iv")),
    Head("zh_entities", "tag", ("zh/ner/msra",), SPANS),
    Head("en_entities", "tag", ("en/ner/conll2003",), SPANS),
    Head("zh_sentiment", "classify", ("zh/sentiment/chnsenticorp",), ("accuracy",), ('long = "mean"',)),
    Head("en_sentiment", "classify", ("en/classification/sst2",), ("accuracy",)),
    Head("zh_topic", "classify", ("zh/classification/tnews",), ("accuracy",)),
)


Read = Callable[[str, str], list[Row]]  # the records of a set's split


def records(heads: Sequence[Head], read: Read, split: str, *, research: bool) -> list[Row]:
    """All records of a split; one text with labels of several heads is one record for all of them."""
    if research:
        return [{"task": head.name} | prepared(head, row) for head in heads for row in read(head.tests[0], split)]
    draw = random.Random(split) if split == "train" else None
    topics = heads[-1]
    made = [
        *(
            row
            for _ in range(1 if draw is None else TREEBANKS)
            for sentences in (chinese(read, split), english(read, split))
            for row in joined(sentences, draw)
        ),
        *({"task": topics.name} | prepared(topics, row, draw) for row in read(topics.tests[0], split)),
    ]
    if draw is not None:
        draw.shuffle(made)
    return made


def raw_records(shared: Path, characters: int, without: set[str]) -> list[Row]:
    """Raw text for the masked-LM head: so many Chinese characters, and as many tokens of English."""
    return [
        {"task": TEXT.name, "text": text}
        for folder, share, longest in RAW.values()
        for text in raw_texts(shared / folder, characters=share * characters, without=without, longest=longest)
    ]


def section(head: Head, weight: float = 1.0) -> str:
    """Its part of a file of settings for `bothways finetune multi`."""
    settings = "".join(f"{line}\n" for line in head.settings)
    return f'[tasks.{head.name}]\ntask = "{head.task}"\nweight = {weight}\n' + (
        f"[tasks.{head.name}.settings]\n{settings}" if settings else ""
    )


def held_out(read: Read) -> set[str]:
    """The Chinese treebank's sentences that are not for training: they come from Wikipedia, as raw text does."""
    return {folded("".join(row["words"])) for split in ("dev", "test") for row in read(GSD, split)}


Sentence = dict[str, Row]  # by head, its record of one sentence


def chinese(read: Read, split: str) -> Iterator[Sentence]:
    """The Chinese GSD treebank's sentences: words, entities, and parts of speech where the two releases agree.

    They are one text in one order. The tags are of release 1 in traditional characters, whose words are taken in
    simplified ones from the other where all of a sentence's words have the same lengths.
    """
    entities = next(head for head in OPEN if head.name == "zh_entities")
    sets = (read(name, split) for name in (GSD, entities.tests[0], "zh/pos/ud_gsd_v1"))
    for words, named, tagged in zip(*sets, strict=True):
        assert "".join(words["words"]) == "".join(named["tokens"]), "the two files hold different sentences"
        sentence = {"words": {"words": words["words"]}, "zh_entities": prepared(entities, named)}
        if (tags := simplified_tags(words["words"], tagged)) is not None:
            sentence["zh_pos"] = {"tokens": [folded(word) for word in words["words"]], "tags": tags}
        yield sentence


def simplified_tags(words: Sequence[str], tagged: Row) -> list[str] | None:
    """The tags of a sentence in traditional characters for its words in simplified ones; None if they don't match."""
    same = [len(word) for word in words] == [len(word) for word in tagged["tokens"]]
    return tagged["tags"] if same else None


def english(read: Read, split: str) -> Iterator[Sentence]:
    """The English Web Treebank's sentences: parts of speech, and entities where that release has the sentence."""
    named = {tuple(row["tokens"]): row["tags"] for row in read("en/ner/uner_ewt", split)}
    for row in read("en/pos/ud_english_ewt", split):
        tokens = row["tokens"]
        sentence = {"en_pos": {"tokens": tokens, "tags": row["tags"]}}
        if (tags := named.get(tuple(tokens))) is not None:
            sentence["en_entities"] = {"tokens": tokens, "tags": tags}
        yield sentence


def joined(sentences: Iterator[Sentence], draw: random.Random | None) -> Iterator[Row]:
    """A record for each sentence; to train, every other one is a few in a row, since texts are more than sentences."""
    waiting: list[Sentence] = []
    room = 0
    for sentence in sentences:
        length = sum(map(len, next(iter(sentence.values())).get("words") or next(iter(sentence.values()))["tokens"]))
        if waiting and (length > room or waiting[0].keys() != sentence.keys()):
            yield _together(waiting)
            waiting = []
        if not waiting:
            room = TOGETHER if draw is not None and draw.random() < 0.5 else 0
        waiting.append(sentence)
        room -= length
    if waiting:
        yield _together(waiting)


def _together(sentences: Sequence[Sentence]) -> Row:
    heads = list(sentences[0])
    return {"task": heads} | {
        head: {field: [*chain.from_iterable(one[head][field] for one in sentences)] for field in sentences[0][head]}
        for head in heads
    }


def prepared(head: Head, row: Row, draw: random.Random | None = None) -> Row:
    """A record as analysis will read its text: full-width letters and signs folded, Chinese parted into runs."""
    from bothways.metrics.spans import spans
    from bothways.tasks.sentences import Mark, word_spans
    from bothways.tasks.tag_sets import tags_of
    from bothways.tasks.units import split

    if head.task == "segment":
        return {"words": row["words"]}
    if head.task == "classify":
        text = folded(row["text"])
        return {"text": text if draw is None else _begun(text, draw), "label": row["label"]}
    if not head.name.startswith("zh_"):
        return {"tokens": row["tokens"], "tags": row["tags"]}
    text, starts = folded("".join(row["tokens"])), [0]
    for token in row["tokens"]:
        starts.append(starts[-1] + len(token))
    marks = [Mark(label, starts[first], starts[end]) for label, first, end in spans(row["tags"], "BIO")]
    units = split(text, "runs")
    return {
        "tokens": [text[start:end] for start, end in units],
        "tags": tags_of(word_spans(marks, units)[0], len(units), "BIO"),
    }


def _begun(text: str, draw: random.Random) -> str:
    """One or two of the text's sentences: short texts have topics too, and the first words tell most of them."""
    from bothways.text.words import sentence_ends

    ends = [0, *sentence_ends(text)]
    count = min(draw.randint(1, 2), len(ends) - 1)
    first = draw.randrange(len(ends) - count)
    return text[ends[first] : ends[first + count]].strip() or text
