"""Four ways to make a vector of a word from its context, trained alike: the models of context.py.

All read the same pieces of the same text, as often and in the same order, and give every piece a vector of the same
width, that of their top layer. The LSTMs and both Transformers share one loop and one kind of head, and none drops
anything out; word2vec has gensim's own loop (`_word2vec`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Example, Piece, Tokens, pack
from bothways.data.whole import whole
from bothways.infer.devices import computing_in, pick_precision
from bothways.nn.attention import SelfAttention
from bothways.nn.cross_entropy import cross_entropy
from bothways.nn.encoder import Encoder, EncoderConfig, EncoderLayer
from bothways.nn.heads import MaskedHead
from bothways.text.tokenizer import Tokenizer

LENGTH = 128  # tokens of a training sequence, [CLS] and [SEP] included
BATCH = 32  # sequences a step
MASKED = 0.15


@dataclass(frozen=True)
class Size:
    """How large all models are."""

    width: int = 256
    layers: int = 4  # of the Transformers; an LSTM has two, as ELMo's
    lr: float = 1e-3

    @property
    def cell(self) -> int:
        """Of an LSTM: such that both LSTMs (24 c² + 5 c w weights) are about as large as the Transformer's layers."""
        exact = self.width * (math.sqrt(25 + 24 * 4 * 12 * self.layers) - 5) / 48
        return max(8, 8 * round(exact / 8))


class LanguageModel(nn.Module):
    """Pieces of sequences of one length (n, t) to a loss, and of any sequences to vectors."""

    def loss(self, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
        """The mean cross-entropy of what this model predicts, and how many pieces that is."""
        raise NotImplementedError

    def layers(self) -> Sequence[nn.Module]:
        """What stands between the pieces' own vectors and those that are read."""
        return ()

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
            # A run of few epochs needs none; and `packed` gives every sequence one seed, so one noise.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        pooler=False,
    )


def _head(word: nn.Embedding) -> MaskedHead:
    """Dense, gelu, norm and the word embeddings, so that what is read need not be the softmax's own input."""
    return MaskedHead(word, activation=F.gelu, layer_norm_eps=1e-12, initializer_range=0.02)


def _loss(head: MaskedHead, rows: Tensor, wanted: Tensor) -> Tensor:
    """The mean over `rows` (m, D) of which pieces (m,) are wanted."""
    return cross_entropy(head.logits(rows), wanted) / len(wanted)


