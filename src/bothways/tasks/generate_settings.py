"""How a writer is to be taught and to write, and what a writer that is taught further keeps of what it was."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from bothways.errors import ConfigError
from bothways.nn.decoding_settings import Decoding, beside
from bothways.tasks.one_label import check_smoothing


@dataclass(frozen=True)
class GenerateSettings:
    """How targets are learnt and written."""

    decoder: Literal["copy", "share", "fresh"] | None = None
    """copy: starts as the encoder (BERT2BERT); share: is the encoder, but for cross-attention; fresh: from random;
    none: the one that the model to begin from has, or else copy"""
    cross: Literal["copy", "fresh"] = "copy"
    """cross-attention, which no encoder has: starts as each layer's attention to itself, softened, or from random, as a
    fresh decoder's always does"""
    decoder_layers: int | None = None
    """layers of the decoder; none: as many as the encoder has"""
    tied: bool = True
    """tokens are told by the decoder's own word embeddings; off: by a matrix of its own"""
    long: Literal["refuse", "first", "windows"] = "refuse"
    """what is longer than the model: refuse it, read its first tokens, or a source in windows side by side"""
    language: Literal["auto", "zh", "other"] = "auto"
    """of the targets, for the metrics: zh counts characters; auto looks at the training records"""
    criterion: Literal["bleu", "chrf", "rouge1", "rouge2", "rougeL", "log_likelihood"] = "bleu"
    """the metric by which the best epoch is chosen"""
    label_smoothing: float = 0.1
    """share of each target token spread over the vocabulary"""
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)
        if self.decoder_layers is not None and self.decoder_layers < 1:
            raise ConfigError(f"decoder_layers is {self.decoder_layers}; it must be at least 1, or none")
        if self.decoder == "share" and self.decoder_layers is not None:
            raise ConfigError("decoder_layers can't be chosen for decoder share: the layers are the encoder's")


def _changed(decoding: Decoding) -> dict[str, Any]:
    """What is not as by default."""
    usual = asdict(Decoding())
    return {name: value for name, value in asdict(decoding).items() if value != usual[name]}


def going_on(
    asked: GenerateSettings, before: GenerateSettings, *, layers: int | None
) -> tuple[GenerateSettings, list[str]]:
    """The settings of a writer that goes on as the writer `before`, whose decoder has `layers` (none: the encoder's).

    Whatever is asked for as by default is as before; what was kept or lost comes too, in words.

    Raises:
        ConfigError: another decoder is asked for than the one that has learnt, but for a fresh one.
    """
    if asked.decoder == "share" != before.decoder:
        raise ConfigError(
            "decoder is share, but the model that it begins from has learnt a decoder of its own, which would be lost; "
            "leave decoder out, or begin from an encoder"
        )
    fresh = asked.decoder == "fresh"
    if not fresh and asked.decoder_layers not in (None, layers):
        raise ConfigError(
            f"decoder_layers is {asked.decoder_layers}, but the model that it begins from has learnt a decoder of "
            f"{layers or 'as many as its encoder'}; leave it out, or say decoder fresh"
        )
    usual = GenerateSettings()
    kept: dict[str, Any] = {"long": before.long} if asked.long == usual.long else {}
    if not fresh:
        kept |= {"decoder": "share"} if before.decoder == "share" and asked.decoder is None else {}
        kept |= {"tied": False} if not before.tied else {}
    of_before, said = _changed(before.decoding), _changed(asked.decoding)
    writing = {name: value for name, value in beside(said, of_before).items() if name not in said}
    told = [f"{name} {value}" for name, value in (kept | writing).items() if value != getattr(usual, name, None)]
    lines = [f"as the model that it begins from: {', '.join(told)}"] if told else []
    lines += ["the decoder that it had is left out, for a fresh one"] if fresh else []
    settings = replace(asked, **kept, decoding=replace(asked.decoding, **writing))
    if before.decoder == "share" and settings.decoder in (None, "copy"):
        lines.append("its decoder was its encoder, and becomes a copy of it")
    return settings, lines
