"""What needs no training: commonest answers and tags, means, jieba's words, the sentence that is most like a question.

Each gives predictions as the task itself does, so that the task's own metric scores them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import Any

from bothways.data.record import Record
from bothways.tasks.base import Task
from bothways.tasks.units import split
from bothways.text.words import sentence_ends

Prediction = dict[str, Any]
Baseline = Callable[[Task, Sequence[Record], Sequence[Record]], list[Prediction]]  # task, train, test


def commonest_label(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """The label that most training records have; its share is the score of each."""
    counts = Counter(str(record.fields["label"]) for record in train)
    shares = {label: counts[label] / len(train) for label in task.labels}
    return [{"label": counts.most_common(1)[0][0], "scores": shares} for _ in test]


def mean_value(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """The mean of the training numbers for every record, whose correlation with anything is 0 by definition."""
    mean = sum(float(record.fields["label"]) for record in train) / len(train)
    return [{"value": mean} for _ in test]


def commonest_tag(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """For every word the tag that most training words have: O, where tags mark spans."""
    counts = Counter(tag for record in train for tag in record.fields["tags"])
    commonest = counts.most_common(1)[0][0]
    return [{"tags": [commonest] * len(record.fields["tokens"])} for record in test]


def commonest_tags(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """For each word the tag that it has most often in training; for an unknown one, the commonest of all.

    Of roles, the predicate's own tags are counted apart; of utterances, the intent is the commonest.
    """
    by_word: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for record in train:
        for key, tag in zip(_keys(record), record.fields["tags"], strict=True):
            by_word[key][tag] += 1
    tags = {key: counts.most_common(1)[0][0] for key, counts in by_word.items()}
    other = sum(by_word.values(), Counter()).most_common(1)[0][0]
    intents = Counter(record.fields.get("intent") for record in train).most_common(1)
    return [{"tags": [tags.get(key, other) for key in _keys(record)], "intent": intents[0][0]} for record in test]


def _keys(record: Record) -> list[Hashable]:
    predicate = record.fields.get("predicate")
    return [(word, place == predicate) for place, word in enumerate(record.fields["tokens"])]


def jieba_words(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """Words as jieba's dictionary and model find them, by another standard than the set's."""
    return [{"words": [text[a:b] for a, b in split(text, "chinese")]} for text in map(_joined, test)]


def single_characters(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """Every character a word."""
    return [{"words": list(_joined(record))} for record in test]


def _joined(record: Record) -> str:
    return "".join(record.fields["words"])


def no_answer(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """That no question has an answer."""
    return [{"answer": "", "candidates": [{"answer": ""}], "no_answer_score": 1.0} for _ in test]


def likest_sentence(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """The sentence that has most of the question's words and pairs of Chinese characters, for its length."""
    predictions = []
    for record in test:
        context, asked = record.fields["context"], _grams(record.fields["question"])
        ends = sentence_ends(context)
        sentences = [context[a:b].strip() for a, b in pairwise([0, *ends])] or [context]
        best = max(sentences, key=lambda sentence: len(asked & _grams(sentence)) / len(sentence) ** 0.5)
        predictions.append({"answer": best, "candidates": [{"answer": best}], "no_answer_score": 0.0})
    return predictions


def commonest_place(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """The place where the right option stands most often."""
    place = Counter(record.fields["label"] for record in train).most_common(1)[0][0]
    return [{"choice": min(place, len(record.fields["choices"]) - 1)} for record in test]


def likest_option(task: Any, train: Sequence[Record], test: Sequence[Record]) -> list[Prediction]:
    """The option of whose characters and pairs of them the largest part stands in the context."""
    predictions = []
    for record in test:
        context = _grams(record.fields.get("context") or record.fields.get("text", ""))
        shares = [len(context & own) / max(len(own), 1) for own in map(_grams, record.fields["choices"])]
        predictions.append({"choice": shares.index(max(shares))})
    return predictions


def _grams(text: str) -> set[str]:
    """Words, and of Chinese characters both these and pairs of them."""
    words = [text[a:b].lower() for a, b in split(text, "words")]
    pairs = [a + b for a, b in pairwise(words) if not (a + b).isascii()]
    return {*words, *pairs} - set("，。？！、,.?!的了是")


BASELINES: dict[str, dict[str, Baseline]] = {  # of each task, by the name that the tables have
    "classify": {"majority": commonest_label},
    "pair": {"majority": commonest_label},
    "similarity": {"mean": mean_value},
    "tag": {"majority": commonest_tag, "each word's commonest tag": commonest_tags},
    "segment": {"single characters": single_characters, "jieba (rjieba)": jieba_words},
    "roles": {"majority": commonest_tag, "each word's commonest tag": commonest_tags},
    "slots": {"majority intent, each word's commonest tag": commonest_tags},
    "qa": {"majority (no answer)": no_answer, "likest sentence": likest_sentence},
    "choice": {"majority": commonest_place, "likest option": likest_option},
}
