"""What all layers pass: the packed batch, in which nothing is padded, and the host-side examples it is made of.

Legend of shapes, used in every signature:

    T  tokens in a packed row          D  width (hidden_size)        C  classes or labels
    N  sequences in it                 H  attention heads            V  vocabulary
    M  rows that heads read            K  width of one head          G  groups of rows decided together
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

# ---------------------------------------------------------------------------------------------- host side


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one sequence came from, so that predictions can be joined again and offsets told.

    record:  index of the record in the input
    window:  which window of that record (0 when the text was not windowed)
    offsets: (t, 2) start and end of each token in the raw text, counted in characters; (0, 0) for [CLS] and [SEP]
    extra:   whatever the task needs to decode (word indices, the second text's place)
    """

    record: int
    window: int = 0
    offsets: np.ndarray | None = None
    extra: Any = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One sequence before packing: t token ids and, for each, whether it belongs to the second sentence."""

    input_ids: np.ndarray  # (t,) int
    segment_ids: np.ndarray | None = None  # (t,) int; None: all in the first sentence
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """What one head reads of one example.

    rows:   positions counted over the example's sequences laid end to end
    groups: sizes of the groups that the rows fall into, in order; they sum to len(rows)
    labels: one per group or per row, as the task's loss wants them; None when predicting
    weight: what this example adds to the number that the summed loss is divided by
    redraw: of masked tokens: others, by a seed; the sequence's ids and what is read of it then
    """

    rows: np.ndarray  # (m,) int
    groups: np.ndarray  # (g,) int
    labels: np.ndarray | None = None
    weight: float = 0.0
    redraw: Callable[[int], tuple[np.ndarray, Read]] | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """The one or more sequences that must stay together, never parted by packing."""

    pieces: tuple[Piece, ...]
    reads: dict[str, Read]
    decoder: Piece | None = None  # the target that an encoder-decoder is taught to write; heads read its rows then
    decoding: Any = None  # how it shall write one by itself (nn/decoding_settings.py); None: it shall not
    seed: int = 0  # what dropout draws from: the same example gets the same noise wherever it is packed
    vectors: dict[str, np.ndarray] | None = None  # (m, W) that each head reads, where a frozen encoder gave them before

    def seeded(self, seed: int) -> Example:
        """The same with that seed for its dropout, and with masks drawn by it where it has any."""
        pieces, reads = self.pieces, {}
        for head, read in self.reads.items():
            if read.redraw is not None:  # its sequence has been masked for this head, so no other one reads it
                (piece,) = self.pieces
                ids, read = read.redraw(seed)
                pieces = (replace(piece, input_ids=ids),)
            reads[head] = read
        return replace(self, pieces=pieces, reads=reads, seed=seed)

    @property
    def tokens(self) -> int:
        """Tokens that the layers will see: those of the encoder and those of a target to be taught."""
        return self.source_tokens + (0 if self.decoder is None else len(self.decoder.input_ids))

    @property
    def source_tokens(self) -> int:
        """Tokens that the encoder will see."""
        return sum(len(piece.input_ids) for piece in self.pieces)

    @property
    def read_parts(self) -> tuple[Piece, ...]:
        """The sequences that `Read.rows` counts over."""
        return self.pieces if self.decoder is None else (self.decoder,)

    @property
    def has_target(self) -> bool:
        """Whether its sequences are one source of which a target is written."""
        return self.decoder is not None or self.decoding is not None


# -------------------------------------------------------------------------------------------- device side


Change = Callable[[Tensor], Tensor]  # of a tensor's place, not of its numbers


@dataclass(frozen=True)
class Tokens:
    """N sequences end to end in one row of T tokens, about shortest first. Nothing is padded."""

    input_ids: Tensor  # (T,) int64
    segment_ids: Tensor  # (T,) int64: 0 in the first sentence, 1 in the second
    position_ids: Tensor  # (T,) int64: restarts at 0 in each sequence
    cu_seqlens: Tensor  # (N + 1,) int32: sequence i is [cu_seqlens[i], cu_seqlens[i + 1])
    max_seqlen: int  # a Python int, so that no kernel has to ask the device
    lengths: tuple[int, ...]  # the same boundaries on the host, for kernels that are planned there
    noise: Tensor | None = None  # (T,) int64: what dropout hashes; None: it draws its own
    plans: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # kernels' own, by key

    def to(self, device: torch.device | str) -> Tokens:
        """The same tokens on `device`; copies do not wait for the device when memory is pinned."""
        return self.each(_to(device))

    def each(self, change: Change) -> Tokens:
        """The same tokens with `change` done to every tensor."""
        names = ("input_ids", "segment_ids", "position_ids", "cu_seqlens", "noise")
        changed = {name: None if (value := getattr(self, name)) is None else change(value) for name in names}
        return replace(self, **changed, plans={})


@dataclass(frozen=True)
class Target:
    """What one head reads, and what it is judged by."""

    rows: slice  # its part of Batch.target_index
    groups: Tensor  # (G + 1,) int64 bounds within `rows`: rows decided together
    labels: Tensor | None
    weight: float  # what its summed loss is divided by: masked tokens, words, questions, pairs


@dataclass(frozen=True)
class Batch:
    """One packed row, what is read of it, and where each sequence came from."""

    tokens: Tokens
    target_index: Tensor  # (M,) int64: one gather for all heads
    targets: dict[str, Target]  # one a head
    origin: list[Origin | None]  # host side, one a sequence, in the order of the examples' pieces
    decoder: Tokens | None = None  # the target side of an encoder-decoder, one sequence an example
    sources: Tokens | None = None  # `tokens` with the bounds of examples: what each target's tokens attend to
    vectors: Tensor | None = None  # (M, W) what heads read, where it is known: the encoder is not asked

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`; `origin` stays where it is."""
        return self.each(_to(device))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU copies from by itself, so that `to` does not wait for it."""
        return self.each(Tensor.pin_memory)

    def each(self, change: Change) -> Batch:
        """The same batch with `change` done to every tensor."""
        targets = {
            name: replace(
                target,
                groups=change(target.groups),
                labels=None if target.labels is None else change(target.labels),
            )
            for name, target in self.targets.items()
        }
        tokens, sources = self.tokens.each(change), self.sources
        if sources is not None:
            sources = tokens if sources is self.tokens else sources.each(change)
        return replace(
            self,
            tokens=tokens,
            sources=sources,
            decoder=None if self.decoder is None else self.decoder.each(change),
            target_index=change(self.target_index),
            targets=targets,
            vectors=None if self.vectors is None else change(self.vectors),
        )


def _to(device: torch.device | str) -> Change:
    return lambda tensor: tensor.to(device, non_blocking=True)


# -------------------------------------------------------------------------------------------------- packing


def pack(examples: Sequence[Example]) -> Batch:
    """Lay the sequences of `examples` end to end, shortest first, and point each head at the rows it reads.

    Shortest first because the CPU's attention works on runs of nearly equal length, which are then plain
    slices. With targets, examples are laid out shortest source first, those with equal sources shortest target
    first, and targets in the same order: cross-attention pairs the n-th target with the n-th source, whose
    sequences (windows of a long text) lie next to each other. The order of examples is kept where it matters: in
    `target_index`, in labels and in `origin`. A head that an example does not feed has no rows of it.

    Raises:
        ValueError: no example.
    """
    if not examples:
        raise ValueError("pack() needs at least one example")
    pieces = [piece for example in examples for piece in example.pieces]
    counts = np.array([len(example.pieces) for example in examples])
    decoder = sources = None
    if examples[0].has_target:
        written = [0 if example.decoder is None else len(example.decoder.input_ids) for example in examples]
        by_source = np.lexsort((written, [example.source_tokens for example in examples]))
        bounds = [0, *np.cumsum(counts).tolist()]
        order = np.concatenate([np.arange(bounds[n], bounds[n + 1]) for n in by_source.tolist()])
        row, starts = _lay_out(pieces, _seeds(examples, counts), order)
        sources = _bounded(row, [examples[n].source_tokens for n in by_source]) if counts.max() > 1 else row
        if examples[0].decoder is not None:
            targets_side = [example.decoder for example in examples if example.decoder is not None]
            seeds = np.array([_mix(example.seed, _TARGET) for example in examples], dtype=np.int64)
            decoder, starts = _lay_out(targets_side, seeds, by_source)
    else:
        order = np.argsort([len(piece.input_ids) for piece in pieces], kind="stable")
        row, starts = _lay_out(pieces, _seeds(examples, counts), order)

    first_piece = np.cumsum([0] + [len(example.read_parts) for example in examples])
    heads = dict.fromkeys(head for example in examples for head in example.reads)
    index = [np.empty(0, dtype=np.int64)]  # for a bare encoder, which has no head
    vectors: list[np.ndarray] = []
    targets: dict[str, Target] = {}
    at = 0
    for head in heads:
        numbers = [number for number, example in enumerate(examples) if head in example.reads]
        reads = [examples[number].reads[head] for number in numbers]
        vectors += [given[head] for number in numbers if (given := examples[number].vectors) is not None]
        for number, read in zip(numbers, reads, strict=True):
            parts = examples[number].read_parts
            begin = starts[first_piece[number] : first_piece[number] + len(parts)]
            index.append(_globally(read.rows, parts, begin))
        count = sum(len(read.rows) for read in reads)
        sizes = np.concatenate([read.groups for read in reads])
        labelled = all(read.labels is not None for read in reads)
        labels = np.concatenate([read.labels for read in reads if read.labels is not None]) if labelled else None
        targets[head] = Target(
            rows=slice(at, at + count),
            groups=torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)),
            labels=None if labels is None else torch.from_numpy(labels),
            weight=float(sum(read.weight for read in reads)),
        )
        at += count
    return Batch(
        tokens=row,
        decoder=decoder,
        sources=sources,
        target_index=torch.from_numpy(np.concatenate(index).astype(np.int64)),
        targets=targets,
        origin=[piece.origin for piece in pieces],
        vectors=torch.from_numpy(np.concatenate(vectors)) if vectors else None,
    )


_TARGET = 1 << 20  # the number of the target among an example's sequences, for its dropout


def _seeds(examples: Sequence[Example], counts: np.ndarray) -> np.ndarray:
    """One dropout seed a sequence; the sequences of one example differ (SimCSE packs one text twice)."""
    return np.array(
        [
            _mix(example.seed, number)
            for example, count in zip(examples, counts, strict=True)
            for number in range(count)
        ],
        dtype=np.int64,
    )


def _mix(seed: int, number: int) -> int:
    """A 63-bit number from two, by splitmix64's finaliser (Steele et al., 2014)."""
    x = (seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (x ^ (x >> 31)) >> 1


def mix_seed(*numbers: int) -> int:
    """One seed from several numbers (run, epoch, record): stateless, so a resumed run draws the same."""
    seed = 0
    for number in numbers:
        seed = _mix(seed, number)
    return seed


def _lay_out(pieces: list[Piece], seeds: np.ndarray, order: np.ndarray) -> tuple[Tokens, np.ndarray]:
    """The packed row, the pieces in that order, and where each (in the order given) begins in it."""
    lengths = np.array([len(piece.input_ids) for piece in pieces])
    ordered = lengths[order]
    bounds = np.concatenate([[0], np.cumsum(ordered)])
    starts = np.empty(len(pieces), dtype=np.int64)
    starts[order] = bounds[:-1]

    total = int(bounds[-1])
    position_ids = np.arange(total) - np.repeat(bounds[:-1], ordered)
    noise = np.repeat(seeds[order], ordered) + position_ids * np.int64(0x5851F42D4C957F2D >> 8)
    segment_ids = np.zeros(total, dtype=np.int64)
    for number in order:
        if (segments := pieces[number].segment_ids) is not None:
            segment_ids[starts[number] : starts[number] + lengths[number]] = segments
    return (
        Tokens(
            input_ids=torch.from_numpy(np.concatenate([pieces[number].input_ids for number in order]).astype(np.int64)),
            segment_ids=torch.from_numpy(segment_ids),
            position_ids=torch.from_numpy(position_ids.astype(np.int64)),
            cu_seqlens=torch.from_numpy(bounds.astype(np.int32)),
            max_seqlen=int(ordered.max()),
            lengths=tuple(ordered.tolist()),
            noise=torch.from_numpy(noise),
        ),
        starts,
    )


def _bounded(row: Tokens, lengths: list[int]) -> Tokens:
    """The same row in sequences of these lengths."""
    bounds = torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32))
    return replace(row, cu_seqlens=bounds, max_seqlen=max(lengths), lengths=tuple(lengths), plans={})


def _globally(rows: np.ndarray, parts: Iterable[Piece], begin: np.ndarray) -> np.ndarray:
    """Rows counted over an example's own sequences, as positions in the packed row."""
    if len(begin) == 1:
        return rows + begin[0]
    ends = np.cumsum([len(piece.input_ids) for piece in parts])
    part = np.searchsorted(ends, rows, side="right")
    before = np.concatenate([[0], ends[:-1]])
    return rows - before[part] + begin[part]
