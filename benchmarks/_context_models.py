"""Four ways to make a vector of a word from its context, trained alike: the models of context.py.

All read the same pieces of the same text, as often, in the same order, by the same loop; each gives every piece a
vector of the same width.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Example, Piece, Tokens, pack
from bothways.infer.devices import computing_in, pick_precision
from bothways.nn.attention import SelfAttention, attend
from bothways.nn.encoder import Encoder, EncoderConfig
from bothways.nn.heads import MaskedHead
from bothways.text.tokenizer import Tokenizer

LENGTH = 128  # tokens of a training sequence, [CLS] and [SEP] included
BATCH = 32  # sequences a step
MASKED = 0.15


@dataclass(frozen=True)
class Size:
    """How large all models are."""

    width: int = 256
    layers: int = 4
    lstm_width: int = 512  # of an LSTM's cell; a layer brings it to half of `width`, and both directions are joined
    lr: float = 1e-3


class LanguageModel(nn.Module):
    """Pieces of sequences of one length (n, t) to a loss, and of any sequences to vectors."""

    def loss(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """The mean cross-entropy of what this model predicts."""
        raise NotImplementedError

    def vectors(self, tokens: Tokens) -> Tensor:
        """(T, width) of a packed row."""
        raise NotImplementedError


def packed(sequences: Sequence[np.ndarray]) -> Tokens:
    """Sequences, already shortest first, as one row."""
    return pack([Example((Piece(ids),), {}) for ids in sequences]).tokens


def _encoder(vocab_size: int, size: Size) -> Encoder:
    return Encoder(
        EncoderConfig(
            vocab_size=vocab_size,
            hidden_size=size.width,
            num_hidden_layers=size.layers,
            num_attention_heads=max(1, size.width // 64),
            intermediate_size=4 * size.width,
            max_position_embeddings=512,
        ),
        pooler=False,
    )


def _head(encoder: Encoder) -> MaskedHead:
    config = encoder.config
    return MaskedHead(
        encoder.embeddings.word,
        activation=F.gelu,
        layer_norm_eps=config.layer_norm_eps,
        initializer_range=config.initializer_range,
    )


class Bert(LanguageModel):
    """Sees both sides at once; 15% of the pieces are masked and predicted (Devlin et al., 2018)."""

    def __init__(self, tokenizer: Tokenizer, size: Size) -> None:
        super().__init__()
        self.encoder = _encoder(tokenizer.size, size)
        self.head = _head(self.encoder)
        self.mask_id, self.special = tokenizer.mask_id, int(tokenizer.special.sum())

    def loss(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Of the masked pieces."""
        chosen = torch.rand(ids.shape, generator=generator) < MASKED
        chosen[:, 0] = chosen[:, -1] = False
        how = torch.rand(ids.shape, generator=generator)
        other = torch.randint(self.special, self.head.bias.shape[0], ids.shape, generator=generator)
        shown = torch.where(how < 0.8, self.mask_id, torch.where(how < 0.9, other, ids))
        shown = torch.where(chosen, shown, ids)
        rows = chosen.flatten().nonzero()[:, 0]
        hidden = self.encoder(packed(list(shown.numpy())), rows)
        return F.cross_entropy(self.head(hidden, None, rows).float(), ids.flatten()[rows])

    def vectors(self, tokens: Tokens) -> Tensor:
        """Of the last layer."""
        return self.encoder(tokens)


class CausalSelfAttention(SelfAttention):
    """The encoder's attention, to the left only."""

    def mix(self, x: Tensor, tokens: Tokens) -> Tensor:
        """As the encoder's."""
        q, k, v = self.qkv(x).view(len(x), 3, self.heads, -1).unbind(1)
        return attend(q, k, v, tokens, tokens, causal=True).reshape(len(x), -1)


