"""How much a linear layer can read in frozen vectors: the tasks of context.py."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _context_models import LanguageModel, packed
from torch import nn

from bothways.metrics.classes import classification
from bothways.metrics.segmentation import segmentation
from bothways.metrics.spans import entities
from bothways.tasks.sequences import with_specials
from bothways.text.tokenizer import Encoded, Tokenizer

RATES = (1e-3, 3e-3, 1e-2)
DECAYS = (0.01, 1.0)
ROUNDS = 15  # times through the training records
LONGEST = 126  # pieces of a window, as many as the models were trained on


@dataclass(frozen=True)
class Task:
    """What is read of records: `kind` says how their vectors are made."""

    name: str
    kind: str  # text, words, characters, pair, sense
    folder: str
    measures: tuple[str, ...]  # the first one chooses the layer on dev

    def files(self, shared: Path) -> list[Path]:
        """Its records: train, dev and test."""
        return [shared / self.folder / f"{split}.jsonl.gz" for split in ("train", "dev", "test")]


def probe(
    model: LanguageModel | None, tokenizer: Tokenizer, task: Task, shared: Path, *, limit: int | None, seed: int
) -> dict[str, Any]:
    """The scores on test of a linear layer on frozen vectors, and the rate and weight decay that are best on dev.

    Without a model, train's most frequent label is always said, which is the floor.
    """
    train, dev, test = (_records(path, limit) for path in task.files(shared))
    gold = [_labels(task.kind, record) for record in train]
    counts = Counter(label for own in gold for label in own)
    if model is None:
        most = max(sorted(counts), key=counts.__getitem__)
        return {"scores": _scores(task, test, [[most] * len(_labels(task.kind, record)) for record in test])}
    made = {name: _features(model, tokenizer, task.kind, own) for name, own in (("train", train), ("dev", dev))}
    labels = sorted(counts)
    number = {label: at for at, label in enumerate(labels)}
    x = np.concatenate(made["train"])
    y = np.array([number[label] for own in gold for label in own])
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x = (x - mean) / deviation
    best: tuple[float, Any, dict[str, float]] = (-np.inf, None, {})
    for rate, decay in product(RATES, DECAYS):
        layer = _fit(x, y, len(labels), rate, decay, seed)
        score = _scores(task, dev, _say(layer, made["dev"], mean, deviation, labels))[task.measures[0]]
        best = max(best, (score, layer, {"rate": rate, "decay": decay}), key=lambda one: one[0])
    found = _say(best[1], _features(model, tokenizer, task.kind, test), mean, deviation, labels)
    return {"scores": _scores(task, test, found), **best[2]}


def _records(path: Path, limit: int | None) -> list[dict[str, Any]]:
    """At most so many, the same for all models, drawn from the whole file: some files are sorted by label."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.readlines()
    kept = sorted(np.random.default_rng(0).permutation(len(lines))[:limit].tolist())
    return [json.loads(lines[number]) for number in kept]


def _labels(kind: str, record: dict[str, Any]) -> list[str]:
    """One for a text or a pair, one a word or character."""
    if kind == "characters":
        return [tag for word in record["words"] for tag in _bmes(len(word))]
    return record["tags"] if kind == "words" else [str(record["label"])]


def _features(
    model: LanguageModel, tokenizer: Tokenizer, kind: str, records: Sequence[dict[str, Any]]
) -> list[np.ndarray]:
    """Each record's vectors (u, width), one a label."""
    if kind in ("words", "characters"):
        units = [record["tokens"] if kind == "words" else list("".join(record["words"])) for record in records]
        encoded = tokenizer.encode_words(units)
        states = _states(model, tokenizer, encoded)
        return [
            np.stack([_word(state, text, at) for at in range(len(own))])
            for state, text, own in zip(states, encoded, units, strict=True)
        ]
    sides = []
    for name in ("text",) if kind == "text" else ("text_a", "text_b"):
        given = [record[name] for record in records]
        if kind == "sense":
            encoded = tokenizer.encode_words([text.split() for text in given])
            wanted = [record["index" + name[-2:]] for record in records]
            states = _states(model, tokenizer, encoded)
            sides.append([_word(state, text, at) for state, text, at in zip(states, encoded, wanted, strict=True)])
        else:
            sides.append([state.mean(0) for state in _states(model, tokenizer, tokenizer.encode(given))])
    joined = sides[0] if kind == "text" else [_compared(a, b) for a, b in zip(*sides, strict=True)]
    return [vector[None] for vector in joined]


