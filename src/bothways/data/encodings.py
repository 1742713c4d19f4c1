"""What a file that is not UTF-8 may be instead, and the command that converts it."""

from __future__ import annotations

import codecs
import shlex
from pathlib import Path

# What a text file is when it opens like this; longest first, as UTF-32's mark begins with UTF-16's.
MARKS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"))
MARKS += ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))
MAGIC = (
    (b"\x1f\x8b", "gzip data", ".gz"),
    (b"\xfd7zXZ\x00", "xz data", ".xz"),
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"PK\x03\x04", "a zip archive (or an Excel or Word file)", ""),
    (b"BZh", "bzip2 data", ""),
    (b"\x28\xb5\x2f\xfd", "zstd data", ""),
    (b"%PDF", "a PDF file", ""),
)
# The characters that fill Chinese text in both scripts tell GB18030 from Big5 where both decode.
FREQUENT = frozenset("的一是不了人在有我他这這中大来來上国國个個到说說们們为為和你地出道也时時年得就那要下以生会會，。")
SAMPLE = 1 << 16


def utf16_without_mark(head: bytes) -> str | None:
    """The UTF-16 variant of Latin text without a byte order mark (which is valid UTF-8, full of NULs), or None."""
    even, odd = head[:SAMPLE:2], head[1:SAMPLE:2]
    if len(odd) < 8:
        return None
    evens, odds = even.count(0) / len(even), odd.count(0) / len(odd)
    if odds > 0.9 and evens < 0.1:
        return "UTF-16LE"
    return "UTF-16BE" if evens > 0.9 and odds < 0.1 else None


def advice(data: bytes, bad: int, *, at_start: bool, path: Path) -> str:
    """What the bytes may be, and what to do: the end of the error message about them.

    Args:
        data: the bytes around the place
        bad: index in `data` of the first byte that is not UTF-8
        at_start: whether `data` is the start of the file, where marks stand
    """
    if at_start:
        for magic, what, ending in MAGIC:
            if data.startswith(magic):
                wanted = f"name it {path.name}{ending}" if ending else "extract it, or save it as UTF-8 text"
                return f"this is {what}: {wanted}"
        for mark, encoding in MARKS:
            if data.startswith(mark):
                return f"it looks like {encoding}: {command(encoding, path)}"
    decoded = data.decode("utf-8", errors="replace")
    broken = decoded.count("�")
    if sum(character > "\x7f" for character in decoded) > 10 * broken:
        return f"the rest reads as UTF-8, so this place is damaged: mend it, or drop it: {command('UTF-8', path)}"
    sample = data[data.rfind(b"\n", 0, bad) + 1 :][:SAMPLE]
    scores = {encoding: _plausible(sample, encoding) for encoding in ("gb18030", "big5")}
    best = max(scores, key=lambda encoding: scores[encoding])
    if scores[best] > 0.5:
        name = "GB18030 (GBK)" if best == "gb18030" else "Big5"
        return f"it looks like {name}: {command(best.upper(), path)}"
    if sum(byte > 0x7F for byte in sample) < len(sample) / 4:
        return f"it may be Windows-1252: {command('CP1252', path)}"
    return "its encoding could not be told: save the file as UTF-8"


def command(encoding: str, path: Path) -> str:
    """The shell command that writes `path` as UTF-8 beside it."""
    zipped = {".gz": "gzip", ".xz": "xz"}.get(path.suffix.lower())
    drop = "-c " if encoding == "UTF-8" else ""
    source, target = shlex.quote(str(path)), shlex.quote(str(path.with_name("utf8-" + path.name)))
    if zipped:
        return f"`{zipped} -dc {source} | iconv {drop}-f {encoding} -t UTF-8 | {zipped} > {target}`"
    return f"`iconv {drop}-f {encoding} -t UTF-8 {source} > {target}`"


def _plausible(sample: bytes, encoding: str) -> float:
    """From 0 to 2: the share of non-ASCII characters in the encoding's everyday half, and of frequent ones.

    GB 2312 and Big5 both sort everyday characters first: lead bytes B0-D7 and A4-C6; A1-A3 are punctuation.
    """
    everyday = range(0xB0, 0xD8) if encoding == "gb18030" else range(0xA4, 0xC7)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)  # incremental: the sample may end mid-character
    except UnicodeDecodeError:
        return 0.0
    wide = [character for character in text if character > "\x7f"]
    if not wide:
        return 0.0
    codes = [character.encode("gb2312" if encoding == "gb18030" else "big5", errors="ignore") for character in wide]
    usual = sum(len(code) == 2 and (code[0] in everyday or code[0] in (0xA1, 0xA2, 0xA3)) for code in codes)
    return (usual + sum(character in FREQUENT for character in wide)) / len(wide)
