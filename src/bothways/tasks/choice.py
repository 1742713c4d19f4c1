"""Choice: one of several options, for a question about a context or for the blank in a text.

record      {"context": "…", "question": "…", "choices": ["…", "…"], "label": 1}: the option by its place (from 0) or
            its text; context or question may be left out; or {"text": "他#idiom#地笑了", "choices": […], "label": 0}
prediction  {"choice": 1, "text": "…", "score": 0.9, "scores": [0.1, 0.9], "tokens": {"kept": 40}}
metric      accuracy
reference   Devlin et al., 2018, section 4.4 (SWAG): a sequence an option, one score each, softmax over the options

Each option is read as [CLS] context [SEP] question option [SEP]. With a blank, the option is set in its place first,
and stands alone in the second segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from bothways.batch import Batch, Example, Read
from bothways.data.messages import shown
from bothways.data.record import WHOLE, Record, read_all, require
from bothways.errors import ConfigError, DataError
from bothways.metrics.counts import check_pairs
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head, PooledHead
from bothways.tasks.base import Answer, Coverage, Encoded, Task, settings_dict
from bothways.tasks.groups import group_log_softmax
from bothways.tasks.one_label import check_smoothing, softmax
from bothways.tasks.sequences import concatenated, cut, joined
from bothways.text.tokenizer import Encoded as Text
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ChoiceSettings:
    """How options are chosen."""

    long: Literal["first", "last"] = "first"
    """of a context longer than the model, the part to read; around a blank, what stands nearest to it"""
    blank: str = "#idiom#"
    """what marks the place of the option in a "text" """
    label_smoothing: float = 0.0
    """share of the target spread over all options"""

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)
        if not self.blank:
            raise ConfigError("blank is empty; give the mark that stands in the place of the option, such as #idiom#")


class _Parts(NamedTuple):
    """The texts of a record: what stands before the blank (or the context), after it (None: no blank), the question."""

    before: str
    after: str | None
    question: str


class ChoiceTask(Task):
    """One head, "choice", that gives each option's [CLS] a score."""

    name = "choice"
    criterion = "accuracy"
    Settings = ChoiceSettings
    segments = 2

    def __init__(self, settings: ChoiceSettings) -> None:
        self.settings = settings

    @property
    def architecture(self) -> str:
        """The class whose sequences stand in groups."""
        return "BertForMultipleChoice"

    @classmethod
    def from_config(cls, raw: dict[str, Any]) -> ChoiceTask:
        """Nothing but the class is needed."""
        return cls(ChoiceSettings())

    @classmethod
    def learn(cls, records: Sequence[Record], settings: ChoiceSettings) -> ChoiceTask:
        """Nothing is learnt from the records, but all are looked at before the first step."""
        task = cls(settings)
        if not records:
            raise DataError("there is no record to learn from")
        read_all(records, lambda record: (task._parts(record), _label(record, _choices(record))))
        return task

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """A linear layer with one output on the pooled [CLS]."""
        assert encoder.pooler is not None
        config = encoder.config
        dropout, deviation = config.hidden_dropout_prob, config.initializer_range
        head = PooledHead(encoder.pooler, config.hidden_size, 1, dropout=dropout, initializer_range=deviation)
        return {"choice": head}

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """A sequence an option. All options of a record see the same part of a long context; they are never cut."""
        both = read_all(records, lambda record: (self._parts(record), _choices(record)))
        parts, choices = [each for each, _ in both], [each for _, each in both]
        before = tokenizer.encode([part.before for part in parts])
        after = tokenizer.encode([part.after or "" for part in parts])
        questions = tokenizer.encode([part.question for part in parts])
        options = iter(tokenizer.encode([choice for given in choices for choice in given]))
        texts = [[next(options) for _ in given] for given in choices]

        def encode(number: int) -> Encoded:
            record = records[number]
            label = _label(record, choices[number]) if labelled else None
            sides = before[number], None if parts[number].after is None else after[number]
            return self._record(
                record, sides, questions[number], texts[number], label, tokenizer, max_length, first + number
            )

        return read_all(range(len(records)), encode)

    def _record(
        self,
        record: Record,
        sides: tuple[Text, Text | None],
        question: Text,
        options: list[Text],
        label: int | None,
        tokenizer: Tokenizer,
        max_length: int,
        number: int,
    ) -> Encoded:
        """One record's options as one example."""
        for place, option in enumerate(options):
            if not len(option.ids):
                raise record.error(f"choice {place} (from 0) is empty: nothing but blanks or control characters")
        before, after = sides
        longest = max(len(option.ids) for option in options)
        room = max_length - 3 - len(question.ids) - longest * (1 if after is None else 2)
        if room < 1:
            raise record.error(
                f"the question has {len(question.ids)} tokens and the longest choice {longest}; with [CLS], [SEP] and "
                f"some context they do not fit into the {max_length} tokens that the model reads; shorten them"
            )
        given = len(before.ids) + (0 if after is None else len(after.ids))
        before, after = self._cut(before, after, room)
        kept = len(before.ids) + (0 if after is None else len(after.ids))
        pieces = []
        for option in options:
            context = before if after is None else concatenated(before, option, after)
            pieces.append(joined(context, concatenated(question, option), tokenizer, record=number))
        lengths = np.array([len(piece.input_ids) for piece in pieces])
        read = Read(
            rows=np.cumsum(lengths) - lengths,
            groups=np.array([len(pieces)]),
            labels=None if label is None else np.array([label]),
            weight=0.0 if label is None else 1.0,
        )
        once = kept + len(question.ids) + sum(len(option.ids) for option in options)
        return Encoded([Example(tuple(pieces), {"choice": read})], Coverage(kept=once, dropped=given - kept))

    def _cut(self, before: Text, after: Text | None, room: int) -> tuple[Text, Text | None]:
        """As much of the context as there is room for."""
        if after is None:
            start = max(len(before.ids) - room, 0) if self.settings.long == "last" else 0
            return cut(before, start, start + room), None
        left = min(len(before.ids), max(room - len(after.ids), room // 2))
        return cut(before, len(before.ids) - left, len(before.ids)), cut(after, 0, room - left)

    def _parts(self, record: Record) -> _Parts:
        """The texts of a record.

        Raises:
            DataError: neither a context nor a question nor a text, or a text without exactly one blank.
        """
        blank = self.settings.blank
        if "text" in record.fields:
            text = require(record, "text", str)
            if (count := text.count(blank)) != 1:
                raise record.error(
                    f'"text" has {blank} {count} times, wanted once: it marks the place of the option '
                    f"(--choice.blank for another mark)"
                )
            before, after = text.split(blank)
            return _Parts(before, after, "")
        context, question = (
            "" if record.fields.get(name) is None else require(record, name, str) for name in ("context", "question")
        )
        if not context.strip() and not question.strip():
            require(record, "context", str)
            raise record.error('"context" and "question" are empty; one of them is wanted')
        return _Parts(context, None, question) if context.strip() else _Parts(question, None, "")

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy over each record's options, however many they are."""
        target = batch.targets["choice"]
        assert target.labels is not None
        logs = group_log_softmax(scores["choice"].float(), target.groups)[:, 0]
        smoothing, options = self.settings.label_smoothing, target.groups.diff()
        right = logs[target.groups[:-1] + target.labels].sum()
        spread = (logs / options.repeat_interleave(options)).sum()
        return {"choice": -(1 - smoothing) * right - smoothing * spread}

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """The option, and how sure the model is of each."""
        probabilities = softmax(answers[0].scores["choice"][:, 0])
        best = int(probabilities.argmax())
        return {
            "choice": best,
            "text": _choices(record)[best],
            "score": float(probabilities[best]),
            "scores": [round(float(p), 6) for p in probabilities],
        }

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The share of right choices."""
        check_pairs(records, predictions)
        return {"accuracy": float(self.by_record(records, predictions)["accuracy"].mean())}

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Whether the choice is right."""
        right = [
            _label(record, _choices(record)) == prediction["choice"]
            for record, prediction in zip(records, predictions, strict=True)
        ]
        return {"accuracy": np.array(right, dtype=np.float64)}

    def to_dict(self) -> dict[str, Any]:
        """Settings."""
        return {"settings": settings_dict(self.settings)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> ChoiceTask:
        """The task that `to_dict` described."""
        return cls(ChoiceSettings(**saved["settings"]))


def _choices(record: Record) -> list[str]:
    """The options.

    Raises:
        DataError: no list of at least two texts.
    """
    choices = require(record, "choices", list[str])
    if len(choices) < 2:
        raise record.error(f'"choices" has {len(choices)}; at least two options to choose from are wanted')
    return choices


def _label(record: Record, choices: list[str]) -> int:
    """The place of the right option, from 0.

    Raises:
        DataError: a place or a text that no option has.
    """
    label = require(record, "label", int, str)
    if isinstance(label, str):
        if label in choices:
            return choices.index(label)
        if not WHOLE.fullmatch(label.strip()):
            listed = ", ".join(shown(choice) for choice in choices)
            raise record.error(f'"label" is {shown(label)}, which is none of the choices: {listed}')
        label = int(label)
    if not 0 <= label < len(choices):
        raise record.error(
            f'"label" is {label}, but the {len(choices)} choices are counted from 0: 0 to {len(choices) - 1}'
        )
    return label
