"""What each record adds to a metric makes the metric again: so the paired bootstrap compares what evaluate prints."""

from __future__ import annotations

from typing import Any

import pytest

from bothways.data.records import read_records
from bothways.metrics.bootstrap import paired_bootstrap
from bothways.tasks import TRAINABLE, task_class

A, B = ["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O", "B-PER", "O"]
WORDS = list("wxyz")
LABELLED = [{"text": t, "label": label} for t, label in zip(WORDS, ["a", "b", "b", "c"], strict=True)]
PAIRS = [{"text_a": t, "text_b": t, "label": label} for t, label in zip(WORDS, ["yes", "no", "yes", "no"], strict=True)]
TAGGED = [{"tokens": WORDS, "tags": A}, {"tokens": WORDS, "tags": B}]
PARTS = [{"tokens": ["Go", "on"], "tags": ["VERB", "ADV"]}, {"tokens": ["on"], "tags": ["ADP"]}]
ASKED = {"question": "who?", "context": "Ada and Bob", "answers": {"text": ["Ada"], "answer_start": [0]}}
NOBODY = {"question": "who else?", "context": "Ada and Bob", "answers": {"text": [], "answer_start": []}}


def said(answer: str, no_answer: float) -> dict[str, Any]:
    """A prediction for a question."""
    return {"answer": answer, "candidates": [{"answer": answer}], "no_answer_score": no_answer}


CASES: dict[str, tuple[str, list[dict[str, Any]], list[dict[str, Any]], set[str]]] = {
    "labels": (
        "classify",
        LABELLED,
        [{"label": label, "scores": {"a": 0.5, "b": 0.3, "c": 0.2}} for label in "abca"],
        {"accuracy"},
    ),
    "several labels": (
        "classify",
        [{"text": "x", "label": ["a", "b"]}, {"text": "y", "label": ["c"]}],
        [{"labels": ["a", "c"]}, {"labels": ["c"]}],
        {"micro_f1"},
    ),
    "numbers": (
        "classify",
        [{"text": t, "label": value} for t, value in zip(WORDS, [0.5, 1.0, 2.5, 4.0], strict=True)],
        [{"value": value} for value in (1.0, 0.5, 2.0, 5.0)],
        {"pearson"},
    ),
    "pair": ("pair", PAIRS, [{"label": label} for label in ("yes", "yes", "no", "no")], {"accuracy", "f1"}),
    "similarity": (
        "similarity",
        [{**row, "label": float(at)} for at, row in enumerate(PAIRS)],
        [{"value": value} for value in (1.0, 0.5, 2.0, 5.0)],
        {"pearson"},
    ),
    "spans": ("tag", TAGGED, [{"tags": A}, {"tags": A}], {"f1"}),
    "plain tags": ("tag", PARTS, [{"tags": ["VERB", "ADP"]}, {"tags": ["ADP"]}], {"token_accuracy"}),
    "segment": (
        "segment",
        [{"words": ["他", "喜欢", "电影"]}, {"words": ["他们"]}],
        [{"words": ["他", "喜", "欢", "电影"]}, {"words": ["他们"]}],
        {"f1"},
    ),
    "roles": (
        "roles",
        [{"tokens": WORDS, "predicate": 1, "tags": ["B-A0", "B-V", "B-A1", "B-C-A1"]}],
        [{"tags": ["B-A0", "B-V", "B-A1", "O"]}],
        {"f1"},
    ),
    "slots": (
        "slots",
        [{**row, "intent": intent} for row, intent in zip(TAGGED, ("go", "stay"), strict=True)],
        [{"tags": A, "intent": "go"}, {"tags": A, "intent": "go"}],
        {"slot_f1", "intent_accuracy", "frame_accuracy"},
    ),
    "questions": ("qa", [ASKED, ASKED], [said("Ada", 0.9), said("Ada and", 0.1)], {"f1", "em"}),
    "questions without answers": (
        "qa",
        [ASKED, NOBODY, NOBODY, ASKED],
        [said("Ada and", 0.1), said("Bob", 0.9), said("Bob", 0.2), said("Ada", 0.8)],
        {"f1", "em"},
    ),
    "choice": (
        "choice",
        [{"question": "q", "choices": ["x", "y"], "label": label} for label in (0, 1, 1)],
        [{"choice": 0}, {"choice": 0}, {"choice": 1}],
        {"accuracy"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_records_make_the_metric(case: str):
    name, rows, predictions, metrics = CASES[case]
    kind = task_class(name)
    records = list(read_records(rows))
    task = kind.learn(records, kind.Settings())
    scores, found = task.metrics(records, predictions), task.by_record(records, predictions)
    assert set(found) == metrics
    for metric, statistics in found.items():
        assert len(statistics) == len(records)
        again = paired_bootstrap(statistics, statistics, samples=1, seed=0).first
        assert again == pytest.approx(scores[metric]), metric
        assert 0 < again < 1, f"{metric}: a case that tells right from wrong is wanted"


def test_multi_has_the_metrics_of_its_parts():
    parts = {"text": CASES["labels"], "pair": CASES["pair"]}
    rows = [{**row, "task": name} for name, (_, given, _, _) in parts.items() for row in given]
    predictions = [{name: one} for name, (_, _, given, _) in parts.items() for one in given]
    records = list(read_records(rows))
    tasks = {}
    for name, (kind, given, _, _) in parts.items():
        tasks[name] = task_class(kind).learn(list(read_records(given)), task_class(kind).Settings())
    task = task_class("multi")(tasks, {"text": 1.0, "pair": 1.0})  # type: ignore[call-arg]
    scores, found = task.metrics(records, predictions), task.by_record(records, predictions)
    assert set(found) == {"text.accuracy", "pair.accuracy", "pair.f1"}
    for metric, statistics in found.items():
        assert paired_bootstrap(statistics, statistics, samples=1, seed=0).first == pytest.approx(scores[metric])


def test_every_task_of_understanding_is_here():
    assert {name for name, *_ in CASES.values()} == set(TRAINABLE) - {"multi", "embed", "generate"}
