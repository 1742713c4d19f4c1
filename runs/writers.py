"""Texts without a model: the source itself, its first sentence, the commonest target, that of the nearest source.

Each gives predictions as the task itself does, so that the task's own metric scores them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from runs.baselines import Baseline, Prediction, likest_sentence

from bothways.data.record import Record
from bothways.tasks.generate import source_of, targets_of
from bothways.text.words import sentence_ends

TOGETHER = 256  # sources that are compared with all of train at once


def copied(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """The source."""
    return [{"text": source_of(record, True)} for record in test]


def lead(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """The source's first sentence."""
    sources = [source_of(record, True).strip() for record in test]
    return [{"text": source[: sentence_ends(source)[0]]} for source in sources]


def commonest_target(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """The target that most training records have."""
    counts = Counter(targets_of(record)[0] for record in train)
    return [{"text": counts.most_common(1)[0][0]} for _ in test]


def nearest(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """The target of the training record whose source is nearest: by the cosine of TF-IDF of 1 to 3 characters."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    known = vectorizer.fit_transform([source_of(record, True) for record in train]).T.tocsr()
    sources = vectorizer.transform([source_of(record, True) for record in test])
    found: list[int] = []
    for begin in range(0, len(test), TOGETHER):
        found += (sources[begin : begin + TOGETHER] @ known).argmax(axis=1).A1.tolist()
    return [{"text": targets_of(train[number])[0]} for number in found]


def likest(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """Of a question's context the sentence that is most like the question."""
    return [{"text": one["answer"]} for one in likest_sentence(task, train, test)]


NEAREST = "target of the nearest source (TF-IDF of characters)"
WRITERS: dict[str, dict[str, Baseline]] = {  # of each kind of set, by the name that the tables have
    "translation": {"the source itself": copied, NEAREST: nearest},
    "headlines": {"the first sentence": lead, NEAREST: nearest},
    "dialogue": {"the commonest target": commonest_target, NEAREST: nearest},
    "answers": {"the commonest target": commonest_target, "the sentence likest the question": likest},
}
