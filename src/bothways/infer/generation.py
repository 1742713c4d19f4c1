"""Targets of examples: written in batches, streamed as they are written, aligned with their sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Batch, Example, Piece, Read, pack
from bothways.nn.decoding import Stop, Written, write, write_stepwise
from bothways.nn.decoding_settings import Writing
from bothways.nn.network import TEXT, Network
from bothways.text.tokenizer import Tokenizer

ROWS = 512  # target tokens whose logits are made at once


def written(
    network: Network, examples: Sequence[Example], device: torch.device, *, stop: Stop | None = None
) -> list[dict[str, np.ndarray]]:
    """For each example, in order, what was written: "ids" (t,), "score" () and "ended" ().

    Examples with a target that was to be taught also get "gold" (2,): the log-probability of its tokens, and their
    number.

    Raises:
        Stopped: `stop`, which is asked before each step, said so; nothing of any example is given then.
    """
    found: list[dict[str, np.ndarray]] = [{} for _ in examples]
    for writing, numbers in _together(examples):
        chosen = [examples[number] for number in numbers]
        batch = pack(chosen).to(device)
        assert batch.sources is not None
        memory = network.encoder(batch.tokens)
        targets = write(network, memory, batch.sources, writing, [example.seed for example in chosen], stop=stop)
        for number, target in zip(numbers, targets, strict=True):
            found[number] = _answer(target)
        if batch.decoder is not None:
            gold = _log_likelihoods(network, batch, memory)
            for number, sums in zip(numbers, gold, strict=True):
                found[number]["gold"] = sums
    return found


def _together(examples: Sequence[Example]) -> Iterator[tuple[Writing, list[int]]]:
    """Numbers of examples that are written in one way and have all, or all no, target; in the order of `pack`."""
    groups: dict[tuple[Writing, bool], list[int]] = {}
    for number, example in enumerate(examples):
        groups.setdefault((example.decoding, example.decoder is None), []).append(number)
    for (writing, _), numbers in groups.items():
        yield writing, sorted(numbers, key=lambda number: (examples[number].source_tokens, examples[number].tokens))


def _answer(target: Written) -> dict[str, np.ndarray]:
    return {
        "ids": np.array(target.ids, dtype=np.int64),
        "score": np.array(target.score),
        "ended": np.array(target.ended),
    }


def _log_likelihoods(network: Network, batch: Batch, memory: Tensor) -> list[np.ndarray]:
    """For each example the log-probability of its target's tokens, summed, and their number."""
    rows = network.decoded(batch, memory)
    target = batch.targets[TEXT]
    assert target.labels is not None
    head = network.head(TEXT)
    sums = [
        torch.nn.functional.cross_entropy(head(part, None, target.groups).float(), labels, reduction="none")
        for part, labels in zip(rows.split(ROWS), target.labels.split(ROWS), strict=True)
    ]
    losses = torch.cat(sums).double().cpu().numpy()
    return [np.array([-part.sum(), len(part)]) for part in np.split(losses, target.groups[1:-1].cpu().numpy())]


class Pieces(Iterator[str]):
    """A text in pieces, as they are written.

    tokens: how much of the source was read, as predictions tell it: {"kept": …}, and "strided", "dropped"
    """

    def __init__(self, pieces: Iterator[str], tokens: dict[str, int]) -> None:
        self._pieces, self.tokens = pieces, tokens

    def __next__(self) -> str:
        return next(self._pieces)


def stream(
    network: Network,
    example: Example,
    tokenizer: Tokenizer,
    device: torch.device,
    inferring: Callable[[], AbstractContextManager[None]],
    *,
    stop: Stop | None = None,
) -> Iterator[str]:
    """The text of one example's target in pieces, as they are written, greedily or by sampling.

    A piece is given out when the token after it is known, for that may take the space between them away.

    Raises:
        Stopped: `stop`, which is asked before each step, said so; pieces given out before stay what they are.
    """
    ids: list[int] = []
    told = before = ""
    tokens = _tokens(network, example, device, stop)
    while True:
        with inferring():  # not while the caller is at work on what was yielded
            token = next(tokens, None)
        if token is None:
            break
        ids.append(token)
        text = tokenizer.decode(ids)
        stable = text[: next((n for n, pair in enumerate(zip(text, before)) if pair[0] != pair[1]), len(before))]  # noqa: B905
        if len(stable) > len(told):
            yield stable[len(told) :]
            told = stable
        before = text
    if len(before) > len(told):
        yield before[len(told) :]


def _tokens(network: Network, example: Example, device: torch.device, stop: Stop | None) -> Iterator[int]:
    batch = pack([example]).to(device)
    assert batch.sources is not None
    memory = network.encoder(batch.tokens)
    for step in write_stepwise(network, memory, batch.sources, example.decoding, [example.seed], stop=stop):
        token = int(step.tokens[0])
        if token != example.decoding.end:
            yield token


def alignment(
    network: Network, example: Example, target: dict[str, np.ndarray], device: torch.device
) -> dict[str, Any]:
    """What each token of a target looked at when it was written.

    Returns:
        "attention": α, (layers, heads, target, source), rows summing to one; "content": C, (layers, target, D);
        "source_ids" and "target_ids", the end included where it was written. The source has its special tokens,
        and all of its windows one after the other.
    """
    writing: Writing = example.decoding
    ids = np.append(target["ids"], writing.end) if target["ended"] else target["ids"]
    given = np.concatenate([[writing.start], ids])[: len(ids)]
    read = Read(np.arange(len(given)), np.array([len(given)]))
    batch = pack([Example(example.pieces, {TEXT: read}, decoder=Piece(given))]).to(device)
    assert batch.decoder is not None
    assert batch.sources is not None
    memory = network.encoder(batch.tokens)
    weights, contents = network.writer.alignments(batch.decoder, memory, batch.sources)
    return {
        "source_ids": np.concatenate([piece.input_ids for piece in example.pieces]),
        "target_ids": ids,
        "attention": torch.stack([layer[0] for layer in weights]).float().cpu().numpy(),
        "content": torch.stack(contents).float().cpu().numpy(),
    }
