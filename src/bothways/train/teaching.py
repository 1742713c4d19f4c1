"""A teacher: another model whose vectors of the training texts are learnt, computed once, before training begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bothways.data.record import Record
from bothways.infer.embedding import Parts, Told, embedded
from bothways.infer.predictor import load
from bothways.tasks.base import Task
from bothways.tasks.embed import EmbedTask
from bothways.tasks.embed_records import TAUGHT, WordVectors, kind_of_all
from bothways.tasks.multi import MultiTask


@dataclass
class Teachers:
    """Those of a task, and what they have said: several runs of one task ask them once.

    told: what should be known of the texts that they read, for the log
    """

    task: Task
    device: str
    told: list[str] = field(default_factory=list)
    _kept: dict[int, Sequence[Record]] = field(default_factory=dict)

    def taught(self, records: Sequence[Record], tell: Callable[[str], None]) -> Sequence[Record]:
        """The records with the vectors that `embed.teacher` has for them; those of other tasks as they are.

        Raises:
            ModelError: the teacher is not there, or is no model that can be read.
        """
        if id(records) not in self._kept:
            self._kept[id(records)] = self._asked(self.task, records, tell)
        return self._kept[id(records)]

    def _asked(self, task: Task, records: Sequence[Record], tell: Callable[[str], None]) -> Sequence[Record]:
        if isinstance(task, MultiTask):
            for name, part in task.parts.items():
                if isinstance(part, EmbedTask) and part.settings.teacher is not None:
                    records = task.changed(name, records, lambda own, part=part: self._asked(part, own, tell))
        elif isinstance(task, EmbedTask) and (teacher := task.settings.teacher) is not None and records:
            alone = kind_of_all(records, task.settings.positive) == "texts"  # dev may be of another kind
            return self._with_vectors(task, records, teacher, tell) if alone else records
        return records

    def _with_vectors(
        self, task: EmbedTask, records: Sequence[Record], teacher: str, tell: Callable[[str], None]
    ) -> list[Record]:
        level = task.settings.taught
        tell(f"asking {teacher} for the vectors of {len(records):,} texts{_OF[level]}")
        asked = load(teacher, device=self.device).embedder(level=level, words=task.words)
        read, found = Told(), []
        for record, own in zip(records, embedded(asked, records, told=read), strict=True):
            if not isinstance(own, Parts):
                more = {"vector": own.astype(np.float16)}
            elif own.offsets is None:
                raise record.error('embed.taught word wants the "text" that the words of "tokens" stand in')
            else:
                more = {TAUGHT: WordVectors(own.offsets, own.vectors.astype(np.float16))}
            found.append(replace(record, fields=record.fields | more))
        self.told += [f"{teacher}: {line}" for line in read.lines()]
        return found


_OF = {"sentence": "", "word": ", word by word"}
