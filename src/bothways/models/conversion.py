"""One two-way table between our names of weights and those of transformers' BERT, so that import and export agree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bothways.errors import ModelError
from bothways.models.pages import let_go


@dataclass(frozen=True)
class Rename:
    """One of our weights and where it stands over there; several of theirs are joined along the first dimension."""

    ours: str
    theirs: tuple[str, ...]


def _both(ours: str, *theirs: str) -> list[Rename]:
    return [Rename(f"{ours}.{part}", tuple(f"{name}.{part}" for name in theirs)) for part in ("weight", "bias")]


_EMBEDDINGS = [
    Rename("encoder.embeddings.word.weight", ("embeddings.word_embeddings.weight",)),
    Rename("encoder.embeddings.position.weight", ("embeddings.position_embeddings.weight",)),
    Rename("encoder.embeddings.segment.weight", ("embeddings.token_type_embeddings.weight",)),
    *_both("encoder.embeddings.norm", "embeddings.LayerNorm"),
]
_LAYER = [
    *_both(
        "encoder.layers.{n}.attention.qkv",
        "encoder.layer.{n}.attention.self.query",
        "encoder.layer.{n}.attention.self.key",
        "encoder.layer.{n}.attention.self.value",
    ),
    *_both("encoder.layers.{n}.attention.output", "encoder.layer.{n}.attention.output.dense"),
    *_both("encoder.layers.{n}.attention_norm", "encoder.layer.{n}.attention.output.LayerNorm"),
    *_both("encoder.layers.{n}.mlp.up", "encoder.layer.{n}.intermediate.dense"),
    *_both("encoder.layers.{n}.mlp.down", "encoder.layer.{n}.output.dense"),
    *_both("encoder.layers.{n}.mlp_norm", "encoder.layer.{n}.output.LayerNorm"),
]
_POOLER = _both("encoder.pooler.dense", "pooler.dense")
_MASKED = [
    *_both("heads.masked.dense", "cls.predictions.transform.dense"),
    *_both("heads.masked.norm", "cls.predictions.transform.LayerNorm"),
    Rename("heads.masked.bias", ("cls.predictions.bias",)),
]
_CRF = [  # names of pytorch-crf; the class in transformers passes over them
    Rename(f"heads.crf.{name}", (f"crf.{name}",)) for name in ("transitions", "start_transitions", "end_transitions")
]
_HEADS: dict[str, list[Rename]] = {  # by class of transformers; one name there is another head's in the next
    "BertModel": [],
    "BertForMaskedLM": _MASKED,
    "BertForPreTraining": [*_MASKED, *_both("heads.next.linear", "cls.seq_relationship")],
    "BertForSequenceClassification": _both("heads.label.linear", "classifier"),
    "BertForTokenClassification": [*_both("heads.tags.linear", "classifier"), *_CRF],
    "BertForQuestionAnswering": _both("heads.answer.linear", "qa_outputs"),
    "BertForMultipleChoice": _both("heads.choice.linear", "classifier"),
}
_CROSS = [
    *_both("decoder.cross.{n}.query", "encoder.layer.{n}.crossattention.self.query"),
    *_both(
        "decoder.cross.{n}.key_value",
        "encoder.layer.{n}.crossattention.self.key",
        "encoder.layer.{n}.crossattention.self.value",
    ),
    *_both("decoder.cross.{n}.output", "encoder.layer.{n}.crossattention.output.dense"),
    *_both("decoder.cross.{n}.norm", "encoder.layer.{n}.crossattention.output.LayerNorm"),
]
_TEXT = [
    *[Rename(r.ours.replace("masked", "text"), tuple(f"decoder.{name}" for name in r.theirs)) for r in _MASKED],
    Rename("heads.text.weight", ("decoder.cls.predictions.decoder.weight",)),  # unless tied to the word embeddings
]
_ANY_HEAD = ("cls.", "classifier.", "qa_outputs.", "crf.")
# Copies of tied weights and buffers that some releases of transformers wrote.
_REDUNDANT = re.compile(
    r"((encoder|decoder)\.)?(bert\.)?embeddings\.position_ids|cls\.predictions\.decoder\.(weight|bias)"
)
_UNTIED = "decoder.cls.predictions.decoder.weight"  # of an encoder-decoder
_BIAS, _OWN_BIAS = "decoder.cls.predictions.bias", "decoder.cls.predictions.decoder.bias"
_DECODER, _WORDS = "cls.predictions.decoder.weight", re.compile(r"(bert\.)?embeddings\.word_embeddings\.weight")


@dataclass(frozen=True)
class Layers:
    """How many layers the encoder has, and the decoder, if there is one."""

    encoder: int
    decoder: int = 0


def renames(layers: Layers, architecture: str, *, prefixed: bool) -> Iterator[Rename]:
    """Every weight of that class of transformers; its task models have `bert.` before the encoder's."""
    if architecture == "EncoderDecoderModel":
        yield from _body("encoder.", "encoder.", layers.encoder, _EMBEDDINGS + _POOLER, _LAYER)
        yield from _body("decoder.body.", "decoder.bert.", layers.decoder, _EMBEDDINGS, _LAYER + _CROSS)
        yield from _TEXT
        return
    yield from _body("encoder.", "bert." if prefixed else "", layers.encoder, _EMBEDDINGS + _POOLER, _LAYER)
    yield from _HEADS.get(architecture, [])


