"""`bothways embed`: vectors of the texts of a file, or of their tokens, characters or words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ConfigError


@dataclass(frozen=True)
class Embed:
    """Write the vectors of a file's texts; the same command again goes on where it was stopped."""

    model: tyro.conf.Positional[str] = "builtin"
    """folder of a model or a run, or a name on the hub; none: the built-in one"""
    data: Path = tyro.MISSING
    """records with "text", or pairs: "text_a", "text_b"; a .txt file has one a line"""
    out: Path = tyro.MISSING
    """.npy (vectors only), .jsonl or .parquet (the records with their vectors)"""
    level: Literal["sentence", "pair", "token", "character", "word"] = "sentence"
    """what gets a vector; pair: two texts seen together"""
    layers: str | None = None
    """-2, sum:-4:, mean:1,6 or concat:-4: (the last four side by side); 0 is the embeddings' output; none: the last"""
    pooling: Literal["mean", "cls", "max"] | None = None
    """how tokens become one vector; none: as the model was trained, else mean"""
    normalize: Literal["yes", "no"] | None = None
    """vectors of length 1; none: as the model was trained, else no"""
    long: Literal["windows", "cut"] | None = None
    """a text longer than the model: pool over its windows (none), or read the first one only"""
    words: str = "auto"
    """how texts are parted into words: words, chinese (jieba's), auto, or the folder of a segmentation model"""
    prompt: str | None = None
    """name of one of the model's own prompts (such as query), which is put before each text"""
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "float32"
    """what products are computed in; auto: bfloat16 where this machine is fast at it; int8: for a CPU"""
    max_length: int | None = None
    """tokens of a window; none: what the model reads"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def run(argv: list[str]) -> int:
    """Write them."""
    wanted = config.load(Embed, argv, prog="bothways embed")
    from bothways.infer.predictor import load
    from bothways.tasks.embed import PARTS
    from bothways.vectors.embed import check_out, embed_file, files_of, identity_of

    check_out(wanted.out, parted=wanted.level in PARTS)
    device = wanted.common.device
    model = load(wanted.model, device=device, precision=wanted.precision, max_length=wanted.max_length)
    options: dict[str, Any] = {
        "level": wanted.level,
        "layers": wanted.layers,
        "pooling": wanted.pooling,
        "normalize": None if wanted.normalize is None else wanted.normalize == "yes",
        "long": wanted.long,
        "prompt": wanted.prompt,
    }
    segmenter = None
    if wanted.words in ("auto", "words", "chinese"):
        options["words"] = wanted.words
    else:
        segmenter = load(wanted.words, device=device)
        if getattr(segmenter.model.task, "name", None) != "segment":
            raise ConfigError(f"--words {wanted.words} is no segmentation model; wanted one, or auto, words, chinese")
    predictor = model.embedder(**options)
    identity = {**options, **identity_of(predictor)}
    if segmenter is not None:
        identity["words"] = files_of(segmenter.model.folder)
    done = embed_file(
        predictor,
        wanted.data,
        wanted.out,
        identity=identity,
        columns=wanted.columns,
        segmenter=segmenter,
        quiet=wanted.common.quiet,
    )
    if not wanted.common.quiet:
        reused = f", {done.reused:,} of them from an earlier run" if done.reused else ""
        print(f"{done.records:,} records{reused}, vectors of {done.width} numbers, in {wanted.out}")
        for line in done.told:
            print(line)
    return 0
