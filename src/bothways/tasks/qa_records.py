"""Questions with their contexts and right answers, read from records and checked before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from bothways.data.messages import shown
from bothways.data.record import Record, require
from bothways.text.characters import HAN, code_points, is_han

Misplaced = Literal["refuse", "nearest"]
_HAN = re.compile(f"[{HAN}]")
_NAMES = ("question", "context")
_FORM = 'wanted {"text": [strings], "answer_start": [as many whole numbers]}, both empty where there is no answer'
Span = tuple[int, int]  # start and end in characters of the context


def question_and_context(record: Record) -> tuple[str, str]:
    """What is asked, and of which text; a pair of texts is a question and its context.

    Raises:
        DataError: one of them is missing, no string, or blank.
    """
    names = ("text_a", "text_b") if "question" not in record.fields and "text_a" in record.fields else _NAMES
    question, context = (require(record, name, str) for name in names)
    for name, text in zip(names, (question, context), strict=True):
        if not text.strip():
            raise record.error(f"{shown(name)} is blank; a question and the text that may hold its answer were wanted")
    return question, context


def given_answers(record: Record) -> list[tuple[str, int]]:
    """The right answers with the place that the record gives each; none: the question cannot be answered.

    `answers` is {"text": […], "answer_start": […]}, or SQuAD's own list of {"text": …, "answer_start": …}.

    Raises:
        DataError: there is no such field, or it is not of that form.
    """
    answers: Any = require(record, "answers", dict, list)
    if isinstance(answers, list):
        if not all(isinstance(answer, dict) for answer in answers):
            raise record.error(f'"answers" is {shown(answers)}; {_FORM}')
        answers = {key: [answer.get(key) for answer in answers] for key in ("text", "answer_start")}
    texts, starts = answers.get("text"), answers.get("answer_start")
    if not _list_of(texts, str) or not _list_of(starts, int) or len(texts) != len(starts):
        raise record.error(f'"answers" is {shown(answers)}; {_FORM}')
    return list(zip(texts, starts, strict=True))


def _list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)


def right_answers(record: Record) -> list[str]:
    """The texts that an answer is scored against: `all_answers` where the record has them, as CMRC2018 does."""
    if "all_answers" in record.fields:
        return require(record, "all_answers", list[str])
    return [text for text, _ in given_answers(record)]


def check_answers(records: Sequence[Record], misplaced: Misplaced) -> None:
    """Look at every answer of the training records before time is spent.

    Raises:
        DataError: the first answer that is blank or not where its record says, and how many records have one.
    """
    faults = [(record, fault) for record in records if (fault := _fault(record, misplaced)) is not None]
    if faults:
        record, fault = faults[0]
        others = len(faults) - 1
        more = f" ({others} more {'record has' if others == 1 else 'records have'} such a mistake)" if others else ""
        raise record.error(fault + more)


def _fault(record: Record, misplaced: Misplaced) -> str | None:
    """What is wrong with the record's answers."""
    _, context = question_and_context(record)
    answers = given_answers(record)
    if answers and record.fields.get("is_impossible") is True:
        return f"is_impossible is true, but there is the answer {shown(answers[0][0])}; one of them is wrong"
    for number, (text, start) in enumerate(answers, start=1):
        if not text.strip():
            return f"answer {number} is blank; wanted a part of the context, or no answer where there is none"
        if start >= 0 and context.startswith(text, start):
            continue
        nearest = nearest_place(context, text, start)
        if nearest is not None and misplaced == "nearest":
            continue
        if 0 <= start < len(context):
            there = f"there stands {shown(context[start : start + len(text)])}"
        else:
            there = f"the context has {len(context)} characters"
        if nearest is None:
            hint = "it stands nowhere in the context: mend or remove it"
        else:
            hint = f"its nearest place is {nearest}; --qa.misplaced nearest takes that"
        return f"answer {number}, {shown(text)}, is not at answer_start {start}: {there}; {hint}"
    return None


def nearest_place(context: str, text: str, start: int) -> int | None:
    """Where `text` begins in the context, as near to `start` as may be; None: nowhere."""
    if start >= 0 and context.startswith(text, start):
        return start
    at = min(max(start, 0), len(context))
    before = context.rfind(text, 0, at + len(text))
    after = context.find(text, at)
    places = [place for place in (before, after) if place >= 0]
    return min(places, key=lambda place: abs(place - start)) if places else None


def learnt_span(context: str, answers: Sequence[tuple[str, int]]) -> Span | None:
    """Where the first answer stands, at or nearest to the place given; None: there is none, or it stands nowhere."""
    if not answers or not answers[0][0]:
        return None
    text, start = answers[0]
    place = nearest_place(context, text, start)
    return None if place is None else (place, place + len(text))


def is_chinese(text: str) -> bool:
    """Whether at least four characters in ten are Han: in Chinese prose eight are, in Japanese about three."""
    return bool(text) and float(np.mean(is_han(code_points(text)))) >= 0.4


def spaced(text: str) -> str:
    """The text with a blank on both sides of each Han character."""
    return _HAN.sub(r" \g<0> ", text)
