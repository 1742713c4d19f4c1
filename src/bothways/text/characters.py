"""Which characters BERT treats as Chinese, and strings that Rust libraries can take."""

from __future__ import annotations

import re

import numpy as np

# The blocks that Google's tokenization.py (_is_chinese_char) sets apart: Han characters, not kana, not Hangul.
HAN_RANGES = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
HAN = "".join(f"{chr(first)}-{chr(last)}" for first, last in HAN_RANGES)  # for use inside [...] of a pattern

_SURROGATE = re.compile("[\ud800-\udfff]")


def replace_surrogates(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, one character for one, so that offsets stay true.

    A lone surrogate (half an emoji, from cut JSON) has no UTF-8 form, and Rust libraries refuse the string.
    """
    return _SURROGATE.sub("\ufffd", text)


def code_points(text: str) -> np.ndarray:
    """The code point of each character of `text`: (characters,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def is_han(points: np.ndarray) -> np.ndarray:
    """Which of the code points are Han characters as BERT counts them: bool, same shape."""
    han = np.zeros(points.shape, dtype=bool)
    for first, last in HAN_RANGES:
        han |= (points >= first) & (points <= last)
    return han
