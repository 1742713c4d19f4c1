"""How well a pre-trained model guesses masked pieces of text it has not seen, file by file.

python -m runs.heldout out/encoder/run --text ../shared/data/zh/rawtext/wikipedia_zh/dev.txt.xz …
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from runs.rows import Row

from bothways.data.pretraining import PretrainingSource
from bothways.data.shards import build_shards
from bothways.infer.predictor import Predictor
from bothways.models.model import load
from bothways.tasks.pretraining import PretrainTask
from bothways.train.heldout import HeldOut


def main(argv: Sequence[str] | None = None) -> int:
    """Print one JSON object a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a pre-trained model or its run, or builtin")
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="held-out text, each file by itself")
    parser.add_argument("--tokens", type=int, default=200_000, help="of each file at most")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--mask-rate", type=float, default=0.15)
    parser.add_argument("--pieces", action="store_true", help="mask pieces one by one, not whole words")
    wanted = parser.parse_args(argv)
    for path in wanted.text:
        how = {"max_length": wanted.max_length, "mask_rate": wanted.mask_rate, "whole_words": float(not wanted.pieces)}
        found = heldout(wanted.model, path, wanted.tokens, **how)
        print(json.dumps({"text": path.name, "from": path.parent.name} | found))
    return 0


def heldout(
    name: str | Path,
    text: Path,
    tokens: int,
    *,
    max_length: int = 128,
    mask_rate: float = 0.15,
    whole_words: float = 1.0,
) -> Row:
    """Loss and accuracy on so many tokens of a file; of a model of several tasks, those of its masked-LM head."""
    model = load(name)
    if not isinstance(model.task, PretrainTask):
        predictor = Predictor(model, device="cpu")
        if not predictor.can_fill_masks:
            sys.exit(f"{name} has no masked-LM head; give a pre-trained model, or one that kept it")
        model = predictor.filler().model
    task = model.task
    assert isinstance(task, PretrainTask)
    with tempfile.TemporaryDirectory(prefix="heldout-") as folder:
        source = PretrainingSource(
            build_shards(text, model.tokenizer, Path(folder) / "shards"),
            model.tokenizer,
            max_length=max_length,
            second=task.second,
            seed=0,
            mask_rate=mask_rate,
            whole_words=whole_words,
        )
        sequences = max(1, tokens // max_length)
        held = HeldOut(source, sequences, model, task, precision="float32", device=torch.device("cpu"))
        return {"sequences": sequences} | {metric: round(value, 4) for metric, value in held.scores().items()}


if __name__ == "__main__":
    sys.exit(main())
