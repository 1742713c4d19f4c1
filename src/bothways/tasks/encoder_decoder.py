"""A model that writes as transformers' EncoderDecoderModel keeps it: two JSON files, weights that stand there twice.

Reference: transformers, EncoderDecoderConfig and GenerationConfig.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from bothways import config
from bothways.errors import ConfigError, ModelError
from bothways.nn.decoding_settings import Decoding, Writing
from bothways.nn.encoder import EncoderConfig
from bothways.nn.network import TEXT

ARCHITECTURE = "EncoderDecoderModel"
_OURS = {  # of Decoding, and what transformers' generation_config.json calls it
    "beams": "num_beams",
    "sample": "do_sample",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "length_penalty": "length_penalty",
    "min_length": "min_new_tokens",
    "max_length": "max_new_tokens",
    "no_repeat_ngram": "no_repeat_ngram_size",
}
_EARLY: dict[str, Any] = {"no": False, "yes": True, "never": "never"}
_WORDS = "embeddings.word.weight"
_BODY = ("encoder.embeddings.", "encoder.layers.")
_MATRIX = f"heads.{TEXT}.weight"  # that tells tokens


# ------------------------------------------------------------------------------------------------------ JSON files


def config_file(
    base: dict[str, Any], shape: dict[str, Any], writing: Writing, *, pad: int, tied: bool
) -> dict[str, Any]:
    """config.json; `base` is the encoder's, `shape` where the decoder's differs from it."""
    encoder = base | {"architectures": ["BertModel"]}
    decoder = encoder | shape
    decoder |= {"architectures": ["BertLMHeadModel"], "is_decoder": True, "add_cross_attention": True}
    ties = {"tie_word_embeddings": tied}
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "encoder-decoder",
        "is_encoder_decoder": True,
        "dtype": "float32",
        "vocab_size": base["vocab_size"],
        **_ids(writing, pad),
        **ties,
        "encoder": encoder,
        "decoder": decoder | ties,
    }


def generation_file(writing: Writing, *, pad: int) -> dict[str, Any]:
    """generation_config.json."""
    settings = asdict(writing.settings)
    theirs = {theirs: settings[ours] for ours, theirs in _OURS.items() if settings[ours] is not None}
    theirs["early_stopping"] = _EARLY[settings["early_stopping"]]
    if writing.forbidden:
        theirs["bad_words_ids"] = [list(ids) for ids in writing.forbidden]
    return _ids(writing, pad) | theirs


def _ids(writing: Writing, pad: int) -> dict[str, int]:
    return {"decoder_start_token_id": writing.start, "eos_token_id": writing.end, "pad_token_id": pad}


@dataclass(frozen=True)
class Found:
    """What the two files say.

    shape:      where the decoder's shape is not the encoder's
    start, end: ids of the tokens that a target begins and ends with
    """

    tied: bool
    shape: dict[str, Any]
    start: int | None
    end: int | None
    decoding: Decoding


def read_config(raw: dict[str, Any]) -> Found:
    """config.json, in whose "generation" the other file stands.

    Raises:
        ModelError: the decoder is none that can be read here, or a setting can't be.
    """
    decoder, generation = raw["decoder"], raw.get("generation") or {}
    if decoder.get("model_type") != "bert" or not decoder.get("add_cross_attention"):
        raise ModelError("config.json: the decoder must be a BERT with cross-attention (add_cross_attention)")
    if decoder.get("hidden_size") != raw["encoder"].get("hidden_size"):
        raise ModelError("config.json: encoder and decoder must be of one width (hidden_size)")
    names = [entry.name for entry in fields(EncoderConfig)]
    start, end = (
        next((part[key] for part in (generation, raw, decoder) if type(part.get(key)) is int), None)
        for key in ("decoder_start_token_id", "eos_token_id")
    )
    return Found(
        tied=bool(decoder.get("tie_word_embeddings", raw.get("tie_word_embeddings", True))),
        shape={name: decoder[name] for name in names if decoder.get(name) not in (None, raw["encoder"].get(name))},
        start=start,
        end=end,
        decoding=_decoding_of(generation),
    )


def _decoding_of(generation: dict[str, Any]) -> Decoding:
    """The settings of a generation_config.json; what only speaks of sampling is left out where it is off."""
    found = {ours: generation[theirs] for ours, theirs in _OURS.items() if generation.get(theirs) is not None}
    if generation.get("max_new_tokens") is None and type(generation.get("max_length")) is int:
        found["max_length"] = max(1, generation["max_length"] - 1)  # theirs counts the start token
    if not found.get("sample"):
        found = {name: value for name, value in found.items() if name not in ("temperature", "top_k", "top_p")}
    for name in ("top_k", "no_repeat_ngram"):
        if found.get(name) == 0:  # off
            del found[name]
    early = {theirs: ours for ours, theirs in _EARLY.items()}.get(generation.get("early_stopping"), "no")
    try:
        return config.from_dict(Decoding, found | {"early_stopping": early})
    except ConfigError as error:
        raise ModelError(f"generation_config.json: {error}") from None


# --------------------------------------------------------------------------------------------------------- weights


def weights_of_encoder(weights: dict[str, Tensor], *, layers: int, tied: bool) -> dict[str, Tensor]:
    """An encoder's weights with a decoder of `layers` that begins as it, and the masked-LM head as that of the text.

    Those of a model that has a decoder stay as they are. Reference: Rothe et al., 2020 (BERT2BERT).
    """
    weights = dict(weights)
    if any(name.startswith("decoder.") for name in weights):
        return weights
    for name in [name for name in weights if name.startswith(_BODY)]:
        if "layers" not in name or int(name.split(".")[2]) < layers:
            weights[f"decoder.body.{name.removeprefix('encoder.')}"] = weights[name]
    for name in [name for name in weights if name.startswith("heads.masked.")]:
        weights[f"heads.{TEXT}.{name.removeprefix('heads.masked.')}"] = weights.pop(name)
    if not tied:
        weights[_MATRIX] = weights[f"encoder.{_WORDS}"]
    return weights


def without_doubles(weights: dict[str, Tensor], *, shared: bool, tied: bool) -> dict[str, Tensor]:
    """A file's weights without those that stand there twice: a tied matrix, layers that are the encoder's.

    Raises:
        ModelError: the matrix is not what it is said to be tied to.
    """
    weights = dict(weights)
    matrix, words = weights.get(_MATRIX), weights.get(f"decoder.body.{_WORDS}")
    if tied and matrix is not None:
        if words is not None and not torch.equal(matrix, words):
            raise ModelError(
                "the matrix that tells the decoder's tokens differs from its word embeddings, though "
                "config.json ties them (tie_word_embeddings)"
            )
        del weights[_MATRIX]
    if shared:
        weights = {name: weight for name, weight in weights.items() if not name.startswith("decoder.body.")}
    return weights


def with_doubles(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, and those of a decoder that is the encoder once more under its name."""
    twice = {
        f"decoder.body.{name.removeprefix('encoder.')}": weight.clone()
        for name, weight in weights.items()
        if name.startswith(_BODY)
    }
    return weights | twice
