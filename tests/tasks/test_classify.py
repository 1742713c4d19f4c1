"""Tests of labels for a text: which kind they are, what each kind is chosen and scored by, messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bothways.models.model import save
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.train.run import finetune

LABELS: dict[str, list[Any]] = {
    "one": ["good", "bad", "bad"],
    "several": [["good", "new"], ["bad"], []],
    "number": [0.5, 1.0, 4.5],
}
CRITERION = {"one": "accuracy", "several": "micro_f1", "number": "pearson"}


def texts(labels: list[Any]) -> list[dict[str, Any]]:
    """A record a label."""
    return [{"text": text, "label": label} for text, label in zip(["ab", "cd 我", "e"], labels, strict=True)]


@pytest.mark.parametrize("kind", LABELS)
def test_a_run_of_each_kind_is_scored_on_dev(kind: str, make_model: Any, as_records: Any, tmp_path: Path) -> None:
    given = texts(LABELS[kind])
    task = ClassifyTask.learn(as_records(given), ClassifySettings())
    assert (task.kind, task.criterion) == (kind, CRITERION[kind])
    start = save(make_model(task), tmp_path / "start")
    torch.set_num_threads(1)
    common: dict[str, Any] = {"model": str(start), "epochs": 1, "device": "cpu", "quiet": True}
    run = finetune("classify", train=given, dev=given, out=tmp_path / "run", **common)
    assert CRITERION[kind] in run.scores
    parts = {"mine": {"task": "classify"}}
    named = [record | {"task": "mine"} for record in given]
    several = finetune("multi", train=named, dev=named, out=tmp_path / "multi", tasks=parts, **common)
    assert several.scores["mean"] == several.scores[f"mine.{CRITERION[kind]}"]
