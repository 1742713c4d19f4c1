"""Packing: every row that a head reads is the token it meant, whatever company its example is packed in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.batch import Batch, Example, Origin, Piece, Read, mix_seed, pack

SHAPES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=5)


def examples_of(shapes: list[list[int]], seed: int, *, decoder: bool) -> list[Example]:
    """Examples of sequences of these lengths, read by two heads; with a decoder's side, that is what they read.

    All token ids differ, so that each token can be told wherever it is.
    """
    rng = np.random.default_rng(seed)
    taken = 0

    def piece(size: int, origin: Origin) -> Piece:
        nonlocal taken
        taken += size
        segments = rng.integers(0, 2, size) if rng.random() < 0.5 else None
        return Piece(np.arange(taken - size, taken), segments, origin)

    examples = []
    for record, lengths in enumerate(shapes):
        pieces = tuple(piece(length, Origin(record, window)) for window, length in enumerate(lengths))
        other = piece(int(rng.integers(1, 9)), Origin(record)) if decoder else None
        total = sum(len(part.input_ids) for part in ((other,) if other else pieces))
        reads = {}
        for head in ("one", "two"):
            groups = rng.integers(1, 4, rng.integers(0, 4))
            rows = rng.integers(0, total, groups.sum())
            reads[head] = Read(rows, groups, labels=rows * 7 + record, weight=float(len(groups)))
        examples.append(Example(pieces, reads, decoder=other, seed=mix_seed(3, record)))
    return examples


def ids_of(example: Example) -> np.ndarray:
    """The ids that `Read.rows` counts over."""
    return np.concatenate([piece.input_ids for piece in example.read_parts])


def noise_by_id(batch: Batch) -> dict[int, int]:
    """What dropout hashes for each token."""
    assert batch.tokens.noise is not None
    return dict(zip(batch.tokens.input_ids.tolist(), batch.tokens.noise.tolist(), strict=True))


@given(SHAPES, st.integers(0, 1 << 32), st.booleans())
@settings(max_examples=50)
def test_heads_read_their_own_tokens(shapes: list[list[int]], seed: int, decoder: bool) -> None:
    examples = examples_of(shapes, seed, decoder=decoder)
    batch = pack(examples)
    tokens = batch.decoder if batch.decoder is not None else batch.tokens
    read_ids = tokens.input_ids[batch.target_index].numpy()
    assert list(batch.targets) == ["one", "two"]
    for head, target in batch.targets.items():
        reads = [example.reads[head] for example in examples]
        wanted = [ids_of(example)[read.rows] for example, read in zip(examples, reads, strict=True)]
        assert np.array_equal(read_ids[target.rows], np.concatenate(wanted))
        assert target.labels is not None
        assert np.array_equal(target.labels, np.concatenate([read.labels for read in reads]))
        assert np.array_equal(target.groups.diff(), np.concatenate([read.groups for read in reads]))
        assert int(target.groups[0]) == 0
        assert int(target.groups[-1]) == target.rows.stop - target.rows.start
        assert target.weight == sum(read.weight for read in reads)
    assert len(batch.target_index) == batch.targets["two"].rows.stop


@given(SHAPES, st.integers(0, 1 << 32), st.booleans())
@settings(max_examples=50)
def test_sequences_lie_whole_and_shortest_first(shapes: list[list[int]], seed: int, decoder: bool) -> None:
    examples = examples_of(shapes, seed, decoder=decoder)
    batch = pack(examples)
    sides = [(batch.tokens, [piece for example in examples for piece in example.pieces])]
    if batch.decoder is not None:
        sides.append((batch.decoder, [example.decoder for example in examples if example.decoder is not None]))
    else:
        assert list(batch.tokens.lengths) == sorted(batch.tokens.lengths)
    for tokens, pieces in sides:
        assert sorted(tokens.lengths) == sorted(len(piece.input_ids) for piece in pieces)
        assert tokens.cu_seqlens.tolist() == np.cumsum([0, *tokens.lengths]).tolist()
        assert tokens.max_seqlen == max(tokens.lengths)
        by_first_id = {int(piece.input_ids[0]): piece for piece in pieces}
        columns = (tokens.input_ids, tokens.segment_ids, tokens.position_ids)
        for ids, segments, positions in zip(*(column.split(tokens.lengths) for column in columns), strict=True):
            piece = by_first_id.pop(int(ids[0]))
            assert np.array_equal(ids, piece.input_ids)
            assert np.array_equal(segments, 0 * ids if piece.segment_ids is None else piece.segment_ids)
            assert positions.tolist() == list(range(len(ids)))
        assert not by_first_id
    assert batch.origin == [piece.origin for example in examples for piece in example.pieces]


@given(SHAPES, st.integers(0, 1 << 32))
@settings(max_examples=50)
def test_the_nth_target_is_of_the_nth_source(shapes: list[list[int]], seed: int) -> None:
    """All sequences of a source lie next to each other, in order, and shorter sources come first."""
    examples = examples_of(shapes, seed, decoder=True)
    batch = pack(examples)
    assert batch.sources is not None
    assert batch.decoder is not None
    assert list(batch.sources.lengths) == sorted(batch.sources.lengths)
    assert batch.sources.cu_seqlens.tolist() == np.cumsum([0, *batch.sources.lengths]).tolist()
    assert batch.sources.max_seqlen == max(batch.sources.lengths)
    sources = {
        np.concatenate([piece.input_ids for piece in example.pieces]).tobytes(): example.decoder for example in examples
    }
    for source, target in zip(
        batch.tokens.input_ids.split(batch.sources.lengths),
        batch.decoder.input_ids.split(batch.decoder.lengths),
        strict=True,
    ):
        wanted = sources.pop(source.numpy().tobytes())
        assert wanted is not None
        assert np.array_equal(target, wanted.input_ids)
    assert not sources


@given(SHAPES, st.integers(0, 1 << 32), st.booleans())
@settings(max_examples=50)
def test_noise_belongs_to_the_example_not_to_the_batch(shapes: list[list[int]], seed: int, decoder: bool) -> None:
    examples = examples_of(shapes, seed, decoder=decoder)
    together = noise_by_id(pack(examples))
    for example in examples:
        assert noise_by_id(pack([example])).items() <= together.items()
    assert noise_by_id(pack(examples[::-1])) == together
    assert len(set(together.values())) == len(together)


def test_one_text_twice_gets_two_noises() -> None:
    """As SimCSE needs it."""
    text = Piece(np.arange(5))
    batch = pack([Example((text, text), {"vector": Read(np.array([0, 5]), np.array([1, 1]))}, seed=1)])
    assert batch.tokens.noise is not None
    assert not set(batch.tokens.noise[:5].tolist()) & set(batch.tokens.noise[5:].tolist())


def test_prediction_has_no_labels_and_no_example_is_refused() -> None:
    example = Example((Piece(np.arange(3)),), {"label": Read(np.array([0]), np.array([1]))})
    assert pack([example]).targets["label"].labels is None
    with pytest.raises(ValueError, match="at least one example"):
        pack([])


def test_without_heads_there_is_still_a_row_of_tokens() -> None:
    batch = pack([Example((Piece(np.arange(3)),), {})])
    assert (batch.targets, len(batch.target_index)) == ({}, 0)
    assert batch.tokens.input_ids.tolist() == [0, 1, 2]


def test_moving_a_batch_keeps_all_of_it() -> None:
    example = Example((Piece(np.arange(3)),), {"label": Read(np.array([0]), np.array([1]), np.array([2]), 1.0)}, seed=5)
    batch = pack([example])
    batch.tokens.plans["kernel"] = "a plan for the other device"
    moved = batch.to("cpu")
    assert torch.equal(moved.tokens.input_ids, batch.tokens.input_ids)
    assert noise_by_id(moved) == noise_by_id(batch)
    assert moved.targets["label"].labels is not None
    assert moved.targets["label"].labels.tolist() == [2]
    assert moved.tokens.plans == {}


def test_mix_seed_spreads() -> None:
    seeds = [mix_seed(run, epoch, record) for run in range(10) for epoch in range(10) for record in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert mix_seed(1, 2) != mix_seed(2, 1)
    assert mix_seed(1) != mix_seed(1, 0) != mix_seed(1, 0, 0)
    bits = (np.array(seeds)[:, None] >> np.arange(63)) & 1
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.025  # 5 deviations of 10,000 coins
    assert np.abs(np.corrcoef(bits.T) - np.eye(63)).max() < 0.05


def test_mix_seed_is_the_same_everywhere() -> None:
    """Resumed runs and other machines rely on these numbers."""
    assert mix_seed(0) == 3952864364094478165
    assert mix_seed(1, 2) == 7884579354590645892
    assert mix_seed(-1) == 134957554821667495


def tensors_of(batch: Batch) -> list[torch.Tensor]:
    """All that lies on a device, in one order."""
    rows = [row for row in (batch.tokens, batch.sources, batch.decoder) if row is not None]
    held = [value for row in rows for value in vars(row).values()]
    held += [value for target in batch.targets.values() for value in (target.groups, target.labels)]
    found = [value for value in held if isinstance(value, torch.Tensor)]
    return [*found, batch.target_index]


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("shapes", [[[3], [2], [7]], [[3, 1], [2], [7, 9]]], ids=str)
def test_pinned_is_the_same_batch(shapes: list[list[int]], decoder: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor of it: one that is not would have the host wait for the GPU all the same."""
    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        pinned.append(copy.data_ptr())
        return copy

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    batch = pack(examples_of(shapes, 1, decoder=decoder))
    moved = batch.pinned()
    assert [tensor.data_ptr() in pinned for tensor in tensors_of(moved)] == [True] * len(tensors_of(batch))
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(batch), tensors_of(moved), strict=True))
    assert (moved.sources is moved.tokens) == (batch.sources is batch.tokens)
    assert (moved.origin, moved.tokens.lengths) == (batch.origin, batch.tokens.lengths)


@pytest.mark.gpu
def test_pinned_on_a_gpu() -> None:
    batch = pack(examples_of([[3, 1], [2]], 1, decoder=True)).pinned()
    assert all(tensor.is_pinned() for tensor in tensors_of(batch))
    there = batch.to("cuda")
    torch.cuda.synchronize()
    assert all(torch.equal(a, b.cpu()) for a, b in zip(tensors_of(batch), tensors_of(there), strict=True))
