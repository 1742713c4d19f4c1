"""How a target is written: the settings of greedy search, beams and sampling; no torch, so that flags can be made."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bothways.errors import ConfigError

BEAMS = 64  # at most: all are computed together
PENALTY = 10  # of lengths, at most: tokens to such a power are still numbers
_OF_SAMPLING = ("temperature", "top_k", "top_p")
TEMPERATURES = (1e-6, 1e6)  # below, the likeliest is all there is; above, all are alike


@dataclass(frozen=True)
class Decoding:
    """How texts are written; names and meanings are those of transformers' GenerationConfig where it has them."""

    beams: int = 1
    """targets that are followed at once; 1: greedy"""
    sample: bool = False
    """draw each token by its probability instead of taking the likeliest"""
    temperature: float = 1.0
    """sampling: above 1 flattens probabilities, below 1 sharpens them"""
    top_k: int | None = None
    """sampling: only among so many likeliest tokens"""
    top_p: float | None = None
    """sampling: only among the likeliest tokens that together have this probability"""
    seed: int = 0
    """sampling: another seed gives other texts; the same seed gives a source the same one, whatever its company"""
    length_penalty: float = 1.0
    """a text's score is its log-probability / its tokens to this power: above 0 favours longer texts"""
    early_stopping: Literal["no", "yes", "never"] = "no"
    """beams: stop when no better text is likely (no), when as many as beams are finished (yes), when none can come"""
    min_length: int = 0
    """fewest tokens of a text"""
    max_length: int = 128
    """most tokens of a text; one that reaches it without an end is told as unfinished"""
    no_repeat_ngram: int | None = None
    """no run of so many tokens occurs twice in a text"""
    forbidden: list[str] = field(default_factory=list)
    """words that are not written, as their pieces: "play" also forbids the beginning of "playing" """

    def __post_init__(self) -> None:
        for name, least in (("beams", 1), ("max_length", 1), ("min_length", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("top_k", "no_repeat_ngram"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1, or none")
        if self.min_length > self.max_length:
            raise ConfigError(f"min_length is {self.min_length}, which is more than max_length, {self.max_length}")
        if self.beams > BEAMS:
            raise ConfigError(f"beams is {self.beams}; it must be at most {BEAMS}")
        if not -PENALTY <= self.length_penalty <= PENALTY:
            raise ConfigError(f"length_penalty is {self.length_penalty}; it must lie between -{PENALTY} and {PENALTY}")
        low, high = TEMPERATURES
        if not low <= self.temperature <= high:
            raise ConfigError(
                f"temperature is {self.temperature}; it must lie between {low} and {high} "
                "(for the likeliest: sample off)"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must lie in (0, 1], or be none")
        if self.sample and self.beams > 1:
            raise ConfigError(f"beams is {self.beams} and sample is on; one of the two")
        if not self.sample:
            for name in _OF_SAMPLING:
                if getattr(self, name) != getattr(Decoding, name):
                    raise ConfigError(f"{name} is {getattr(self, name)}, which is for sampling; say sample too")


def beside(said: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that a model keeps which can stand beside what is said now: that is what counts.

    Beams take sampling's settings away and sampling takes beams, a greatest length takes a least one above it.
    """
    beams, most, least = said.get("beams"), said.get("max_length"), kept.get("min_length", 0)
    gone: set[str] = set()
    if said.get("sample"):
        gone = {"beams"}
    elif said.get("sample") is False or (isinstance(beams, int) and beams > 1):
        gone = {"sample", *_OF_SAMPLING}
    if isinstance(most, int) and least > most:
        gone |= {"min_length"}
    return {name: value for name, value in kept.items() if name not in gone}


@dataclass(frozen=True)
class Writing:
    """Decoding settings in token ids, for one model: what an example that shall be written carries along."""

    settings: Decoding
    start: int  # the token that every target begins with
    end: int
    forbidden: tuple[tuple[int, ...], ...] = ()
    pieces: int | None = None  # of the tokenizer: ids from there on are no text and are not written; none: all are

    # Equal settings may be written together; a list in them must not keep them from being told apart by hash.
    def __hash__(self) -> int:
        return hash((str(self.settings), self.start, self.end, self.forbidden))


def from_words(name: str, value: Any) -> Any:
    """An option as the settings have it: words of the command line as numbers, true and false, lists, none as None."""
    if name == "early_stopping" and isinstance(value, bool):
        return "yes" if value else "no"
    if name == "forbidden" and value in (None, "none"):  # the word itself: "none,"
        return []
    if not isinstance(value, str) or name == "early_stopping":
        return value
    if name == "forbidden":
        return [word for word in re.split("[,，]", value) if word.strip()]
    try:
        return None if value == "none" else json.loads(value)
    except ValueError:
        return value
