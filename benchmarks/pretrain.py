"""Pre-training steps on a CPU: Bothways, packed, beside transformers' BertForPreTraining, padded to 128.

    python benchmarks/pretrain.py --rounds 5
    python benchmarks/pretrain.py --text ../shared/data/en/rawtext/wikipedia_2015/train-00.txt.xz

Both begin from the same weights and take the same steps on the same masked examples (next sentence too), by turns in
one process. Bothways' seconds are those of its loop as `bothways pretrain` runs it, in which a thread makes the
examples meanwhile; the peer's batches are made before its clock starts. The peer has its best settings: PyTorch's fused
attention and AdamW, no attention dropout, bfloat16 by autocast where the processor multiplies it natively, and the
fastest of several sizes of micro-batch. Tokens are counted without padding. The losses are of the first step's
examples, without dropout, before and after all rounds.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _text import read_documents, write_documents

from bothways.batch import Example, pack
from bothways.data.loader import StepSize, prefetched, steps
from bothways.data.pretraining import PretrainingSource
from bothways.data.shards import build_shards
from bothways.data.source import Item
from bothways.errors import BothwaysError
from bothways.infer.devices import computing_in, pick_precision
from bothways.models.hub import locate
from bothways.models.model import Model, fresh, save, seed_everything
from bothways.models.sizes import sized
from bothways.nn.dropout import set_dropout
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer
from bothways.train.loop import Progress, train
from bothways.train.optimizer import Optim, make_optimizer
from bothways.train.ranks import Ranks
from bothways.train.settings import Pretrain

CPU = torch.device("cpu")
LENGTH = 128  # of the longest sequence, and of every one over there
DROPOUT = 0.1
IGNORED = -100  # the label that torch's cross-entropy passes over


@dataclass
class Side:
    """One of those who take turns.

    run:  takes a round's steps
    loss: of the first step's examples
    """

    name: str
    precision: str
    run: Callable[[], None]
    loss: Callable[[], float]
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


class Taken:
    """Always the same items; a `Source`."""

    def __init__(self, items: list[Item]) -> None:
        self._items = items

    def items(self, epoch: int, skip: int = 0) -> Iterator[Item]:
        """All of them in their order, in any epoch."""
        return iter(self._items[skip:])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    wanted = _arguments(argv)
    torch.set_num_threads(wanted.threads)
    with tempfile.TemporaryDirectory(prefix="pretrain-") as scratch:
        tokenizer = Tokenizer.from_folder(locate(wanted.vocab))
        items = _items(tokenizer, wanted, Path(scratch))
        seed_everything(0)
        model = fresh(sized(wanted.size, tokenizer.size), tokenizer, PretrainTask("next"))
        save(model, Path(scratch) / "start")
        sides, micro = [], ""
        for precision in dict.fromkeys((pick_precision("auto", CPU), "float32")):
            theirs, batch = transformers(Path(scratch) / "start", items, precision, wanted)
            sides += [bothways(model, items, precision, wanted), theirs]
            micro += f", {batch} in {precision}"
        take_turns(sides, wanted.rounds)
    lengths = [item.tokens for item in items]
    print(table(sides, sum(lengths)))
    print(
        f"\n{wanted.size}, {wanted.rounds} rounds of {wanted.steps} steps of {wanted.examples} examples, "
        f"{mean(lengths):.0f} tokens long on average, {wanted.threads} threads; "
        f"examples in a micro-batch of the peer's fastest kind: {micro[2:]}"
    )
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", default=None, help="files of raw text; default: Python's own")
    parser.add_argument("--megabytes", type=float, default=8.0, help="of the text at most")
    parser.add_argument("--vocab", default="builtin", help="folder of a vocabulary; default: the built-in model's")
    parser.add_argument("--size", default="mini", help="of the model: tiny, mini, … or layers x width")
    parser.add_argument("--examples", type=int, default=64, help="of one step")
    parser.add_argument("--steps", type=int, default=8, help="of one round")
    parser.add_argument("--micro", type=int, nargs="+", default=[8, 16, 32, 64], help="sizes that the peer tries")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="few and small steps, to see that it runs")
    wanted = parser.parse_args(argv)
    if wanted.quick:
        wanted.megabytes, wanted.examples, wanted.steps, wanted.rounds = 0.5, 8, 2, min(2, wanted.rounds)
    wanted.micro = [size for size in wanted.micro if size < wanted.examples] + [wanted.examples]
    return wanted


def _items(tokenizer: Tokenizer, wanted: argparse.Namespace, scratch: Path) -> list[Item]:
    """The examples of one round, which are the same in all."""
    write_documents(scratch / "text.txt", read_documents(wanted.text, wanted.megabytes))
    shards = build_shards(scratch / "text.txt", tokenizer, scratch / "shards", workers=wanted.threads)
    source = PretrainingSource(shards, tokenizer, max_length=LENGTH, second="next", seed=0)
    needed = wanted.steps * wanted.examples
    items = list(islice(source.items(0), needed))
    if len(items) < needed:
        sys.exit(f"the text makes {len(items)} examples, {needed} are wanted; give more text, or fewer --steps")
    return items


def take_turns(sides: Sequence[Side], rounds: int) -> None:
    """A round of each (A B A B …), after one that is not counted."""
    for side in sides:
        side.losses.append(side.loss())
    for number in range(rounds + 1):
        for side in sides:
            begun = time.perf_counter()
            side.run()
            if number:
                side.seconds.append(time.perf_counter() - begun)
                told = f"{side.name} {side.precision} {side.seconds[-1]:.2f} s"
                print(f"round {number} of {rounds}: {told}", file=sys.stderr, flush=True)
    for side in sides:
        side.losses.append(side.loss())


# ------------------------------------------------------------------------------------------------- the two sides


def bothways(model: Model, items: list[Item], precision: str, wanted: argparse.Namespace) -> Side:
    """The loop of `bothways pretrain` with its defaults, but for a rate that stays where it is."""
    network, task = copy.deepcopy(model.network), PretrainTask("next")
    settings, progress = _optim(), Progress()
    assert settings.attention_dropout is not None
    network.set_attention_dropout(settings.attention_dropout)
    set_dropout(network, DROPOUT)
    optimizer = make_optimizer(network, settings)
    size = StepSize(examples=wanted.examples, micro_tokens=Pretrain().batching.micro_tokens)
    first = pack([item.make() for item in items[: wanted.examples]])

    def run() -> None:
        with closing(prefetched(islice(steps(Taken(items), size), wanted.steps))) as batches:
            train(
                network,
                task,
                batches,
                optimizer,
                settings,
                steps=progress.step + wanted.steps,
                progress=progress,
                device=CPU,
                precision=precision,
                ranks=Ranks(),
                after_step=lambda report: None,
            )

    def loss() -> float:
        network.eval()
        with torch.no_grad(), computing_in(precision, CPU):
            losses = task.losses(network(first), first)
        return sum(float(losses[head]) / first.targets[head].weight for head in losses)

    return Side("bothways", precision, run, loss)


def transformers(folder: Path, items: list[Item], precision: str, wanted: argparse.Namespace) -> tuple[Side, int]:
    """BertForPreTraining in plain PyTorch, as fast as its switches make it; and the examples of a micro-batch."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    settings = _optim()
    model = transformers.BertForPreTraining.from_pretrained(
        folder, attn_implementation="sdpa", attention_probs_dropout_prob=0.0, hidden_dropout_prob=DROPOUT
    )
    examples = [item.make() for item in items]
    groups = [examples[at : at + wanted.examples] for at in range(0, len(examples), wanted.examples)]
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )

    def step(micro: Sequence[dict[str, torch.Tensor]]) -> None:
        model.train()
        for batch in micro:
            with computing_in(precision, CPU):
                found = model(**batch).loss
            (found / len(micro)).backward()
        assert settings.clip is not None
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def split(group: list[Example], size: int) -> list[dict[str, torch.Tensor]]:
        pad = model.config.pad_token_id or 0
        return [padded(group[at : at + size], pad) for at in range(0, len(group), size)]

    fastest = wanted.micro[0]
    if len(wanted.micro) > 1:
        start = copy.deepcopy(model.state_dict())
        fastest = min(wanted.micro, key=lambda size: min(_seconds(lambda: step(split(groups[0], size))) for _ in "123"))
        model.load_state_dict(start)
        optimizer.state.clear()
    made = [split(group, fastest) for group in groups]

    def run() -> None:
        for micro in made:
            step(micro)

    def loss() -> float:
        model.eval()
        with torch.no_grad(), computing_in(precision, CPU):
            return float(model(**split(groups[0], wanted.examples)[0]).loss)

    return Side("transformers", precision, run, loss), fastest


