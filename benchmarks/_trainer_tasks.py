"""Each task as users of transformers write it: the model's class, how records become features, how logits are scored.

The scores are counted by bothways.metrics, so that both sides are measured with one rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Row = dict[str, Any]
IGNORED = -100  # the label that torch's cross-entropy passes over
STRIDE, LONGEST, BEST = 128, 30, 20  # run_qa.py's doc_stride, max_answer_length and n_best_size


@dataclass
class Features:
    """What the model reads, and beside it what is needed to read its answer: origin of features, offsets of tokens."""

    inputs: list[Row]
    record: list[int] = field(default_factory=list)
    beside: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """One task.

    model:    the class that loads it
    collator: the class that makes batches of features
    labels:   the labels of the training records, sorted; none where there are none
    encode:   (tokenizer, records, labels, longest) → Features
    score:    (logits of each feature, features, records, labels) → the metric and its value
    """

    model: str
    collator: str
    metric: str
    labels: Callable[[Sequence[Row]], list[str]]
    encode: Callable[[Any, Sequence[Row], Sequence[str], int], Features]
    score: Callable[[Sequence[Any], Features, Sequence[Row], Sequence[str]], float]


def logits_of(model: Any, collator: Any, examples: list[dict[str, Any]]) -> list[Any]:
    """Each example's logits, or its logits of starts and of ends: in batches of near length, as Bothways evaluates."""
    model.eval()
    order = sorted(range(len(examples)), key=lambda at: len(examples[at]["input_ids"]))
    found: list[Any] = [None] * len(examples)
    wanted = ("input_ids", "attention_mask", "token_type_ids")
    with torch.inference_mode():
        for at in range(0, len(order), 32):
            numbers = order[at : at + 32]
            batch = collator([examples[number] for number in numbers])
            said = model(**{name: batch[name] for name in wanted if name in batch})
            if "logits" in said:
                rows: list[Any] = list(said.logits.numpy())
            else:
                rows = list(zip(said.start_logits.numpy(), said.end_logits.numpy(), strict=True))
            for number, row in zip(numbers, rows, strict=True):
                found[number] = row
    return found


# ------------------------------------------------------------------------------------- one label a text or a pair


def _record_labels(records: Sequence[Row]) -> list[str]:
    return sorted({record["label"] for record in records})


def _encode_texts(tokenizer: Any, records: Sequence[Row], labels: Sequence[str], longest: int) -> Features:
    fields = ("text",) if "text" in records[0] else ("text_a", "text_b")
    texts = [[record[name] for record in records] for name in fields]
    encoded = tokenizer(*texts, truncation="longest_first", max_length=longest)
    numbers = {label: number for number, label in enumerate(labels)}
    rows = [
        {name: encoded[name][at] for name in encoded} | {"label": numbers.get(record["label"], 0)}
        for at, record in enumerate(records)
    ]
    return Features(rows)


def _score_labels(logits: Sequence[Any], features: Features, records: Sequence[Row], labels: Sequence[str]) -> float:
    from bothways.metrics.classes import classification

    found = [labels[int(one.argmax())] for one in logits]
    return classification([record["label"] for record in records], found)["accuracy"]


# ----------------------------------------------------------------------------------------------- a tag for a word


def _tags(records: Sequence[Row]) -> list[str]:
    return sorted({tag for record in records for tag in record["tags"]})


def _encode_words(tokenizer: Any, records: Sequence[Row], labels: Sequence[str], longest: int) -> Features:
    """The first piece of each word has its tag, all other pieces none."""
    words = [record["tokens"] for record in records]
    encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=longest)
    numbers = {label: number for number, label in enumerate(labels)}
    features = Features([])
    for at, record in enumerate(records):
        places = encoded.word_ids(at)
        firsts = [place is not None and place != before for place, before in zip(places, [None, *places], strict=False)]
        tags = [
            numbers.get(record["tags"][place], IGNORED) if first else IGNORED
            for place, first in zip(places, firsts, strict=True)
        ]
        features.inputs.append({name: encoded[name][at] for name in encoded} | {"labels": tags})
        features.beside.append({place: token for token, place in enumerate(places) if firsts[token]})
    return features