class LeftToRight(LanguageModel):
    """The same encoder, seeing the left only, predicting each next piece (Radford et al., 2018)."""

    def __init__(self, tokenizer: Tokenizer, size: Size) -> None:
        super().__init__()
        self.encoder = _encoder(tokenizer.size, size)
        for layer in self.encoder.layers:
            layer.attention.__class__ = CausalSelfAttention
        self.head = _head(self.encoder)

    def loss(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Of every next piece."""
        rows = torch.arange(ids.numel()).view(ids.shape)[:, :-1].flatten()
        hidden = self.encoder(packed(list(ids.numpy())), rows)
        return F.cross_entropy(self.head(hidden, None, rows).float(), ids[:, 1:].flatten())

    def vectors(self, tokens: Tokens) -> Tensor:
        """Of the last layer."""
        return self.encoder(tokens)


class TwoLstms(LanguageModel):
    """A left-to-right and a right-to-left LSTM language model, joined at the end (Peters et al., 2018)."""

    def __init__(self, tokenizer: Tokenizer, size: Size) -> None:
        super().__init__()
        half = size.width // 2
        self.word = nn.Embedding(tokenizer.size, half)
        nn.init.normal_(self.word.weight, std=0.02)
        self.forwards, self.backwards = (
            nn.LSTM(half, size.lstm_width, num_layers=2, batch_first=True) for _ in range(2)
        )
        self.left, self.right = (nn.Linear(size.lstm_width, half) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(tokenizer.size))

    def loss(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """The mean of both: each next piece, and each one before."""
        total = torch.zeros(())
        for lstm, down, order in (
            (self.forwards, self.left, ids),
            (self.backwards, self.right, ids.flip(1)),
        ):
            hidden, _ = lstm(self.word(order[:, :-1]))
            logits = F.linear(down(hidden), self.word.weight, self.bias).flatten(0, 1)
            total = total + F.cross_entropy(logits.float(), order[:, 1:].flatten()) / 2
        return total

    def vectors(self, tokens: Tokens) -> Tensor:
        """Both directions' last states, side by side."""
        found = []
        for ids in tokens.input_ids.split(list(tokens.lengths)):
            left, _ = self.forwards(self.word(ids[None]))
            right, _ = self.backwards(self.word(ids.flip(0)[None]))
            found.append(torch.cat([self.left(left[0]), self.right(right[0].flip(0))], dim=1))
        return torch.cat(found)


class Word2Vec(LanguageModel):
    """One vector a piece, whatever stands around it (Mikolov et al., 2013), learnt by gensim."""

    def __init__(self, tokenizer: Tokenizer, size: Size) -> None:
        super().__init__()
        self.word = nn.Embedding(tokenizer.size, size.width)

    def vectors(self, tokens: Tokens) -> Tensor:
        """A look-up."""
        return self.word(tokens.input_ids)


KINDS: dict[str, type[Any]] = {
    "word2vec": Word2Vec,
    "two LSTMs": TwoLstms,
    "left to right": LeftToRight,
    "BERT": Bert,
}


def trained(
    name: str, ids: np.ndarray, tokenizer: Tokenizer, size: Size, *, budget: int, seed: int, folder: Path
) -> tuple[LanguageModel, dict[str, Any]]:
    """The model of that name after `budget` tokens of the text, from `folder` if it is there already.

    The head that predicts counts among the parameters where it is its own.

    ids: (sequences, LENGTH), each once an epoch, in an order that the seed decides
    """
    torch.manual_seed(seed)
    model = KINDS[name](tokenizer, size)
    path = folder / f"{name.replace(' ', '-')}-{size.layers}x{size.width}-{budget}-{seed}.safetensors"
    if path.is_file():
        model.load_state_dict(load_file(path))
        return model.eval(), {}
    begun = time.perf_counter()
    loss = _word2vec(model, ids, size, budget, seed) if name == "word2vec" else _learn(model, ids, size, budget, seed)
    seconds = time.perf_counter() - begun
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({key: value.contiguous().clone() for key, value in model.state_dict().items()}, part)
    part.replace(path)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    told = {"loss": loss, "seconds": round(seconds, 1), "parameters": parameters, **asdict(size)}
    return model.eval(), told


def _learn(model: LanguageModel, ids: np.ndarray, size: Size, budget: int, seed: int) -> float:
    """One loop for all: AdamW, a tenth of warm-up, then down to nothing. The mean loss of the last tenth."""
    precision = pick_precision("auto", torch.device("cpu"))
    steps = max(1, round(budget / (BATCH * LENGTH)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.lr, betas=(0.9, 0.98), weight_decay=0.01)
    warm = max(1, steps // 10)
    plan = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    generator, order = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    places, losses = np.empty(0, dtype=int), []
    model.train()
    for step in range(steps):
        while len(places) < BATCH:
            places = np.concatenate([places, order.permutation(len(ids))])
        chosen, places = places[:BATCH], places[BATCH:]
        with computing_in(precision, torch.device("cpu")):
            loss = model.loss(torch.from_numpy(ids[chosen]), generator)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        plan.step()
        losses.append(float(loss.detach()))
        if step % 100 == 99 or step + 1 == steps:
            print(f"  step {step + 1}/{steps}  loss {np.mean(losses[-100:]):.3f}", flush=True)
    return round(float(np.mean(losses[-max(1, steps // 10) :])), 4)


def _word2vec(model: LanguageModel, ids: np.ndarray, size: Size, budget: int, seed: int) -> float:
    """Skip-gram with negative samples over the same pieces, as many as the others read, once more from the first."""
    from gensim.models import Word2Vec as Gensim

    read = np.arange(max(1, budget // LENGTH)) % len(ids)
    sentences = [[str(number) for number in row] for row in ids[read].tolist()]
    learnt = Gensim(
        sentences, vector_size=size.width, window=5, sg=1, negative=5, min_count=1, epochs=1, seed=seed, workers=1
    )
    assert isinstance(model, Word2Vec)
    with torch.no_grad():
        model.word.weight.zero_()
        for key, place in learnt.wv.key_to_index.items():
            model.word.weight[int(key)] = torch.from_numpy(learnt.wv.vectors[place].copy())
    return float("nan")
