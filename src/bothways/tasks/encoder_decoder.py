"""A model that writes as transformers' EncoderDecoderModel keeps it: two JSON files, weights that stand there twice.

Reference: transformers, EncoderDecoderConfig and GenerationConfig.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from bothways import config
from bothways.data.messages import shown
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
_READ = (*_OURS.values(), "max_length", "min_length", "early_stopping", "bad_words_ids", "decoder_start_token_id")
_READ = (*_READ, "eos_token_id", "pad_token_id", "bos_token_id")
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_THEIR_TOP_K = 50  # when sampling, unless the file says another number or 0
_OFF: dict[str, Any] = {  # theirs that there is nothing like here, and the values at which they do nothing
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "num_return_sequences": 1,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "penalty_alpha": 0.0,
    "guidance_scale": 1.0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "stop_strings": None,
    "max_time": None,
    "renormalize_logits": None,
    "remove_invalid_values": None,
}
_BESIDE = (  # how names begin that change no text: what is told, how fast, by which version
    *("_", "output_", "return_", "use_cache", "cache_", "max_cache_len", "low_memory", "prefill_", "compile_"),
    *("disable_compile", "is_assistant", "assistant_", "num_assistant_", "transformers_version"),
)
_WORDS = "embeddings.word.weight"
EMBEDDINGS = f"encoder.{_WORDS}"
_BODY = ("encoder.embeddings.", "encoder.layers.")
_MATRIX = f"heads.{TEXT}.weight"  # that tells tokens
SOFT = 0.3  # of what attention gives, where it begins as cross-attention


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
    if settings["sample"]:
        theirs.setdefault("top_k", 0)  # where there is none they take 50
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
    forbidden:  runs of ids that are not written
    told:       what is left out, since there is nothing like it here
    """

    tied: bool
    shape: dict[str, Any]
    start: int | None
    end: int | None
    decoding: Decoding
    forbidden: tuple[tuple[int, ...], ...]
    told: list[str]


def read_config(raw: dict[str, Any]) -> Found:
    """config.json, in whose "generation" the other file stands.

    Raises:
        ModelError: the decoder is none that can be read here, or a setting can't be.
    """
    decoder, generation, where = raw["decoder"], raw.get("generation"), "generation_config.json"
    if decoder.get("model_type") != "bert" or not decoder.get("add_cross_attention"):
        raise ModelError("config.json: the decoder must be a BERT with cross-attention (add_cross_attention)")
    if decoder.get("hidden_size") != raw["encoder"].get("hidden_size"):
        raise ModelError("config.json: encoder and decoder must be of one width (hidden_size)")
    if generation is None:  # as before there was a file for it
        generation, where = {name: raw[name] for name in (*_READ, *_OFF) if name in raw}, "config.json"
    names = [entry.name for entry in fields(EncoderConfig)]
    size, files = decoder["vocab_size"], ((where, generation), ("config.json", raw), ("config.json", decoder))
    start, end = (_id_of(key, files, size) for key in ("decoder_start_token_id", "eos_token_id"))
    if start is None:  # as theirs does
        start = _id_of("bos_token_id", files[:1], size)
    try:
        decoding, told = _decoding_of(generation)
        forbidden = _forbidden_of(generation, size)
    except ConfigError as error:
        raise ModelError(f"{where}: {error}") from None
    return Found(
        tied=bool(decoder.get("tie_word_embeddings", raw.get("tie_word_embeddings", True))),
        shape={name: decoder[name] for name in names if decoder.get(name) not in (None, raw["encoder"].get(name))},
        start=start,
        end=end,
        decoding=decoding,
        forbidden=forbidden,
        told=[f"{where}: {line}" for line in told],
    )


def _decoding_of(generation: dict[str, Any]) -> tuple[Decoding, list[str]]:
    """The settings of a generation_config.json, and what of them is left out, in words.

    What only speaks of sampling is passed over where that is off, for there it means nothing.

    Raises:
        ConfigError: a setting that can't be.
    """
    given, told = {name: value for name, value in generation.items() if value is not None}, []
    beams = given.get("num_beams")
    if given.get("do_sample") is True and type(beams) is int and beams > 1:
        told.append(f"do_sample is left out: num_beams is {beams}, and here beams are not drawn")
        del given["do_sample"]
    if given.get("do_sample"):
        given.setdefault("top_k", _THEIR_TOP_K)
    else:
        given = {name: value for name, value in given.items() if name not in _OF_SAMPLING}
    found = {ours: given[theirs] for ours, theirs in _OURS.items() if theirs in given}
    for name, least in (("max_length", 1), ("min_length", 0)):
        if name in given and name not in found:  # theirs counts the start token
            found[name] = max(least, given[name] - 1) if type(given[name]) is int else given[name]
    for name in ("top_k", "no_repeat_ngram"):
        if found.get(name) == 0:  # off
            del found[name]
    early = given.get("early_stopping", False)
    found["early_stopping"] = next((ours for ours, theirs in _EARLY.items() if early == theirs), str(early))
    if isinstance(ends := _one(given.get("eos_token_id")), list):
        told.append(f"eos_token_id is left out: a text ends with one token here, found {ends!r}")
    told += [
        f"{shown(name)} is left out: there is nothing like it here, found {value!r}"
        for name, value in given.items()
        if name not in _READ and not name.startswith(_BESIDE) and not _is_off(name, value)
    ]
    return config.from_dict(Decoding, found), told


