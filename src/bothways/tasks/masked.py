"""Masked language modelling on records: a pre-trained model fills masks, and one task of several keeps what it knew.

record      {"text": "今天天气很好。"}: raw text to learn from, or a text with [MASK] to predict
prediction  {"masks": [{"mask": 0, "start": 5, "end": 11, "fillings": [{"token": "好", "score": 0.31}, …]}]}
metric      accuracy and loss on masked pieces, which are the same ones each time
reference   Devlin et al., 2018, section 3.1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bothways.batch import Example, Origin, Piece, Read, mix_seed
from bothways.data.documents import LINE_END
from bothways.data.masking import Masking, check_masking
from bothways.data.record import Record, require
from bothways.data.sentence_pairs import plan_sequences
from bothways.data.tokenizing import WORD_START, tokenise
from bothways.errors import ConfigError
from bothways.tasks.base import Answer, Coverage, Encoded, settings_dict
from bothways.tasks.one_label import softmax
from bothways.tasks.pretraining import PretrainTask
from bothways.tasks.sequences import with_specials
from bothways.text.tokenizer import Tokenizer

MASKED = "masked"  # the head


@dataclass(frozen=True)
class MaskedSettings:
    """How texts are masked to learn from."""

    mask_rate: float = 0.15
    """share of the tokens to predict"""
    whole_words: float = 1.0
    """share of the sequences of which words are masked, whole; of the others, pieces one by one"""
    cls_words: int | None = None
    """so many pieces of its text, drawn at random, are asked of [CLS] too, which no mask teaches anything"""

    def __post_init__(self) -> None:
        check_masking(self.mask_rate, self.whole_words, self.cls_words)


@dataclass(frozen=True)
class _Masks:
    """What the origin of a text with masks keeps: where they stand, (m, 2), and whose pieces may fill them."""

    places: np.ndarray
    tokenizer: Tokenizer


class MaskedTask(PretrainTask):
    """The masked-LM head alone, on records."""

    name = "masked"
    Settings = MaskedSettings

    def __init__(self, settings: MaskedSettings, *, top: int = 5) -> None:
        super().__init__(None)
        self.settings, self.top = settings, top

    @classmethod
    def learn(cls, records: Sequence[Record], settings: MaskedSettings) -> MaskedTask:
        """Nothing is learnt from records before training."""
        return cls(settings)

    def with_options(self, **options: Any) -> MaskedTask:
        """How many pieces are told for each mask: `top`.

        Raises:
            ConfigError: another option, or not a number from 1 to 1000.
        """
        if unknown := sorted(set(options) - {"top"}):
            raise ConfigError(f"unknown option {unknown[0]}; known is top")
        top = options.get("top", self.top)
        if type(top) is not int or not 1 <= top <= 1000:
            raise ConfigError(f"top is {top!r}; wanted a whole number from 1 to 1000")
        return MaskedTask(self.settings, top=top)

    # ------------------------------------------------------------------------------------------- encoding

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """To learn: whole sentences up to a sequence's length, masked. To predict: texts with [MASK], whole.

        Raises:
            DataError: a text is missing or empty; to predict, one without [MASK] or longer than the model.
        """
        texts = [require(record, "text", str) for record in records]
        if labelled:
            return self._masked(records, texts, tokenizer, max_length, first)
        encoded = []
        both = zip(records, texts, tokenizer.encode(texts, specials=True), strict=True)
        for number, (record, text, pieces) in enumerate(both, first):
            at = np.flatnonzero(pieces.ids == tokenizer.mask_id)
            if not len(at):
                raise record.error(f"{text[:40]!r} has no {tokenizer.token(tokenizer.mask_id)} to fill")
            if len(pieces.ids) + 2 > max_length:
                raise record.error(
                    f"the text has {len(pieces.ids)} tokens, the model reads {max_length - 2}; shorten it"
                )
            origin = Origin(number, extra=_Masks(pieces.offsets[at], tokenizer))
            piece = Piece(with_specials(pieces.ids, tokenizer), origin=origin)
            read = Read(rows=at + 1, groups=np.ones(len(at), int))
            encoded.append(Encoded([Example((piece,), {MASKED: read})], Coverage(kept=len(pieces.ids))))
        return encoded

    def _masked(
        self, records: Sequence[Record], texts: Sequence[str], tokenizer: Tokenizer, max_length: int, first: int
    ) -> list[Encoded]:
        """Sequences as pre-training makes them of its documents; the masks are those of the first look."""
        settings = self.settings
        found = tokenise([LINE_END.split(text) for text in texts], tokenizer, chinese_words=settings.whole_words > 0)
        for record, count in zip(records, found.counts.tolist(), strict=True):
            if not count:
                raise record.error("the text is empty (nothing but blanks or control characters); leave the record out")
        how = {"rate": settings.mask_rate, "whole_words": settings.whole_words, "cls_words": settings.cls_words}
        masking = Masking(tokenizer, **how)
        plan = plan_sequences(
            found.flags, max_tokens=max_length - 2, second=None, short_rate=0.0, rng=np.random.default_rng(0)
        )
        owners = np.searchsorted(np.cumsum(found.counts), plan.spans[:, 0], side="right")
        examples: list[list[Example]] = [[] for _ in records]
        for owner, (begin, end, *_) in zip(owners.tolist(), plan.spans.tolist(), strict=True):
            ids = with_specials(found.ids[begin:end].astype(np.int64), tokenizer)
            starts = np.pad((found.flags[begin:end] & WORD_START) > 0, 1)
            special = np.pad(np.zeros(end - begin, dtype=bool), 1, constant_values=True)
            window = len(examples[owner])
            ids, read = masking.draw(ids, starts, special, mix_seed(first + owner, window), asking=False)
            examples[owner].append(Example((Piece(ids, origin=Origin(first + owner, window)),), {MASKED: read}))
        counts = found.counts.tolist()
        return [Encoded(own, Coverage(kept=count)) for own, count in zip(examples, counts, strict=True)]

    # ------------------------------------------------------------------------------------------- decoding

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """For each mask where it stands, and the likeliest pieces; of a text to learn from, how well it was guessed."""
        if answers[0].example.reads[MASKED].labels is not None:
            return _guessed(answers)
        origin = answers[0].example.pieces[0].origin
        assert origin is not None
        masks: _Masks = origin.extra
        special = masks.tokenizer.special
        logits = np.where(special, -np.inf, answers[0].scores[MASKED][:, : len(special)])
        return {
            "masks": [
                {"mask": number, "start": int(start), "end": int(end), "fillings": self._fillings(row, masks.tokenizer)}
                for number, (row, (start, end)) in enumerate(zip(logits, masks.places, strict=True))
            ]
        }

    def _fillings(self, logits: np.ndarray, tokenizer: Tokenizer) -> list[dict[str, Any]]:
        probabilities = softmax(logits)
        count = min(self.top, int(np.sum(~tokenizer.special)))
        best = np.sort(np.argpartition(-probabilities, count - 1)[:count])  # a whole sort would take ten times as long
        best = best[np.argsort(-probabilities[best], kind="stable")]
        return [{"token": tokenizer.token(int(i)), "score": round(float(probabilities[i]), 6)} for i in best]

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Means over all masked pieces."""
        total = sum(one["count"] for one in predictions)
        return {f"masked_{name}": sum(one[name] for one in predictions) / total for name in ("accuracy", "loss")}

    def to_dict(self) -> dict[str, Any]:
        """The settings."""
        return settings_dict(self.settings)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> MaskedTask:
        """The task that `to_dict` described."""
        return cls(MaskedSettings(**saved))


def _guessed(answers: Sequence[Answer]) -> dict[str, Any]:
    """Sums over the masked pieces of one record."""
    from scipy.special import logsumexp  # a tenth of a second that only scoring needs

    right, loss, count = 0, 0.0, 0
    for answer in answers:
        logits, labels = answer.scores[MASKED], answer.example.reads[MASKED].labels
        assert labels is not None
        right += int(np.sum(logits.argmax(axis=1) == labels))
        loss += float(np.sum(logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]))
        count += len(labels)
    return {"accuracy": right, "loss": loss, "count": count}
