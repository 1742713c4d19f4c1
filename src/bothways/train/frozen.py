"""The feature-based way: heads learn on the vectors of an encoder that stays as it is.

Reference: Devlin et al., 2018, section 5.3.
"""

from __future__ import annotations

from dataclasses import replace

from bothways.errors import ConfigError
from bothways.models.model import Model
from bothways.nn.dropout import set_dropout
from bothways.nn.heads import PooledHead
from bothways.train.optimizer import Optim


def freeze(model: Model, optim: Optim) -> Optim:
    """Train only the heads, on the encoder's vectors as they are: the encoder learns nothing and drops nothing.

    A pooler that the model to start from doesn't have is learnt with the heads that read it: frozen, it would be a
    random projection. `optim`'s dropout is the heads'; the same settings are given back, which no longer touch the
    encoder's.

    Raises:
        ConfigError: there is nothing but the encoder to train.
    """
    network, pooler = model.network, model.network.encoder.pooler
    network.encoder.requires_grad_(False)
    read = any(isinstance(head, PooledHead) for head in network.heads.values())
    if pooler is not None and read and any(name.startswith("encoder.pooler.") for name in model.drawn):
        pooler.requires_grad_(True)
        model.told.append("learnt with the heads, though the encoder is frozen: encoder.pooler")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        task = model.task.name if model.task is not None else "this model"
        raise ConfigError(f"--frozen leaves nothing to train: {task} has no weights but the encoder's; leave it out")
    if optim.dropout is not None:
        set_dropout(network, optim.dropout)
    set_dropout(network.encoder, 0.0)
    return replace(optim, dropout=None, attention_dropout=0.0)
