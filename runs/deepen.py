"""The built-in encoder with one layer more, for the next try at it: a start for further training.

    python -m runs.deepen OUT [--model builtin] [--layers 4] [--share 0.3]

Its word vectors and masked-LM head stay as they are. Each layer becomes a mean of its own weights and of those that it
began from in all-MiniLM-L6-v2, and above them come that model's further layers. Pre-training on single texts has
unlearnt the heads that look for the same word in the other text; the mean brings them back.

Reference: Wortsman et al., 2022, "Robust fine-tuning of zero-shot models" (the mean of weights before and after).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.finetune import minilm

import bothways as package
from bothways.models.model import load, save
from bothways.nn.encoder import Encoder
from bothways.nn.network import Network


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="builtin", help="the encoder that began from MiniLM's first layers")
    parser.add_argument("--layers", type=int, default=4, help="of the new one, at most MiniLM's 6")
    parser.add_argument("--share", type=float, default=0.3, help="of the encoder's own weights in each layer's mean")
    wanted = parser.parse_args(argv)
    print(deepened(wanted.out, wanted.model, wanted.layers, wanted.share))
    return 0


def deepened(out: Path, name: str, layers: int, share: float) -> Path:
    """The folder with the deeper encoder, which fills masks as the model's own head does."""
    model = package.load(name, device="cpu").filler().model
    own, theirs = model.network.encoder.state_dict(), load(minilm()).network.encoder.state_dict()
    encoder = Encoder(replace(model.config, num_hidden_layers=layers), pooler=False)
    weights = {}
    for key in encoder.state_dict():
        if not key.startswith("layers."):
            weights[key] = own[key]
        elif key in own:
            weights[key] = share * own[key] + (1 - share) * theirs[key]
        else:
            weights[key] = theirs[key]
    encoder.load_state_dict(weights)
    heads = {head: model.network.head(head) for head in model.network.heads}
    return save(replace(model, network=Network(encoder, heads), trained_on=None, told=[]), out)


if __name__ == "__main__":
    raise SystemExit(main())