class Bert(LanguageModel):
    """Sees both sides at once; 15% of the pieces are masked and predicted (Devlin et al., 2018)."""

    def __init__(self, tokenizer: Tokenizer, size: Size) -> None:
        super().__init__()
        self.encoder = _encoder(tokenizer.size, size)
        self.head = _head(self.encoder.embeddings.word)
        self.mask_id, self.special = tokenizer.mask_id, int(tokenizer.special.sum())

    def loss(self, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
        """Of the masked pieces."""
        chosen = torch.rand(ids.shape, generator=generator) < MASKED
        chosen[:, 0] = chosen[:, -1] = False
        how = torch.rand(ids.shape, generator=generator)
        other = torch.randint(self.special, self.head.bias.shape[0], ids.shape, generator=generator)
        shown = torch.where(how < 0.8, self.mask_id, torch.where(how < 0.9, other, ids))
        shown = torch.where(chosen, shown, ids)
        rows = chosen.flatten().nonzero()[:, 0]
        hidden = self.encoder(packed(list(shown.numpy())), rows)
        return _loss(self.head, hidden, ids.flatten()[rows]), len(rows)

    def layers(self) -> Sequence[nn.Module]:
        """The encoder's."""
        return (self.encoder.layers,)

    def vectors(self, tokens: Tokens) -> Tensor:
        """Of the last layer."""
        return self.encoder(tokens)


class CausalSelfAttention(SelfAttention):
    """The encoder's attention, to the left only."""

    def mix(self, x: Tensor, tokens: Tokens, *, causal: bool = True) -> Tensor:
        """The encoder's own."""
        return super().mix(x, tokens, causal=causal)


class LeftToRight(LanguageModel):
    """The same encoder, seeing the left only, predicting each next piece (Radford et al., 2018)."""

    def __init__(self, tokenizer: Tokenizer, size: Size) -> None:
        super().__init__()
        self.encoder = _encoder(tokenizer.size, size)
        for layer in self.encoder.layers:
            assert isinstance(layer, EncoderLayer)
            layer.attention.__class__ = CausalSelfAttention
        self.head = _head(self.encoder.embeddings.word)

    def loss(self, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
        """Of every next piece."""
        rows = torch.arange(ids.numel()).view(ids.shape)[:, :-1].flatten()
        hidden = self.encoder(packed(list(ids.numpy())), rows)
        return _loss(self.head, hidden, ids[:, 1:].flatten()), len(rows)

    def layers(self) -> Sequence[nn.Module]:
        """The encoder's."""
        return (self.encoder.layers,)

    def vectors(self, tokens: Tokens) -> Tensor:
        """Of the last layer."""
        return self.encoder(tokens)


class TwoLstms(LanguageModel):
    """A left-to-right and a right-to-left LSTM language model, joined at the end (Peters et al., 2018).

    Unlike ELMo it reads pieces, not characters, and gives its top layer, not a mix of all.
    """

    def __init__(self, tokenizer: Tokenizer, size: Size) -> None:
        super().__init__()
        half = size.width // 2
        self.word = nn.Embedding(tokenizer.size, half)
        nn.init.normal_(self.word.weight, std=0.02)
        self.forwards, self.backwards = (nn.LSTM(half, size.cell, num_layers=2, batch_first=True) for _ in range(2))
        self.left, self.right = (nn.Linear(size.cell, half) for _ in range(2))
        self.left_head, self.right_head = _head(self.word), _head(self.word)

    def loss(self, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
        """The mean of both: each next piece, and each one before."""
        losses, predicted = [], 0
        for lstm, down, head, order in (
            (self.forwards, self.left, self.left_head, ids),
            (self.backwards, self.right, self.right_head, ids.flip(1)),
        ):
            hidden, _ = lstm(self.word(order[:, :-1]))
            wanted = order[:, 1:].flatten()
            losses.append(_loss(head, down(hidden).flatten(0, 1), wanted))
            predicted += len(wanted)
        return torch.stack(losses).mean(), predicted

    def layers(self) -> Sequence[nn.Module]:
        """Both LSTMs, and what brings each to half of the width."""
        return (self.forwards, self.backwards, self.left, self.right)

    def vectors(self, tokens: Tokens) -> Tensor:
        """Both directions' last states, side by side."""
        found, at = [], 0
        for length, alike in groupby(tokens.lengths):
            ids = tokens.input_ids[at : at + length * len(list(alike))].view(-1, length)
            left, _ = self.forwards(self.word(ids))
            right, _ = self.backwards(self.word(ids.flip(1)))
            found.append(torch.cat([self.left(left), self.right(right.flip(1))], dim=2).flatten(0, 1))
            at += ids.numel()
        return torch.cat(found)


class Word2Vec(LanguageModel):
    """One vector a piece, whatever stands around it (Mikolov et al., 2013), learnt by gensim.

    gensim's other table, as large, that of the pieces as they are predicted, is neither kept nor counted.
    """

    def __init__(self, tokenizer: Tokenizer, size: Size) -> None:
        super().__init__()
        self.word = nn.Embedding(tokenizer.size, size.width)

    def vectors(self, tokens: Tokens) -> Tensor:
        """A look-up."""
        return self.word(tokens.input_ids)


@dataclass(frozen=True)
class Kind:
    """A model, and how much it reads."""

    make: type[Any]
    reads: float = 1.0  # times what is wanted; 0: it stays as it is drawn


# Every piece but [CLS] and [SEP] may be masked; left to right, all but the first are predicted.
EQUAL = "BERT, equal predictions"
KINDS = {
    "untrained BERT": Kind(Bert, reads=0.0),
    "word2vec": Kind(Word2Vec),
    "two LSTMs": Kind(TwoLstms),
    "left to right": Kind(LeftToRight),
    "BERT": Kind(Bert),
    EQUAL: Kind(Bert, reads=(LENGTH - 1) / (MASKED * (LENGTH - 2))),
}


def trained(
    name: str, ids: np.ndarray, tokenizer: Tokenizer, size: Size, *, budget: int, seed: int, path: Path
) -> tuple[LanguageModel, dict[str, Any]]:
    """The model of that name after `budget` tokens of the text, and what is told of it; from `path` if it is there.

    Told are its loss, the seconds, tokens and epochs it read, the pieces it predicted, and its parameters: all, heads
    that predict among them, and those in layers. One file holds it all, so a kill cannot part them.

    ids: (sequences, LENGTH), each once an epoch, in an order that the seed decides
    """
    kind = KINDS[name]
    torch.manual_seed(seed)
    model: LanguageModel = kind.make(tokenizer, size)
    if path.is_file():
        model.load_state_dict(load_file(path))
        with safe_open(path, "pt") as file:
            return model.eval(), json.loads(file.metadata()["told"])
    steps = max(1, round(kind.reads * budget / (BATCH * LENGTH))) if kind.reads else 0
    begun = time.perf_counter()
    if not steps:
        told: dict[str, Any] = {"loss": None, "predicted": 0}
    elif isinstance(model, Word2Vec):
        told = _word2vec(model, ids, size, steps, seed)
    else:
        told = _learn(model, ids, size, steps, seed)
    told |= {
        "seconds": round(time.perf_counter() - begun, 1),
        "tokens": steps * BATCH * LENGTH,
        "epochs": round(steps * BATCH / len(ids), 3),
        "parameters": _weights(model),
        "layers": sum(map(_weights, model.layers())),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        weights = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
        save_file(weights, part, metadata={"told": json.dumps(told, allow_nan=False)})
    return model.eval(), told


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _order(sequences: int, seed: int) -> Iterator[int]:
    """Numbers of sequences, each once an epoch, shuffled anew in each; without an end."""
    draw = np.random.default_rng(seed)
    while True:
        yield from draw.permutation(sequences).tolist()


def _learn(model: LanguageModel, ids: np.ndarray, size: Size, steps: int, seed: int) -> dict[str, Any]:
    """One loop for all but word2vec: AdamW, a tenth of warm-up, then down to nothing.

    The loss that is told is the mean of the last tenth.
    """
    precision = pick_precision("auto", torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.lr, betas=(0.9, 0.98), weight_decay=0.01)
    warm = max(1, steps // 10)
    plan = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    generator, order = torch.Generator().manual_seed(seed), _order(len(ids), seed)
    losses, predicted = [], 0
    model.train()
    for step in range(steps):
        chosen = list(islice(order, BATCH))
        with computing_in(precision, torch.device("cpu")):
            loss, count = model.loss(torch.from_numpy(ids[chosen]), generator)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        plan.step()
        losses.append(float(loss.detach()))
        predicted += count
        if step % 100 == 99 or step + 1 == steps:
            print(f"  step {step + 1}/{steps}  loss {np.mean(losses[-100:]):.3f}", flush=True)
    last = float(np.mean(losses[-max(1, steps // 10) :]))
    return {"loss": round(last, 4) if math.isfinite(last) else None, "predicted": predicted}


@dataclass(frozen=True)
class _Sentences:
    """What the others read in as many steps, in their order, without [CLS] and [SEP]; gensim reads it twice."""

    ids: np.ndarray
    count: int
    seed: int

    def __iter__(self) -> Iterator[list[str]]:
        words = [str(number) for number in range(int(self.ids.max()) + 1)]
        for number in islice(_order(len(self.ids), self.seed), self.count):
            yield [words[piece] for piece in self.ids[number, 1:-1].tolist()]


def _word2vec(model: Word2Vec, ids: np.ndarray, size: Size, steps: int, seed: int) -> dict[str, Any]:
    """Skip-gram with negative samples over the same pieces: gensim's own loop and rate, by one thread.

    As gensim has it by default, it reads the text once before, to count; frequent pieces are left out at random
    (`sample`), and the window is 1 to 5 pieces wide at random, so how many pieces it predicts is not told.
    """
    from gensim.models import Word2Vec as Gensim

    learnt = Gensim(
        _Sentences(ids, steps * BATCH, seed),
        vector_size=size.width,
        window=5,
        sg=1,
        negative=5,
        min_count=1,
        sample=1e-3,
        epochs=1,
        seed=seed,
        workers=1,
    )
    vectors: Any = learnt.wv
    with torch.no_grad():
        model.word.weight.zero_()
        for key, place in vectors.key_to_index.items():
            model.word.weight[int(key)] = torch.from_numpy(vectors.vectors[place].copy())
    return {"loss": None, "predicted": None}
