"""Mistakes in records are counted before the first step: the first is told with its place, then how many more."""

from __future__ import annotations

from typing import Any

import pytest

from bothways.errors import DataError
from bothways.tasks import task_class

TEXT = {"text": "ab", "label": "x"}
NUMBER = {"text": "ab", "label": 1.5}
PAIR = {"text_a": "ab", "text_b": "c", "label": "x"}
CHOICE = {"question": "ab", "choices": ["c", "d"], "label": 0}
CASES: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # the task, right records, a label that can't be learnt, one unknown to a model, something that can't be read
    "one label": ("classify", [TEXT, TEXT | {"label": "y"}], {"label": ""}, {"label": "z"}, {"text": " "}),
    "several": ("classify", [TEXT | {"label": ["x", "y"]}], {}, {"label": ["z"]}, {"text": None}),
    "number": ("classify", [NUMBER], {"label": float("inf")}, {"label": "z"}, {"text": "\u200b"}),
    "pair": ("pair", [PAIR, PAIR | {"label": "y"}], {"label": None}, {"label": "z"}, {"text_b": ""}),
    "similarity": (
        "similarity",
        [PAIR | {"label": 1}, PAIR | {"label": 2}],
        {"label": "far"},
        {"label": None},
        {"text_a": " "},
    ),
    "choice": ("choice", [CHOICE], {"label": 2}, {"label": "z"}, {"choices": ["c", " "]}),
}


@pytest.mark.parametrize("case", [case for case in CASES if case != "several"])
def test_before_anything_is_learnt(case: str, as_records: Any) -> None:
    name, right, wrong, _, _ = CASES[case]
    given = [*right, right[0] | wrong, right[0], right[0] | wrong]
    kind = task_class(name)
    with pytest.raises(DataError) as caught:
        kind.learn(as_records(given), kind.Settings())
    assert str(caught.value).startswith(f"<records>:{len(right) + 1}: ")
    assert str(caught.value).endswith(f"; 1 more of {len(given)} records can't be used either")


@pytest.mark.parametrize("case", CASES)
def test_in_what_is_encoded(case: str, as_records: Any, tokenizer: Any) -> None:
    name, right, _, unknown, unreadable = CASES[case]
    kind = task_class(name)
    task = kind.learn(as_records(right), kind.Settings())
    given = [right[0], right[0] | unreadable, right[0] | unknown, right[0] | unreadable]
    with pytest.raises(DataError) as caught:
        task.encode(as_records(given), tokenizer, max_length=16, labelled=True)
    assert str(caught.value).startswith("<records>:2: ")
    assert str(caught.value).endswith("; 2 more of 4 records can't be used either")