def _bmes(length: int) -> list[str]:
    return ["S"] if length == 1 else ["B", *["M"] * (length - 2), "E"]


def _compared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two vectors as a linear layer can compare them."""
    return np.concatenate([a, b, np.abs(a - b), a * b])


def _word(states: np.ndarray, text: Encoded, at: int) -> np.ndarray:
    """The mean of a word's pieces."""
    return states[text.words == at].mean(0)


@torch.inference_mode()
def _states(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[Encoded]) -> list[np.ndarray]:
    """Each text's pieces' vectors (t, width); a long text is read in windows of near length, side by side.

    A text without pieces has [CLS]'s vector.
    """
    parts = [np.array_split(text.ids, max(1, -(-len(text.ids) // LONGEST))) for text in texts]
    sequences = [with_specials(ids, tokenizer) for own in parts for ids in own]
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
    found: list[np.ndarray] = [np.empty(0)] * len(sequences)
    for start in range(0, len(order), 64):
        numbers = order[start : start + 64]
        tokens = packed([sequences[number] for number in numbers])
        states = model.vectors(tokens).float().split(list(tokens.lengths))
        for number, state in zip(numbers, states, strict=True):
            inner = state[1:-1] if len(state) > 2 else state[:1]
            found[number] = inner.numpy()
    rest = iter(found)
    return [np.concatenate([next(rest) for _ in own]) for own in parts]


def _fit(x: np.ndarray, y: np.ndarray, classes: int, rate: float, decay: float, seed: int) -> nn.Linear:
    """One linear layer by AdamW over `ROUNDS` of the records, the rate falling to nothing."""
    torch.manual_seed(seed)
    layer = nn.Linear(x.shape[1], classes)
    inputs, labels = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)
    size = min(256, max(16, len(x) // 20))
    steps = ROUNDS * -(-len(x) // size)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=rate, weight_decay=decay)
    plan = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(ROUNDS):
        for chosen in torch.randperm(len(x)).split(size):
            nn.functional.cross_entropy(layer(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
            optimizer.zero_grad()
            plan.step()
    return layer


def _say(
    layer: nn.Linear,
    made: Sequence[np.ndarray],
    mean: np.ndarray,
    deviation: np.ndarray,
    labels: Sequence[str],
) -> list[list[str]]:
    """Each record's labels, as the layer has them."""
    with torch.inference_mode():
        given = (torch.from_numpy(((x - mean) / deviation).astype(np.float32)) for x in made)
        return [[labels[int(number)] for number in layer(x).argmax(1)] for x in given]


def _scores(task: Task, records: Sequence[dict[str, Any]], said: Sequence[list[str]]) -> dict[str, float]:
    """By each of the task's measures."""
    if task.kind == "characters":
        words = [record["words"] for record in records]
        found = segmentation(words, [_words("".join(own), tags) for own, tags in zip(words, said, strict=True)])
    else:
        gold = [_labels(task.kind, record) for record in records]
        if task.kind == "words":
            found = entities(gold, said)
        else:
            found = classification([own[0] for own in gold], [own[0] for own in said])
    return {measure: float(found[measure]) for measure in task.measures}


def _words(text: str, tags: Sequence[str]) -> list[str]:
    words = []
    for character, tag in zip(text, tags, strict=True):
        if tag in "BS" or not words:
            words.append(character)
        else:
            words[-1] += character
    return words
