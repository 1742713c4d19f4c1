"""The sizes of BERT as Google named them.

Reference: Turc et al., 2019, "Well-Read Students Learn Better", table 1; Devlin et al., 2018 (base, large).
"""

from __future__ import annotations

import difflib
import re

from bothways.errors import ConfigError
from bothways.nn.encoder import EncoderConfig

HEAD = 64
SIZES: dict[str, tuple[int, int]] = {  # layers, width; 64 wide heads, feed-forward 4 × width
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}


_SHAPE = re.compile(r"([1-9]\d{0,2})x([1-9]\d{1,4})")


def is_size(name: str) -> bool:
    """Whether `name` is a size: one of Google's, or layers x width, as in 6x256."""
    return name in SIZES or _SHAPE.fullmatch(name) is not None


def sized(name: str, vocab_size: int) -> EncoderConfig:
    """The shape of that name, or of that many layers x width, over a vocabulary of `vocab_size` pieces.

    Raises:
        ConfigError: no such size; the message names the nearest. A width that is no multiple of 64.
    """
    if shape := _SHAPE.fullmatch(name):
        layers, width = int(shape[1]), int(shape[2])
        if width % HEAD:
            raise ConfigError(f"{name}: a width of {width} is no multiple of {HEAD}, the width of a head")
    elif name in SIZES:
        layers, width = SIZES[name]
    else:
        near = difflib.get_close_matches(name, SIZES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"{name!r} is neither a model folder nor a size; sizes are {', '.join(SIZES)} "
            f"or layers x width, as in 6x256{hint}"
        )
    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        intermediate_size=4 * width,
    )
