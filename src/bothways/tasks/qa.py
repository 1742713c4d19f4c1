"""Questions: the span of a context that answers one, or that there is none.

record      {"question": "谁?", "context": "…", "answers": {"text": ["…"], "answer_start": [17]}}; no text: no answer
prediction  {"answer": "…", "start": 17, "end": 19, "score": 0.9, "answerable": true, "no_answer_score": 0.01,
            "candidates": [{"answer", "start", "end", "score"}, …]}; context[start:end] is the answer
metric      EM and F1 as the scripts of SQuAD 1.1, SQuAD 2.0, CMRC2018 and DRCD count
reference   Devlin et al., 2018, sections 4.2 and 4.3: each token's logits to be the first and the last of the answer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from bothways.batch import Batch, Example, Piece, Read
from bothways.data.record import Record
from bothways.errors import ConfigError
from bothways.metrics import questions
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head, TokenHead
from bothways.tasks.base import Answer, Encoded, Task, settings_dict
from bothways.tasks.groups import group_log_softmax
from bothways.tasks.qa_records import (
    Misplaced,
    Span,
    check_answers,
    given_answers,
    is_chinese,
    learnt_span,
    question_and_context,
    right_answers,
    spaced,
)
from bothways.tasks.qa_spans import HEAD, find_spans
from bothways.tasks.sequences import pair_windows
from bothways.text.tokenizer import Encoded as Text
from bothways.text.tokenizer import Tokenizer

LONGEST, LONGEST_CHINESE = 30, 50  # tokens of an answer: as run_squad.py, and as CLUE's scripts for CMRC2018
MOST = 1000  # candidates of a prediction
EVEN = 0.5  # the no-answer threshold before one is fitted: run_squad.py's null_score_diff_threshold of 0


@dataclass(frozen=True)
class QaSettings:
    """How answers are found and scored."""

    style: Literal["auto", "squad", "squad2", "cmrc", "drcd"] = "auto"
    """whose script scores: auto is squad2 where some questions have no answer, cmrc for Chinese, else squad"""
    stride: int = 128
    """tokens that a window of a long context shares with the one before"""
    max_answer: int | None = None
    """longest answer in tokens; none: 30, in a Chinese context 50"""
    top: int = 5
    """how many candidates a prediction lists"""
    misplaced: Misplaced = "refuse"
    """a training answer that is not at its answer_start: refuse it, or take its nearest place"""

    def __post_init__(self) -> None:
        for name, least in (("stride", 0), ("max_answer", 1), ("top", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ConfigError(f"qa.{name} is {value}; it must be at least {least}")
        if self.top > MOST:
            raise ConfigError(f"qa.top is {self.top}; it must be at most {MOST}")


class QaTask(Task):
    """One head, "answer", that reads [CLS] (for no answer) and every token of the context.

    threshold: no answer is given where `no_answer_score` is above it; None: the best span always is
    """

    name = "qa"
    criterion = "f1"
    Settings = QaSettings
    segments = 2

    def __init__(self, settings: QaSettings, threshold: float | None = None) -> None:
        self.settings, self.threshold = settings, threshold

    @property
    def architecture(self) -> str:
        """The same two outputs a token."""
        return "BertForQuestionAnswering"

    @classmethod
    def from_config(cls, raw: dict[str, Any]) -> QaTask:
        """`config.json` doesn't tell whether a model may say that there is no answer: this one doesn't."""
        return cls(QaSettings())

    @classmethod
    def learn(cls, records: Sequence[Record], settings: QaSettings) -> QaTask:
        """Checks every answer, and sees whether some questions have none."""
        check_answers(records, settings.misplaced)
        return cls(settings, None if all(given_answers(record) for record in records) else EVEN)

    def with_options(self, **options: Any) -> QaTask:
        """The same task with other numbers for predictions, each as a number or spelt as one.

        Args:
            top: how many candidates are listed, from 1 to 1000
            threshold: no answer is given where `no_answer_score` is above it, from 0 to 1; None or "none": the best
                span always is

        Raises:
            ConfigError: another option, or no such number.
        """
        if unknown := sorted(set(options) - {"top", "threshold"}):
            raise ConfigError(f"unknown option qa.{unknown[0]}; known are qa.top and qa.threshold")
        top, threshold = options.get("top", self.settings.top), options.get("threshold", self.threshold)
        if (count := _number(top, int)) is None or not 1 <= count <= MOST:
            raise ConfigError(f"qa.top is {top!r}; wanted a whole number from 1 to {MOST}")
        if threshold is not None and threshold != "none":
            if (share := _number(threshold, float)) is None or not 0 <= share <= 1:
                raise ConfigError(f"qa.threshold is {threshold!r}; wanted a number from 0 to 1, or none")
            return QaTask(replace(self.settings, top=count), share)
        return QaTask(replace(self.settings, top=count))

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """First and last token of the answer, without a further dropout, as in transformers."""
        config = encoder.config
        return {HEAD: TokenHead(config.hidden_size, 2, dropout=0.0, initializer_range=config.initializer_range)}

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """[CLS] question [SEP] context [SEP]; a long context in windows with the question in each, one example each."""
        asked = [question_and_context(record) for record in records]
        distinct = list(dict.fromkeys(context for _, context in asked))  # many questions share one context
        contexts = dict(zip(distinct, tokenizer.encode(distinct), strict=True))
        encoded = []
        for number, (record, (_, context), question) in enumerate(
            zip(records, asked, tokenizer.encode([question for question, _ in asked]), strict=True), start=first
        ):
            text = contexts[context]
            if not len(text.ids):
                raise record.error('"context" holds no token, only blanks or control characters; leave the record out')
            pieces, coverage = pair_windows(
                question, text, tokenizer, record=number, max_length=max_length, stride=self.settings.stride
            )
            notes = ["the question is longer than half of what the model reads: cut"] if coverage.dropped else []
            tokens = None
            if labelled:
                answers = given_answers(record)
                if (span := learnt_span(context, answers)) is not None:
                    tokens = _tokens_of(span, text)
                    if span[0] != answers[0][1]:
                        notes.append("the answer is not at its answer_start: its nearest place is learnt")
                    notes += _notes(span, tokens, text, pieces, self._longest(context))
            examples = [_example(piece, tokens, labelled=labelled) for piece in pieces]
            encoded.append(Encoded(examples, coverage, tuple(notes)))
        return encoded

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Mean of both ends' cross-entropy over the window's context and [CLS], which is right where it has no answer.

        Reference: google-research/bert run_squad.py, model_fn_builder; its softmax also runs over the question.
        """
        target = batch.targets[HEAD]
        assert target.labels is not None
        chances = group_log_softmax(scores[HEAD].float(), target.groups)
        right = target.groups[:-1, None] + target.labels
        return {HEAD: -chances.gather(0, right).sum() / 2}

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """The best span of all windows, or that there is no answer, and the next best."""
        _, context = question_and_context(record)
        found = find_spans(answers, max_answer=self._longest(context), top=self.settings.top)
        candidates = [
            {"answer": context[start:end], "start": start, "end": end, "score": score}
            for start, end, score in found.best
        ]
        answerable = self.threshold is None or found.against <= self.threshold
        chosen = candidates[0] if answerable else {"answer": "", "start": 0, "end": 0, "score": found.no_answer}
        return chosen | {"answerable": answerable, "no_answer_score": found.against, "candidates": candidates}

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`em` and `f1` of the style; with unanswerable questions the script's other numbers, in Chinese DRCD's too."""
        gold = [right_answers(record) for record in records]
        chinese, style = self._style(records, gold)
        if style != "squad2":
            found = [prediction["answer"] for prediction in predictions]
            scores: dict[str, Any] = questions.question_answering(gold, found, style=style)
            if chinese and self.settings.style == "auto":
                scores |= {f"drcd_{name}": value for name, value in questions.drcd(gold, found).items()}
            return scores
        gold, found, no_answer = _for_squad2(gold, predictions, chinese=chinese)
        threshold = 1.0 if self.threshold is None else self.threshold
        return questions.squad2(gold, found, no_answer=no_answer, threshold=threshold) | {"threshold": threshold}

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Each question's EM and F1."""
        gold = [right_answers(record) for record in records]
        chinese, style = self._style(records, gold)
        if style == "squad2":
            gold, found, no_answer = _for_squad2(gold, predictions, chinese=chinese)
            threshold = 1.0 if self.threshold is None else self.threshold
            scores = questions.question_scores(gold, found, style=style, no_answer=no_answer, threshold=threshold)
        else:
            scores = questions.question_scores(gold, [one["answer"] for one in predictions], style=style)
        return {name: np.array([getattr(score, name) for score in scores]) for name in ("f1", "em")}

    def tune(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> None:
        """The no-answer threshold with the best F1, if training and dev have questions without an answer."""
        gold = [right_answers(record) for record in records]
        if self.threshold is None or all(gold):
            return
        gold, found, no_answer = _for_squad2(gold, predictions, chinese=self._style(records, gold)[0])
        scores = [questions.squad2_score(right, answer).f1 for right, answer in zip(gold, found, strict=True)]
        _, self.threshold = questions.best_threshold(scores, found, no_answer, [bool(right) for right in gold])

    def _style(self, records: Sequence[Record], gold: list[list[str]]) -> tuple[bool, str]:
        """Whether the contexts are Chinese, and whose script scores."""
        chinese = is_chinese("".join(question_and_context(record)[1][:200] for record in records[:200]))
        if self.settings.style != "auto":
            return chinese, self.settings.style
        return chinese, "squad2" if self.threshold is not None or not all(gold) else "cmrc" if chinese else "squad"

    def _longest(self, context: str) -> int:
        return self.settings.max_answer or (LONGEST_CHINESE if is_chinese(context) else LONGEST)

    def to_dict(self) -> dict[str, Any]:
        """Settings and the threshold."""
        return {"settings": settings_dict(self.settings), "threshold": self.threshold}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> QaTask:
        """The task that `to_dict` described."""
        return cls(QaSettings(**saved["settings"]), saved["threshold"])


def _number(value: Any, kind: type[int] | type[float]) -> int | float | None:
    """The number that a value is or spells; None if it is none of that kind."""
    if isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            return None
    right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return value if right else None


def _tokens_of(span: Span, text: Text) -> tuple[int, int]:
    """First and last token of those that share a character with the span (of blanks: that follow it)."""
    first = int(np.searchsorted(text.offsets[:, 1], span[0], side="right"))
    last = int(np.searchsorted(text.offsets[:, 0], span[1], side="left")) - 1
    return min(first, len(text.ids) - 1), min(max(first, last), len(text.ids) - 1)


def _notes(span: Span, tokens: tuple[int, int], text: Text, pieces: Sequence[Piece], longest: int) -> list[str]:
    """What keeps this answer from being learnt or found exactly."""
    first, last = tokens
    notes = []
    if text.offsets[first, 0] < span[0] or text.offsets[last, 1] > span[1]:
        notes.append("the answer begins or ends within a token: the whole token is learnt")
    if last - first >= longest:
        notes.append("the answer is longer than --qa.max-answer: it can be learnt but not found")
    if all(_rows_of(tokens, piece) == (0, 0) for piece in pieces):
        notes.append("no window holds the whole answer: learnt as unanswerable; try a larger --qa.stride")
    return notes


def _example(piece: Piece, tokens: tuple[int, int] | None, *, labelled: bool) -> Example:
    """A window: [CLS] and its part of the context are read and decided together."""
    context = _context_of(piece)
    rows = np.concatenate([[0], context])
    labels = np.array([_rows_of(tokens, piece)], dtype=np.int64) if labelled else None
    return Example((piece,), {HEAD: Read(rows, np.array([len(rows)]), labels=labels, weight=1.0)})


def _context_of(piece: Piece) -> np.ndarray:
    """Positions of the context's tokens: the second segment without its [SEP]."""
    assert piece.segment_ids is not None
    return np.flatnonzero(piece.segment_ids)[:-1]


def _rows_of(tokens: tuple[int, int] | None, piece: Piece) -> tuple[int, int]:
    """The answer's first and last row among those that are read of the window; [CLS] twice if it isn't all there."""
    assert piece.origin is not None
    start = piece.origin.extra
    if tokens is None or tokens[0] < start or tokens[1] >= start + len(_context_of(piece)):
        return 0, 0
    return tokens[0] - start + 1, tokens[1] - start + 1


def _for_squad2(
    gold: list[list[str]], predictions: Sequence[dict[str, Any]], *, chinese: bool
) -> tuple[list[list[str]], list[str], list[float]]:
    """Right answers, best spans whether or not they were given as the answer, and no-answer scores.

    SQuAD 2.0's script counts words between blanks; in Chinese text each character becomes one.
    """
    found = [prediction["candidates"][0]["answer"] for prediction in predictions]
    no_answer = [prediction["no_answer_score"] for prediction in predictions]
    if chinese:
        gold, found = [[spaced(text) for text in right] for right in gold], [spaced(text) for text in found]
    return gold, found, no_answer