def _body(ours: str, prefix: str, layers: int, once: list[Rename], each: list[Rename]) -> Iterator[Rename]:
    """The weights of a BERT that is `ours` here and stands below `prefix` there."""
    for number, table in [(0, once), *((number, each) for number in range(layers))]:
        for rename in table:
            name = re.sub("^encoder[.]", ours, rename.ours.format(n=number))
            yield Rename(name, tuple(prefix + name.format(n=number) for name in rename.theirs))


def to_theirs(
    weights: Mapping[str, Tensor], layers: Layers, architecture: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Our weights under the names of that class of transformers, and as they are those of heads that it doesn't have.

    Raises:
        KeyError: a weight of the encoder that the table does not know.
    """
    table = {r.ours: r.theirs for r in renames(layers, architecture, prefixed=architecture != "BertModel")}
    converted, own = {}, {}
    for name, weight in weights.items():
        if name.startswith("heads.") and name not in table:
            own[name] = weight
            continue
        theirs = table[name]
        converted.update(
            (their, part.contiguous()) for their, part in zip(theirs, weight.chunk(len(theirs)), strict=True)
        )
    if _UNTIED in converted:  # then transformers reads the bias beside the matrix
        converted[_OWN_BIAS] = converted[_BIAS].clone()
    return converted, own


def name_in_file(ours: str, layers: Layers, architecture: str) -> str:
    """What that class of transformers calls one of our weights, for messages."""
    table = {r.ours: " + ".join(r.theirs) for r in renames(layers, architecture, prefixed=architecture != "BertModel")}
    return table.get(ours, ours)


def from_theirs(weights: Mapping[str, Tensor], layers: Layers, architecture: str, *, where: str) -> dict[str, Tensor]:
    """transformers' weights under our names, whatever release wrote them; every weight is accounted for.

    Heads of another class (released encoders bring those of pre-training along) stay under their own names.

    Raises:
        ModelError: a weight that BERT doesn't have or that isn't made of floats, part of a joined one that is
            missing or misshapen, or a masked-LM head that isn't tied to the word embeddings.
    """
    if (most := max(layers.encoder, layers.decoder)) > len(weights):
        raise ModelError(
            f"{where}: num_hidden_layers is {most} in config.json, but there are only {len(weights)} weights; "
            f"they belong to different models"
        )
    _check_tied(weights, where)
    modern = {_modern(name): weight for name, weight in weights.items() if not _REDUNDANT.fullmatch(name)}
    if (bias := modern.pop(_OWN_BIAS, None)) is not None:
        modern[_BIAS] = bias
    prefixed = any(name.startswith("bert.") for name in modern)
    converted: dict[str, Tensor] = {}
    for rename in renames(layers, architecture, prefixed=prefixed):
        found = [name for name in rename.theirs if name in modern]
        if not found:
            continue
        if len(found) < len(rename.theirs):
            missing = sorted(set(rename.theirs) - set(found))
            raise ModelError(
                f"{where}: the weight {missing[0]} is missing, though {found[0]} is there; the file is damaged"
            )
        parts = [modern.pop(name) for name in rename.theirs]
        for name, part in zip(rename.theirs, parts, strict=True):
            if not part.is_floating_point():
                raise ModelError(f"{where}: the weight {name} is of {part.dtype}; weights are floating-point numbers")
            if part.shape != parts[0].shape or not part.shape:
                raise ModelError(
                    f"{where}: the weight {name} has shape {tuple(part.shape)}, but {rename.theirs[0]} has "
                    f"{tuple(parts[0].shape)}; the file is damaged"
                )
        converted[rename.ours] = parts[0]
        if len(parts) > 1:
            converted[rename.ours] = torch.cat(parts)
            for part in parts:
                let_go(part)
    converted |= {name: modern.pop(name) for name in list(modern) if name.startswith(_ANY_HEAD)}
    if modern:
        unknown = sorted(modern)
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        told = f"{layers.encoder} + {layers.decoder}" if layers.decoder else f"{layers.encoder}"
        raise ModelError(
            f"{where}: the weight {unknown[0]}{more} does not belong to a BERT of {told} layers; "
            f"is num_hidden_layers in config.json right, and is this a BERT?"
        )
    return converted


def _check_tied(weights: Mapping[str, Tensor], where: str) -> None:
    """The masked-LM head's matrix, where a file spells it out, is the word embeddings themselves."""
    words = [weight for name, weight in weights.items() if _WORDS.fullmatch(name)]
    if _DECODER in weights and words and not torch.equal(weights[_DECODER], words[0]):
        raise ModelError(
            f"{where}: the weight {_DECODER} differs from the word embeddings; "
            f"Bothways reads models that tie the two, as the original BERT does"
        )


def _modern(name: str) -> str:
    """Names written before 2019 call a norm's weight gamma and its bias beta."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
