"""Several tasks on one shared encoder, each with its own heads, all answered in one pass over a text.

record      a record of one of the tasks that names it: {"task": "people", "tokens": […], "tags": […]}; of several, each
            with its own under its name, {"task": ["people", "mood"], "people": {…}, "mood": {…}}, where one text is
            read once for all of them; to predict, without "task", any record: every task that can read it answers
prediction  {"people": {…}, "mood": {…}}: each task's own prediction
metric      each task's under its name ("people.f1"), and "mean", of what each task goes by
reference   Liu et al., 2019, "Multi-Task Deep Neural Networks for Natural Language Understanding", section 3
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from torch import Tensor

from bothways import config
from bothways.batch import Batch
from bothways.data.messages import listed, nearest, shown
from bothways.data.record import Record, require
from bothways.errors import ConfigError, DataError
from bothways.nn.encoder import Encoder, EncoderConfig
from bothways.nn.heads import Head
from bothways.nn.network import Network
from bothways.tasks.base import Answer, Encoded, Task
from bothways.tasks.gradient_cache import JointLoss
from bothways.tasks.masked import MASKED, MaskedTask
from bothways.tasks.merging import joined, merged, parted, parted_answers
from bothways.text.tokenizer import Tokenizer

TASK = "task"  # the field of a record that names its task
LEFT_OUT = "left_out"
_TAKEN = (TASK, LEFT_OUT, "tokens", "mean")  # names that mean something else in records, predictions and metrics


@dataclass(frozen=True)
class Part:
    """One of the tasks, a section [tasks.NAME] of a file."""

    task: str
    """its kind, as `bothways finetune TASK` has it"""
    train: Path | None = None
    """its labelled records"""
    dev: Path | None = None
    """its held-out records"""
    columns: dict[str, str] = field(default_factory=dict)
    """columns.text = "NAME": the field that holds the text"""
    weight: float | None = None
    """its loss, a mean over its own records in a step, counts so many times; none: as often as it has records, beside
    the task that has most, for the mean of one or two records is so uncertain that it would outweigh all others"""
    settings: dict[str, bool | int | float | str] = field(default_factory=dict)
    """what can be set for that kind of task"""

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 < self.weight < float("inf"):
            raise ConfigError(f"weight is {self.weight} for a task of kind {self.task}; it must be above 0")
        self.made_settings()

    def made_settings(self) -> Any:
        """`settings` as that kind of task has them.

        Raises:
            ConfigError: no such kind, or a setting that it doesn't have.
        """
        from bothways.tasks import SHARING, task_class

        if self.task == "generate":
            raise ConfigError("generate has a decoder of its own, so it can't share an encoder; fine-tune it by itself")
        if self.task in SHARING:
            return config.from_dict(task_class(self.task).Settings, self.settings)
        near = nearest(self.task, SHARING)
        hint = f"; did you mean {near}?" if near else ""
        raise ConfigError(f"there is no task {self.task!r} to share an encoder; known are {', '.join(SHARING)}{hint}")


@dataclass(frozen=True)
class MultiSettings:
    """Which tasks share the encoder."""

    tasks: tyro.conf.Fixed[dict[str, Part]] = field(default_factory=dict)
    """sections [tasks.NAME] of a file, one a task"""

    def __post_init__(self) -> None:
        if taken := [name for name in self.tasks if name in _TAKEN]:
            raise ConfigError(f"a task can't be called {taken[0]}, which means something else; call it otherwise")
        if len(masked := [name for name, part in self.tasks.items() if part.task == MaskedTask.name]) > 1:
            raise ConfigError(f"{listed(masked)} are all of kind masked; one encoder has one masked-LM head")

    def check(self) -> None:
        """Raises ConfigError where there are no tasks; not when the settings are made, for a file is read later."""
        if not self.tasks:
            raise ConfigError(
                "multi has no tasks; give them in a file, --config run.toml, as sections [tasks.NAME] "
                'with task = "tag" or another, and train'
            )


class MultiTask(Task):
    """The heads of all parts, called "people/tags" and so on; each part knows only its own."""

    name = "multi"
    criterion = "mean"
    Settings = MultiSettings

    def __init__(self, parts: dict[str, Task], weights: dict[str, float]) -> None:
        self.parts, self.weights = parts, weights
        self.segments = max((part.segments for part in parts.values()), default=1)
        self.told = [f"{name}: {line}" for name, part in parts.items() for line in part.told]

    @property
    def masked(self) -> str | None:
        """The name of the part that guesses masked pieces, if there is one."""
        return next((name for name, part in self.parts.items() if isinstance(part, MaskedTask)), None)

    @property
    def architecture(self) -> str:
        """transformers has no class for several heads; it reads the encoder, with its masked-LM head if it has one."""
        return "BertModel" if self.masked is None else self.parts[self.masked].architecture

    def first_weights(self, weights: dict[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
        """The masked-LM head of a pre-trained model goes on as the part's."""
        return self.inward(weights)

    def inward(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A folder has the masked-LM head where any pre-trained model has it, so that all can start from it."""
        return weights if self.masked is None else _renamed(weights, MASKED, joined(self.masked, MASKED))

    def outward(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The other way."""
        return weights if self.masked is None else _renamed(weights, joined(self.masked, MASKED), MASKED)

    @classmethod
    def learn(cls, records: Sequence[Record], settings: MultiSettings) -> MultiTask:
        """Each part learns from its own records."""
        from bothways.tasks import task_class

        settings.check()
        own = _by_part(records, settings.tasks)
        for name in settings.tasks:
            if not own[name]:
                raise DataError(f'no record to train {name} on; wanted some with "{TASK}": "{name}"')
        parts = {
            name: task_class(part.task).learn(
                [_of(records[number], name) for number in own[name]], part.made_settings()
            )
            for name, part in settings.tasks.items()
        }
        most = max(map(len, own.values()))
        shares = {name: len(numbers) / most for name, numbers in own.items()}
        weights = {name: part.weight for name, part in settings.tasks.items()}
        return cls(parts, {name: shares[name] if weight is None else weight for name, weight in weights.items()})

    def after(self, start: Task | None, begun: Any = None) -> MultiTask:
        """Each part after the part of that name, or after the one task that the model before had."""
        before = start.parts if isinstance(start, MultiTask) else dict.fromkeys(self.parts, start)
        return MultiTask({name: part.after(before.get(name)) for name, part in self.parts.items()}, self.weights)

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """Each part's heads under its name."""
        return {
            joined(name, head): module
            for name, part in self.parts.items()
            for head, module in part.heads(encoder).items()
        }

    def without_weights(self, network: Network) -> list[str]:
        """The parts whose heads have nothing to learn: all that they learn is the encoder's."""
        learning = {
            parted(joint)[0]
            for joint, head in network.heads.items()
            if any(weight.requires_grad for weight in head.parameters())
        }
        return [name for name in self.parts if name not in learning]

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """Each record by the part that it names, else by all that can read it; equal sequences are read once."""

        def encode(name: str, numbers: Sequence[int]) -> list[Encoded]:
            chosen = [_of(records[number], name) for number in numbers]
            return self.parts[name].encode(chosen, tokenizer, max_length=max_length, labelled=labelled, first=first)

        named = _by_part(records, self.parts, all_named=labelled)
        free = [number for number, record in enumerate(records) if TASK not in record.fields]
        found: list[dict[str, Encoded]] = [{} for _ in records]
        refused: list[dict[str, DataError]] = [{} for _ in records]
        for name, numbers in named.items():
            for number, one in zip(numbers, encode(name, numbers) if numbers else [], strict=True):
                found[number][name] = one
            for number, one in zip(free, _each(encode, name, free), strict=True):
                if isinstance(one, DataError):
                    refused[number][name] = one
                else:
                    found[number][name] = one
        for number, by_part in enumerate(found):
            if not by_part:
                raise next(iter(refused[number].values()))
        return [
            merged(first + number, by_part, {name: str(error) for name, error in refused[number].items()})
            for number, by_part in enumerate(found)
        ]

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Each part's losses, times its weight."""
        losses = {}
        for name, part in self.parts.items():
            own = {head: joint for joint in scores for owner, head in [parted(joint)] if owner == name}
            if not own:  # none of its records is in this batch
                continue
            targets = {head: batch.targets[joint] for head, joint in own.items()}
            found = part.losses({head: scores[joint] for head, joint in own.items()}, replace(batch, targets=targets))
            for head, loss in found.items():
                losses[own[head]] = self.weights[name] * loss
        return losses

    def joint_losses(self) -> dict[str, JointLoss]:
        """Those of the parts, times their weights."""
        return {
            joined(name, head): lambda vectors, labels, loss=loss, weight=self.weights[name]: (
                weight * loss(vectors, labels)
            )
            for name, part in self.parts.items()
            for head, loss in part.joint_losses().items()
        }

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """Each part's prediction; `left_out` says why where a part could not read the record."""
        own, left_out = parted_answers(answers)
        predictions = {
            name: part.decode(_of(record, name), own[name]) for name, part in self.parts.items() if name in own
        }
        return predictions | ({LEFT_OUT: left_out} if left_out else {})

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Each part's metrics of its own records, and the mean of what the parts go by."""
        scores: dict[str, Any] = {}
        criteria = []
        for name, part, own in self._own(records, predictions):
            found = part.metrics(*own)
            criteria.append(found[part.criterion])
            scores |= {f"{name}.{metric}": value for metric, value in found.items()}
        return scores | {"mean": sum(criteria) / len(criteria) if criteria else 0.0}

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Each part's, of its own records."""
        return {
            f"{name}.{metric}": found
            for name, part, own in self._own(records, predictions)
            for metric, found in part.by_record(*own).items()
        }

    def tune(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> None:
        """Each part on its own records."""
        for _, part, own in self._own(records, predictions):
            part.tune(*own)

    def _own(
        self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]
    ) -> list[tuple[str, Task, tuple[list[Record], list[dict[str, Any]]]]]:
        """The parts that have records, with those and their predictions."""
        found = []
        for name, numbers in _by_part(records, self.parts).items():
            # A record of which nothing could be read (a note has said so) has no prediction.
            if own := [number for number in numbers if name in predictions[number]]:
                both = [_of(records[number], name) for number in own], [predictions[number][name] for number in own]
                found.append((name, self.parts[name], both))
        return found

    def changed(
        self, name: str, records: Sequence[Record], change: Callable[[list[Record]], Sequence[Record]]
    ) -> list[Record]:
        """The records with `change` done to what one part reads of them."""
        found, numbers = list(records), _by_part(records, self.parts)[name]
        for number, own in zip(numbers, change([_of(records[number], name) for number in numbers]), strict=True):
            whole = records[number]
            together = isinstance(whole.fields.get(TASK), list)
            found[number] = replace(whole, fields=whole.fields | {name: own.fields}) if together else own
        return found

    def to_dict(self) -> dict[str, Any]:
        """Each part: its kind, weight and state."""
        return {
            "parts": {
                name: {"task": part.name, "weight": self.weights[name], part.name: part.to_dict()}
                for name, part in self.parts.items()
            }
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> MultiTask:
        """The task that `to_dict` described."""
        from bothways.tasks import task_class

        parts = saved["parts"].items()
        return cls(
            {name: task_class(part["task"]).from_dict(part[part["task"]]) for name, part in parts},
            {name: part["weight"] for name, part in parts},
        )


def _renamed(weights: dict[str, Tensor], head: str, other: str) -> dict[str, Tensor]:
    """The weights of one head under another name."""
    begin = f"heads.{head}."
    return {
        f"heads.{other}.{name.removeprefix(begin)}" if name.startswith(begin) else name: weight
        for name, weight in weights.items()
    }


def of_part(records: Iterable[Record], name: str) -> Iterator[Record]:
    """The same records, naming their task."""
    return (replace(record, fields={**record.fields, TASK: name}) for record in records)


def _of(record: Record, name: str) -> Record:
    """What a task reads of a record: all of it, or what stands under the task's name where several are named.

    Raises:
        DataError: several are named, and this one has no record of its own.
    """
    if not isinstance(record.fields.get(TASK), list):
        return record
    return replace(record, fields=require(record, name, dict), place=f"{record.place} {name}".strip())


def _by_part(records: Sequence[Record], parts: Mapping[str, Any], *, all_named: bool = True) -> dict[str, list[int]]:
    """The numbers of each part's records.

    Raises:
        DataError: a record of an unknown task, or one that names none where `all_named`.
    """
    numbers: dict[str, list[int]] = {name: [] for name in parts}
    for number, record in enumerate(records):
        if TASK not in record.fields:
            if all_named:
                raise record.error(f'no field "{TASK}", which says whose labels these are: one of {listed(parts)}')
            continue
        named = record.fields[TASK]
        for name in named if isinstance(named, list) and named else [named]:
            if not isinstance(name, str) or name not in numbers:
                near = nearest(str(name), parts)
                hint = f"; did you mean {near!r}?" if near else ""
                raise record.error(f'"{TASK}" is {shown(name)}; wanted one of {listed(parts)}{hint}')
            if numbers[name][-1:] != [number]:  # named twice it is read once
                numbers[name].append(number)
    return numbers


def _each(
    encode: Callable[[str, Sequence[int]], list[Encoded]], name: str, numbers: Sequence[int]
) -> list[Encoded | DataError]:
    """All together where the part can read all; else one by one, with its reason for each that it can't."""
    try:
        return [*encode(name, numbers)]
    except DataError:
        pass
    found: list[Encoded | DataError] = []
    for number in numbers:
        try:
            found += encode(name, [number])
        except DataError as error:
            found.append(error)
    return found
