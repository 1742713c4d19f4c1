"""The feature-based way: heads learn on the vectors of an encoder that stays as it is.

Reference: Devlin et al., 2018, section 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bothways.batch import Example
from bothways.data.messages import listed
from bothways.errors import ConfigError
from bothways.infer.engine import Engine
from bothways.models.model import Model
from bothways.nn.dropout import set_dropout
from bothways.nn.heads import Head, RowsHead
from bothways.nn.network import Network
from bothways.tasks.base import Encoded
from bothways.tasks.multi import MultiTask
from bothways.train.optimizer import Optim

MOST_BYTES = 1 << 30  # of vectors that are kept; those of every token of many contexts may be more


def freeze(model: Model, optim: Optim) -> Optim:
    """Train only the heads and a decoder, on the encoder's vectors as they are, which learns nothing and drops nothing.

    A pooler that the model to start from doesn't have is learnt with the heads that read it: frozen, it would be a
    random projection. `optim`'s dropout is the heads'; the same settings are given back, which no longer touch the
    encoder's.

    Raises:
        ConfigError: there is nothing but the encoder to train.
    """
    network, pooler = model.network, model.network.encoder.pooler
    network.encoder.requires_grad_(False)
    read = any(getattr(head, "pooler", None) for head in network.heads.values())
    if pooler is not None and read and any(name.startswith("encoder.pooler.") for name in model.drawn):
        pooler.requires_grad_(True)
        model.told.append("learnt with the heads, though the encoder is frozen: encoder.pooler")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        task = model.task.name if model.task is not None else "this model"
        raise ConfigError(f"--frozen leaves nothing to train: {task} has no weights but the encoder's; leave it out")
    if isinstance(model.task, MultiTask) and (idle := model.task.without_weights(network)):
        raise ConfigError(
            f"--frozen leaves nothing to train for {listed(idle)}: no weights but the encoder's; leave such tasks out, "
            "or --frozen"
        )
    if network.decoder is not None:
        shared = network.decoder.body is None
        learnt = "cross-attention and head, for its layers are the encoder's" if shared else "all of the decoder"
        model.told.append(f"learnt though the encoder is frozen: {learnt}")
    if optim.dropout is not None:
        set_dropout(network, optim.dropout)
    set_dropout(network.encoder, 0.0)
    return replace(optim, dropout=None, attention_dropout=0.0)


def bytes_of_vectors(network: Network, examples: Sequence[Example]) -> int | None:
    """How much the vectors that heads read take, in float32; None where they can't be kept.

    Of masked text other pieces are masked in each epoch, and a decoder reads vectors of all tokens.
    """
    reads = [read for example in examples for read in example.reads.values()]
    if network.decoder is not None or any(read.redraw is not None for read in reads):
        return None
    return 4 * network.width * sum(len(read.rows) for read in reads)


def with_vectors(
    network: Network, encoded: Sequence[Encoded], *, device: torch.device, precision: str
) -> list[Encoded]:
    """The same, each example with the vectors that its heads read: a frozen encoder gives them once for all epochs."""
    heads: dict[str, Head] = {name: RowsHead() for name in network.heads}
    reader = Network(network.encoder, heads, layers=network.layers)
    examples = [example for one in encoded for example in one.examples]
    answers = iter(Engine(reader, device=device, precision=precision).answers(examples))
    return [
        replace(one, examples=[replace(example, vectors=next(answers).scores) for example in one.examples])
        for one in encoded
    ]