def _one(value: Any) -> Any:
    """An id as it is, or by itself in a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _id_of(key: str, files: Sequence[tuple[str, dict[str, Any]]], size: int) -> int | None:
    """The id that stands under that name, in the first file that has one; several in a list are none.

    Raises:
        ModelError: it is no id of a vocabulary of this size.
    """
    for where, file in files:
        value = _one(file.get(key))
        if value is None or isinstance(value, list):
            continue
        try:
            check_id(key, value, size)
        except ConfigError as error:
            raise ModelError(f"{where}: {error}") from None
        return value
    return None


def _is_off(name: str, value: Any) -> bool:
    return value is False or value in ([], {}) or (name in _OFF and value == _OFF[name])


def _forbidden_of(generation: dict[str, Any], size: int) -> tuple[tuple[int, ...], ...]:
    """The runs of ids in "bad_words_ids".

    Raises:
        ConfigError: they are no ids of a vocabulary of this size.
    """
    words = generation.get("bad_words_ids") or []
    check_runs("bad_words_ids", words, size)
    return tuple(map(tuple, words))


def check_id(name: str, value: Any, size: int | None = None) -> None:
    """That it is an id, of a vocabulary of this size where it is known.

    Raises:
        ConfigError: it is not.
    """
    if not _is_id(value, size):
        raise ConfigError(f"{name} is {shown(value)}; wanted an id{_room(size)}")


def check_runs(name: str, words: Any, size: int | None = None) -> None:
    """That these are runs of ids, of a vocabulary of this size where it is known.

    Raises:
        ConfigError: they are not.
    """
    lists = isinstance(words, list) and all(isinstance(ids, list) and ids for ids in words)
    if not lists or not all(_is_id(id_, size) for ids in words for id_ in ids):
        raise ConfigError(f"{name} is {shown(words)}; wanted lists of ids{_room(size)}, none empty")


def _is_id(value: Any, size: int | None) -> bool:
    return type(value) is int and value >= 0 and (size is None or value < size)


def _room(size: int | None) -> str:
    return " from 0 up" if size is None else f" from 0 to {size - 1}"


# --------------------------------------------------------------------------------------------------------- weights


def weights_of_encoder(weights: dict[str, Tensor], *, layers: int, tied: bool, cross: bool) -> dict[str, Tensor]:
    """An encoder's weights with a decoder of `layers` that begins as it, and the masked-LM head as that of the text.

    `cross`: each layer's cross-attention too, much as its attention to itself. Those of a model that has a decoder
    stay as they are. Reference: Rothe et al., 2020 (BERT2BERT); for `cross` Ma et al., 2020 (XLM-T).
    """
    weights = dict(weights)
    if any(name.startswith("decoder.") for name in weights):
        if not tied:
            weights.setdefault(_MATRIX, weights.get(f"decoder.body.{_WORDS}", weights[EMBEDDINGS]))
        return weights
    for name in [name for name in weights if name.startswith(_BODY)]:
        if "layers" not in name or int(name.split(".")[2]) < layers:
            weights[f"decoder.body.{name.removeprefix('encoder.')}"] = weights[name]
    for layer in range(layers if cross else 0):
        weights |= _cross_attention(weights, layer)
    for name in [name for name in weights if name.startswith("heads.masked.")]:
        weights[f"heads.{TEXT}.{name.removeprefix('heads.masked.')}"] = weights.pop(name)
    if not tied:
        weights[_MATRIX] = weights[EMBEDDINGS]
    return weights


def _cross_attention(weights: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
    """A layer's attention to itself as its cross-attention: queries find the keys that they fit from the beginning.

    Its output is softened and its norm neither scales nor shifts, so that the decoder begins nearly as the encoder that
    it was: else a writer whose targets are unlike its sources first has to unlearn it (LOG.md).
    """
    own, cross = f"encoder.layers.{layer}.attention", f"decoder.cross.{layer}"
    if any(
        f"{own}{part}.{kind}" not in weights for part in (".qkv", ".output", "_norm") for kind in ("weight", "bias")
    ):
        return {}  # a file that lacks some is refused for that
    scale, shift = weights[f"{own}_norm.weight"].float(), weights[f"{own}_norm.bias"].float()
    found = {  # of vectors that this layer's norm made
        f"{cross}.norm.weight": torch.full_like(scale, math.sqrt(scale.square().mean() + shift.var(correction=0))),
        f"{cross}.norm.bias": torch.full_like(shift, float(shift.mean())),
    }
    for kind in ("weight", "bias"):
        qkv, output = weights[f"{own}.qkv.{kind}"], weights[f"{own}.output.{kind}"]
        query, key_value = qkv.tensor_split([len(qkv) // 3])
        found |= {f"{cross}.query.{kind}": query.clone(), f"{cross}.key_value.{kind}": key_value.clone()}
        found |= {f"{cross}.output.{kind}": SOFT * output}
    return found


def without_doubles(weights: dict[str, Tensor], *, shared: bool, tied: bool) -> dict[str, Tensor]:
    """A file's weights without those that stand there twice: a tied matrix, layers that are the encoder's.

    Raises:
        ModelError: the matrix, or a layer, is not what it is said to be tied to.
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
        for name in [name for name in weights if name.startswith("decoder.body.")]:
            own, encoders = weights.pop(name), weights.get(name.replace("decoder.body.", "encoder.", 1))
            if encoders is not None and not torch.equal(own, encoders):
                raise ModelError(
                    f"{name} differs from the encoder's, though bothways.json says that the decoder is the encoder "
                    '(decoder "share"); where it was trained further elsewhere, say "copy" there'
                )
    return weights


def with_doubles(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, and those of a decoder that is the encoder once more under its name."""
    twice = {
        f"decoder.body.{name.removeprefix('encoder.')}": weight.clone()
        for name, weight in weights.items()
        if name.startswith(_BODY)
    }
    return weights | twice
