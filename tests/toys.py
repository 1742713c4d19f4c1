"""What the tests of several rooms share: toy texts, files, some steps of training, the command line in this process."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bothways.batch import Example, pack
from bothways.cli.main import main
from bothways.models.model import Model

SENTENCE = "the film was a long day in town and we saw it with some old friends of ours"
WORDS = SENTENCE.split()
GOOD, BAD = ["great", "lovely", "warm"], ["awful", "poor", "cold"]


class Told(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


def bothways(*words: object) -> Told:
    """The command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Told(code, out.getvalue(), err.getvalue())


def labelled(count: int, seed: int, *, shortest: int = 1, longest: int = 14) -> list[dict[str, str]]:
    """Texts in which one word tells the label; so many others stand beside it."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        words = draw.choices(WORDS, k=draw.randint(shortest, longest))
        words.insert(draw.randrange(len(words)), draw.choice((GOOD, BAD)[number % 2]))
        made.append({"text": " ".join(words), "label": ("good", "bad")[number % 2]})
    return made


def write_records(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """One JSON line a record."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def take_steps(model: Model, examples: Sequence[Example], steps: int, *, lr: float) -> None:
    """So many steps of AdamW, each over all of the examples: not the loop, but enough for answers to look like some."""
    task, batch = model.task, pack(examples)
    assert task is not None
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=lr)
    model.network.train()
    for _ in range(steps):
        losses = task.losses(model.network(batch), batch)
        weights = {head: batch.targets[head].weight or 1 for head in losses}  # 0: no example is for that head
        torch.stack([loss / weights[head] for head, loss in losses.items()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
