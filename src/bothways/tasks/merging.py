"""Examples of several tasks over the same sequences become one, which feeds the heads of all, and are parted again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bothways.batch import Example, Origin, Piece
from bothways.tasks.base import Answer, Encoded


@dataclass(frozen=True)
class _Shared:
    """What the first origin of a merged example keeps.

    examples: of each task, by name: its own example, and its number among those of the record
    left_out: the tasks that could not read the record, and why; only in a record's first example
    """

    examples: dict[str, tuple[int, Example]]
    left_out: dict[str, str]


def merged(record: int, encoded: dict[str, Encoded], left_out: dict[str, str]) -> Encoded:
    """One record as several tasks encoded it: of equal sequences one is left, for the heads of all of them."""
    groups: dict[tuple[bytes, ...], dict[str, tuple[int, Example]]] = {}
    for name, one in encoded.items():
        for number, example in enumerate(one.examples):
            key = tuple(part for piece in example.pieces for part in _content(piece))
            if any(read.redraw is not None for read in example.reads.values()):  # another epoch masks it otherwise
                key = (*key, b"redrawn")
            while name in groups.get(key, ()):  # the task itself has another like it
                key = (*key, b"again")
            groups.setdefault(key, {})[name] = number, example
    examples = []
    for number, group in enumerate(groups.values()):
        _, one = next(iter(group.values()))
        first, *others = one.pieces
        first = replace(first, origin=Origin(record, number, extra=_Shared(group, {} if number else left_out)))
        reads = {joined(name, head): read for name, (_, each) in group.items() for head, read in each.reads.items()}
        examples.append(replace(one, pieces=(first, *others), reads=reads))
    # Of the ways to read this record, the one that leaves most unread is told.
    coverage = max((one.coverage for one in encoded.values()), key=lambda each: (each.dropped, each.strided))
    return Encoded(examples, coverage, tuple(f"{name}: {note}" for name, one in encoded.items() for note in one.notes))


def parted_answers(answers: Sequence[Answer]) -> tuple[dict[str, list[Answer]], dict[str, str]]:
    """Each task's answers to its own examples, in their order, and the tasks that were left out."""
    own: dict[str, dict[int, Answer]] = {}
    left_out: dict[str, str] = {}
    for answer in answers:
        origin = answer.example.pieces[0].origin
        assert origin is not None
        shared: _Shared = origin.extra
        left_out |= shared.left_out
        for name, (number, example) in shared.examples.items():
            scores = {head: answer.scores[joined(name, head)] for head in example.reads}
            own.setdefault(name, {})[number] = Answer(example, scores)
    return {name: [each[number] for number in sorted(each)] for name, each in own.items()}, left_out


def joined(name: str, head: str) -> str:
    """What a task's head is called among those of all."""
    return f"{name}/{head}"


def parted(joint: str) -> tuple[str, str]:
    """The task and its own name of the head."""
    name, _, head = joint.partition("/")
    return name, head


def _content(piece: Piece) -> tuple[bytes, bytes]:
    segments = piece.segment_ids
    second = b"" if segments is None or not segments.any() else segments.astype("int64").tobytes()
    return piece.input_ids.astype("int64").tobytes(), second
