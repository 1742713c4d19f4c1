"""The sizes of BERT as Google named them.

Reference: Turc et al., 2019, "Well-Read Students Learn Better", table 1; Devlin et al., 2018 (base, large).
"""

from __future__ import annotations

import difflib

from bothways.errors import ConfigError
from bothways.nn.encoder import EncoderConfig

SIZES: dict[str, tuple[int, int]] = {  # layers, width; 64 wide heads, feed-forward 4 × width
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}


def sized(name: str, vocab_size: int) -> EncoderConfig:
    """The shape of that name over a vocabulary of `vocab_size` pieces.

    Raises:
        ConfigError: no such size; the message names the nearest.
    """
    if name not in SIZES:
        near = difflib.get_close_matches(name, SIZES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{name!r} is neither a model folder nor a size; sizes are {', '.join(SIZES)}{hint}")
    layers, width = SIZES[name]
    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )
