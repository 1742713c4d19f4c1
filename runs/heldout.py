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

from bothways.data.pretraining import PretrainingSource
from bothways.data.shards import build_shards
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
    wanted = parser.parse_args(argv)
    model = load(wanted.model)
    if not isinstance(model.task, PretrainTask):
        sys.exit(f"{wanted.model} is no pre-trained model with its masked-LM head")
    for path in wanted.text:
        with tempfile.TemporaryDirectory(prefix="heldout-") as folder:
            shards = build_shards(path, model.tokenizer, Path(folder) / "shards")
            source = PretrainingSource(
                shards,
                model.tokenizer,
                max_length=wanted.max_length,
                second=model.task.second,
                seed=0,
                mask_rate=wanted.mask_rate,
            )
            sequences = max(1, wanted.tokens // wanted.max_length)
            held = HeldOut(source, sequences, model, model.task, precision="float32", device=torch.device("cpu"))
            scores = {name: round(value, 4) for name, value in held.scores().items()}
        print(json.dumps({"text": path.name, "from": path.parent.name, "sequences": sequences, **scores}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
