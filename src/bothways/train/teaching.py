"""A teacher: another model whose vectors of the training texts are learnt, computed once, before training begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bothways.data.record import Record
from bothways.infer.embedding import Parts, embedded
from bothways.infer.predictor import load
from bothways.tasks.base import Task
from bothways.tasks.embed import EmbedTask
from bothways.tasks.embed_records import TAUGHT, WordVectors
from bothways.tasks.multi import MultiTask


def taught(task: Task, records: Sequence[Record], *, device: str) -> Sequence[Record]:
    """The records with the vectors that `embed.teacher` has for them; those of other tasks as they are.

    Raises:
        ModelError: the teacher is not there, or is no model that can be read.
    """
    if isinstance(task, EmbedTask) and task.settings.teacher is not None:
        return _with_vectors(task, records, task.settings.teacher, device)
    if isinstance(task, MultiTask):
        for name, part in task.parts.items():
            if isinstance(part, EmbedTask):
                records = task.changed(name, records, lambda own, part=part: taught(part, own, device=device))
    return records


def _with_vectors(task: EmbedTask, records: Sequence[Record], teacher: str, device: str) -> list[Record]:
    asked = load(teacher, device=device).embedder(level=task.settings.taught, words=task.words)
    found = []
    for record, own in zip(records, embedded(asked, records), strict=True):
        if isinstance(own, Parts):
            offsets = np.empty((0, 2), dtype=np.int32) if own.offsets is None else own.offsets
            more = {TAUGHT: WordVectors(offsets, own.vectors.astype(np.float16))}
        else:
            more = {"vector": own.tolist()}
        found.append(replace(record, fields=record.fields | more))
    return found
