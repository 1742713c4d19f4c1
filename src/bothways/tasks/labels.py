"""Label sets: learnt from the training records, checked in every other record, saved with the model."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bothways.data.messages import nearest, shown
from bothways.data.record import Record
from bothways.errors import ModelError

_NUMBER = re.compile(r"-?[0-9]{1,18}")
UNSEEN = -100  # a gold label that training did not see: cross-entropy passes over it (torch's ignore_index)


def as_label(value: Any) -> str:
    """A label as its name: 1 and "1" are the same, true is "true"."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def learn_labels(found: Iterable[str]) -> list[str]:
    """The distinct labels, in an order that doesn't depend on the order of records (numbers by value)."""
    labels = sorted(set(found))
    return sorted(labels, key=int) if all(map(_NUMBER.fullmatch, labels)) else labels


def label_index(label: str, labels: Sequence[str], record: Record) -> int:
    """The label's place.

    Raises:
        DataError: a label that training did not see; the message names the nearest known one.
    """
    try:
        return labels.index(label)
    except ValueError:
        near = difflib.get_close_matches(label, labels, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; leave such records out, or train with some"
        known = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
        raise record.error(f"label {label!r} was not seen in training; known are {known}{hint}") from None


def numbered(found: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """The place of each label, (n,); `UNSEEN` for one that is not among `labels`.

    A test set may hold labels that training could not know; a model can't give them, so they count as errors.
    """
    place = {label: number for number, label in enumerate(labels)}
    return np.array([place.get(label, UNSEEN) for label in found], dtype=np.int64)


def unseen_notes(
    what: str, records: Sequence[Record], found: Sequence[Sequence[str]], labels: Sequence[str]
) -> list[tuple[str, ...]]:
    """For each record, what is told of its labels that training did not see.

    It says where such a label stands first and which known one is like it, the same in each record, so that it can be
    counted over them. `what` is the kind of label ("tag"); `found` the gold labels of each record.
    """
    told = dict.fromkeys(labels, "")
    notes = []
    for record, own in zip(records, found, strict=True):
        for label in own:
            if label not in told:
                near = nearest(label, labels)
                hint = f"; did you mean {shown(near)}?" if near else ""
                told[label] = (
                    f"the {what} {shown(label)} (first at {record.where}) was not seen in training, "
                    f"and counts as an error{hint}"
                )
        notes.append(tuple(told[label] for label in dict.fromkeys(own) if told[label]))
    return notes


def balanced_weights(found: Iterable[str], labels: Sequence[str]) -> list[float]:
    """A weight for each label, inversely proportional to how often it occurs, as scikit-learn's "balanced"."""
    counts = Counter(found)
    total = sum(counts.values())
    return [total / (len(labels) * max(counts[label], 1)) for label in labels]


def labels_config(labels: Sequence[str]) -> dict[str, Any]:
    """Labels as `config.json` holds them."""
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def labels_from_config(raw: dict[str, Any]) -> list[str]:
    """Labels from `config.json`, in the order of their numbers; without them there are two, as transformers has it."""
    named = raw.get("id2label")
    if not isinstance(named, dict) or not named:
        return [f"LABEL_{number}" for number in range(int(raw.get("num_labels", 2)))]
    if sorted(named, key=str) != sorted(map(str, range(len(named)))):
        raise ModelError(
            f"config.json: id2label numbers its labels {sorted(named, key=str)}; wanted 0 to {len(named) - 1}"
        )
    return [str(named[str(number)]) for number in range(len(named))]
