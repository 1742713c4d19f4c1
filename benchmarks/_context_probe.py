"""How much a linear layer can read in frozen vectors: the tasks of context.py."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _context_models import LanguageModel, packed
from torch import nn

from bothways.metrics.segmentation import segmentation
from bothways.metrics.spans import entities
from bothways.tasks.sequences import with_specials
from bothways.text.tokenizer import Encoded, Tokenizer

RATES = (1e-3, 1e-2)
ROUNDS = 15  # times through the training records
LONGEST = 126  # pieces of a text


@dataclass(frozen=True)
class Task:
    """What is read of records: `kind` says how their vectors are made."""

    name: str
    kind: str  # text, words, characters, pair, sense
    folder: str
    measure: str


def probe(
    model: LanguageModel, tokenizer: Tokenizer, task: Task, shared: Path, *, limit: int | None, seed: int
) -> float:
    """The score on test of a linear layer on frozen vectors; the rate is the better one on dev."""
    splits = {split: _records(shared / task.folder, split, limit) for split in ("train", "dev", "test")}
    made = {split: _features(model, tokenizer, task.kind, records) for split, records in splits.items()}
    labels = sorted({label for _, own in made["train"] for label in own})
    number = {label: at for at, label in enumerate(labels)}
    x = np.concatenate([vectors for vectors, _ in made["train"]])
    y = np.array([number[label] for _, own in made["train"] for label in own])
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    best: tuple[float, Any] = (-1.0, None)
    for rate in RATES:
        layer = _fit((x - mean) / deviation, y, len(labels), rate, seed)
        score = _score(task, splits["dev"], _say(layer, made["dev"], mean, deviation, labels))
        best = max(best, (score, layer), key=lambda one: one[0])
    return _score(task, splits["test"], _say(best[1], made["test"], mean, deviation, labels))


def _records(folder: Path, split: str, limit: int | None) -> list[dict[str, Any]]:
    with gzip.open(folder / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file][:limit]


def _features(
    model: LanguageModel, tokenizer: Tokenizer, kind: str, records: Sequence[dict[str, Any]]
) -> list[tuple[np.ndarray, list[str]]]:
    """Each record's vectors (u, width) and its labels: one for a text or a pair, one a word or character."""
    if kind in ("text", "pair", "sense"):
        names = ("text",) if kind == "text" else ("text_a", "text_b")
        sides = []
        for name in names:
            given = [record[name] for record in records]
            if kind == "sense":
                words = [text.split() for text in given]
                encoded = tokenizer.encode_words(words)
                wanted = [record["index" + name[-2:]] for record in records]
                states = _states(model, tokenizer, encoded)
                sides.append([_word(s, e, at) for s, e, at in zip(states, encoded, wanted, strict=True)])
            else:
                states = _states(model, tokenizer, tokenizer.encode(given))
                sides.append([state.mean(0) for state in states])
        joined = sides[0] if kind == "text" else [_compared(a, b) for a, b in zip(*sides, strict=True)]
        return [(vector[None], [str(record["label"])]) for vector, record in zip(joined, records, strict=True)]
    if kind == "characters":
        units, tags = [], []
        for record in records:
            units.append([c for word in record["words"] for c in word])
            tags.append([tag for word in record["words"] for tag in _bmes(len(word))])
    else:
        units, tags = [record["tokens"] for record in records], [record["tags"] for record in records]
    encoded = tokenizer.encode_words(units)
    states = _states(model, tokenizer, encoded)
    made = []
    for state, one, own in zip(states, encoded, tags, strict=True):
        seen = int(one.words[len(state) - 1]) + 1  # words whose first piece was read
        made.append((np.stack([_word(state, one, at) for at in range(seen)]), own[:seen]))
    return made


def _bmes(length: int) -> list[str]:
    return ["S"] if length == 1 else ["B", *["M"] * (length - 2), "E"]


def _compared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two vectors as a linear layer can compare them."""
    return np.concatenate([a, b, np.abs(a - b), a * b])


def _word(states: np.ndarray, text: Encoded, at: int) -> np.ndarray:
    """The mean of a word's pieces, of the last word if it was cut off."""
    words = text.words[: len(states)]
    return states[words == min(at, int(words[-1]))].mean(0)


@torch.inference_mode()
def _states(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[Encoded]) -> list[np.ndarray]:
    """Each text's pieces' vectors, at most the first 126."""
    sequences = [with_specials(text.ids[:LONGEST], tokenizer) for text in texts]
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
    found: list[np.ndarray] = [np.empty(0)] * len(sequences)
    for start in range(0, len(order), 64):
        numbers = order[start : start + 64]
        tokens = packed([sequences[number] for number in numbers])
        states = model.vectors(tokens).float().split(list(tokens.lengths))
        for number, state in zip(numbers, states, strict=True):
            inner = state[1:-1] if len(state) > 2 else state[:1]
            found[number] = inner.numpy()
    return found


def _fit(x: np.ndarray, y: np.ndarray, classes: int, rate: float, seed: int) -> nn.Linear:
    """One linear layer by AdamW over `ROUNDS` of the records, the rate falling to nothing."""
    torch.manual_seed(seed)
    layer = nn.Linear(x.shape[1], classes)
    inputs, labels = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)
    size = min(256, max(16, len(x) // 20))
    steps = ROUNDS * -(-len(x) // size)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=rate, weight_decay=0.01)
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
    made: Sequence[tuple[np.ndarray, list[str]]],
    mean: np.ndarray,
    deviation: np.ndarray,
    labels: Sequence[str],
) -> list[list[str]]:
    """Each record's labels, as the layer has them."""
    with torch.inference_mode():
        return [
            [labels[n] for n in layer(torch.from_numpy(((x - mean) / deviation).astype(np.float32))).argmax(1).tolist()]
            for x, _ in made
        ]


def _score(task: Task, records: Sequence[dict[str, Any]], said: Sequence[list[str]]) -> float:
    """By the task's measure; what was cut off counts as wrong."""
    if task.kind == "words":
        gold = [record["tags"] for record in records]
        return entities(gold, [own + ["O"] * (len(g) - len(own)) for own, g in zip(said, gold, strict=True)])["f1"]
    if task.kind == "characters":
        gold = [record["words"] for record in records]
        return segmentation(gold, [_words("".join(g), own) for g, own in zip(gold, said, strict=True)])["f1"]
    return sum(own[0] == str(record["label"]) for own, record in zip(said, records, strict=True)) / len(records)


def _words(text: str, tags: Sequence[str]) -> list[str]:
    words = []
    for character, tag in zip(text, [*tags, *["S"] * (len(text) - len(tags))], strict=True):
        if tag in "BS" or not words:
            words.append(character)
        else:
            words[-1] += character
    return words
