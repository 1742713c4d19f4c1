"""Targets of examples: written in batches, streamed as they are written, aligned with their sources."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
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

    tokens:     how much of the source was read, as predictions tell it: {"kept": …}, and "strided", "dropped"
    unfinished: known after the last piece: whether the text was cut at its greatest length
    """

    def __init__(self, pieces: Iterator[str], tokens: dict[str, int]) -> None:
        """`pieces`: a generator that returns whether the text is unfinished."""
        self._pieces, self.tokens, self.unfinished = pieces, tokens, False

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self.unfinished = self.unfinished or bool(end.value)
            raise


def stream(
    network: Network,
    example: Example,
    tokenizer: Tokenizer,
    device: torch.device,
    inferring: Callable[[], AbstractContextManager[None]],
    *,
    stop: Stop | None = None,
) -> Generator[str, None, bool]:
    """The text of one example's target word by word, as it is written, greedily or by sampling.

    A word is given out when the one after it has begun, for that may take the space between them away; an apostrophe
    waits for the whole word after it ("it ' s" is it's, "it ' so" is not), as digits after a comma do.

    Returns:
        whether the text was cut at its greatest length

    Raises:
        Stopped: `stop`, which is asked before each step, said so; pieces given out before stay what they are.
    """
    ids: list[int] = []
    words: list[int] = []  # where each begins, apostrophes as part of the word after them
    told = ""
    tokens = _tokens(network, example, device, stop)
    while True:
        with inferring():  # not while the caller is at work on what was yielded
            token = next(tokens, None)
        over = token is None or token == example.decoding.end
        if token is not None and not over:
            if not ids or not (tokenizer.token(token).startswith("##") or tokenizer.token(ids[-1]) == "'"):
                words.append(len(ids))
            ids.append(token)
        text = tokenizer.decode(ids)
        stable = text if over else _common(tokenizer.decode(ids[: words[-1]]), text)
        if len(stable) > len(told):
            yield stable[len(told) :]
            told = stable
        if over:
            return token is None


def _common(a: str, b: str) -> str:
    """What both texts begin with."""
    return a[: next((n for n, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))]


def _tokens(network: Network, example: Example, device: torch.device, stop: Stop | None) -> Iterator[int]:
    """What is written, token by token, the end included where it is."""
    batch = pack([example]).to(device)
    assert batch.sources is not None
    memory = network.encoder(batch.tokens)
    for step in write_stepwise(network, memory, batch.sources, example.decoding, [example.seed], stop=stop):
        yield int(step.tokens[0])


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
