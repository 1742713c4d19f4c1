"""A pre-trained model without its next-sentence head and pooler, as a compact folder: fine-tuning begins a fresh one.

    python -m runs.without_pooler out/encoder/run out/encoder/builtin

After little pre-training the pooler knows one question only, and a classifier that starts from it does worse (LOG.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

from bothways.models.model import load, save
from bothways.tasks.pretraining import PretrainTask


def main(source: str, target: str) -> int:
    """Write the folder."""
    model = load(source)
    model.network.encoder.pooler = None
    model.network.heads = nn.ModuleDict({"masked": model.network.head("masked")})
    model.task = PretrainTask(None)
    card = (model.folder / "README.md") if model.folder is not None else None
    save(model, Path(target), card=card.read_text(encoding="utf-8") if card is not None else "", compact=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