def padded(examples: Sequence[Example], pad: int) -> dict[str, torch.Tensor]:
    """What BertForPreTraining reads: (n, LENGTH), a label where a token is masked, and whether B follows A."""
    shape = (len(examples), LENGTH)
    ids, mask, segments, labels = (np.full(shape, value) for value in (pad, 0, 0, IGNORED))
    for row, example in enumerate(examples):
        (piece,), read = example.pieces, example.reads["masked"]
        length = len(piece.input_ids)
        ids[row, :length], mask[row, :length], segments[row, :length] = piece.input_ids, 1, piece.segment_ids
        labels[row, read.rows] = read.labels
    follows = np.concatenate([example.reads["next"].labels for example in examples])
    names = ("input_ids", "attention_mask", "token_type_ids", "labels", "next_sentence_label")
    return dict(zip(names, map(torch.from_numpy, (ids, mask, segments, labels, follows)), strict=True))


def _optim() -> Optim:
    """As `bothways pretrain` has it, at a rate that stays where it is."""
    given = Pretrain().optim
    return Optim(
        method="adamw",
        lr=1e-4,
        warmup=0.0,
        schedule="constant",
        beta1=given.beta1,
        beta2=given.beta2,
        eps=given.eps,
        clip=given.clip,
    )


def _seconds(function: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def table(sides: Sequence[Side], tokens: int) -> str:
    """Markdown: tokens a second, how often as fast as the peer (the median of the rounds' ratios), losses."""
    own = {side.precision: side for side in sides if side.name == "bothways"}
    lines = [
        "| precision | side | tokens/s, median (max) | × as fast: bothways, median (min) | loss before → after |",
        "|---|---|---|---|---|",
    ]
    for side in sides:
        ratio = "–"
        if side is not own[side.precision]:
            pairs = zip(side.seconds, own[side.precision].seconds, strict=True)
            ratios = [theirs / mine for theirs, mine in pairs]
            ratio = f"{median(ratios):.2f} ({min(ratios):.2f})"
        speed = f"{tokens / median(side.seconds):,.0f} ({tokens / min(side.seconds):,.0f})"
        losses = " → ".join(f"{value:.3f}" for value in side.losses)
        lines.append(f"| {side.precision} | {side.name} | {speed} | {ratio} | {losses} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BothwaysError as error:
        sys.exit(str(error))