def _score_tags(logits: Sequence[Any], features: Features, records: Sequence[Row], labels: Sequence[str]) -> float:
    """Strict entity F1 of each word's best tag."""
    from bothways.metrics.spans import entities, scheme_of

    found = []
    for one, tokens, record in zip(logits, features.beside, records, strict=True):
        best = one.argmax(-1)
        words = range(len(record["tokens"]))
        found.append([labels[best[tokens[word]]] if word in tokens else "O" for word in words])
    return entities([record["tags"] for record in records], found, scheme=scheme_of(labels))["f1"]


# -------------------------------------------------------------------------------------------- questions to a text


def _encode_questions(tokenizer: Any, records: Sequence[Row], labels: Sequence[str], longest: int) -> Features:
    """Windows of the context, each with the whole question; one without the whole answer has it at [CLS].

    Reference: transformers, examples/pytorch/question-answering/run_qa.py, prepare_train_features.
    """
    encoded = tokenizer(
        [record["question"] for record in records],
        [record["context"] for record in records],
        truncation="only_second",
        max_length=longest,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    record_of, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
    features = Features([], record=record_of)
    for at, number in enumerate(record_of):
        context = [token for token, part in enumerate(encoded.sequence_ids(at)) if part == 1]
        places = {token: offsets[at][token] for token in context}
        answers = records[number]["answers"]
        first = last = 0
        if answers["text"]:
            start = answers["answer_start"][0]
            end = start + len(answers["text"][0])
            inside = [token for token, (begin, stop) in places.items() if begin < end and stop > start]
            if inside and places[context[0]][0] <= start and places[context[-1]][1] >= end:
                first, last = inside[0], inside[-1]
        row = {name: encoded[name][at] for name in encoded}
        features.inputs.append(row | {"start_positions": first, "end_positions": last})
        features.beside.append(places)
    return features


def _score_answers(logits: Sequence[Any], features: Features, records: Sequence[Row], labels: Sequence[str]) -> float:
    """F1 as SQuAD 2.0 counts; no answer is given where [CLS] scores more than the best span.

    Reference: transformers, examples/pytorch/question-answering/utils_qa.py, postprocess_qa_predictions.
    """
    from bothways.metrics.questions import squad2

    spans: dict[int, list[tuple[float, int, int]]] = defaultdict(list)
    none: dict[int, float] = {}
    for (starts, ends), number, places in zip(logits, features.record, features.beside, strict=True):
        none[number] = min(none.get(number, np.inf), float(starts[0] + ends[0]))
        for first in np.argsort(-starts)[:BEST]:
            for last in np.argsort(-ends)[:BEST]:
                if first in places and last in places and first <= last < first + LONGEST:
                    span = places[int(first)][0], places[int(last)][1]
                    spans[number].append((float(starts[first] + ends[last]), *span))
    found, no_answer = [], []
    for number, record in enumerate(records):
        score, start, end = max(spans[number], default=(-np.inf, 0, 0))
        found.append(record["context"][start:end])
        no_answer.append(none[number] - score)
    return squad2([record["answers"]["text"] for record in records], found, no_answer=no_answer, threshold=0.0)["f1"]


RECIPES = {
    "classify": Recipe(
        "AutoModelForSequenceClassification",
        "DataCollatorWithPadding",
        "accuracy",
        _record_labels,
        _encode_texts,
        _score_labels,
    ),
    "pair": Recipe(
        "AutoModelForSequenceClassification",
        "DataCollatorWithPadding",
        "accuracy",
        _record_labels,
        _encode_texts,
        _score_labels,
    ),
    "tag": Recipe(
        "AutoModelForTokenClassification",
        "DataCollatorForTokenClassification",
        "f1",
        _tags,
        _encode_words,
        _score_tags,
    ),
    "qa": Recipe(
        "AutoModelForQuestionAnswering",
        "DataCollatorWithPadding",
        "f1",
        lambda records: [],
        _encode_questions,
        _score_answers,
    ),
}
