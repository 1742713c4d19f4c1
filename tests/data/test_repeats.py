"""Tests of records that stand in the training data too: what makes two records one, and what a model keeps of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bothways.data import repeats
from bothways.data.record import Record
from bothways.data.repeats import first_places, kept_hashes, repeated


def records(*given: dict[str, Any]) -> list[Record]:
    return [Record(fields, "a.jsonl", number) for number, fields in enumerate(given, 1)]


@pytest.mark.parametrize(
    ("known", "other"),
    [
        ({"text": "The film", "label": "good"}, {"text": "the  film ", "label": "bad"}),
        ({"tokens": ["北京", "好"], "tags": ["B-LOC", "O"]}, {"text": "北京好", "spans": []}),
        ({"text_a": "a", "text_b": "b"}, {"text_b": "b", "text_a": "a", "label": 1, "id": 7}),
        ({"task": ["x", "y"], "x": {"text": "a"}, "y": {"text": "b"}}, {"task": "y", "text": "b"}),
    ],
)
def test_what_is_read_makes_a_record(known: dict[str, Any], other: dict[str, Any]) -> None:
    assert repeated(records(other), first_places(records(known))) == records(other)


@pytest.mark.parametrize(
    ("known", "other"),
    [
        ({"text": "the film"}, {"text": "the films"}),
        ({"text_a": "a", "text_b": "b"}, {"text_a": "b", "text_b": "a"}),
        ({"tokens": ["a", "b"], "predicate": 0}, {"tokens": ["a", "b"], "predicate": 1}),
        ({"question": "q", "context": "c"}, {"question": "q", "context": "d"}),
        ({"task": "x", "text": "a"}, {"task": "y", "text": "a"}),
    ],
)
def test_what_differs_is_another_record(known: dict[str, Any], other: dict[str, Any]) -> None:
    assert repeated(records(other), first_places(records(known))) == []


def test_the_first_of_several_is_told() -> None:
    given = records({"text": "a"}, {"text": "b"}, {"text": "a"})
    assert sorted(record.where for record in first_places(given).values()) == ["a.jsonl:1", "a.jsonl:2"]
    assert Record({}, "squad.json", None, "record 3").where == "squad.json: record 3"


def test_a_model_keeps_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MOST", 2)
    places = first_places(records({"text": "a"}, {"text": "b"}, {"text": "c"}))
    assert kept_hashes(places) is None
    kept = kept_hashes(list(places)[:2])
    assert kept is not None
    assert (kept.dtype, kept.tolist()) == (np.uint64, sorted(list(places)[:2]))
